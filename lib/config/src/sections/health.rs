//! The `[health]` section of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::size::Bytes;
use crate::values::path::{self, NodePath};
use crate::values::{duration, word};
use crate::{Config, ConfigError};
use host::printable;
use serde::Deserialize;
use serde::de::Deserializer;

/// Where `record` writes and the others read. Not in `state_dir`: what a
/// healthy node looks like must survive a reboot, and `/run` does not.
pub const DEFAULT_RECORD: &str = "/var/lib/slurm-efa/efa-expected.json";

/// No limit of time is longer: a prolog holds a job for as long.
const LONGEST: Duration = Duration::from_secs(3600);

/// Shortest time for reading the counters of all devices.
const SHORTEST_PROBE: Duration = Duration::from_millis(100);

/// The active test uses the devices: at most once a minute, at least once a week.
const SHORTEST_PERIOD: Duration = Duration::from_secs(60);
const LONGEST_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// What happens to a node with a fatal finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFatal {
    /// `State=DRAIN` with a reason that says what is wrong.
    #[default]
    Drain,
    /// `State=FAIL Reason="Action:Replace"`: HyperPod replaces the instance.
    HyperpodReplace,
    /// `State=FAIL Reason="Action:Reboot"`: HyperPod reboots the instance.
    HyperpodReboot,
    /// Nothing but a line in the system's log: jobs start all the same.
    Log,
}

/// When `efa-check healthcheck` brings a dead device back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RebindWhen {
    /// Never.
    #[default]
    Never,
    /// On a node that it drained and that has no job.
    Idle,
}

/// Where jobs find libfabric and NCCL's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackPlace {
    /// On the node.
    #[default]
    Host,
    /// In the jobs' images, so that the node needs none.
    Container,
}

/// `expected_devices`: one number, or one for each type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of devices, or a number for each instance type"
)]
enum Expected {
    All(u32),
    ByType(BTreeMap<String, u32>),
}

/// A token bucket: a burst, and a rate for each minute in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The counter of the port.
    pub counter: &'static str,
    /// The check that warns.
    pub check: &'static str,
    /// Tokens that the bucket holds.
    pub burst: u64,
    /// Tokens that flow into it in a minute.
    pub per_minute: u64,
}

const fn rate(counter: &'static str, check: &'static str, burst: u64, per_minute: u64) -> Rate {
    Rate {
        counter,
        check,
        burst,
        per_minute,
    }
}

/// What `rates` is unless the site changes it: the thresholds of AWS's
/// eks-node-monitoring-agent. Above 100 at once, one a second; above 1 000
/// packets or 1 000 000 bytes sent again in a minute.
#[rustfmt::skip]
pub const RATES: [Rate; 8] = [
    rate("rx_drops",                    "rx-drops",            100,       60),
    rate("rdma_read_wr_err",            "rdma-errors",         100,       60),
    rate("rdma_write_wr_err",           "rdma-errors",         100,       60),
    rate("unresponsive_remote_events",  "unresponsive-remote", 100,       60),
    rate("impaired_remote_conn_events", "impaired-remote",     100,       60),
    rate("retrans_timeout_events",      "retransmissions",     100,       60),
    rate("retrans_pkts",                "retransmissions",     1000,      1000),
    rate("retrans_bytes",               "retransmissions",     1_000_000, 1_000_000),
];

/// The checks that `disable` can name and `hold` cannot: they drain for every
/// job anyway.
pub const FATAL_CHECKS: &[&str] = &[
    "device-count",
    "counters",
    "admin-queue",
    "modules",
    "uverbs",
    "gpudirect",
];

/// The checks that `disable` and `hold` can name.
pub const WARNING_CHECKS: &[&str] = &[
    "stack",
    "rx-drops",
    "rdma-errors",
    "unresponsive-remote",
    "impaired-remote",
    "retransmissions",
    "security-group",
    "loopback",
    "memlock",
    "ptrace-scope",
    "hugepages",
];

/// Those of [`WARNING_CHECKS`] that any job can cause, by what it sends to whom.
/// `hold` believes them only where no job can have done so.
pub const CAUSED_BY_JOBS: &[&str] = &[
    "rx-drops",
    "rdma-errors",
    "unresponsive-remote",
    "impaired-remote",
    "retransmissions",
    "security-group",
];

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateSetting {
    burst: u64,
    per_minute: u64,
}

