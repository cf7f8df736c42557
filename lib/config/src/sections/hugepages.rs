//! `[hugepages]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::size::{Bytes, PageSize, Request};
use crate::values::{duration, of_text, optional_of_text, word};
use crate::{Config, ConfigError};

/// Most that a job gets on a node where the site says nothing: room for AWS's
/// own figure (`auto`) on every type of today, which is 41 GiB at 192 CPUs.
pub const DEFAULT_MAX: Bytes = Bytes(64 << 30);

/// How long a prolog looks for pages where the site says nothing.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(30);

/// How long a prolog may look for pages.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// What happens to a job that gets fewer pages than it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnShortfall {
    /// It runs with a warning: libfabric falls back to normal pages.
    #[default]
    Warn,
    /// It goes back to the queue.
    Requeue,
}

/// On which NUMA nodes a job's pages lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Evenly on all; what one lacks, the others make up for.
    #[default]
    Even,
    /// Evenly on all; what one lacks is missing. For programs that bind their
    /// memory to each node.
    Strict,
}

/// What the site says about hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// For jobs that neither ask themselves nor have a profile that does.
    #[serde(deserialize_with = "optional_of_text")]
    pub default: Option<Request>,
    /// Most that a job gets on each node.
    pub max: Bytes,
    /// The size of the pages.
    #[serde(deserialize_with = "of_text")]
    pub page_size: PageSize,
    /// Where they lie.
    #[serde(deserialize_with = "word")]
    pub spread: Spread,
    /// See [`OnShortfall`].
    #[serde(deserialize_with = "word")]
    pub on_shortfall: OnShortfall,
    /// Whether the kernel keeps jobs from each other's pages.
    pub isolate: bool,
    /// How long a prolog looks for pages.
    #[serde(deserialize_with = "time_limit")]
    pub time_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default: None,
            max: DEFAULT_MAX,
            page_size: PageSize::TwoMiB,
            spread: Spread::default(),
            on_shortfall: OnShortfall::default(),
            isolate: false,
            time_limit: DEFAULT_TIME_LIMIT,
        }
    }
}

impl Settings {
    /// What the configuration says.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        Ok(config.section("hugepages")?.unwrap_or_default())
    }

    /// Everything that is wrong with the section.
    pub(crate) fn problems(config: &Config) -> Vec<ConfigError> {
        config.problems_of::<Self>("hugepages", |config| Self::of(config).err())
    }
}

fn time_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration::deserialize_in(from, &(SHORTEST..=LONGEST))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let config = crate::parse(text, Path::new("/etc/x.toml")).unwrap();
        Settings::of(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_section_nobody_gets_pages_unasked_and_a_shortfall_is_a_warning() {
        let settings = settings("").unwrap();
        assert_eq!(settings.default, None);
        assert_eq!(settings.max, DEFAULT_MAX);
        assert_eq!(settings.on_shortfall, OnShortfall::Warn);
        assert!(!settings.isolate);
    }

    #[test]
    fn every_key_is_understood() {
        let text = "[hugepages]\ndefault = \"auto\"\nmax = \"10G\"\npage_size = \"1G\"\n\
                    spread = \"strict\"\non_shortfall = \"requeue\"\nisolate = true\n\
                    time_limit = \"2m\"\n";
        assert_eq!(
            settings(text).unwrap(),
            Settings {
                default: Some(Request::Auto),
                max: Bytes(10 << 30),
                page_size: PageSize::OneGiB,
                spread: Spread::Strict,
                on_shortfall: OnShortfall::Requeue,
                isolate: true,
                time_limit: Duration::from_secs(120),
            }
        );
    }

    #[test]
    fn what_is_misspelt_is_refused_with_its_line() {
        for line in [
            "defualt = \"auto\"",
            "default = \"lots\"",
            "max = \"10\"",
            "page_size = \"4M\"",
            "spread = \"odd\"",
            "on_shortfall = \"drain\"",
            "isolate = \"yes\"",
            "time_limit = \"0s\"",
            "time_limit = \"é\"",
            "time_limit = \"1h\"",
        ] {
            let said = settings(&format!("[hugepages]\n{line}\n")).unwrap_err();
            assert!(said.starts_with("/etc/x.toml:2: "), "{line}: {said}");
        }
    }
}
