//! What the EFA devices have counted, and what they counted between two moments.
//!
//! A counter is only ever worth its difference, and a difference only if both
//! ends are known to belong together. So nothing here is a bare number: a value
//! that could not be read, or a difference that means nothing, carries its
//! reason ([`Unknown`]) up to the person who reads the report.
//!
//! What the counters are called and where they lie: EFA driver r3.1.0. The
//! driver asks the device for them by an admin command; the kernel keeps the
//! answer for `lifespan` ms (Documentation/infiniband/sysfs.txt), so reading a
//! whole directory costs one command, and a value may be that old.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::devices::CLASS;
use host::Deadline;
use host::Gather;
use host::Sysroot;

/// The counters of the port, in `ports/1/hw_counters`; the last five with
/// driver 2.17 and later.
pub const PORT: [&str; 22] = [
    "tx_bytes",
    "tx_pkts",
    "rx_bytes",
    "rx_pkts",
    "rx_drops",
    "send_bytes",
    "send_wrs",
    "recv_bytes",
    "recv_wrs",
    "rdma_read_wrs",
    "rdma_read_bytes",
    "rdma_read_wr_err",
    "rdma_read_resp_bytes",
    "rdma_write_wrs",
    "rdma_write_bytes",
    "rdma_write_wr_err",
    "rdma_write_recv_bytes",
    "retrans_bytes",
    "retrans_pkts",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
];

/// The counters of the device, in `hw_counters`; a kernel that knows no
/// counters of devices lists them with those of the port.
pub const DEVICE: [&str; 12] = [
    "submitted_cmds",
    "completed_cmds",
    "cmds_err",
    "no_completion_cmds",
    "keep_alive_rcvd",
    "alloc_pd_err",
    "create_qp_err",
    "create_cq_err",
    "reg_mr_err",
    "alloc_ucontext_err",
    "create_ah_err",
    "mmap_err",
];

/// Largest snapshot that [`Snapshot::from_json`] takes, in bytes. 32 devices
/// with all their counters make at most 64 KiB.
pub const LARGEST_SNAPSHOT: usize = 1024 * 1024;

/// Most counters that one directory may have; the driver of today has 22.
const MOST_COUNTERS: usize = 128;

/// Longest name of a counter, in bytes; the longest of today has 27.
const LONGEST_NAME: usize = 64;

/// Most bytes that are read of a counter: a number of 64 bits has 20.
const LONGEST_NUMBER: usize = 64;

/// In `hw_counters`, but a setting: for how many ms the kernel keeps a value.
const NOT_A_COUNTER: &str = "lifespan";

/// A quantity that reports speak of, as the sum of one or more counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Bytes that left the device.
    SentBytes,
    /// Bytes that arrived.
    ReceivedBytes,
    /// Work requests that send: sends and RDMA writes.
    SentOperations,
    /// Work requests that receive: receives and RDMA reads.
    ReceivedOperations,
    /// Bytes moved by sends and receives, both directions.
    SendRecvBytes,
    /// Bytes moved by RDMA writes, this node's and the others'.
    RdmaWriteBytes,
    /// Bytes moved by RDMA reads, this node's and the others'.
    RdmaReadBytes,
    /// Packets that were sent again.
    RetransmittedPackets,
    /// RDMA work requests of this node that failed.
    FailedOperations,
    /// Times that a remote did not answer or was reached badly. They may be
    /// the remote's fault, or the network's.
    RemoteEvents,
    /// Packets that arrived and were dropped.
    DroppedPackets,
}

/// Every measure and the counters that make it up. Nothing else says which
/// counters a report needs.
const MEASURES: [(Measure, &[&str]); 11] = [
    (Measure::SentBytes, &["tx_bytes"]),
    (Measure::ReceivedBytes, &["rx_bytes"]),
    (Measure::SentOperations, &["send_wrs", "rdma_write_wrs"]),
    (Measure::ReceivedOperations, &["recv_wrs", "rdma_read_wrs"]),
    (Measure::SendRecvBytes, &["send_bytes", "recv_bytes"]),
    (
        Measure::RdmaWriteBytes,
        &["rdma_write_bytes", "rdma_write_recv_bytes"],
    ),
    (
        Measure::RdmaReadBytes,
        &["rdma_read_bytes", "rdma_read_resp_bytes"],
    ),
    (Measure::RetransmittedPackets, &["retrans_pkts"]),
    (
        Measure::FailedOperations,
        &["rdma_read_wr_err", "rdma_write_wr_err"],
    ),
    (
        Measure::RemoteEvents,
        &["unresponsive_remote_events", "impaired_remote_conn_events"],
    ),
    (Measure::DroppedPackets, &["rx_drops"]),
];

impl Measure {
    /// Every measure.
    pub fn all() -> impl Iterator<Item = Self> {
        MEASURES.iter().map(|(measure, _)| *measure)
    }

    /// The counters that make it up.
    #[must_use]
    pub fn counters(self) -> &'static [&'static str] {
        MEASURES
            .iter()
            .find(|(measure, _)| *measure == self)
            .map_or(&[], |(_, counters)| counters)
    }
}

