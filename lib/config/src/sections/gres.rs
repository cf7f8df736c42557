//! `[gres]` of the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::values::path::{self, NodePath};
use crate::values::{duration, size, word};
use crate::{Config, ConfigError};
use host::printable;
use slurm::NodeName;
use slurm::node_name::{NameError, expand};

/// What the site wants to hold a job to its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedTier {
    /// The strongest that the node can do without MPS: the cgroup limit where
    /// the driver has it, else the watchdog.
    #[default]
    Auto,
    /// Nothing: Slurm counts.
    Count,
    /// `watch` measures each job, and warns or ends it.
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
    /// It warns, in the log.
    #[default]
    Warn,
    /// It ends the job's processes on that GPU.
    End,
}

/// How many shards a GPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// As many as fit, each of this size in MiB.
    Size(u64),
    /// This number.
    PerGpu(u64),
    /// None: GPUs are not shared.
    None,
}

/// What the site says about its GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// NVML's library: a name, or an absolute path.
    pub nvml_library: Library,
    /// How long NVML may take for one answer.
    pub nvml_limit: Duration,
    /// How GPUs are divided.
    pub shards: Shards,
    /// Memory of each GPU that is given to no shard, MiB.
    pub reserve_mib: u64,
    /// See [`WantedTier`].
    pub tier: WantedTier,
    /// Whether a job whose share cannot be fenced fails.
    pub require_fence: bool,
    /// The running gres.conf, if the site says where.
    pub gres_conf: Option<PathBuf>,
    /// scontrol, if the site says where.
    pub scontrol: Option<PathBuf>,
    /// Slurm's SlurmdSpoolDir, if the site says where.
    pub spool_dir: Option<NodePath>,
    /// gres-helper, for the plugin to run.
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

/// The section as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    nvml_library: Library,
    #[serde(deserialize_with = "limit")]
    nvml_limit: Option<Duration>,
    #[serde(deserialize_with = "seconds")]
    nvml_seconds: Option<Spanned<Duration>>,
    #[serde(deserialize_with = "mebibytes")]
    shard_size: Option<u64>,
    #[serde(deserialize_with = "count")]
    shards_per_gpu: Option<Spanned<u64>>,
    #[serde(deserialize_with = "mebibytes")]
    reserve: Option<u64>,
    #[serde(deserialize_with = "word")]
    tier: WantedTier,
    require_fence: bool,
    #[serde(deserialize_with = "file")]
    gres_conf: Option<PathBuf>,
    #[serde(deserialize_with = "file")]
    scontrol: Option<PathBuf>,
    spool_dir: Option<NodePath>,
    #[serde(deserialize_with = "path::absolute")]
    helper: PathBuf,
    #[serde(deserialize_with = "path::absolute")]
    mps_control: PathBuf,
    #[serde(deserialize_with = "word")]
    on_over: OnOver,
    #[serde(deserialize_with = "percent")]
    over_percent: u64,
    samples: u32,
    #[serde(deserialize_with = "limit")]
    sample_every: Option<Duration>,
    #[serde(deserialize_with = "seconds")]
    sample_seconds: Option<Spanned<Duration>>,
    #[serde(deserialize_with = "limit")]
    grace: Option<Duration>,
    #[serde(deserialize_with = "seconds")]
    grace_seconds: Option<Spanned<Duration>>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            nvml_library: Library("libnvidia-ml.so.1".to_owned()),
            nvml_limit: None,
            nvml_seconds: None,
            shard_size: None,
            shards_per_gpu: None,
            reserve: None,
            tier: WantedTier::default(),
            require_fence: false,
            gres_conf: None,
            scontrol: None,
            spool_dir: None,
            helper: "/usr/bin/gres-helper".into(),
            mps_control: "/usr/bin/nvidia-cuda-mps-control".into(),
            on_over: OnOver::default(),
            over_percent: 105,
            samples: 3,
            sample_every: None,
            sample_seconds: None,
            grace: None,
            grace_seconds: None,
        }
    }
}

impl Section {
    /// What the configuration says.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let written: Written = config.section("gres")?.unwrap_or_default();
        // The second is the key's spelling of former releases.
        let time =
            |[name, old_name]: [&str; 2], new, old: Option<Spanned<Duration>>, default| match (
                new, old,
            ) {
                (Some(_), Some(old)) => Err(config.error_at(
                    old.span().start,
                    format!("[gres] `{old_name}` is another spelling of `{name}`; keep `{name}`"),
                )),
                (None, Some(old)) => Ok(old.into_inner()),
                (new, None) => Ok(new.unwrap_or(Duration::from_secs(default))),
            };
        let shards = match (written.shard_size, written.shards_per_gpu) {
            (Some(_), Some(count)) => {
                return Err(config.error_at(
                    count.span().start,
                    "[gres] give `shard_size` or `shards_per_gpu`, not both".to_owned(),
                ));
            }
            (Some(size), None) => Shards::Size(size),
            (None, Some(count)) => Shards::PerGpu(count.into_inner()),
            (None, None) => Shards::None,
        };
        Ok(Self {
            nvml_library: written.nvml_library,
            nvml_limit: time(
                ["nvml_limit", "nvml_seconds"],
                written.nvml_limit,
                written.nvml_seconds,
                10,
            )?,
            shards,
            reserve_mib: written.reserve.unwrap_or(0),
            tier: written.tier,
            require_fence: written.require_fence,
            gres_conf: written.gres_conf,
            scontrol: written.scontrol,
            spool_dir: written.spool_dir,
            helper: written.helper,
            mps_control: written.mps_control,
            on_over: written.on_over,
            over_percent: written.over_percent,
            samples: written.samples.clamp(1, 1000),
            sample_every: time(
                ["sample_every", "sample_seconds"],
                written.sample_every,
                written.sample_seconds,
                15,
            )?,
            grace: time(
                ["grace", "grace_seconds"],
                written.grace,
                written.grace_seconds,
                30,
            )?,
        })
    }

    /// Everything that is wrong with the section.
    pub(crate) fn problems(config: &Config) -> Vec<ConfigError> {
        config.problems_of::<Written>("gres", |config| Self::of(config).err())
    }
}

