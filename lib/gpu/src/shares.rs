//! What this node knows of the jobs that use its GPUs: a file for each,
//! written by the prolog and the plugin, removed by the epilog.
//!
//! Failure direction: what cannot be read is a problem that is told, never
//! "there is no such job"; nothing of a job that may still exist is undone.

use std::path::Path;

use host::BootId;
use host::Deadline;
use host::Uid;
use host::state_dir::{StateDir, Store};
pub use host::state_layout::gres::LOCK;
use host::state_layout::gres::{SHARE_PREFIX, SHARE_VERSION};
use jobs::registry::Start;
use serde::{Deserialize, Serialize};
use slurm::NodeName;
use slurm::stepd_sockets::Sockets;
use slurm::{JobId, JobKey};

/// Most shards of a job on a node: what Slurm could count is more, but no node
/// has as many.
pub const MOST_SHARDS: u64 = 64 * 1024;

/// What holds a job to its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Slurm counts; nothing else.
    CountOnly,
    /// `watch` sees what a job takes, after the fact.
    Watchdog,
    /// An MPS server limits each client process.
    Mps,
    /// The driver limits the job's cgroup.
    Cgroup,
    /// The hardware divides the GPU.
    Mig,
}

impl Tier {
    /// In words for a person; never more than is so.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::CountOnly => "count only (no limit, no isolation)",
            Self::Watchdog => "watchdog (seen after the fact, no isolation)",
            Self::Mps => "MPS (limit for each process, no isolation of faults)",
            Self::Cgroup => "cgroup memory limit (memory only)",
            Self::Mig => "MIG (GPU instances are isolated by hardware)",
        }
    }
}

/// A job on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The job.
    pub job: JobId,
    /// Slurm's name of the node.
    pub node: String,
    /// This start of it.
    pub start: Start,
    /// Its user.
    pub uid: Uid,
    /// Its GPUs' UUIDs; empty where the prolog did not run or could not tell.
    pub gpus: Vec<String>,
    /// MiB of one shard.
    pub shard_mib: Option<u64>,
    /// Its shards on this node, as its largest step told.
    pub shards: Option<u64>,
    /// A step was seen: from now on the job exists as long as a slurmstepd.
    pub seen: bool,
    /// The other name of its cgroup, from Slurm 26.05 on.
    pub sluid: Option<String>,
    /// What shall hold it to its share.
    pub wants: Tier,
    /// What does, besides a watchdog.
    pub tier: Tier,
    /// Why that is less than the site asked for.
    pub refused: Option<String>,
    /// The limit of an MPS server or a cgroup was set and read back: until then
    /// it holds nobody.
    #[serde(default)]
    pub fenced: bool,
}

impl Record {
    /// Of a job that is new here.
    #[must_use]
    pub fn new(key: &JobKey, start: Start, uid: Uid) -> Self {
        Self {
            version: SHARE_VERSION,
            job: key.job,
            node: key.node.to_string(),
            start,
            uid,
            gpus: Vec::new(),
            shard_mib: None,
            shards: None,
            seen: false,
            sluid: None,
            wants: Tier::CountOnly,
            tier: Tier::CountOnly,
            refused: None,
            fenced: false,
        }
    }

    /// Its share in MiB, if it has one.
    #[must_use]
    pub fn share_mib(&self) -> Option<u64> {
        self.shards?.checked_mul(self.shard_mib?)
    }
}

/// The name of a job's file.
fn file(key: &JobKey) -> String {
    format!("{SHARE_PREFIX}{}", key.file_name())
}

/// The job's record of this boot; `None` where there is none.
///
/// # Errors
/// It is there, and cannot be read.
pub fn get(state: &StateDir, key: &JobKey) -> Result<Option<Record>, String> {
    let Some(bytes) = state.read(&file(key)).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{}: {error}", state.path().join(file(key)).display()))?;
    let boot = BootId::current().map_err(|error| error.to_string())?;
    let ours = record.version == SHARE_VERSION
        && record.job == key.job
        && record.node == key.node.as_str()
        && record.start.boot == boot;
    Ok(ours.then_some(record))
}

/// Writes a job's record.
///
/// # Errors
/// It stays as it was.
pub fn put(state: &mut StateDir, key: &JobKey, record: &Record) -> Result<(), String> {
    let bytes = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    state
        .write(&file(key), &bytes)
        .map_err(|error| error.to_string())
}

