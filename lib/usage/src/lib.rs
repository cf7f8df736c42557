//! Did a job use EFA? The record of one job, or one of its steps, on one node.
//!
//! Root writes a record when the job or step ends: a line of the node's log
//! ([`log`]) and, if the site has such a folder, a file there ([`folder`]).
//! [`counting`] has the counters read for it.
//! `slurm-efa report` reads them again, as anybody, and believes nothing it
//! finds. What people read is made in [`text`].

#![forbid(unsafe_code)]

pub mod counting;
pub mod folder;
pub mod log;
pub mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use efa::counters::{DeviceCounters, DeviceUsage, Snapshot, Traffic, Unknown, Usage};
use host::printable;
use host::state_dir::StateError;
use host::sysroot::shown;
use slurm::NodeName;

pub use config::sections::report::Settings;
pub use folder::load_job;
pub use text::{no_traffic_warning, one_line, one_way_warning, speaks};

/// The form of a record that this version writes and reads.
pub const VERSION: u32 = 1;

/// Longest record as JSON, in bytes. 32 devices with all counters and values
/// of 20 digits make about 50 KiB.
pub const LARGEST_RECORD: usize = 256 * 1024;

/// Most problems that one record tells of.
const MOST_PROBLEMS: usize = 16;

/// A step of a job, as Slurm numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// One that srun started.
    Number(u32),
    /// The batch script.
    Batch,
    /// salloc's or sbatch's shell.
    Interactive,
    /// What runs beside the steps: logins.
    Extern,
}

impl From<u32> for Step {
    fn from(id: u32) -> Self {
        match id {
            0xffff_fffb => Self::Batch,
            0xffff_fffa => Self::Interactive,
            0xffff_fffc => Self::Extern,
            number => Self::Number(number),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Batch => f.write_str("batch"),
            Self::Interactive => f.write_str("interactive"),
            Self::Extern => f.write_str("extern"),
        }
    }
}

impl FromStr for Step {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "batch" => Ok(Self::Batch),
            "interactive" => Ok(Self::Interactive),
            "extern" => Ok(Self::Extern),
            number if number.bytes().all(|b| b.is_ascii_digit()) => number
                .parse::<u32>()
                .map(Self::from)
                .map_err(|_| "a step's number is too large"),
            _ => Err("a step is a number, `batch`, `interactive` or `extern`"),
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What one job, or one step, did on one node. `None` is "not known"
/// everywhere; nothing is ever filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// [`VERSION`].
    pub version: u32,
    /// Slurm's job id. Second in the line: the log's reader looks for it there.
    pub job: u32,
    /// The step; absent for the whole job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// How often the job had been requeued.
    #[serde(default)]
    pub restart: Option<u32>,
    /// What tells this start on this node from the others of the same job id.
    #[serde(default)]
    pub start_id: Option<String>,
    /// Slurm's name of the node.
    #[serde(with = "node_name")]
    pub node: NodeName,
    /// The node's place in the job, from 0.
    #[serde(default)]
    pub node_index: Option<u32>,
    /// How many nodes the job has.
    #[serde(default)]
    pub nodes: Option<u32>,
    /// Their names as Slurm writes them, e.g. `n[1-4]`.
    #[serde(default)]
    pub node_list: Option<String>,
    /// Whose job it is.
    pub uid: u32,
    /// The profile in force.
    #[serde(default)]
    pub profile: Option<String>,
    /// The node's type.
    #[serde(default)]
    pub instance_type: Option<String>,
    /// When the counters were read first, in seconds since 1970 UTC.
    #[serde(default)]
    pub start: Option<u64>,
    /// When they were read last, in seconds since 1970 UTC.
    pub end: u64,
    /// How late the first reading was: it runs beside the job's start, which
    /// does not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_reading: Option<FirstReading>,
    /// Whether other jobs ran on the node meanwhile, whose traffic the same
    /// counters count.
    #[serde(default)]
    pub shared: Option<bool>,
    /// Whether Lustre may use EFA on this node, which the same counters count.
    #[serde(default)]
    pub lustre: Option<bool>,
    /// What went wrong with the record, as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What each device counted.
    pub devices: Usage,
}

