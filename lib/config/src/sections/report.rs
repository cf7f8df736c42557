//! `[report]` of the configuration.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::size::Bytes;
use crate::values::path::{self, NodePath};
use crate::{Config, ConfigError};
use slurm::NodeName;
use slurm::node_name::NameError;

/// Where the log lies unless `log` in `[report]` says otherwise.
pub const DEFAULT_LOG: &str = "/var/log/slurm-efa/jobs.jsonl";

/// How large the log grows before it is rotated.
const DEFAULT_MAX_LOG: Bytes = Bytes(64 << 20);

/// Smallest and largest `max_log`.
const MAX_LOG: RangeInclusive<Bytes> = Bytes(1 << 20)..=Bytes(4 << 30);

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    folder: Option<NodePath>,
    log: Option<NodePath>,
    /// The log is rotated once it has this size, in bytes.
    pub max_log: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    #[serde(deserialize_with = "folder")]
    dir: Option<NodePath>,
    #[serde(deserialize_with = "folder")]
    log: Option<NodePath>,
    #[serde(deserialize_with = "max_log")]
    max_log: Option<Bytes>,
    /// The same, in the spelling of release 0.1.
    #[serde(deserialize_with = "max_log_mib")]
    max_log_mib: Option<Bytes>,
}

impl Settings {
    /// What the configuration says: `dir`, `log`, `max_log` in `[report]`;
    /// `report_dir` at the top level is another way to say `dir`.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let section: Section = config.section("report")?.unwrap_or_default();
        let max_log = section.max_log.or(section.max_log_mib);
        Ok(Self {
            folder: section.dir.or_else(|| config.report_dir.clone()),
            log: section.log,
            max_log: max_log.unwrap_or(DEFAULT_MAX_LOG).0,
        })
    }

    /// Everything that is wrong with the section.
    pub(crate) fn problems(config: &Config) -> Vec<ConfigError> {
        config.problems_of::<Section>("report", |config| Self::of(config).err())
    }

    /// The folder of the jobs' records, if the site has one; `%n` in it stands
    /// for the node's name.
    ///
    /// # Errors
    /// It contains `%n` and `node` is `None`.
    pub fn folder(&self, node: Option<&NodeName>) -> Result<Option<PathBuf>, NameError> {
        self.folder.as_ref().map(|path| path.on(node)).transpose()
    }

    /// The node's log; `%n` in it stands for the node's name.
    ///
    /// # Errors
    /// It contains `%n` and `node` is `None`.
    pub fn log(&self, node: Option<&NodeName>) -> Result<PathBuf, NameError> {
        match &self.log {
            Some(path) => path.on(node),
            None => Ok(PathBuf::from(DEFAULT_LOG)),
        }
    }
}

fn folder<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NodePath>, D::Error> {
    path::named(from).map(Some)
}

fn max_log<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    let size = Bytes::deserialize(from)?;
    if MAX_LOG.contains(&size) {
        return Ok(Some(size));
    }
    let error = format!(
        "{size} is out of range; write {} to {}",
        MAX_LOG.start(),
        MAX_LOG.end()
    );
    Err(serde::de::Error::custom(error))
}

fn max_log_mib<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    let number = i64::deserialize(from)?;
    u64::try_from(number)
        .ok()
        .filter(|mib| (1..=4096).contains(mib))
        .map(|mib| Some(Bytes(mib << 20)))
        .ok_or_else(|| {
            serde::de::Error::custom(format!("max_log_mib is {number}, expected 1 to 4096"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use std::path::Path;

    fn settings(text: &str) -> Result<Settings, String> {
        let config = parse(text, Path::new("/etc/x.toml")).map_err(|error| error.to_string())?;
        Settings::of(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_section_there_is_a_log_and_no_folder() {
        let settings = settings("").unwrap();
        assert_eq!(settings.log(None).unwrap(), PathBuf::from(DEFAULT_LOG));
        assert_eq!(settings.folder(None).unwrap(), None);
        assert_eq!(settings.max_log, 64 << 20);
    }

    #[test]
    fn the_section_wins_over_the_short_form_and_the_nodes_name_is_filled_in() {
        let short = settings("report_dir = '/fsx/efa'").unwrap();
        assert_eq!(short.folder(None).unwrap(), Some("/fsx/efa".into()));
        let both = "report_dir = '/a'\n[report]\ndir = '/b'\nlog = '/l/%n/j'\nmax_log = '1M'";
        let both = settings(both).unwrap();
        let node = "n1".parse().unwrap();
        assert_eq!(both.folder(None).unwrap(), Some("/b".into()));
        assert_eq!(both.log(Some(&node)).unwrap(), PathBuf::from("/l/n1/j"));
        assert!(both.log(None).is_err());
        assert_eq!(both.max_log, 1 << 20);
    }

    #[test]
    fn the_limit_of_the_log_may_be_a_number_of_mebibytes_for_one_more_release() {
        assert_eq!(
            settings("[report]\nmax_log_mib = 2").unwrap().max_log,
            2 << 20
        );
    }

    #[test]
    fn wrong_values_are_refused_with_their_line() {
        for wrong in [
            "dir = 'x'",
            "dir = '/a/../b'",
            "dir = '/%x'",
            "log = '/'",
            "max_log = '1K'",
            "max_log = '5G'",
            "max_log = 64",
            "max_log_mib = 0",
            "max_log_mib = -1",
            "max_log_mib = 99999",
            "max_log_mib = 'x'",
            "dri = '/a'",
        ] {
            let error = settings(&format!("[report]\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("/etc/x.toml:2: "), "{wrong}: {error}");
        }
    }
}