/// The counters that reports need; all of them are the port's.
fn reported() -> impl Iterator<Item = &'static str> {
    MEASURES
        .iter()
        .flat_map(|(_, counters)| counters.iter().copied())
}

/// What reading one counter gave. In JSON a number, or a text that says why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    /// Its value.
    Value(u64),
    /// It is there and could not be read. A few words, e.g. `os error 5`.
    Failed(String),
}

/// The counters of one device. One that the driver does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounters {
    /// The inode of the device's counters. sysfs numbers afresh what is made
    /// afresh: a device that was taken away and came back has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// When the last of them was read, in nanoseconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ns: Option<u64>,
    /// By the kernel's names. Should the device itself have a counter of the
    /// same name as its port, that one is called `device.NAME`.
    pub counters: BTreeMap<String, Reading>,
}

/// How much a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Every counter.
    Full,
    /// The counters that a [`Measure`] needs.
    Traffic,
}

/// A moment, told so that two can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The kernel's boot; `None` where it could not be read.
    pub boot_id: Option<String>,
    /// Time since that boot, suspension included, in nanoseconds.
    pub since_boot_ns: u64,
    /// Wall time, in seconds since 1970 UTC; for people, never for arithmetic.
    pub unix_s: u64,
}

impl Moment {
    /// Now, on this machine (never on a simulated one).
    #[must_use]
    pub fn now() -> Self {
        Self {
            boot_id: Sysroot::real()
                .read_small("proc/sys/kernel/random/boot_id")
                .ok()
                .filter(|id| !id.is_empty() && id.len() <= 64),
            since_boot_ns: since_boot_ns(),
            unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

/// Time since boot, suspension included, in nanoseconds.
#[must_use]
pub fn since_boot_ns() -> u64 {
    let since_boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(since_boot.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The counters of every EFA device of a node at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the reading began.
    pub taken: Moment,
    /// Which counters were read.
    pub scope: Scope,
    /// By the kernel's names of the devices.
    pub devices: BTreeMap<String, DeviceCounters>,
    /// RDMA devices of which it could not be told whether they are EFA.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unidentified: BTreeSet<String>,
    /// Devices that did not answer, and the process that reads each, which may
    /// still hang.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub silent: BTreeMap<String, u32>,
}

impl Snapshot {
    /// One without any device yet.
    #[must_use]
    pub fn empty(taken: Moment) -> Self {
        Self {
            taken,
            scope: Scope::Traffic,
            devices: BTreeMap::new(),
            unidentified: BTreeSet::new(),
            silent: BTreeMap::new(),
        }
    }

    /// One line of JSON, without a line break at its end.
    ///
    /// # Errors
    /// None that is known; [`serde_json`] leaves it open.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads what [`Snapshot::to_json`] wrote.
    ///
    /// # Errors
    /// It is not that, or longer than [`LARGEST_SNAPSHOT`].
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        if text.len() > LARGEST_SNAPSHOT {
            return Err(serde::de::Error::custom("longer than any snapshot is"));
        }
        serde_json::from_str(text)
    }
}

fn is_counter(name: &str) -> bool {
    name != NOT_A_COUNTER
        && (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

impl DeviceCounters {
    /// Reads a device's counters, as `cat` would: whatever blocks there blocks
    /// the caller. Only for a process that may hang.
    #[must_use]
    pub fn read(sysroot: &Sysroot, name: &str, scope: Scope, deadline: Deadline) -> Self {
        let mut device = Self::default();
        let base = format!("{CLASS}/{name}");
        if let Some(port) = folder(sysroot, &format!("{base}/ports/1/hw_counters")) {
            device.inode = rustix::fs::fstat(&port).ok().map(|stat| stat.st_ino);
            match scope {
                Scope::Traffic => {
                    for counter in reported() {
                        device.add(&port, counter, deadline);
                    }
                }
                Scope::Full => device.add_all(&port, deadline),
            }
        }
        // Without the folder there are no counters, as with a driver that has none.
        if scope == Scope::Full
            && let Some(own) = folder(sysroot, &format!("{base}/hw_counters"))
        {
            device.add_all(&own, deadline);
        }
        device.read_ns = Some(since_boot_ns());
        device
    }

    fn add_all(&mut self, folder: &OwnedFd, deadline: Deadline) {
        let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(list) =
            rustix::fs::openat(folder, ".", list, Mode::empty()).and_then(rustix::fs::Dir::new)
        else {
            return;
        };
        let names = list.flatten().filter_map(|entry| {
            let name = entry.file_name().to_str().ok()?;
            is_counter(name).then(|| name.to_owned())
        });
        for counter in names.take(MOST_COUNTERS) {
            self.add(folder, &counter, deadline);
        }
    }

    fn add(&mut self, folder: &OwnedFd, counter: &str, deadline: Deadline) {
        let reading = if deadline.passed() {
            Reading::Failed("not read: out of time".to_owned())
        } else {
            match read_counter(folder, counter) {
                Ok(None) => return,
                Ok(Some(value)) => Reading::Value(value),
                Err(reason) => Reading::Failed(reason),
            }
        };
        let key = match self.counters.contains_key(counter) {
            true => format!("device.{counter}"),
            false => counter.to_owned(),
        };
        self.counters.insert(key, reading);
    }
}

/// A folder to read counters in; `None` where it is missing.
fn folder(sysroot: &Sysroot, rel: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(sysroot.path(rel), flags, Mode::empty()).ok()
}

/// A counter's value; `None` where the driver does not have it. It may hang.
///
/// # Errors
/// A few words without the path, which the counter's place already tells: a
/// dead device has 34 of them.
fn read_counter(folder: &OwnedFd, counter: &str) -> Result<Option<u64>, String> {
    let failed = |errno: Errno| format!("os error {}", errno.raw_os_error());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::openat(folder, counter, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    // sysfs gives a whole attribute to one read.
    let mut bytes = [0; LONGEST_NUMBER];
    let length = rustix::io::read(&file, &mut bytes).map_err(failed)?;
    let text = bytes.get(..length).unwrap_or_default().trim_ascii();
    match std::str::from_utf8(text).ok().and_then(plain_number) {
        Some(value) => Ok(Some(value)),
        None => Err("not a number".to_owned()),
    }
}

/// Digits alone: `parse` would take a sign as well.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Why a difference is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The counters of no device were read.
    NotRead,
    /// Nothing was read at the start.
    NoBaseline,
    /// The node was booted in between.
    OtherBoot,
    /// It could not be read whether the node was booted in between.
    BootUnknown,
    /// The reading that should be the first was the later one.
    OutOfOrder,
    /// The device was there at the start only.
    DeviceVanished,
    /// The device was there at the end only.
    DeviceAdded,
    /// The device went away and came back, as on a reload of the driver.
    DeviceReloaded,
    /// At the start or at the end it could not be told what the device is.
    DeviceUnreadable,
    /// The device did not answer at the start.
    NoAnswerBefore,
    /// The device did not answer at the end, in time.
    NoAnswerAfter,
    /// It was read so late at the start that it may have moved something before.
    ReadLate,
    /// The driver has no such counter.
    NoSuchCounter,
    /// The driver has this counter at one of the two ends only.
    CounterChanged,
    /// The counter could not be read at the start.
    UnreadableBefore,
    /// The counter could not be read at the end.
    UnreadableAfter,
    /// The counter is smaller than it was: it wrapped or was reset.
    WentBackwards,
    /// The sum does not fit into 64 bits.
    TooLarge,
}

impl Unknown {
    /// The reason as a part of a sentence, after the name of a device.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotRead => "the counters were not read",
            Self::NoBaseline => "nothing was read at the start",
            Self::OtherBoot => "the node was booted in between",
            Self::BootUnknown => "it is not known whether the node was booted in between",
            Self::OutOfOrder => "the two readings are in the wrong order",
            Self::DeviceVanished => "the device vanished in between",
            Self::DeviceAdded => "the device was added in between",
            Self::DeviceReloaded => "the device went away and came back (driver reload)",
            Self::DeviceUnreadable => "the device could not be identified",
            Self::NoAnswerBefore => "the device did not answer at the start",
            Self::NoAnswerAfter => "the device did not answer at the end",
            Self::ReadLate => "it was read late at the start, what it moved before is missing",
            Self::NoSuchCounter => "the driver does not count it",
            Self::CounterChanged => "the driver counted it for a part of the time only",
            Self::UnreadableBefore => "a counter could not be read at the start",
            Self::UnreadableAfter => "a counter could not be read at the end",
            Self::WentBackwards => "a counter went backwards (wrapped, or reset)",
            Self::TooLarge => "the sum is too large",
        }
    }

    /// Whether it tells of something wrong with this node's devices, not
    /// only of something that we do not have.
    #[must_use]
    pub fn is_fault(self) -> bool {
        match self {
            Self::DeviceVanished
            | Self::DeviceAdded
            | Self::DeviceReloaded
            | Self::DeviceUnreadable
            | Self::NoAnswerBefore
            | Self::NoAnswerAfter
            | Self::UnreadableBefore
            | Self::UnreadableAfter
            | Self::WentBackwards => true,
            Self::NotRead
            | Self::NoBaseline
            | Self::OtherBoot
            | Self::BootUnknown
            | Self::OutOfOrder
            | Self::ReadLate
            | Self::NoSuchCounter
            | Self::CounterChanged
            | Self::TooLarge => false,
        }
    }
}

/// The difference of one counter. In JSON a number, or the reason as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// This value.
    Known(u64),
    /// Not to be told.
    Unknown(Unknown),
}

/// What one device counted. In JSON an object, or the reason as a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DeviceUsage {
    /// Nothing of this device is known.
    Unknown(Unknown),
    /// The differences by the kernel's names; a counter that the driver does
    /// not have is absent.
    Counted(BTreeMap<String, Amount>),
}

impl DeviceUsage {
    /// The difference of one counter.
    #[must_use]
    pub fn amount(&self, counter: &str) -> Amount {
        match self {
            Self::Unknown(reason) => Amount::Unknown(*reason),
            Self::Counted(counters) => counters
                .get(counter)
                .copied()
                .unwrap_or(Amount::Unknown(Unknown::NoSuchCounter)),
        }
    }
}

/// What the devices of a node counted between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage(pub BTreeMap<String, DeviceUsage>);

impl Usage {
    /// What was counted between two snapshots of the same node.
    #[must_use]
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let whole = incomparable(&before.taken, &after.taken);
        let both_full = before.scope == Scope::Full && after.scope == Scope::Full;
        let answered = before.devices.keys().chain(after.devices.keys());
        let silent = before.silent.keys().chain(after.silent.keys());
        let names: BTreeSet<&String> = answered.chain(silent).gather();
        let devices = names.into_iter().map(|name| {
            let usage = match (before.devices.get(name), after.devices.get(name), whole) {
                (_, _, Some(reason)) => DeviceUsage::Unknown(reason),
                (Some(before), Some(after), None) => device_between(before, after, both_full),
                _ if before.silent.contains_key(name) => {
                    DeviceUsage::Unknown(Unknown::NoAnswerBefore)
                }
                _ if after.silent.contains_key(name) => {
                    DeviceUsage::Unknown(Unknown::NoAnswerAfter)
                }
                _ if before.unidentified.contains(name) || after.unidentified.contains(name) => {
                    DeviceUsage::Unknown(Unknown::DeviceUnreadable)
                }
                (Some(_), None, None) => DeviceUsage::Unknown(Unknown::DeviceVanished),
                (None, _, None) => DeviceUsage::Unknown(Unknown::DeviceAdded),
            };
            (name.clone(), usage)
        });
        Self(devices.gather())
    }

