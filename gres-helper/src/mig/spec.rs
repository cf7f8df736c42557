//! mig-parted's configuration file, unchanged, and the same as our export.
//!
//! Source of the format: the public documentation of mig-parted, version `v1`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use host::printable;
use serde::Deserialize;

/// Largest file that is read, in bytes.
pub const LARGEST: usize = 256 * 1024;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// `v1`.
    pub version: String,
    /// Configurations by name.
    #[serde(rename = "mig-configs")]
    pub configs: BTreeMap<String, Vec<Rule>>,
}

/// What some of the GPUs shall be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Only GPUs with these PCI device ids, as `0x233010DE`.
    #[serde(default)]
    pub device_filter: Option<OneOrMany>,
    /// Which GPUs, by NVML's index.
    pub devices: Devices,
    /// Whether MIG is on.
    pub mig_enabled: bool,
    /// How many of each profile.
    #[serde(default)]
    pub mig_devices: BTreeMap<String, u32>,
}

/// `all` or a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Devices {
    /// These.
    Some(Vec<u32>),
    /// The word `all`.
    All(String),
}

/// One word or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn has(&self, id: u32) -> bool {
        let same = |text: &String| {
            let digits = text.trim_start_matches("0x").trim_start_matches("0X");
            u32::from_str_radix(digits, 16) == Ok(id)
        };
        match self {
            Self::One(text) => same(text),
            Self::Many(texts) => texts.iter().any(same),
        }
    }
}

/// Reads a file's text. What is nested too deeply, or grows by aliases, is
/// refused by the parser's own budget.
///
/// # Errors
/// For a person, without control characters.
pub fn parse(text: &str) -> Result<Spec, String> {
    if text.len() > LARGEST {
        return Err(format!("larger than {LARGEST} bytes"));
    }
    let spec: Spec =
        serde_saphyr::from_str(text).map_err(|error| printable(&error.to_string(), 500))?;
    if spec.version != "v1" {
        return Err(format!(
            "version `{}` is not known, only `v1`",
            printable(&spec.version, 20)
        ));
    }
    for rule in spec.configs.values().flatten() {
        if let Devices::All(word) = &rule.devices
            && word != "all"
        {
            return Err(format!(
                "devices: `{}` is neither `all` nor a list",
                printable(word, 40)
            ));
        }
        if !rule.mig_enabled && rule.mig_devices.values().any(|count| *count > 0) {
            return Err("mig-devices without `mig-enabled: true`".to_owned());
        }
    }
    Ok(spec)
}

impl Rule {
    /// Whether this rule is about a GPU, by NVML's index and PCI device id.
    #[must_use]
    pub fn is_about(&self, index: u32, device_id: u32) -> bool {
        let listed = match &self.devices {
            Devices::All(_) => true,
            Devices::Some(indexes) => indexes.contains(&index),
        };
        listed
            && self
                .device_filter
                .as_ref()
                .is_none_or(|filter| filter.has(device_id))
    }
}

/// Writes what GPUs are now, as a configuration of this name: NVML's index,
/// whether MIG is on, and its devices by profile.
#[must_use]
pub fn export(name: &str, gpus: &[(u32, bool, BTreeMap<String, u32>)]) -> String {
    let mut text = format!("version: v1\nmig-configs:\n  {name}:\n");
    for (index, on, devices) in gpus {
        let _ = writeln!(text, "    - devices: [{index}]\n      mig-enabled: {on}");
        if !devices.is_empty() {
            text.push_str("      mig-devices:\n");
            for (profile, count) in devices {
                let _ = writeln!(text, "        \"{profile}\": {count}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = r#"
version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  mixed:
    - device-filter: ["0x20B010DE", "0x233010DE"]
      devices: [0, 1]
      mig-enabled: true
      mig-devices:
        "1g.10gb": 5
        "2g.20gb": 1
    - device-filter: "0x26B910DE"
      devices: all
      mig-enabled: false
      mig-devices: {}
"#;

    #[test]
    fn the_format_of_mig_parted_is_read() {
        let spec = parse(EXAMPLE).unwrap();
        let rules = &spec.configs["mixed"];
        assert_eq!(rules[0].mig_devices["1g.10gb"], 5);
        assert!(rules[0].is_about(1, 0x2330_10de) && !rules[0].is_about(2, 0x2330_10de));
        assert!(!rules[0].is_about(0, 0x26b9_10de) && rules[1].is_about(7, 0x26b9_10de));
    }

    #[test]
    fn what_is_exported_is_read_again() {
        let devices = BTreeMap::from([("1g.10gb+me".to_owned(), 1), ("3g.40gb".to_owned(), 1)]);
        let text = export(
            "current",
            &[(0, true, devices.clone()), (1, false, BTreeMap::new())],
        );
        let spec = parse(&text).unwrap();
        assert_eq!(spec.configs["current"][0].mig_devices, devices);
        assert!(!spec.configs["current"][1].mig_enabled);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (text, word) in [
            ("version: v2\nmig-configs: {}", "v2"),
            (
                "version: v1\nmig-configs:\n  a:\n    - devices: some\n      mig-enabled: true",
                "some",
            ),
            (
                "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enabld: true",
                "mig-enabld",
            ),
            (
                "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enabled: false\n      mig-devices: {\"1g.5gb\": 1}",
                "mig-enabled: true",
            ),
            (
                "version: v1\nmig-configs:\n  a:\n    - devices: all\n      mig-enabled: true\n      mig-devices: {\"1g.5gb\": -1}",
                "",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains('\u{1b}'));
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_before_it_grows() {
        let mut text = "version: v1\nmig-configs:\n  x0: &x0 [a,a,a,a,a,a,a,a,a]\n".to_owned();
        for n in 1..12 {
            let before = n - 1;
            let refs = vec![format!("*x{before}"); 9].join(",");
            let _ = writeln!(text, "  x{n}: &x{n} [{refs}]");
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(version: v1\nmig-configs:\n)?[a-z0-9&*:\\[\\]{}\"', \n-]{0,80}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.contains(char::is_control));
            }
        }
    }
}
