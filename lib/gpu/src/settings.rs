//! The `[gres]` section of the configuration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::values::{duration, size};
use config::{Config, MissingIs};
use host::Sysroot;
use host::state_dir::StateDir;
use serde::{Deserialize, Deserializer};
use slurm::{NodeName, node_name};

/// What holds a job to its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// The strongest that the node can do without MPS: the cgroup limit where
    /// the driver has it, else the watchdog.
    #[default]
    Auto,
    /// Nothing: Slurm counts.
    Count,
    /// `watch` looks, and warns or ends.
    Watchdog,
    /// One MPS daemon for each GPU and user.
    Mps,
    /// The driver limits the job's cgroup (r615 and later).
    Cgroup,
}

/// What `watch` does about a job over its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnOver {
    /// Says so.
    #[default]
    Warn,
    /// Ends the job's processes on that GPU.
    End,
}

/// The section as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    nvml_library: Option<String>,
    #[serde(deserialize_with = "limit")]
    nvml_limit: Option<Duration>,
    nvml_seconds: Option<u64>,
    shard_size: Option<String>,
    shards_per_gpu: Option<u64>,
    reserve: Option<String>,
    tier: Wanted,
    require_fence: bool,
    gres_conf: Option<PathBuf>,
    scontrol: Option<PathBuf>,
    spool_dir: Option<String>,
    helper: Option<PathBuf>,
    mps_control: Option<PathBuf>,
    on_over: OnOver,
    over_percent: Option<u64>,
    samples: Option<u32>,
    #[serde(deserialize_with = "limit")]
    sample_every: Option<Duration>,
    sample_seconds: Option<u64>,
    #[serde(deserialize_with = "limit")]
    grace: Option<Duration>,
    grace_seconds: Option<u64>,
}

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    duration::deserialize_in(from, &range).map(Some)
}

/// How many shards a GPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// As many as fit, of so many MiB.
    Size(u64),
    /// So many.
    PerGpu(u64),
    /// None: GPUs are not shared.
    None,
}

/// Where this is and what the site wants.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration's path.
    pub config: PathBuf,
    /// Old spellings in the section, as sentences.
    pub warnings: Vec<String>,
    /// Slurm's name of this node.
    pub node: Option<NodeName>,
    /// The tree to look at.
    pub sysroot: Sysroot,
    /// Run-time state.
    pub state_dir: PathBuf,
    /// NVML's library.
    pub library: PathBuf,
    /// How long NVML may take for one answer.
    pub nvml_limit: Duration,
    /// How GPUs are divided.
    pub shards: Shards,
    /// Memory of each GPU that is given to no shard, MiB, beside what the
    /// driver keeps.
    pub reserve_mib: u64,
    /// What shall hold jobs to their shares.
    pub tier: Wanted,
    /// Whether a job whose share cannot be fenced fails.
    pub require_fence: bool,
    /// The running gres.conf, if the site says where.
    pub gres_conf: Option<PathBuf>,
    /// scontrol, if the site says where.
    pub scontrol: Option<PathBuf>,
    /// Slurm's SlurmdSpoolDir.
    pub spool_dir: PathBuf,
    /// This program, for the plugin to run.
    pub helper: PathBuf,
    /// NVIDIA's MPS control program.
    pub mps_control: PathBuf,
    /// See [`OnOver`].
    pub on_over: OnOver,
    /// From how much of its share on a job is over it, percent.
    pub over_percent: u64,
    /// How many samples in a row a job must be over its share.
    pub samples: u32,
    /// Time between two samples.
    pub sample_every: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// Where slurmd's spool directory is unless told: Slurm's default.
const SPOOL_DIR: &str = "/var/spool/slurmd";