/// When the counters were read at the start of a job or step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstReading {
    /// How long after the start of the job's prolog, or of the step's tasks, the
    /// last device was read, in ms.
    pub after_ms: u64,
    /// Devices that were read so late that they may have moved something before,
    /// which is missing in the record.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub late: BTreeSet<String>,
}

/// A device that was read later than this after the start may have moved
/// something before: a program must be started and linked, open the device and
/// set up a connection first.
const LATE: Duration = Duration::from_millis(250);

impl FirstReading {
    /// Of this reading, for what started at `start_ns` since boot.
    #[must_use]
    pub fn of(reading: &Snapshot, start_ns: u64) -> Self {
        let after = |device: &DeviceCounters| {
            let read = device.read_ns.unwrap_or(reading.taken.since_boot_ns);
            Duration::from_nanos(read.saturating_sub(start_ns))
        };
        let devices = reading.devices.iter();
        let late = devices.filter(|(_, device)| after(device) > LATE);
        let last = reading.devices.values().map(after).max();
        Self {
            after_ms: last.map_or(0, |last| {
                u64::try_from(last.as_millis()).unwrap_or(u64::MAX)
            }),
            late: late.map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// How a record is written: with the totals, for people with `jq`. They are
/// not read back but added up again.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a UsageRecord,
    totals: Traffic,
}

impl UsageRecord {
    /// The sum over the node's devices.
    #[must_use]
    pub fn totals(&self) -> Traffic {
        let mut sum = Traffic::default();
        for (name, device) in &self.devices.0 {
            sum.merge(&self.traffic_of(name, device));
        }
        if self.is_unread() {
            sum.add_device(&DeviceUsage::Unknown(Unknown::NotRead));
        }
        sum
    }

    /// Whether no device was read, for a reason that its problems give: not the
    /// same as a node without devices.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.devices.0.is_empty() && !self.problems.is_empty()
    }

    /// What one of its devices moved.
    #[must_use]
    pub fn traffic_of(&self, name: &str, device: &DeviceUsage) -> Traffic {
        let mut traffic = Traffic::of_device(device);
        let first = self.first_reading.as_ref();
        if first.is_some_and(|first| first.late.contains(name)) {
            traffic.doubt(Unknown::ReadLate);
        }
        traffic
    }

    /// Adds a sentence about what went wrong, made safe to show. Those beyond
    /// the 16th are dropped.
    pub fn add_problem(&mut self, problem: &str) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(printable(problem, 300));
        }
    }

    /// `job 12`, or `step 12.0`.
    #[must_use]
    pub fn what(&self) -> String {
        match self.step {
            Some(step) => format!("step {}.{step}", self.job),
            None => format!("job {}", self.job),
        }
    }

    /// The record as one line of JSON, with its line break.
    ///
    /// # Errors
    /// It is longer than [`LARGEST_RECORD`].
    pub fn to_line(&self) -> Result<String, UsageError> {
        let written = Written {
            record: self,
            totals: self.totals(),
        };
        let mut line = serde_json::to_string(&written).map_err(|error| UsageError::Record {
            reason: error.to_string(),
        })?;
        line.push('\n');
        if line.len() > LARGEST_RECORD {
            let reason = format!("it has {} bytes, the limit is {LARGEST_RECORD}", line.len());
            return Err(UsageError::Record { reason });
        }
        Ok(line)
    }

    /// Reads what [`UsageRecord::to_line`] wrote, or says why not.
    ///
    /// # Errors
    /// The reason, safe to show.
    pub fn from_line(line: &str) -> Result<Self, String> {
        if line.len() > LARGEST_RECORD {
            return Err(format!("longer than {LARGEST_RECORD} bytes"));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let said = |error: serde_json::Error| printable(&error.to_string(), 200);
        let version = serde_json::from_str::<Version>(line).map_err(said)?.version;
        if version != VERSION {
            return Err(format!(
                "its form has version {version}, this program reads version {VERSION}"
            ));
        }
        serde_json::from_str(line).map_err(said)
    }
}