/// The section as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    expected_devices: Option<Expected>,
    record: NodePath,
    #[serde(deserialize_with = "limit")]
    wait_boot: Duration,
    #[serde(deserialize_with = "probe_limit")]
    probe_limit: Duration,
    #[serde(deserialize_with = "word")]
    on_fatal: OnFatal,
    #[serde(deserialize_with = "word")]
    rebind: RebindWhen,
    resume: bool,
    resume_after: u32,
    #[serde(deserialize_with = "program")]
    scontrol: Option<PathBuf>,
    #[serde(deserialize_with = "program")]
    slurm_conf: Option<PathBuf>,
    #[serde(deserialize_with = "limit")]
    scontrol_limit: Duration,
    #[serde(deserialize_with = "limit")]
    drain_limit: Duration,
    #[serde(deserialize_with = "word")]
    stack: StackPlace,
    #[serde(deserialize_with = "memlock")]
    memlock: u64,
    hugepages: Option<u64>,
    hold: Vec<Held>,
    disable: Vec<Disabled>,
    rates: BTreeMap<Counter, RateSetting>,
    #[serde(deserialize_with = "path::absolute")]
    fi_pingpong: PathBuf,
    #[serde(deserialize_with = "limit")]
    pingpong_limit: Duration,
    #[serde(deserialize_with = "period")]
    pingpong_every: Option<Duration>,
    #[serde(deserialize_with = "program")]
    metrics: Option<PathBuf>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            expected_devices: None,
            record: NodePath::constant(DEFAULT_RECORD),
            wait_boot: Duration::from_secs(60),
            probe_limit: Duration::from_secs(4),
            on_fatal: OnFatal::default(),
            rebind: RebindWhen::default(),
            resume: false,
            resume_after: 3,
            scontrol: None,
            slurm_conf: None,
            scontrol_limit: Duration::from_secs(10),
            drain_limit: Duration::from_secs(600),
            stack: StackPlace::default(),
            // No source gives a figure; libfabric and NCCL pin gigabytes.
            memlock: 16 << 30,
            hugepages: None,
            hold: Vec::new(),
            disable: Vec::new(),
            rates: BTreeMap::new(),
            fi_pingpong: PathBuf::from("/opt/amazon/efa/bin/fi_pingpong"),
            pingpong_limit: Duration::from_secs(30),
            pingpong_every: None,
            metrics: None,
        }
    }
}

/// What the site decided, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    expected_devices: Option<Expected>,
    /// The file of `efa-check baseline`, with `%n`.
    pub record: NodePath,
    /// A prolog waits for late devices until the machine has been up this long.
    pub wait_boot: Duration,
    /// All counters of all devices are read in this time, or named.
    pub probe_limit: Duration,
    /// See [`OnFatal`].
    pub on_fatal: OnFatal,
    /// Whether `efa-check healthcheck` rebinds a dead device of an idle node that it
    /// drained.
    pub rebind: bool,
    /// Whether `efa-check healthcheck` resumes what we drained.
    pub resume: bool,
    /// After this many rounds in a row without a fatal finding.
    pub resume_after: u32,
    /// The site's scontrol, if not in one of the usual places.
    pub scontrol: Option<PathBuf>,
    /// `SLURM_CONF` for scontrol.
    pub slurm_conf: Option<PathBuf>,
    /// For one call of scontrol.
    pub scontrol_limit: Duration,
    /// For all calls of scontrol that one drain takes.
    pub drain_limit: Duration,
    /// See [`StackPlace`].
    pub stack: StackPlace,
    /// Less memlock than this, in bytes, is a warning.
    pub memlock: u64,
    /// Fewer 2 MiB hugepages than this are a warning.
    pub hugepages: Option<u64>,
    /// Warnings that hold back a job with an EFA profile.
    pub hold: Vec<String>,
    /// Checks that are not made.
    pub disable: Vec<String>,
    /// Which counters warn, and when.
    pub rates: Vec<Rate>,
    /// The program of the active test.
    pub fi_pingpong: PathBuf,
    /// For one device.
    pub pingpong_limit: Duration,
    /// How often `efa-check healthcheck` makes the active test on an idle node; `None`: never.
    pub pingpong_every: Option<Duration>,
    /// Where `efa-check healthcheck` writes its textfile for node_exporter.
    pub metrics: Option<PathBuf>,
    /// Whether every job has a profile, and so needs the node's stack.
    pub default_profile: bool,
    /// Old spellings, as sentences.
    old_spellings: Vec<String>,
}