    /// What is known without a reading at the start: nothing, of each device.
    #[must_use]
    pub fn without_baseline(after: &Snapshot) -> Self {
        let unknown = DeviceUsage::Unknown(Unknown::NoBaseline);
        let names = after.devices.keys().chain(after.silent.keys()).cloned();
        Self(names.map(|name| (name, unknown.clone())).gather())
    }

    /// The sum over all devices.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        for device in self.0.values() {
            sum.add_device(device);
        }
        sum
    }
}

/// Why two moments cannot be compared.
fn incomparable(before: &Moment, after: &Moment) -> Option<Unknown> {
    match (&before.boot_id, &after.boot_id) {
        (Some(one), Some(other)) if one != other => Some(Unknown::OtherBoot),
        (Some(_), Some(_)) if before.since_boot_ns > after.since_boot_ns => {
            Some(Unknown::OutOfOrder)
        }
        (Some(_), Some(_)) => None,
        _ => Some(Unknown::BootUnknown),
    }
}

fn device_between(before: &DeviceCounters, after: &DeviceCounters, both_full: bool) -> DeviceUsage {
    if let (Some(one), Some(other)) = (before.inode, after.inode)
        && one != other
    {
        return DeviceUsage::Unknown(Unknown::DeviceReloaded);
    }
    let names: BTreeSet<&String> = before.counters.keys().chain(after.counters.keys()).gather();
    let wanted = names
        .into_iter()
        .filter(|name| both_full || reported().any(|reported| reported == name.as_str()));
    let amounts = wanted.map(|name| {
        let amount = match (before.counters.get(name), after.counters.get(name)) {
            (Some(Reading::Failed(_)), _) => Amount::Unknown(Unknown::UnreadableBefore),
            (_, Some(Reading::Failed(_))) => Amount::Unknown(Unknown::UnreadableAfter),
            (Some(Reading::Value(before)), Some(Reading::Value(after))) => after
                .checked_sub(*before)
                .map_or(Amount::Unknown(Unknown::WentBackwards), Amount::Known),
            _ => Amount::Unknown(Unknown::CounterChanged),
        };
        (name.clone(), amount)
    });
    DeviceUsage::Counted(amounts.gather())
}