/// Removes a job's record; fine if there is none.
///
/// # Errors
/// It stays.
pub fn remove(state: &mut StateDir, key: &JobKey) -> Result<(), String> {
    state.remove(&file(key)).map_err(|error| error.to_string())
}

/// All records of this boot and node, and what could not be read.
///
/// # Errors
/// The directory cannot be listed.
pub fn all(state: &StateDir, node: &NodeName) -> Result<(Vec<Record>, Vec<String>), String> {
    let names = state.names().map_err(|error| error.to_string())?;
    let keys = names
        .iter()
        .filter_map(|name| JobKey::of_file(name.strip_prefix(SHARE_PREFIX)?))
        .filter(|key| key.node == *node);
    let (mut records, mut problems) = (Vec::new(), Vec::new());
    for key in keys {
        match get(state, &key) {
            Ok(record) => records.extend(record),
            Err(reason) => problems.push(reason),
        }
    }
    Ok((records, problems))
}

/// Changes the job's record in one step, making it if it is missing.
///
/// # Errors
/// The lock is held for too long, or the file cannot be read or written.
pub fn change(
    state: &mut StateDir,
    key: &JobKey,
    uid: Uid,
    deadline: Deadline,
    change: impl FnOnce(&mut Record),
) -> Result<Record, String> {
    let _lock = state
        .lock(LOCK, deadline)
        .map_err(|error| error.to_string())?;
    let mut record = match get(state, key)? {
        Some(record) => record,
        None => {
            let boot = BootId::current().map_err(|error| error.to_string())?;
            let start = Start::now(boot).map_err(|error| error.to_string())?;
            Record::new(key, start, uid)
        }
    };
    let before = record.clone();
    change(&mut record);
    if record != before || !before.seen {
        put(state, key, &record)?;
    }
    Ok(record)
}

/// The records whose jobs are gone without an epilog: seen once, and now
/// without a slurmstepd. A spool directory that cannot be listed: none.
#[must_use]
pub fn gone(records: &[Record], spool: &Path, node: &NodeName) -> Vec<JobId> {
    let Ok(sockets) = Sockets::list(spool, node) else {
        return Vec::new();
    };
    records
        .iter()
        .filter(|record| record.seen && !sockets.has(record.job))
        .map(|record| record.job)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(job: u32) -> JobKey {
        JobKey {
            job: JobId(job),
            node: "n1".parse().unwrap(),
        }
    }

    fn limit() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[test]
    fn a_record_is_made_changed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path()).unwrap();
        let made = change(&mut state, &key(7), Uid(1000), limit(), |it| {
            it.shards = Some(3)
        })
        .unwrap();
        assert_eq!(
            (made.uid, made.shards, made.share_mib()),
            (Uid(1000), Some(3), None)
        );
        change(&mut state, &key(7), Uid(1000), limit(), |it| {
            it.shard_mib = Some(10)
        })
        .unwrap();
        let (records, problems) = all(&state, &key(7).node).unwrap();
        assert_eq!(records[0].share_mib(), Some(30));
        assert!(problems.is_empty());
        remove(&mut state, &key(7)).unwrap();
        remove(&mut state, &key(7)).unwrap();
        assert_eq!(get(&state, &key(7)).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_a_problem_and_not_an_absent_job() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path()).unwrap();
        state.write(&file(&key(7)), b"{\"version\":1").unwrap();
        assert!(get(&state, &key(7)).is_err());
        let (records, problems) = all(&state, &key(7).node).unwrap();
        assert_eq!((records.len(), problems.len()), (0, 1));
    }

    #[test]
    fn a_job_in_its_prolog_is_never_taken_for_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path()).unwrap();
        let fresh = change(&mut state, &key(7), Uid(1), limit(), |_| {}).unwrap();
        let seen = change(&mut state, &key(8), Uid(1), limit(), |it| it.seen = true).unwrap();
        let node = key(1).node;
        assert_eq!(gone(&[fresh, seen.clone()], dir.path(), &node), [JobId(8)]);
        assert!(gone(&[seen], Path::new("/nonexistent"), &node).is_empty());
    }
}
