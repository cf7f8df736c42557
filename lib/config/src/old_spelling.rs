//! Spellings of former releases. Each is accepted for one more release with a
//! warning that says what to write.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::values::duration;
use crate::values::size::{self, Bytes};
use host::sysroot::shown;

/// An old spelling in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The configuration file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// The section, such as `gres`.
    pub section: &'static str,
    /// The key as it is written.
    pub key: &'static str,
    /// The line to write instead.
    pub instead: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            section,
            key,
            instead,
            ..
        } = self;
        write!(
            f,
            "{}:{line}: [{section}] `{key}` has an old spelling, which the next release will \
             refuse; write `{instead}`",
            shown(&self.path)
        )
    }
}

/// A key that has, or had, an old spelling.
struct Old {
    section: &'static str,
    key: &'static str,
    /// What to write instead of this value; `None` where it is not an old
    /// spelling, or means nothing.
    instead: fn(&DeValue<'_>) -> Option<String>,
}

const OLD: [Old; 7] = [
    Old {
        section: "gres",
        key: "shard_size",
        instead: |value| size("shard_size", value),
    },
    Old {
        section: "gres",
        key: "reserve",
        instead: |value| size("reserve", value),
    },
    Old {
        section: "report",
        key: "max_log_mib",
        instead: |value| {
            let size = Bytes(number(value)?.checked_mul(1 << 20)?);
            Some(format!("max_log = \"{size}\""))
        },
    },
    Old {
        section: "health",
        key: "memlock",
        instead: |value| {
            Some(match number(value)? {
                0 => "disable = [\"memlock\"]".to_owned(),
                bytes => format!("memlock = \"{}\"", in_kibibytes(bytes)),
            })
        },
    },
    Old {
        section: "gres",
        key: "nvml_seconds",
        instead: |value| seconds("nvml_limit", value),
    },
    Old {
        section: "gres",
        key: "sample_seconds",
        instead: |value| seconds("sample_every", value),
    },
    Old {
        section: "gres",
        key: "grace_seconds",
        instead: |value| seconds("grace", value),
    },
];

fn seconds(key: &str, value: &DeValue<'_>) -> Option<String> {
    let duration = duration::shown(Duration::from_secs(number(value)?));
    Some(format!("{key} = \"{duration}\""))
}

fn size(key: &str, value: &DeValue<'_>) -> Option<String> {
    let size = size::old_spelling(value.as_str()?)?;
    Some(format!("{key} = \"{size}\""))
}

/// A number of bytes in the largest unit that divides it, rounded up to `K`.
fn in_kibibytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => Bytes(bytes).to_string(),
        bytes => format!("{}K", bytes.div_ceil(1024)),
    }
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The old spellings of a file; `line_at` gives the line of an offset.
pub(crate) fn find(
    table: &DeTable<'_>,
    path: &Path,
    line_at: impl Fn(usize) -> usize,
) -> Vec<Warning> {
    let warning = |old: &Old| {
        let section = table.get(old.section)?.get_ref().as_table()?;
        let (key, value) = section.get_key_value(old.key)?;
        Some(Warning {
            path: path.to_owned(),
            line: line_at(key.span().start),
            section: old.section,
            key: old.key,
            instead: (old.instead)(value.get_ref())?,
        })
    };
    OLD.iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        let config = crate::parse(text, Path::new("/etc/x.toml")).unwrap();
        config.warnings.iter().map(Warning::to_string).collect()
    }

    #[test]
    fn an_old_spelling_is_a_warning_that_names_its_line_and_the_new_one() {
        let text = "[gres]\ntier = 'mps'\ngrace_seconds = 90\n";
        assert_eq!(
            warnings(text),
            [
                "/etc/x.toml:3: [gres] `grace_seconds` has an old spelling, which the next release \
                 will refuse; write `grace = \"90s\"`"
            ]
        );
    }

    #[test]
    fn what_is_to_be_written_instead_is_accepted_without_a_warning() {
        for (section, old, new) in [
            ("gres", "shard_size = '10GB'", "shard_size = \"10G\""),
            ("gres", "reserve = '1 gib'", "reserve = \"1G\""),
            ("gres", "nvml_seconds = 60", "nvml_limit = \"1m\""),
            ("gres", "sample_seconds = 15", "sample_every = \"15s\""),
            ("report", "max_log_mib = 64", "max_log = \"64M\""),
            ("health", "memlock = 65536", "memlock = \"64K\""),
            ("health", "memlock = 1_000", "memlock = \"1K\""),
            ("health", "memlock = 17179869184", "memlock = \"16G\""),
            ("health", "memlock = 0", "disable = [\"memlock\"]"),
        ] {
            let said = warnings(&format!("[{section}]\n{old}\n"));
            assert!(said[0].ends_with(&format!("write `{new}`")), "{said:?}");
            assert_eq!(warnings(&format!("[{section}]\n{new}\n")), [""; 0]);
        }
    }

    #[test]
    fn the_new_spelling_is_no_warning() {
        assert_eq!(warnings("[gres]\ngrace = '30s'\n"), [""; 0]);
        assert_eq!(warnings(""), [""; 0]);
    }
}