/// A sum of which parts may be unknown. In JSON a number if all is known, else
/// `{"at_least":N,"unknown":[…]}`, without `at_least` where nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SumForm", into = "SumForm")]
pub struct Sum {
    known: Option<u64>,
    unknown: BTreeSet<Unknown>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SumForm {
    Exact(u64),
    Partial {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_least: Option<u64>,
        unknown: BTreeSet<Unknown>,
    },
}

impl From<Sum> for SumForm {
    fn from(sum: Sum) -> Self {
        match sum.exact() {
            Some(value) => Self::Exact(value),
            None => Self::Partial {
                at_least: sum.known,
                unknown: sum.unknown,
            },
        }
    }
}

impl From<SumForm> for Sum {
    fn from(form: SumForm) -> Self {
        match form {
            SumForm::Exact(value) => Self {
                known: Some(value),
                unknown: BTreeSet::new(),
            },
            SumForm::Partial { at_least, unknown } => Self {
                known: at_least,
                unknown,
            },
        }
    }
}

impl Sum {
    /// The sum, if every part of it is known. A sum of nothing is 0.
    #[must_use]
    pub fn exact(&self) -> Option<u64> {
        self.unknown.is_empty().then(|| self.known.unwrap_or(0))
    }

    /// The sum of the known parts; `None` where there are only unknown ones.
    #[must_use]
    pub fn at_least(&self) -> Option<u64> {
        self.known.or_else(|| self.exact())
    }

