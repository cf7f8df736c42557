//! `[logout]` of the configuration, and what the module's arguments change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::values::duration;
use config::{Config, ConfigError, MissingIs};
use host::printable;
use serde::{Deserialize, Deserializer};
use slurm::NodeName;
use slurm::node_name::{NameError, expand};

/// Where slurmd's spool directory is, where nobody says: Slurm's own default
/// and Debian's. Those that exist are all looked at.
pub const USUAL_SPOOLS: [&str; 2] = ["/var/spool/slurmd", "/var/lib/slurm/slurmd"];

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
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

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Section {
    require_job: Option<bool>,
    exempt_users: Vec<String>,
    exempt_groups: Vec<String>,
    services: Vec<String>,
    on_error: OnError,
    job_variables: Option<bool>,
    #[serde(deserialize_with = "time")]
    grace: Option<Duration>,
    spare_active: bool,
    #[serde(deserialize_with = "time")]
    max_overstay: Option<Duration>,
    #[serde(deserialize_with = "time")]
    idle_after: Option<Duration>,
    leftovers: Leftovers,
    dry_run: bool,
    debug: bool,
    spool_dir: Option<String>,
    node_name: Option<String>,
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
    /// `spool_dir`.
    #[error(
        "[logout]: spool_dir: `{}` is not an absolute path",
        printable(path, 200)
    )]
    Relative {
        /// What was given.
        path: String,
    },
}

impl Settings {
    /// Reads the file, or `named` if someone named one. Without a file in the
    /// usual place, the defaults hold.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn load(named: Option<&Path>) -> Result<Self, SettingsError> {
        let usual = Path::new(config::DEFAULT_PATH);
        let config = match named {
            Some(path) => Config::load(path, MissingIs::Error)?,
            None => Config::load(usual, MissingIs::Default)?,
        };
        Self::of(&config)
    }

    /// What the configuration says.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, SettingsError> {
        let section: Section = config.section("logout")?.unwrap_or_default();
        let node = match &section.node_name {
            Some(name) => Some(name.parse()?),
            None => host_name(),
        };
        let spool_dir = match section.spool_dir {
            Some(path) if !path.starts_with('/') => return Err(SettingsError::Relative { path }),
            Some(path) => Some(expand(&path, node.as_ref())?),
            None => None,
        };
        Ok(Self {
            require_job: section.require_job.unwrap_or(true),
            exempt_users: section.exempt_users,
            exempt_groups: section.exempt_groups,
            services: section.services,
            on_error: section.on_error,
            job_variables: section.job_variables.unwrap_or(true),
            grace: section.grace.unwrap_or(Duration::from_secs(60)),
            spare_active: section.spare_active,
            max_overstay: section.max_overstay.unwrap_or(Duration::from_secs(86_400)),
            idle_after: section.idle_after.filter(|it| !it.is_zero()),
            leftovers: section.leftovers,
            dry_run: section.dry_run,
            debug: section.debug,
            state_dir: config.state_dir(node.as_ref())?,
            spool_dir,
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

/// The host's name up to the first dot, as Slurm takes it.
fn host_name() -> Option<NodeName> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    name.split('.').next()?.parse().ok()
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_in(from, &(Duration::ZERO..=LONGEST)).map(Some)
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
        ] {
            let error = settings(&format!("[logout]\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("/etc/x.toml:2: "), "{wrong}: {error}");
        }
        assert!(settings("[logout]\nspool_dir = 'x'").is_err());
        assert!(settings("[logout]\nnode_name = '../x'").is_err());
    }

    #[test]
    fn the_nodes_name_is_filled_into_paths() {
        let text = "state_dir = '/r/%n'\n[logout]\nnode_name = 'n7'\nspool_dir = '/s/%n'";
        let settings = settings(text).unwrap();
        assert_eq!(settings.spool_dir, Some("/s/n7".into()));
        assert_eq!(settings.state_dir, PathBuf::from("/r/n7"));
    }
}
