//! Where this program is: configuration, node name, directories, time.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::Config;
use config::MissingIs;
use host::Sysroot;
use rustix::time::{ClockId, clock_gettime};
use slurm::{NodeName, node_name};

use crate::history::Now;
use crate::settings::Settings;

/// Whether the configuration was named by somebody, so that it must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// On the command line.
    Yes,
    /// Passed on by ourselves: it may be the default, which may be missing.
    Perhaps,
}

/// Everything that does not change while the program runs.
#[derive(Debug)]
pub struct Site {
    /// The configuration's path.
    pub config: PathBuf,
    /// Old spellings in `[health]` and what is doubtful there, as sentences.
    pub warnings: Vec<String>,
    /// The `[health]` section.
    pub settings: Settings,
    /// Slurm's name of the node.
    pub node: Option<NodeName>,
    /// The tree to look at.
    pub sysroot: Sysroot,
    /// Where state between rounds lies.
    pub state_dir: PathBuf,
    /// Where the record lies.
    pub record: PathBuf,
}

impl Site {
    /// Reads the configuration.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn load(path: Option<&Path>, node: Option<NodeName>, named: Named) -> Result<Self, String> {
        let missing = match (path, named) {
            (Some(_), Named::Yes) => MissingIs::Error,
            _ => MissingIs::Default,
        };
        let path = path.unwrap_or(Path::new(config::DEFAULT_PATH));
        let config = Config::load(path, missing).map_err(|error| error.to_string())?;
        let settings = Settings::of(&config).map_err(|error| error.to_string())?;
        let node = node.or_else(node_name::of_this_process);
        let unknown = |error: node_name::NameError| {
            format!(
                "{error}; give it by --node-name, or run under slurmd, which sets SLURMD_NODENAME"
            )
        };
        let sysroot = config.sysroot(node.as_ref()).map_err(unknown)?;
        let state_dir = config.state_dir(node.as_ref()).map_err(unknown)?;
        let record = settings.record.on(node.as_ref()).map_err(unknown)?;
        Ok(Self {
            config: path.to_owned(),
            warnings: settings.warnings(),
            settings,
            node,
            sysroot,
            state_dir,
            record,
        })
    }
}

/// The time of a look.
#[must_use]
pub fn now(sysroot: &Sysroot) -> Now {
    let boot = sysroot
        .read_small("proc/sys/kernel/random/boot_id")
        .or_else(|_| Sysroot::real().read_small("proc/sys/kernel/random/boot_id"))
        .unwrap_or_default();
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Now {
        boot,
        uptime: Duration::new(seconds, nanoseconds),
        unix,
    }
}

/// The job's `--efa-profile`, as a prolog sees it.
///
/// A user can forge this variable, so it may only ever spare the job a warning.
#[must_use]
pub fn job_profile() -> Option<OsString> {
    let value = slurm::job_control::PROFILE.value(|name| std::env::var_os(name));
    value.map(OsString::from_vec)
}
