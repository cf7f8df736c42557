//! What a job or a step moved over EFA: counters at its start and at its end,
//! the record of the difference, where it is written, and what is said.
//!
//! A fault here costs a record, never a job. Reading counters may take long
//! where a device is dead; see [`Snapshot::full`].

use std::path::PathBuf;
use std::time::Duration;

use config::Config;
use efa::counters::{Moment, Snapshot, Usage};
use host::Deadline;
use host::Sysroot;
use host::state_dir::StateDir;
use jobs::counters_at_start;
use slurm::JobKey;
use slurm::NodeName;
use spank::log;
use usage::UsageRecord;

/// For reading all counters once: 32 devices take 0.1 s.
const READ: Duration = Duration::from_secs(5);

/// For the lock of the node's log.
const WRITE: Duration = Duration::from_secs(5);

/// Where a node's records go.
pub struct Books {
    log: PathBuf,
    max_log: u64,
    folder: Option<PathBuf>,
}

impl Books {
    /// As the site wants it.
    pub fn of(config: &Config, node: &NodeName) -> Result<Self, String> {
        let settings = usage::Settings::of(config).map_err(|error| error.to_string())?;
        let place = |error: slurm::node_name::NameError| error.to_string();
        Ok(Self {
            log: settings.log(Some(node)).map_err(place)?,
            max_log: settings.max_log,
            folder: settings.folder(Some(node)).map_err(place)?,
        })
    }

    /// Writes the record everywhere; what fails is told to the administrator.
    pub fn write(&self, record: &UsageRecord) {
        let deadline = Deadline::after(WRITE);
        let logged = usage::log::append(&self.log, self.max_log, record, deadline);
        let filed = self
            .folder
            .as_deref()
            .map_or(Ok(()), |folder| usage::folder::write(folder, record));
        for error in [logged.err(), filed.err()].into_iter().flatten() {
            log::info(&format!("spank_efa: {}: {error}", record.what()));
        }
    }
}

/// The counters now, or why they are not known.
pub fn count(sysroot: &Sysroot) -> Result<Snapshot, String> {
    Snapshot::traffic(sysroot, Moment::now(), Deadline::after(READ))
        .map_err(|error| error.to_string())
}

/// Adds to the record what was counted until now.
pub fn close(record: &mut UsageRecord, before: &Result<Snapshot, String>, sysroot: &Sysroot) {
    match (before, count(sysroot)) {
        (Ok(before), Ok(after)) => {
            record.start = Some(before.taken.unix_s);
            record.end = after.taken.unix_s;
            record.devices = Usage::between(before, &after);
        }
        (Err(reason), Ok(after)) => {
            record.end = after.taken.unix_s;
            record.devices = Usage::without_baseline(&after);
            record.add_problem(&format!(
                "the counters at the start are not known: {reason}"
            ));
        }
        (_, Err(reason)) => {
            record.end = Moment::now().unix_s;
            record.add_problem(&format!("the counters at the end are not known: {reason}"));
        }
    }
}

/// What the job's user is told on this node. `alone`: nobody else speaks for
/// the whole job, so that its warnings are due here.
pub fn lines(record: &UsageRecord, alone: bool) -> Vec<String> {
    if !usage::speaks(record, record.node_index) {
        return Vec::new();
    }
    let mut lines = vec![usage::one_line(record)];
    // What the first node says of all: 512 nodes must not.
    if alone && record.node_index.unwrap_or(0) == 0 {
        let warning = usage::no_traffic_warning(record).or_else(|| usage::one_way_warning(record));
        lines.extend(
            warning
                .iter()
                .flat_map(|text| text.lines())
                .map(str::to_owned),
        );
    }
    lines
}

/// Whether Lustre may use EFA on this node: certainly not without its module.
/// Whether a Lustre that is there uses EFA is not told by any file that we know.
pub fn lustre(sysroot: &Sysroot) -> Option<bool> {
    match sysroot.list("sys/module/lustre") {
        Err(error) if error.is_missing() => Some(false),
        _ => None,
    }
}

/// The counters at the job's start; `None` where none were kept.
pub fn kept(state: &StateDir, key: &JobKey) -> Option<Result<Snapshot, String>> {
    counters_at_start::kept(state, key)
        .map_err(|error| error.to_string())
        .transpose()
}

/// A record in which nothing was counted yet.
pub fn blank(job: u32, node: &NodeName, uid: u32) -> UsageRecord {
    UsageRecord {
        version: usage::VERSION,
        job,
        step: None,
        restart: None,
        start_id: None,
        node: node.clone(),
        node_index: None,
        nodes: None,
        node_list: None,
        uid,
        profile: None,
        instance_type: None,
        start: None,
        end: 0,
        shared: None,
        lustre: None,
        problems: Vec::new(),
        devices: Usage::default(),
    }
}