    /// Why parts are unknown.
    #[must_use]
    pub fn unknown(&self) -> &BTreeSet<Unknown> {
        &self.unknown
    }

    /// The same sum of what the driver counts at all: parts that it has no
    /// counter for are left out, if it has one for any.
    #[must_use]
    pub fn as_counted(&self) -> Self {
        let mut counted = self.clone();
        if counted.known.is_some() {
            counted.unknown.remove(&Unknown::NoSuchCounter);
        }
        counted
    }

    /// Adds one part.
    pub fn add(&mut self, part: Amount) {
        match part {
            Amount::Unknown(reason) => {
                self.unknown.insert(reason);
            }
            Amount::Known(value) => match self.known.unwrap_or(0).checked_add(value) {
                Some(sum) => self.known = Some(sum),
                // What was summed so far stays a true lower bound.
                None => {
                    self.unknown.insert(Unknown::TooLarge);
                }
            },
        }
    }

    /// Adds all parts of another sum.
    pub fn merge(&mut self, other: &Self) {
        self.unknown.extend(&other.unknown);
        if let Some(value) = other.known {
            self.add(Amount::Known(value));
        }
    }
}

/// Each [`Measure`], summed over devices or nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Traffic(BTreeMap<Measure, Sum>);

impl Traffic {
    /// The sum of one measure.
    #[must_use]
    pub fn of(&self, measure: Measure) -> Sum {
        self.0.get(&measure).cloned().unwrap_or_default()
    }

    /// One device's part.
    #[must_use]
    pub fn of_device(device: &DeviceUsage) -> Self {
        let mut sum = Self::default();
        sum.add_device(device);
        sum
    }

    /// Adds one device's part.
    pub fn add_device(&mut self, device: &DeviceUsage) {
        for (measure, counters) in &MEASURES {
            let sum = self.0.entry(*measure).or_default();
            for counter in *counters {
                sum.add(device.amount(counter));
            }
        }
    }

    /// Adds another traffic's parts.
    pub fn merge(&mut self, other: &Self) {
        for (measure, sum) in &other.0 {
            self.0.entry(*measure).or_default().merge(sum);
        }
    }

    /// All sums become lower bounds, for this reason.
    pub fn doubt(&mut self, reason: Unknown) {
        for sum in self.0.values_mut().filter(|sum| sum.known.is_some()) {
            sum.unknown.insert(reason);
        }
    }

    /// Failed operations and remote events together, as far as the driver
    /// counts them.
    #[must_use]
    pub fn errors(&self) -> Sum {
        let mut sum = self.of(Measure::FailedOperations);
        sum.merge(&self.of(Measure::RemoteEvents));
        sum.as_counted()
    }

