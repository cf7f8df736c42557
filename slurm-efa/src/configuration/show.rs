//! What holds, and where it comes from.

use std::fmt::Write as _;

use config::Config;
use config::reference::{self, Key, PROFILE, SECTIONS, Section, Without};
use host::printable;
use serde::Serialize;

/// A key and what holds for it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Its section; empty at the top level.
    pub section: String,
    /// Its name.
    pub key: String,
    /// The value, if there is one.
    pub value: Option<toml::Value>,
    /// Where the value comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "origin", rename_all = "lowercase")]
pub enum Origin {
    /// The file.
    File {
        /// Its line, from 1.
        line: usize,
        /// The spelling there, where it is another one.
        #[serde(skip_serializing_if = "Option::is_none")]
        written: Option<String>,
    },
    /// It holds without the key.
    Default,
    /// There is no value.
    Unset {
        /// What holds then.
        means: &'static str,
    },
}

/// All keys of all sections, and of each profile of the site.
#[must_use]
pub fn all(config: &Config) -> Vec<Shown> {
    let table = config.table();
    let mut all = Vec::new();
    for section in &SECTIONS {
        if section.name == PROFILE {
            for name in config.profiles.keys() {
                all.extend(of_profile(config, &table, section, name));
            }
        } else {
            all.extend(
                section
                    .keys
                    .iter()
                    .map(|key| shown(config, &table, section, key)),
            );
        }
    }
    all
}

/// The keys that a profile has in the file: the others come from its base.
fn of_profile(
    config: &Config,
    table: &toml::Table,
    section: &Section,
    name: &str,
) -> impl Iterator<Item = Shown> {
    section.keys.iter().filter_map(move |key| {
        let profile = table.get("profile")?.get(name)?;
        let value = profile.get(key.name)?.clone();
        let line = config.line_of(&["profile", name, key.name]).unwrap_or(1);
        Some(Shown {
            section: format!("profile.{}", quoted(name)),
            key: key.name.to_owned(),
            value: Some(value),
            origin: Origin::File {
                line,
                written: None,
            },
        })
    })
}

/// A profile's name as a key of TOML.
fn quoted(name: &str) -> String {
    match name.contains('.') {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

fn shown(config: &Config, table: &toml::Table, section: &Section, key: &Key) -> Shown {
    let found = written(config, table, section.name, key.name)
        .or_else(|| under_another_name(config, table, section.name, key.name));
    let (value, origin) = found.unwrap_or_else(|| match key.without {
        Without::Value(value) => (reference::value(value), Origin::Default),
        Without::Means(means, _) => (None, Origin::Unset { means }),
    });
    Shown {
        section: section.name.to_owned(),
        key: key.name.to_owned(),
        value,
        origin,
    }
}

/// The key as the file has it.
fn written(
    config: &Config,
    table: &toml::Table,
    section: &str,
    key: &str,
) -> Option<(Option<toml::Value>, Origin)> {
    let (value, path): (_, &[&str]) = match section {
        "" => (table.get(key)?, &[key]),
        section => (table.get(section)?.get(key)?, &[section, key]),
    };
    // An old spelling of the value is shown in the new one.
    let renewed = renewed(config, section, key).filter(|(old, _, _)| *old == key);
    let value = renewed.map_or_else(|| Some(value.clone()), |(_, value, _)| value);
    let line = config.line_of(path)?;
    let written = None;
    Some((value, Origin::File { line, written }))
}

/// The key where the file has it under an old name, or `report_dir`.
fn under_another_name(
    config: &Config,
    table: &toml::Table,
    section: &str,
    key: &str,
) -> Option<(Option<toml::Value>, Origin)> {
    if (section, key) == ("report", "dir") {
        let (value, origin) = written(config, table, "", "report_dir")?;
        let Origin::File { line, .. } = origin else {
            return None;
        };
        let written = Some("report_dir".to_owned());
        return Some((value, Origin::File { line, written }));
    }
    let (old, value, line) = renewed(config, section, key)?;
    let written = Some(old.to_owned());
    Some((value, Origin::File { line, written }))
}

/// What an old spelling means for a key: the old key, the value, the line.
fn renewed<'a>(
    config: &'a Config,
    section: &str,
    key: &str,
) -> Option<(&'a str, Option<toml::Value>, usize)> {
    let mut warnings = config.warnings.iter();
    warnings.find_map(|it| {
        let (name, value) = it.instead.split_once(" = ")?;
        let meant = it.section == section && name == key;
        meant.then(|| (it.key, reference::value(value), it.line))
    })
}

/// For a person, and for a TOML reader.
#[must_use]
pub fn text(config: &Config, all: &[Shown]) -> String {
    let file = printable(&config.path.to_string_lossy(), 300);
    let mut text = format!("# {file}\n");
    let mut section = "";
    for shown in all {
        if shown.section != section {
            section = &shown.section;
            let _ = write!(text, "\n[{section}]\n");
        }
        let line = match (&shown.value, &shown.origin) {
            (None, Origin::Unset { means }) => format!("# {}: {means}", shown.key),
            (value, origin) => {
                let value = value.as_ref().map(ToString::to_string).unwrap_or_default();
                let value = format!("{} = {value}", shown.key);
                format!("{value:<50} # {origin}")
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File {
                line,
                written: None,
            } => write!(f, "line {line}"),
            Self::File {
                line,
                written: Some(written),
            } => write!(f, "line {line}, as {written}"),
            Self::Default => f.write_str("default"),
            Self::Unset { means } => f.write_str(means),
        }
    }
}