impl Settings {
    /// Reads the configuration; without `path` the default file, which may be
    /// missing. Without `node`, the name is slurmd's or the machine's.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn load(path: Option<&Path>, node: Option<NodeName>) -> Result<Self, String> {
        let (path, missing) = match path {
            Some(path) => (path, MissingIs::Error),
            None => (Path::new(config::DEFAULT_PATH), MissingIs::Default),
        };
        let config = Config::load(path, missing).map_err(|error| error.to_string())?;
        let node = node.or_else(node_name);
        Self::of(&config, node)
    }

    /// From a configuration that is read already.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn of(config: &Config, node: Option<NodeName>) -> Result<Self, String> {
        let section: Section = config
            .section("gres")
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let wrong = |what: String| format!("{}: [gres]: {what}", config.path.display());
        let size = |key: &str, text: &str| {
            let size = size::parse_with_old_spelling(text).and_then(size::whole_mebibytes);
            size.map_err(|error| wrong(format!("`{key}`: {error}")))
        };
        let shards = match (section.shard_size.as_deref(), section.shards_per_gpu) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "give `shard_size` or `shards_per_gpu`, not both".to_owned(),
                ));
            }
            (Some(text), None) => Shards::Size(size("shard_size", text)?),
            (None, Some(count @ 1..=1024)) => Shards::PerGpu(count),
            (None, Some(count)) => {
                return Err(wrong(format!(
                    "`shards_per_gpu` is {count}, expected 1 to 1024"
                )));
            }
            (None, None) => Shards::None,
        };
        let reserve = section.reserve.as_deref().map(|text| size("reserve", text));
        // The second is the key's spelling of former releases.
        let time = |key: (&str, Option<Duration>), old: (&str, Option<u64>), default: u64| match (
            key.1, old.1,
        ) {
            (Some(_), Some(_)) => Err(wrong(format!("give `{}` only, not `{}`", key.0, old.0))),
            (Some(time), None) => Ok(time),
            (None, Some(seconds @ 1..=3600)) => Ok(Duration::from_secs(seconds)),
            (None, Some(seconds)) => Err(wrong(format!(
                "`{}` is {seconds}, expected 1 to 3600",
                old.0
            ))),
            (None, None) => Ok(Duration::from_secs(default)),
        };
        let place = |text: Option<String>, default: &str| {
            node_name::expand(text.as_deref().unwrap_or(default), node.as_ref())
                .map_err(|error| wrong(error.to_string()))
        };
        // A bare name is looked for where the system keeps libraries; root runs
        // what it finds, so a path must be whole.
        let library = place(section.nvml_library, "libnvidia-ml.so.1")?;
        let whole = |key: &str, path: &Path| {
            if path.is_absolute() {
                return Ok(());
            }
            Err(wrong(format!("`{key}` must be an absolute path")))
        };
        if library.components().count() > 1 {
            whole("nvml_library", &library)?;
        }
        let helper = section
            .helper
            .unwrap_or_else(|| "/usr/bin/gres-helper".into());
        let mps_control = section
            .mps_control
            .unwrap_or_else(|| "/usr/bin/nvidia-cuda-mps-control".into());
        whole("helper", &helper)?;
        whole("mps_control", &mps_control)?;
        let over_percent = section.over_percent.unwrap_or(105);
        if !(100..=1000).contains(&over_percent) {
            return Err(wrong(format!(
                "`over_percent` is {over_percent}, expected 100 to 1000"
            )));
        }
        Ok(Self {
            config: config.path.clone(),
            warnings: config.warnings_of("gres"),
            sysroot: config
                .sysroot(node.as_ref())
                .map_err(|error| error.to_string())?,
            state_dir: config
                .state_dir(node.as_ref())
                .map_err(|error| error.to_string())?,
            library,
            nvml_limit: time(
                ("nvml_limit", section.nvml_limit),
                ("nvml_seconds", section.nvml_seconds),
                10,
            )?,
            shards,
            reserve_mib: reserve.transpose()?.unwrap_or(0),
            tier: section.tier,
            require_fence: section.require_fence,
            gres_conf: section.gres_conf,
            scontrol: section.scontrol,
            spool_dir: place(section.spool_dir, SPOOL_DIR)?,
            helper,
            mps_control,
            on_over: section.on_over,
            over_percent,
            samples: section.samples.unwrap_or(3).clamp(1, 1000),
            sample_every: time(
                ("sample_every", section.sample_every),
                ("sample_seconds", section.sample_seconds),
                15,
            )?,
            grace: time(
                ("grace", section.grace),
                ("grace_seconds", section.grace_seconds),
                30,
            )?,
            node,
        })
    }

    /// The node's name.
    ///
    /// # Errors
    /// Nobody said.
    pub fn named(&self) -> Result<&NodeName, String> {
        self.node.as_ref().ok_or_else(|| {
            "the name of this node is not known; give --node-name, or run under slurmd, which sets \
             SLURMD_NODENAME"
                .to_owned()
        })
    }

    /// The directory of this program's state, made if it is missing.
    ///
    /// # Errors
    /// It cannot be made or somebody else could change it.
    pub fn state(&self) -> Result<StateDir, String> {
        StateDir::open(&self.state_dir)
            .and_then(|dir| dir.folder("gres"))
            .map_err(|error| error.to_string())
    }

    /// As [`Settings::state`], but makes nothing.
    ///
    /// # Errors
    /// It is there, and somebody else could change it.
    pub fn existing_state(&self) -> Result<Option<StateDir>, String> {
        let dir = StateDir::open_existing(&self.state_dir).map_err(|error| error.to_string())?;
        match dir {
            Some(dir) => dir
                .existing_folder("gres")
                .map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    /// MiB of one shard of a GPU with so much memory, and how many it has;
    /// `None` where GPUs are not shared or not even one shard fits.
    #[must_use]
    pub fn shards_of(&self, memory: crate::inventory::Memory) -> Option<(u64, u64)> {
        let usable = memory
            .total
            .checked_sub(memory.reserved)?
            .checked_sub(self.reserve_mib)?;
        let (size, count) = match self.shards {
            Shards::Size(size) => (size, usable / size),
            Shards::PerGpu(count) => (usable / count, count),
            Shards::None => return None,
        };
        (size > 0 && count > 0).then_some((size, count))
    }
}

/// slurmd's word for prolog and epilog; for a person, the machine's name up to
/// the first dot, as slurmd itself takes it.
fn node_name() -> Option<NodeName> {
    let given: Option<OsString> = std::env::var_os("SLURMD_NODENAME");
    if let Some(name) = given {
        return name.into_string().ok()?.parse().ok();
    }
    let uname = rustix::system::uname();
    uname
        .nodename()
        .to_str()
        .ok()?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Memory;

    fn settings(text: &str) -> Result<Settings, String> {
        let path = Path::new("/etc/slurm-efa/slurm-efa.toml");
        Settings::of(&config::parse(text, path).unwrap(), "n1".parse().ok())
    }

    #[test]
    fn shards_are_what_fits_beside_the_drivers_memory_and_the_reserve() {
        let memory = Memory {
            total: 81_559,
            reserved: 600,
            used: 0,
        };
        let of = |text: &str| settings(text).unwrap().shards_of(memory);
        assert_eq!(of("[gres]\nshard_size = \"10G\""), Some((10_240, 7)));
        assert_eq!(
            of("[gres]\nshard_size = \"10G\"\nreserve = \"12G\""),
            Some((10_240, 6))
        );
        assert_eq!(of("[gres]\nshards_per_gpu = 8"), Some((10_119, 8)));
        assert_eq!(of("[gres]\nshard_size = \"100G\""), None);
        assert_eq!(of("[gres]\nreserve = \"1T\"\nshard_size = \"1G\""), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn sizes_of_former_releases_are_accepted_with_a_warning() {
        let old = settings("[gres]\nshard_size = '10GB'\nreserve = '1 gib'").unwrap();
        assert_eq!(old.shards, Shards::Size(10_240));
        assert_eq!((old.reserve_mib, old.warnings.len()), (1024, 2));
    }

    #[test]
    fn durations_of_former_releases_are_accepted_with_a_warning() {
        let old = settings("[gres]\nnvml_seconds = 7\nsample_seconds = 8\ngrace_seconds = 9");
        let new = settings("[gres]\nnvml_limit = '7s'\nsample_every = '8s'\ngrace = '9s'");
        let (old, new) = (old.unwrap(), new.unwrap());
        let times = |it: &Settings| (it.nvml_limit, it.sample_every, it.grace);
        assert_eq!(times(&old), times(&new));
        assert_eq!(old.grace, Duration::from_secs(9));
        assert_eq!((old.warnings.len(), new.warnings.len()), (3, 0));
    }

    #[test]
    fn nonsense_is_refused_with_the_key_that_holds_it() {
        for (text, word) in [
            ("shard_size = \"many\"", "shard_size"),
            ("shard_size = \"0G\"", "shard_size"),
            ("shard_size = \"1K\"", "shard_size"),
            ("shard_size = \"1G\"\nshards_per_gpu = 2", "not both"),
            ("shards_per_gpu = 0", "shards_per_gpu"),
            ("sample_seconds = 0", "sample_seconds"),
            ("grace = \"1s\"\ngrace_seconds = 1", "grace_seconds"),
            ("grace = \"2h\"", "1s to 1h"),
            ("over_percent = 5", "over_percent"),
            ("nvml_library = \"./evil.so\"", "nvml_library"),
            ("helper = \"gres-helper\"", "helper"),
            ("tier = \"mgi\"", "mgi"),
            ("shard_siez = \"1G\"", "shard_siez"),
        ] {
            let error = settings(&format!("[gres]\n{text}")).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