/// [`NodeName`] in JSON, checked again when it is read.
mod node_name {
    use super::{Deserialize, Deserializer, NodeName, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &NodeName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeName, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a record could not be written, or records not be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The folder cannot be trusted, or its lock not be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The record itself is no good.
    #[error("the record of a job cannot be written: {reason}")]
    Record {
        /// Why.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}{}", shown(path), hint(action, source))]
    Io {
        /// `write`, `open`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something else lies where a file of ours should.
    #[error("{}: not used, because {reason}", shown(path))]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong and how to put it right.
        reason: String,
    },
}

/// What the system's reason most often means for root, who writes.
fn hint(action: &str, source: &std::io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) if action == folder::WRITE => {
            " (an NFS export with root_squash refuses root; use another folder, \
             or export it with no_root_squash)"
        }
        Some(libc::ENOSPC | libc::EDQUOT) => "; make room there",
        _ => "",
    }
}

/// Something that was found and not used, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(String);

impl Problem {
    /// A sentence, made safe to show.
    #[must_use]
    pub fn new(sentence: &str) -> Self {
        Self(printable(sentence, 600))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use efa::counters::{Amount, Measure, Moment};
    use proptest::prelude::*;

    /// A record of a job on two nodes, of which this one has two devices that
    /// moved `bytes` each way each, by RDMA write.
    pub(crate) fn record(job: u32, node: &str, bytes: u64) -> UsageRecord {
        let device = || {
            let known = Amount::Known;
            let counters = [
                ("tx_bytes", known(bytes)),
                ("rx_bytes", known(bytes)),
                ("send_wrs", known(1)),
                ("recv_wrs", known(1)),
                ("rdma_write_wrs", known(2)),
                ("rdma_read_wrs", known(0)),
                ("send_bytes", known(bytes / 32)),
                ("recv_bytes", known(bytes / 32)),
                ("rdma_write_bytes", known(bytes - bytes / 32)),
                ("rdma_write_recv_bytes", known(bytes - bytes / 32)),
                ("rdma_read_bytes", known(0)),
                ("rdma_read_resp_bytes", known(0)),
                ("retrans_pkts", known(0)),
                ("rdma_read_wr_err", known(0)),
                ("rdma_write_wr_err", known(0)),
                ("unresponsive_remote_events", known(0)),
                ("impaired_remote_conn_events", known(0)),
                ("rx_drops", known(0)),
            ];
            let counters = counters.map(|(name, amount)| (name.to_owned(), amount));
            DeviceUsage::Counted(counters.into_iter().collect())
        };
        let devices = ["rdmap79s0", "rdmap80s0"].map(|name| (name.to_owned(), device()));
        UsageRecord {
            version: VERSION,
            job,
            step: None,
            restart: Some(0),
            start_id: Some("1".to_owned()),
            node: node.parse().unwrap(),
            node_index: Some(0),
            nodes: Some(2),
            node_list: Some("n[1-2]".to_owned()),
            uid: 1000,
            profile: Some("p5".to_owned()),
            instance_type: Some("p5.48xlarge".to_owned()),
            start: Some(1_795_320_000),
            end: 1_795_323_600,
            first_reading: None,
            shared: Some(false),
            lustre: Some(false),
            problems: Vec::new(),
            devices: Usage(devices.into_iter().collect()),
        }
    }

    #[test]
    fn a_record_is_one_line_that_says_its_job_first_and_comes_back_the_same() {
        let mut record = record(12, "n1", 4096);
        record.step = Some(Step::Batch);
        record.add_problem("a\nb");
        record
            .devices
            .0
            .insert("x".to_owned(), DeviceUsage::Unknown(Unknown::DeviceAdded));
        let line = record.to_line().unwrap();
        assert!(line.starts_with(r#"{"version":1,"job":12,"#), "{line}");
        assert!(line.contains(r#""totals":{"sent_bytes":{"at_least":8192,"#));
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(UsageRecord::from_line(&line).unwrap(), record);
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_its_number() {
        let line = record(12, "n1", 1).to_line().unwrap();
        let line = line.replace("\"version\":1", "\"version\":9");
        assert!(
            UsageRecord::from_line(&line)
                .unwrap_err()
                .contains("version 9")
        );
    }

    #[test]
    fn a_record_with_a_node_name_that_is_a_path_is_refused() {
        let line = record(12, "n1", 1).to_line().unwrap();
        assert!(UsageRecord::from_line(&line.replace("\"n1\"", "\"../n1\"")).is_err());
    }

    #[test]
    fn a_record_of_before_there_were_first_readings_is_still_read() {
        let mut record = record(12, "n1", 1);
        let old = record.to_line().unwrap();
        assert!(!old.contains("first_reading"));
        assert_eq!(UsageRecord::from_line(&old).unwrap(), record);
        record.first_reading = Some(FirstReading {
            after_ms: 7,
            late: BTreeSet::new(),
        });
        let line = record.to_line().unwrap();
        assert!(line.contains(r#""first_reading":{"after_ms":7}"#), "{line}");
        assert_eq!(UsageRecord::from_line(&line).unwrap(), record);
    }

    #[test]
    fn what_a_device_moved_that_was_read_late_is_a_lower_bound() {
        const START: u64 = 1_000_000_000;
        let read = |after_ms: u64| DeviceCounters {
            read_ns: Some(START + after_ms * 1_000_000),
            ..DeviceCounters::default()
        };
        let mut reading = Snapshot::empty(Moment::now());
        let devices = [("rdmap79s0", read(40)), ("rdmap80s0", read(1200))];
        reading.devices = devices.map(|(name, it)| (name.to_owned(), it)).into();
        let first = FirstReading::of(&reading, START);
        assert_eq!(first.after_ms, 1200);
        assert_eq!(first.late, ["rdmap80s0".to_owned()].into());
        let mut record = record(12, "n1", 100);
        record.first_reading = Some(first);
        let sent = record.totals().of(Measure::SentBytes);
        assert_eq!((sent.exact(), sent.at_least()), (None, Some(200)));
        assert!(one_line(&record).contains("rdmap80s0: it was read late at the start"));
        // In time, or even before the tasks.
        reading.devices.remove("rdmap80s0");
        record.first_reading = Some(FirstReading::of(&reading, 2 * START));
        assert_eq!(record.totals().of(Measure::SentBytes).exact(), Some(200));
    }

    #[test]
    fn problems_beyond_the_limit_are_dropped() {
        let mut record = record(12, "n1", 1);
        for _ in 0..100 {
            record.add_problem(&"x".repeat(1000));
        }
        assert_eq!(record.problems.len(), MOST_PROBLEMS);
        assert!(record.to_line().unwrap().len() < LARGEST_RECORD);
    }

    #[test]
    fn steps_have_slurms_names_and_numbers() {
        for (id, name) in [
            (0, "0"),
            (0xffff_fffb, "batch"),
            (0xffff_fffa, "interactive"),
            (0xffff_fffc, "extern"),
        ] {
            assert_eq!(Step::from(id).to_string(), name);
            assert_eq!(name.parse::<Step>().unwrap(), Step::from(id));
        }
        for name in ["", "-1", "+1", "99999999999", "x"] {
            assert!(name.parse::<Step>().is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn hostile_lines_are_never_a_panic(text in any::<String>()) {
            let _ = UsageRecord::from_line(&text);
        }
    }
}