/// A library that root loads: a bare name is looked for where the system keeps
/// libraries, and a path must be absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library(String);

impl Library {
    /// The library on the node of this name.
    ///
    /// # Errors
    /// It contains `%n` and `node` is `None`.
    pub fn on(&self, node: Option<&NodeName>) -> Result<PathBuf, NameError> {
        expand(&self.0, node)
    }
}

impl<'de> Deserialize<'de> for Library {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let path = Path::new(&text);
        if path.components().count() != 1 || path.is_absolute() {
            let path: NodePath = text.parse().map_err(serde::de::Error::custom)?;
            return Ok(Self(path.as_str().to_owned()));
        }
        if text.contains('%') || text.chars().any(char::is_control) {
            let text = printable(&text, 200);
            return Err(serde::de::Error::custom(format!(
                "`{text}` is not the name of a library"
            )));
        }
        Ok(Self(text))
    }
}

fn file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path::absolute(from).map(Some)
}

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    duration::deserialize_in(from, &range).map(Some)
}

/// A duration in the spelling of release 0.1.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Spanned<Duration>>, D::Error> {
    let seconds = Spanned::<u64>::deserialize(from)?;
    let span = seconds.span();
    let seconds = within(seconds.into_inner(), 1, 3600)?;
    Ok(Some(Spanned::new(span, Duration::from_secs(seconds))))
}

/// A size, also in the spelling of release 0.1, in MiB.
fn mebibytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let size = size::parse_with_old_spelling(&text).and_then(size::whole_mebibytes);
    size.map(Some).map_err(serde::de::Error::custom)
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Spanned<u64>>, D::Error> {
    let count = Spanned::<u64>::deserialize(from)?;
    within(*count.get_ref(), 1, 1024).map(|_| Some(count))
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    within(u64::deserialize(from)?, 100, 1000)
}

fn within<E: serde::de::Error>(number: u64, least: u64, most: u64) -> Result<u64, E> {
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(E::custom(format!(
        "{number} is out of range; write {least} to {most}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<Section, String> {
        let config = crate::parse(text, Path::new("/etc/x.toml"));
        let section = config.and_then(|config| Section::of(&config));
        section.map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_of_former_releases_mean_the_same() {
        let old = section("[gres]\nshard_size = '10GB'\nreserve = '1 gib'").unwrap();
        assert_eq!((old.shards, old.reserve_mib), (Shards::Size(10_240), 1024));
    }

    #[test]
    fn durations_of_former_releases_mean_the_same() {
        let old = section("[gres]\nnvml_seconds = 7\nsample_seconds = 8\ngrace_seconds = 9");
        let new = section("[gres]\nnvml_limit = '7s'\nsample_every = '8s'\ngrace = '9s'");
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn nonsense_is_refused_with_line_and_key() {
        for (text, line, word) in [
            ("shard_size = \"many\"", 2, "`many` is not a size"),
            ("shard_size = \"0G\"", 2, "`0G` is not a valid size"),
            ("shard_size = \"1K\"", 2, "whole number of MiB"),
            ("shard_size = \"1G\"\nshards_per_gpu = 2", 3, "not both"),
            ("shards_per_gpu = 0", 2, "1 to 1024"),
            ("sample_seconds = 0", 2, "1 to 3600"),
            ("grace = \"1s\"\ngrace_seconds = 1", 3, "keep `grace`"),
            ("grace = \"2h\"", 2, "1s to 1h"),
            ("over_percent = 5", 2, "100 to 1000"),
            ("nvml_library = \"./evil.so\"", 2, "absolute"),
            ("nvml_library = \"evil/x.so\"", 2, "absolute"),
            ("nvml_library = \"%h.so\"", 2, "name of a library"),
            ("helper = \"gres-helper\"", 2, "absolute"),
            ("tier = \"mgi\"", 2, "mgi"),
            ("spool_dir = \"spool\"", 2, "absolute"),
            ("shard_siez = \"1G\"", 2, "shard_siez"),
        ] {
            let error = section(&format!("[gres]\n{text}")).unwrap_err();
            let key = text.lines().last().unwrap().split(' ').next().unwrap();
            assert!(error.contains(key), "{text}: {error}");
            let start = format!("/etc/x.toml:{line}: ");
            assert!(
                error.starts_with(&start) && error.contains(word),
                "{text}: {error}"
            );
        }
    }
}