    /// Whether it is certain that nothing was sent and nothing received.
    #[must_use]
    pub fn is_none(&self) -> bool {
        [Measure::SentBytes, Measure::ReceivedBytes]
            .iter()
            .all(|measure| self.of(*measure).exact() == Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    fn port(root: &Path, device: &str) -> std::path::PathBuf {
        root.join(CLASS).join(device).join("ports/1/hw_counters")
    }

    fn add_device(root: &Path, name: &str, value: &str) {
        let device = root.join(CLASS).join(name);
        for dir in ["device", "hw_counters", "ports/1/hw_counters"] {
            fs::create_dir_all(device.join(dir)).unwrap();
        }
        fs::write(device.join("device/vendor"), "0x1d0f\n").unwrap();
        fs::write(device.join("device/device"), "0xefa1\n").unwrap();
        for counter in PORT {
            fs::write(port(root, name).join(counter), format!("{value}\n")).unwrap();
        }
        for counter in DEVICE {
            fs::write(device.join("hw_counters").join(counter), value).unwrap();
        }
        fs::write(port(root, name).join("lifespan"), "12\n").unwrap();
    }

    fn moment(ns: u64) -> Moment {
        Moment {
            boot_id: Some("boot".to_owned()),
            since_boot_ns: ns,
            unix_s: 1_795_320_000,
        }
    }

    fn minute() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    /// All devices, one after the other.
    fn read(root: &Path, ns: u64, scope: Scope, deadline: Deadline) -> Snapshot {
        let sysroot = Sysroot::new(root.into());
        let found = crate::devices::names(&sysroot, &[]).unwrap();
        let devices = found.efa.into_iter().map(|name| {
            let counters = DeviceCounters::read(&sysroot, &name, scope, deadline);
            (name, counters)
        });
        Snapshot {
            scope,
            devices: devices.collect(),
            unidentified: found.unidentified.into_iter().collect(),
            ..Snapshot::empty(moment(ns))
        }
    }

    fn full(root: &Path, ns: u64) -> Snapshot {
        read(root, ns, Scope::Full, minute())
    }

    fn node(devices: usize, value: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..devices {
            add_device(dir.path(), &format!("rdmap{}s0", 79 + n), value);
        }
        dir
    }

    fn known(value: u64) -> Amount {
        Amount::Known(value)
    }

    #[test]
    fn every_counter_of_port_and_device_is_read_and_the_setting_beside_them_is_not() {
        let dir = node(1, "7");
        let snapshot = full(dir.path(), 1);
        let device = &snapshot.devices["rdmap79s0"];
        assert_eq!(device.counters.len(), PORT.len() + DEVICE.len());
        for counter in PORT.iter().chain(&DEVICE) {
            assert_eq!(device.counters[*counter], Reading::Value(7), "{counter}");
        }
    }

    #[test]
    fn counters_of_a_future_driver_are_kept_by_name_and_missing_ones_are_absent() {
        let dir = node(1, "7");
        fs::remove_file(port(dir.path(), "rdmap79s0").join("retrans_pkts")).unwrap();
        fs::write(port(dir.path(), "rdmap79s0").join("warp_events"), "3").unwrap();
        fs::write(port(dir.path(), "rdmap79s0").join("a b"), "3").unwrap();
        let counters = &full(dir.path(), 1).devices["rdmap79s0"].counters;
        assert_eq!(counters["warp_events"], Reading::Value(3));
        assert!(!counters.contains_key("retrans_pkts"));
        assert!(!counters.contains_key("a b"));
    }

    #[test]
    fn a_counter_that_cannot_be_read_is_kept_as_an_error_and_never_as_zero() {
        let dir = node(1, "7");
        let port = port(dir.path(), "rdmap79s0");
        for (counter, text) in [
            ("tx_bytes", ""),
            ("rx_bytes", "+1"),
            ("rx_pkts", "99999999999999999999"),
        ] {
            fs::write(port.join(counter), text).unwrap();
        }
        fs::remove_file(port.join("tx_pkts")).unwrap();
        fs::create_dir(port.join("tx_pkts")).unwrap();
        let snapshot = full(dir.path(), 1);
        for counter in ["tx_bytes", "rx_bytes", "rx_pkts", "tx_pkts"] {
            let reading = &snapshot.devices["rdmap79s0"].counters[counter];
            assert!(matches!(reading, Reading::Failed(_)), "{counter}");
        }
        let usage = Usage::between(&snapshot, &full(dir.path(), 2));
        assert_eq!(
            usage.0["rdmap79s0"].amount("tx_bytes"),
            Amount::Unknown(Unknown::UnreadableBefore)
        );
        assert_eq!(usage.traffic().of(Measure::SentBytes).at_least(), None);
    }

    #[test]
    fn after_the_deadline_nothing_more_is_read_and_that_is_said() {
        let dir = node(2, "7");
        let late = Deadline::after(Duration::ZERO);
        let snapshot = read(dir.path(), 1, Scope::Full, late);
        assert_eq!(snapshot.devices.len(), 2);
        let mut readings = snapshot.devices.values().flat_map(|d| d.counters.values());
        assert!(readings.all(|reading| matches!(reading, Reading::Failed(_))));
    }

    #[test]
    fn a_p5_with_the_largest_values_fits_into_64_kib_and_comes_back_the_same() {
        let dir = node(32, &u64::MAX.to_string());
        let snapshot = full(dir.path(), u64::MAX);
        let json = snapshot.to_json().unwrap();
        assert!(json.len() < 64 * 1024, "{} bytes", json.len());
        assert!(!json.contains('\n'));
        assert_eq!(Snapshot::from_json(&json).unwrap(), snapshot);
    }

    #[test]
    fn the_narrow_snapshot_holds_what_reports_need() {
        let dir = node(32, "7");
        let whole = full(dir.path(), 1);
        let narrow = read(dir.path(), 2, Scope::Traffic, minute());
        let counters = &narrow.devices["rdmap79s0"].counters;
        assert_eq!(counters.len(), reported().count());
        let usage = Usage::between(&whole, &narrow);
        for measure in Measure::all() {
            assert_eq!(usage.traffic().of(measure).exact(), Some(0), "{measure:?}");
        }
    }

    #[test]
    fn traffic_is_the_difference_by_device_and_direction() {
        let dir = node(2, "10");
        let before = full(dir.path(), 1);
        let port = port(dir.path(), "rdmap79s0");
        for (counter, value) in [
            ("tx_bytes", "110"),
            ("rx_bytes", "60"),
            ("rdma_write_bytes", "90"),
        ] {
            fs::write(port.join(counter), value).unwrap();
        }
        let usage = Usage::between(&before, &full(dir.path(), 2));
        assert_eq!(usage.0["rdmap79s0"].amount("tx_bytes"), known(100));
        assert_eq!(usage.0["rdmap79s0"].amount("rx_bytes"), known(50));
        assert_eq!(usage.0["rdmap80s0"].amount("tx_bytes"), known(0));
        let traffic = usage.traffic();
        assert_eq!(traffic.of(Measure::SentBytes).exact(), Some(100));
        assert_eq!(traffic.of(Measure::RdmaWriteBytes).exact(), Some(80));
        assert!(!traffic.is_none());
    }

    #[test]
    fn a_counter_that_went_backwards_is_unknown_and_the_others_stand() {
        let dir = node(1, "10");
        let before = full(dir.path(), 1);
        fs::write(port(dir.path(), "rdmap79s0").join("tx_bytes"), "9").unwrap();
        let usage = Usage::between(&before, &full(dir.path(), 2));
        let device = &usage.0["rdmap79s0"];
        assert_eq!(
            device.amount("tx_bytes"),
            Amount::Unknown(Unknown::WentBackwards)
        );
        assert_eq!(device.amount("rx_bytes"), known(0));
        assert!(!usage.traffic().is_none());
    }

    #[test]
    fn a_device_that_vanished_was_added_or_came_back_is_unknown_as_a_whole() {
        let dir = node(3, "10");
        let class = dir.path().join(CLASS);
        let before = full(dir.path(), 1);
        // Kept, so that its inode cannot be given out again.
        fs::rename(class.join("rdmap79s0"), dir.path().join("gone")).unwrap();
        fs::rename(class.join("rdmap80s0"), dir.path().join("old")).unwrap();
        add_device(dir.path(), "rdmap80s0", "99");
        add_device(dir.path(), "rdmap90s0", "99");
        let usage = Usage::between(&before, &full(dir.path(), 2));
        let unknown = DeviceUsage::Unknown;
        assert_eq!(usage.0["rdmap79s0"], unknown(Unknown::DeviceVanished));
        assert_eq!(usage.0["rdmap80s0"], unknown(Unknown::DeviceReloaded));
        assert_eq!(usage.0["rdmap90s0"], unknown(Unknown::DeviceAdded));
        let sent = usage.traffic().of(Measure::SentBytes);
        assert_eq!((sent.exact(), sent.at_least()), (None, Some(0)));
        assert_eq!(sent.unknown().len(), 3);
    }

    #[test]
    fn a_device_that_could_not_be_identified_did_not_vanish() {
        let dir = node(1, "10");
        let before = full(dir.path(), 1);
        fs::write(dir.path().join(CLASS).join("rdmap79s0/device/vendor"), "").unwrap();
        let usage = Usage::between(&before, &full(dir.path(), 2));
        assert_eq!(
            usage.0["rdmap79s0"],
            DeviceUsage::Unknown(Unknown::DeviceUnreadable)
        );
    }

    #[test]
    fn a_device_that_did_not_answer_did_not_vanish_and_was_not_added() {
        let dir = node(3, "10");
        let (mut before, mut after) = (full(dir.path(), 1), full(dir.path(), 2));
        let silence = |snapshot: &mut Snapshot, name: &str| {
            snapshot.devices.remove(name);
            snapshot.silent.insert(name.to_owned(), 42);
        };
        silence(&mut before, "rdmap79s0");
        silence(&mut after, "rdmap80s0");
        let usage = Usage::between(&before, &after);
        let unknown = DeviceUsage::Unknown;
        assert_eq!(usage.0["rdmap79s0"], unknown(Unknown::NoAnswerBefore));
        assert_eq!(usage.0["rdmap80s0"], unknown(Unknown::NoAnswerAfter));
        assert_eq!(usage.traffic().of(Measure::SentBytes).at_least(), Some(0));
    }

    #[test]
    fn readings_of_different_boots_or_in_the_wrong_order_are_never_subtracted() {
        let dir = node(1, "10");
        let one = full(dir.path(), 5);
        for (change, reason) in [
            (Some("other"), Unknown::OtherBoot),
            (None, Unknown::BootUnknown),
        ] {
            let mut other = full(dir.path(), 6);
            other.taken.boot_id = change.map(str::to_owned);
            let usage = Usage::between(&one, &other);
            assert_eq!(usage.0["rdmap79s0"], DeviceUsage::Unknown(reason));
        }
        let usage = Usage::between(&one, &full(dir.path(), 4));
        assert_eq!(
            usage.0["rdmap79s0"],
            DeviceUsage::Unknown(Unknown::OutOfOrder)
        );
        let usage = Usage::without_baseline(&one);
        assert_eq!(
            usage.0["rdmap79s0"],
            DeviceUsage::Unknown(Unknown::NoBaseline)
        );
    }

    #[test]
    fn what_an_old_driver_does_not_count_is_unknown_and_not_zero() {
        let dir = node(1, "10");
        fs::remove_file(port(dir.path(), "rdmap79s0").join("retrans_pkts")).unwrap();
        let before = full(dir.path(), 1);
        let sum = Usage::between(&before, &full(dir.path(), 2)).traffic();
        let retransmitted = sum.of(Measure::RetransmittedPackets);
        assert_eq!(retransmitted.at_least(), None);
        assert!(retransmitted.unknown().contains(&Unknown::NoSuchCounter));
    }

    #[test]
    fn a_node_without_devices_moved_exactly_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let before = full(dir.path(), 1);
        assert!(
            Usage::between(&before, &full(dir.path(), 2))
                .traffic()
                .is_none()
        );
    }

    #[test]
    fn a_sum_that_overflows_stays_a_lower_bound() {
        let mut sum = Sum::default();
        sum.add(known(u64::MAX));
        sum.add(known(1));
        assert_eq!((sum.exact(), sum.at_least()), (None, Some(u64::MAX)));
    }

    #[test]
    fn now_is_after_a_moment_ago_and_in_the_same_boot() {
        let (before, after) = (Moment::now(), Moment::now());
        assert!(before.boot_id.is_some());
        assert_eq!(incomparable(&before, &after), None);
    }

    fn any_reading() -> impl Strategy<Value = Option<Reading>> {
        prop_oneof![
            Just(None),
            Just(Some(Reading::Failed("os error 5".to_owned()))),
            any::<u64>().prop_map(|value| Some(Reading::Value(value))),
            (0u64..3).prop_map(|value| Some(Reading::Value(value))),
        ]
    }

    fn any_snapshot() -> impl Strategy<Value = Snapshot> {
        let device = (
            proptest::option::of(0u64..3),
            proptest::collection::vec(any_reading(), PORT.len()),
        );
        let device = device.prop_map(|(inode, readings)| {
            let counters = PORT.iter().zip(readings);
            let counters = counters.filter_map(|(name, r)| Some(((*name).to_owned(), r?)));
            DeviceCounters {
                inode,
                read_ns: None,
                counters: counters.collect(),
            }
        });
        let devices = proptest::collection::btree_map("d[0-3]", device, 0..4);
        let boot_id = proptest::option::of("[ab]");
        let unidentified = proptest::collection::btree_set("d[0-3]", 0..2);
        let silent = proptest::collection::btree_map("d[0-3]", any::<u32>(), 0..2);
        (
            boot_id,
            0u64..3,
            any::<bool>(),
            devices,
            unidentified,
            silent,
        )
            .prop_map(
                |(boot_id, ns, full, devices, unidentified, silent)| Snapshot {
                    taken: Moment {
                        boot_id,
                        ..moment(ns)
                    },
                    scope: if full { Scope::Full } else { Scope::Traffic },
                    devices,
                    unidentified,
                    silent,
                },
            )
    }

    proptest! {
        #[test]
        fn a_known_amount_is_always_the_difference_of_two_values_that_were_read(
            before in any_snapshot(), after in any_snapshot(),
        ) {
            let usage = Usage::between(&before, &after);
            for (name, device) in &usage.0 {
                for counter in PORT {
                    if let Amount::Known(amount) = device.amount(counter) {
                        let (b, a) = (&before.devices[name], &after.devices[name]);
                        let (b, a) = (&b.counters[counter], &a.counters[counter]);
                        match (b, a) {
                            (Reading::Value(b), Reading::Value(a)) => prop_assert_eq!(b + amount, *a),
                            _ => prop_assert!(false, "invented from {:?} and {:?}", b, a),
                        }
                        prop_assert_eq!(&before.taken.boot_id, &after.taken.boot_id);
                        prop_assert!(before.taken.boot_id.is_some());
                    }
                }
            }
        }

        #[test]
        fn no_device_of_either_snapshot_is_left_out(before in any_snapshot(), after in any_snapshot()) {
            let usage = Usage::between(&before, &after);
            for name in before.devices.keys().chain(after.devices.keys()) {
                prop_assert!(usage.0.contains_key(name));
            }
        }

        #[test]
        fn nothing_is_lost_on_the_way_through_json(before in any_snapshot(), after in any_snapshot()) {
            prop_assert_eq!(&Snapshot::from_json(&before.to_json().unwrap()).unwrap(), &before);
            let usage = Usage::between(&before, &after);
            let text = serde_json::to_string(&usage).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Usage>(&text).unwrap(), &usage);
            let text = serde_json::to_string(&usage.traffic()).unwrap();
            let back: Traffic = serde_json::from_str(&text).unwrap();
            for measure in Measure::all() {
                prop_assert_eq!(back.of(measure).exact(), usage.traffic().of(measure).exact());
                prop_assert_eq!(back.of(measure).at_least(), usage.traffic().of(measure).at_least());
            }
        }

        #[test]
        fn adding_up_in_any_order_gives_the_same(a in any_snapshot(), b in any_snapshot(), c in any_snapshot()) {
            let (x, y) = (Usage::between(&a, &b).traffic(), Usage::between(&b, &c).traffic());
            let (mut xy, mut yx) = (x.clone(), y.clone());
            xy.merge(&y);
            yx.merge(&x);
            for measure in Measure::all() {
                prop_assert_eq!(xy.of(measure).exact(), yx.of(measure).exact());
            }
        }

        #[test]
        fn hostile_text_is_never_a_panic(text in any::<String>()) {
            let _ = Snapshot::from_json(&text);
        }
    }
}
