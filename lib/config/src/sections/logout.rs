//! `[logout]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::values::path::NodePath;
use crate::values::{duration, word};
use crate::{Config, ConfigError};
use slurm::NodeName;

/// Longest time that can be configured.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// What a login gets when the user's jobs cannot be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It is refused, unless it is root's or an exempt user's.
    #[default]
    Deny,
    /// It is admitted.
    Allow,
}

/// Which processes end together with a user's sessions. Never any in a Slurm
/// job's cgroup, never another user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Leftovers {
    /// Those that descend from the login only.
    None,
    /// Also those that left it (nohup, setsid, tmux, a server of VS Code),
    /// by the session's control group or scope, or the kernel's audit session.
    #[default]
    Session,
    /// Everything that runs as that user.
    User,
}

/// The section as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// A login needs a job.
    pub require_job: bool,
    /// Users that are neither refused nor ended.
    pub exempt_users: Vec<String>,
    /// Groups whose members are neither refused nor ended.
    pub exempt_groups: Vec<String>,
    /// PAM services that are looked at; all, if empty.
    pub services: Vec<String>,
    /// See [`OnError`].
    #[serde(deserialize_with = "word")]
    pub on_error: OnError,
    /// A session gets the variables of the user's job.
    pub job_variables: bool,
    /// From the end of the last job to the end of the sessions.
    #[serde(deserialize_with = "time")]
    pub grace: Duration,
    /// A session that is used stays until it is idle.
    pub spare_active: bool,
    /// But no longer than this after the grace.
    #[serde(deserialize_with = "time")]
    pub max_overstay: Duration,
    /// A session is idle after this long without input, traffic and CPU.
    #[serde(deserialize_with = "time_unless_zero")]
    pub idle_after: Option<Duration>,
    /// See [`Leftovers`].
    #[serde(deserialize_with = "word")]
    pub leftovers: Leftovers,
    /// Say what would be done, do nothing.
    pub dry_run: bool,
    /// Write more to the log.
    pub debug: bool,
    /// slurmd's spool directory, if the site names one.
    pub spool_dir: Option<NodePath>,
    /// This node's name, if the site gives one.
    #[serde(deserialize_with = "node_name")]
    pub node_name: Option<NodeName>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            require_job: true,
            exempt_users: Vec::new(),
            exempt_groups: Vec::new(),
            services: Vec::new(),
            on_error: OnError::default(),
            job_variables: true,
            grace: Duration::from_secs(60),
            spare_active: false,
            max_overstay: Duration::from_secs(86_400),
            idle_after: None,
            leftovers: Leftovers::default(),
            dry_run: false,
            debug: false,
            spool_dir: None,
            node_name: None,
        }
    }
}

impl Section {
    /// What the configuration says.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        Ok(config.section("logout")?.unwrap_or_default())
    }

    /// Everything that is wrong with the section.
    pub(crate) fn problems(config: &Config) -> Vec<ConfigError> {
        config.problems_of::<Self>("logout", |config| Self::of(config).err())
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration::deserialize_in(from, &(Duration::ZERO..=LONGEST))
}

fn time_unless_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Ok(Some(time(from)?).filter(|time| !time.is_zero()))
}

fn node_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NodeName>, D::Error> {
    let name = String::deserialize(from)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn section(text: &str) -> Result<Section, String> {
        let config = crate::parse(text, Path::new("/etc/x.toml"));
        let section = config.and_then(|config| Section::of(&config));
        section.map_err(|error| error.to_string())
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_line() {
        for wrong in [
            "grace = 60",
            "grace = '1 minute'",
            "grace = '367d'",
            "graec = '1s'",
            "on_error = 'maybe'",
            "leftovers = 'all'",
            "exempt_users = 'root'",
            "require_job = 'yes'",
            "spool_dir = 'x'",
            "spool_dir = '/s/%h'",
            "node_name = '../x'",
        ] {
            let error = section(&format!("[logout]\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("/etc/x.toml:2: "), "{wrong}: {error}");
        }
    }
}