impl Settings {
    /// The settings of a configuration.
    ///
    /// # Errors
    /// With file, line and reason.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let section: Section = config.section("health")?.unwrap_or_default();
        let mut rates = RATES.to_vec();
        for (counter, setting) in &section.rates {
            for rate in rates.iter_mut().filter(|rate| rate.counter == counter.0) {
                rate.burst = setting.burst;
                rate.per_minute = setting.per_minute;
            }
        }
        Ok(Self {
            expected_devices: section.expected_devices,
            record: section.record,
            wait_boot: section.wait_boot,
            probe_limit: section.probe_limit,
            on_fatal: section.on_fatal,
            rebind: section.rebind == RebindWhen::Idle,
            resume: section.resume,
            resume_after: section.resume_after.max(1),
            scontrol: section.scontrol,
            slurm_conf: section.slurm_conf,
            scontrol_limit: section.scontrol_limit,
            drain_limit: section.drain_limit,
            stack: section.stack,
            memlock: section.memlock,
            hugepages: section.hugepages,
            hold: section.hold.into_iter().map(|check| check.0).collect(),
            disable: section.disable.into_iter().map(|check| check.0).collect(),
            rates,
            fi_pingpong: section.fi_pingpong,
            pingpong_limit: section.pingpong_limit,
            pingpong_every: section.pingpong_every,
            metrics: section.metrics,
            default_profile: has_profile(config.default_profile.as_deref()),
            old_spellings: config.warnings_of("health"),
        })
    }

    /// Everything that is wrong with the section.
    pub(crate) fn problems(config: &Config) -> Vec<ConfigError> {
        config.problems_of::<Section>("health", |config| Self::of(config).err())
    }

    /// All that a site should know of its settings, though they are right: old
    /// spellings, and what has another effect than it seems.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let held = |check: &&str| self.hold.iter().any(|id| id == check);
        let caused = CAUSED_BY_JOBS.iter().copied().filter(held);
        let caused: Vec<&str> = caused.collect();
        let mut warnings = self.old_spellings.clone();
        if !caused.is_empty() {
            warnings.push(format!(
                "[health] hold: any job can cause {}; a node is held for it only where the counters rose while \
                 no job ran, or (security-group) where the loopback test failed",
                caused.join(", ")
            ));
        }
        if self.rebind && self.on_fatal != OnFatal::Drain {
            let text = "[health] rebind: has no effect unless `on_fatal` is \"drain\"";
            warnings.push(text.to_owned());
        }
        warnings
    }

    /// The site's `expected_devices` for this type.
    #[must_use]
    pub fn expected_devices(&self, instance: Option<&str>) -> Option<u32> {
        match self.expected_devices.as_ref()? {
            Expected::All(count) => Some(*count),
            Expected::ByType(counts) => counts.get(instance?).copied(),
        }
    }
}

/// Whether this value of `--efa-profile` or `default_profile` asks for one.
#[must_use]
pub fn has_profile(name: Option<&str>) -> bool {
    name.is_some_and(|name| name != "none" && !name.is_empty())
}

/// An entry of `disable`.
#[derive(Debug)]
struct Disabled(String);

/// An entry of `hold`.
#[derive(Debug)]
struct Held(String);

/// A key of `rates`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counter(&'static str);

impl<'de> Deserialize<'de> for Disabled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let id = String::deserialize(from)?;
        let mut all = FATAL_CHECKS.iter().chain(WARNING_CHECKS);
        if all.any(|check| *check == id) {
            return Ok(Self(id));
        }
        Err(no_check(&id))
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Disabled(id) = Disabled::deserialize(from)?;
        if WARNING_CHECKS.contains(&id.as_str()) {
            return Ok(Self(id));
        }
        Err(serde::de::Error::custom(format!(
            "`{id}` is fatal for every job anyway"
        )))
    }
}

fn no_check<E: serde::de::Error>(id: &str) -> E {
    let id = printable(id, 60);
    E::custom(format!(
        "there is no check `{id}`; `efa-check list` shows all"
    ))
}

impl<'de> Deserialize<'de> for Counter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = RATES.iter().find(|rate| rate.counter == name);
        known.map(|rate| Self(rate.counter)).ok_or_else(|| {
            let known: Vec<&str> = RATES.iter().map(|rate| rate.counter).collect();
            let name = printable(&name, 60);
            serde::de::Error::custom(format!("`{name}` is none of {}", known.join(", ")))
        })
    }
}

fn program<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path::absolute(from).map(Some)
}

/// A size, or a number of bytes as release 0.1 had it.
fn memlock<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size such as `16G`")]
    enum Written {
        Size(String),
        Number(u64),
    }
    match Written::deserialize(from)? {
        Written::Number(bytes) => Ok(bytes),
        Written::Size(text) => {
            let size: Bytes = text.parse().map_err(serde::de::Error::custom)?;
            Ok(size.0)
        }
    }
}

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration::deserialize_in(from, &(Duration::ZERO..=LONGEST))
}

/// Shorter, and a busy node would never do.
fn probe_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration::deserialize_in(from, &(SHORTEST_PROBE..=LONGEST))
}

