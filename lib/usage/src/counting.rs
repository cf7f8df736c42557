//! Counters at the start and at the end of a job or a step, the record of the
//! difference, where it is written, and what is said.
//!
//! A fault here costs a record, never a job. No counter is read in this process:
//! see [`efa::counter_reader`]. The start is not waited for, the end for
//! [`AT_END`] at most. What the administrator should know is returned as
//! sentences, since each host has a log of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::Config;
use efa::counter_reader::{AT_END, AT_START, CounterReader, PROGRAM, Reading};
use efa::counters::{Moment, Snapshot, Usage};
use host::Deadline;
use host::Sysroot;
use host::printable;
use host::state_dir::StateDir;
use jobs::counters_at_start;
use jobs::registry::Job;
use slurm::JobKey;
use slurm::NodeName;

use crate::{FirstReading, Settings, UsageRecord};

/// Where the program that reads lies if its caller's own path is not absolute.
const PROGRAM_DIR: &str = "/usr/lib/slurm-efa";

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
    ///
    /// # Errors
    /// What is wrong with the site's configuration.
    pub fn of(config: &Config, node: &NodeName) -> Result<Self, String> {
        let settings = Settings::of(config).map_err(|error| error.to_string())?;
        let place = |error: slurm::node_name::NameError| error.to_string();
        Ok(Self {
            log: settings.log(Some(node)).map_err(place)?,
            max_log: settings.max_log,
            folder: settings.folder(Some(node)).map_err(place)?,
        })
    }

    /// Writes the record everywhere; returns what failed.
    #[must_use]
    pub fn write(&self, record: &UsageRecord) -> Vec<String> {
        let deadline = Deadline::after(WRITE);
        let logged = crate::log::append(&self.log, self.max_log, record, deadline);
        let filed = self
            .folder
            .as_deref()
            .map_or(Ok(()), |folder| crate::folder::write(folder, record));
        let failed = [logged.err(), filed.err()].into_iter().flatten();
        failed
            .map(|error| format!("{}: {error}", record.what()))
            .collect()
    }
}

/// What a reading of the counters needs.
#[derive(Clone, Copy)]
pub struct Counters<'a> {
    /// The program that reads; see [`reader_beside`].
    pub program: &'a Path,
    /// Where the devices are.
    pub sysroot: &'a Sysroot,
    /// The state directory.
    pub state: &'a Path,
    /// The EFA devices that the job's prolog found.
    pub known: &'a [String],
}

impl Counters<'_> {
    /// Has them read at the start of a job, whose record must be there. Nobody
    /// waits for it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn keep(self, job: &Job) -> Result<(), String> {
        let reading = self.reading(AT_START);
        // This process ends soon, and with it what the child leaves.
        let child = reading.keep(job.node.as_str(), job.job.0, &job.start.nonce)?;
        drop(child);
        Ok(())
    }

    /// Has them read at the start of a step. Nobody waits for it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(self) -> Result<CounterReader, String> {
        self.reading(AT_START).start()
    }

    fn reading(&self, limit: Duration) -> Reading<'_> {
        Reading {
            program: self.program,
            sysroot: self.sysroot,
            state: self.state,
            limit,
            known: self.known,
        }
    }

    /// Reads them now, and adds to the record what was counted since `before`.
    /// `start_ns`: when the job or the tasks of the step started, since boot.
    /// Returns which processes hang.
    #[must_use]
    pub fn close(self, record: &mut UsageRecord, before: Before<'_>, start_ns: u64) -> Vec<String> {
        let deadline = Deadline::after(AT_END);
        let after = self.reading(AT_END).start();
        let before = before.finish(deadline);
        let after = after.and_then(|reader| reader.finish(deadline));
        let silent = silent(&before, &after);
        add(record, before, after, start_ns);
        silent
    }
}

/// The reading at the start.
pub enum Before<'a> {
    /// It is kept with the job's record.
    Kept(&'a StateDir, &'a JobKey),
    /// It is the step's own.
    Own(Result<CounterReader, String>),
}

impl Before<'_> {
    fn finish(self, deadline: Deadline) -> Result<Snapshot, String> {
        match self {
            Self::Kept(state, key) => counters_at_start::kept_by(state, key, deadline)
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "the process that reads them has not come to its end".to_owned()),
            Self::Own(reader) => reader?.finish(deadline),
        }
    }
}

/// The program that reads counters, which lies beside the file that has it
/// started, unless that was loaded by a relative path.
#[must_use]
pub fn reader_beside(file: &Path) -> PathBuf {
    let beside = file.parent().filter(|dir| dir.is_absolute());
    beside.unwrap_or(Path::new(PROGRAM_DIR)).join(PROGRAM)
}

/// Which processes hang, for the administrator.
fn silent(before: &Result<Snapshot, String>, after: &Result<Snapshot, String>) -> Vec<String> {
    let readings = [before, after].into_iter().flatten();
    let silent: BTreeSet<_> = readings.flat_map(|reading| &reading.silent).collect();
    let sentences = silent.into_iter().map(|(device, process)| {
        format!(
            "{} does not answer: process {process}, which reads its counters, has not come back; \
             it is left alone, and ends when the driver gives up",
            printable(device, 64)
        )
    });
    sentences.collect()
}

fn add(
    record: &mut UsageRecord,
    before: Result<Snapshot, String>,
    after: Result<Snapshot, String>,
    start_ns: u64,
) {
    record.end = Moment::now().unix_s;
    if let Ok(before) = &before {
        record.start = Some(before.taken.unix_s);
        record.first_reading = Some(FirstReading::of(before, start_ns));
    }
    match (before, after) {
        (Ok(before), Ok(after)) => record.devices = Usage::between(&before, &after),
        (Err(reason), Ok(after)) => {
            record.devices = Usage::without_baseline(&after);
            record.add_problem(&format!(
                "the counters at the start are not known: {reason}"
            ));
        }
        (_, Err(reason)) => {
            record.add_problem(&format!("the counters at the end are not known: {reason}"));
        }
    }
}

/// What the job's user is told on this node. `alone`: nobody else speaks for
/// the whole job, so that its warnings are due here.
#[must_use]
pub fn lines(record: &UsageRecord, alone: bool) -> Vec<String> {
    if !crate::speaks(record, record.node_index) {
        return Vec::new();
    }
    let mut lines = vec![crate::one_line(record)];
    // What the first node says of all: 512 nodes must not.
    if alone && record.node_index.unwrap_or(0) == 0 {
        let warning = crate::no_traffic_warning(record).or_else(|| crate::one_way_warning(record));
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
#[must_use]
pub fn lustre(sysroot: &Sysroot) -> Option<bool> {
    match sysroot.list("sys/module/lustre") {
        Err(error) if error.is_missing() => Some(false),
        _ => None,
    }
}

/// A record in which nothing was counted yet.
#[must_use]
pub fn blank(job: u32, node: &NodeName, uid: u32) -> UsageRecord {
    UsageRecord {
        version: crate::VERSION,
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
        first_reading: None,
        shared: None,
        lustre: None,
        problems: Vec::new(),
        devices: Usage::default(),
    }
}
