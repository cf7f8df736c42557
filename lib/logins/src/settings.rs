//! `[logout]` of the configuration, and what the module's arguments change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::sections::logout::Section;
pub use config::sections::logout::{Leftovers, OnError};
use config::{Config, ConfigError};
use slurm::NodeName;
use slurm::node_name::{self, NameError};

/// What holds on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A login needs a job.
    pub require_job: bool,
    /// Users that are neither refused nor ended.
    pub exempt_users: Vec<String>,
    /// Groups whose members are neither refused nor ended.
    pub exempt_groups: Vec<String>,
    /// PAM services that are looked at; all, if empty.
    pub services: Vec<String>,
    /// See [`OnError`].
    pub on_error: OnError,
    /// A session gets the variables of the user's job.
    pub job_variables: bool,
    /// From the end of the last job to the end of the sessions.
    pub grace: Duration,
    /// A session that is used stays until it is idle.
    pub spare_active: bool,
    /// But no longer than this after the grace.
    pub max_overstay: Duration,
    /// A session is idle after this long without input, traffic and CPU; also
    /// what ends idle sessions while jobs run, if `end_idle`.
    pub idle_after: Option<Duration>,
    /// See [`Leftovers`].
    pub leftovers: Leftovers,
    /// Say what would be done, do nothing.
    pub dry_run: bool,
    /// Tell more in the log.
    pub debug: bool,
    /// Run-time state.
    pub state_dir: PathBuf,
    /// slurmd's spool directory, if the site names one.
    pub spool_dir: Option<PathBuf>,
    /// This node's name, for messages and for `%n`.
    pub node: Option<NodeName>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name or a path in it.
    #[error("[logout]: {0}")]
    Name(#[from] NameError),
}

impl Settings {
    /// Reads the file, or `named` if someone named one. Without a file in the
    /// usual place, the defaults hold.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn load(named: Option<&Path>) -> Result<Self, SettingsError> {
        Self::of(&Config::named_or_usual(named)?)
    }

    /// What the configuration says.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, SettingsError> {
        let section = Section::of(config)?;
        let node = section.node_name.or_else(node_name::of_this_machine);
        let spool_dir = section.spool_dir.map(|path| path.on(node.as_ref()));
        Ok(Self {
            require_job: section.require_job,
            exempt_users: section.exempt_users,
            exempt_groups: section.exempt_groups,
            services: section.services,
            on_error: section.on_error,
            job_variables: section.job_variables,
            grace: section.grace,
            spare_active: section.spare_active,
            max_overstay: section.max_overstay,
            idle_after: section.idle_after,
            leftovers: section.leftovers,
            dry_run: section.dry_run,
            debug: section.debug,
            state_dir: config.state_dir(node.as_ref())?,
            spool_dir: spool_dir.transpose()?,
            node,
        })
    }

    /// The node's name for people.
    #[must_use]
    pub fn node_name(&self) -> &str {
        self.node.as_ref().map_or("this node", NodeName::as_str)
    }

    /// The window that tells used from idle.
    #[must_use]
    pub fn idle_window(&self) -> Duration {
        self.idle_after.unwrap_or(Duration::from_secs(15 * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let config =
            config::parse(text, Path::new("/etc/x.toml")).map_err(|error| error.to_string())?;
        Settings::of(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_section_a_login_needs_a_job_and_ends_a_minute_after_it() {
        let settings = settings("").unwrap();
        assert!(settings.require_job && !settings.dry_run && !settings.spare_active);
        assert_eq!(settings.grace, Duration::from_secs(60));
        assert_eq!(settings.on_error, OnError::Deny);
        assert_eq!(settings.leftovers, Leftovers::Session);
        assert_eq!(settings.idle_after, None);
        assert_eq!(settings.spool_dir, None);
    }

    #[test]
    fn the_nodes_name_is_filled_into_paths() {
        let text = "state_dir = '/r/%n'\n[logout]\nnode_name = 'n7'\nspool_dir = '/s/%n'";
        let settings = settings(text).unwrap();
        assert_eq!(settings.spool_dir, Some("/s/n7".into()));
        assert_eq!(settings.state_dir, PathBuf::from("/r/n7"));
    }
}