fn period<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize_in(from, &(SHORTEST_PERIOD..=LONGEST_PERIOD)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        let path = Path::new("/etc/slurm-efa/slurm-efa.toml");
        Settings::of(&crate::parse(text, path).unwrap())
    }

    fn refusal(text: &str) -> String {
        settings(text).unwrap_err().to_string()
    }

    #[test]
    fn without_a_section_the_defaults_hold() {
        let settings = settings("").unwrap();
        assert_eq!(settings.record.as_str(), DEFAULT_RECORD);
        assert_eq!(settings.on_fatal, OnFatal::Drain);
        assert!(!settings.resume && !settings.default_profile);
        assert_eq!(settings.expected_devices(None), None);
    }

    #[test]
    fn the_limit_of_locked_memory_is_a_size_and_for_one_more_release_a_number() {
        let bytes = |text: &str| settings(text).unwrap().memlock;
        assert_eq!(bytes("[health]\nmemlock = '1G'"), 1 << 30);
        assert_eq!(bytes("[health]\nmemlock = 1_073_741_824"), 1 << 30);
        assert!(refusal("[health]\nmemlock = '1GB'").contains("`1GB` is not a size"));
    }

    #[test]
    fn the_expectation_is_one_number_or_one_for_each_type() {
        let one = settings("[health]\nexpected_devices = 4").unwrap();
        assert_eq!(one.expected_devices(None), Some(4));
        let text = "[health]\nexpected_devices = { \"p5.48xlarge\" = 31 }";
        let each = settings(text).unwrap();
        assert_eq!(each.expected_devices(Some("p5.48xlarge")), Some(31));
        assert_eq!(each.expected_devices(Some("g5.8xlarge")), None);
    }

    #[test]
    fn a_misspelt_key_a_check_that_is_none_and_a_time_that_is_none_are_refused() {
        assert!(refusal("[health]\nresume_afetr = 3").contains("resume_afetr"));
        assert!(refusal("[health]\ndisable = [\"x\"]").contains("no check `x`"));
        assert!(refusal("[health]\nhold = [\"device-count\"]").contains("fatal"));
        assert!(refusal("[health]\nprobe_limit = \"4\"").contains("no unit"));
        assert!(refusal("[health]\nprobe_limit = \"2h\"").contains("100ms to 1h"));
        assert!(refusal("[health]\nprobe_limit = \"1ms\"").contains("100ms to 1h"));
        assert!(refusal("[health]\nscontrol = \"scontrol\"").contains("absolute"));
        assert!(refusal("[health]\npingpong_every = \"5s\"").contains("1m to 7d"));
        let rate = "[health.rates]\nrx_dropz = { burst = 1, per_minute = 1 }";
        assert!(refusal(rate).contains("rx_drops"));
    }

    #[test]
    fn a_held_warning_that_any_job_can_cause_is_pointed_out() {
        let of = |hold: &str| settings(&format!("[health]\nhold = [{hold}]")).unwrap();
        assert!(of("'memlock', 'loopback'").warnings().is_empty());
        let warnings = of("'memlock', 'rx-drops'").warnings();
        assert!(warnings[0].contains("can cause rx-drops;"), "{warnings:?}");
        for check in CAUSED_BY_JOBS {
            assert!(WARNING_CHECKS.contains(check), "{check}");
        }
    }

    #[test]
    fn a_rebind_without_a_drain_is_pointed_out() {
        let of = |text: &str| settings(&format!("[health]\n{text}")).unwrap();
        assert!(!of("").rebind);
        let idle = of("rebind = 'idle'");
        assert!(idle.rebind && idle.warnings().is_empty());
        let warnings = of("rebind = 'idle'\non_fatal = 'log'").warnings();
        assert!(
            warnings[0].contains("rebind: has no effect"),
            "{warnings:?}"
        );
        assert!(refusal("[health]\nrebind = 'always'").contains("rebind"));
    }

    #[test]
    fn the_warnings_of_the_section_are_in_one_list_with_its_old_spellings() {
        let text =
            "[health]\nmemlock = 65536\nhold = ['rx-drops']\nrebind = 'idle'\non_fatal = 'log'";
        let warnings = settings(text).unwrap().warnings();
        for (warning, about) in warnings.iter().zip(["memlock", "hold:", "rebind:"]) {
            assert!(warning.contains(about), "{warning}");
        }
        assert_eq!(warnings.len(), 3, "{warnings:?}");
    }

    #[test]
    fn a_rate_of_the_site_replaces_ours() {
        let text = "[health.rates]\nrx_drops = { burst = 7, per_minute = 8 }";
        let rates = settings(text).unwrap().rates;
        let drops = rates.iter().find(|r| r.counter == "rx_drops").unwrap();
        assert_eq!((drops.burst, drops.per_minute), (7, 8));
    }

    #[test]
    fn none_is_no_profile() {
        assert!(
            settings("default_profile = \"auto\"")
                .unwrap()
                .default_profile
        );
        assert!(
            !settings("default_profile = \"none\"")
                .unwrap()
                .default_profile
        );
    }
}
