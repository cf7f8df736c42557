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
use jobs::Existence;
use jobs::registry::{Registry, Start, as_text};
use jobs::sweep::View;
use serde::{Deserialize, Serialize};
use slurm::NodeName;
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
    #[serde(with = "as_text")]
    pub node: NodeName,
    /// This start of it: that of its record in the registry, where it has one.
    pub start: Start,
    /// The start is that of a record in the registry.
    #[serde(default)]
    pub recorded: bool,
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
            node: key.node.clone(),
            start,
            recorded: false,
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

    /// As [`Record::new`], of this start of a job in the registry, or of a start
    /// of its own where the plugin of profiles keeps no record.
    ///
    /// # Errors
    /// The boot is not known, or there are no random numbers yet.
    pub fn of(key: &JobKey, recorded: Option<&Start>, uid: Uid) -> Result<Self, String> {
        let start = match recorded {
            Some(start) => start.clone(),
            None => {
                let boot = BootId::current().map_err(|error| error.to_string())?;
                Start::now(boot).map_err(|error| error.to_string())?
            }
        };
        Ok(Self {
            recorded: recorded.is_some(),
            ..Self::new(key, start, uid)
        })
    }

    /// What it is called.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey {
            job: self.job,
            node: self.node.clone(),
        }
    }

    /// It is of an earlier start of the job than the registry has.
    fn is_outdated(&self, recorded: Option<&Start>) -> bool {
        self.recorded && recorded.is_some_and(|start| *start != self.start)
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
        && record.node == key.node
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

/// Changes the job's record in one step, making it if it is missing or of an
/// earlier start. `recorded` is the start that the registry has; see
/// [`recorded_start`].
///
/// # Errors
/// The lock is held for too long, or the file cannot be read or written.
pub fn change(
    state: &mut StateDir,
    key: &JobKey,
    uid: Uid,
    recorded: Option<&Start>,
    deadline: Deadline,
    change: impl FnOnce(&mut Record),
) -> Result<Record, String> {
    let _lock = state
        .lock(LOCK, deadline)
        .map_err(|error| error.to_string())?;
    let found = get(state, key)?.filter(|record| !record.is_outdated(recorded));
    let mut record = match found {
        Some(record) => record,
        None => Record::of(key, recorded, uid)?,
    };
    let before = record.clone();
    change(&mut record);
    if record != before || !before.seen {
        put(state, key, &record)?;
    }
    Ok(record)
}

/// The start of a job that the registry has; `None` where the plugin of profiles
/// keeps no record of it, or that cannot be read.
#[must_use]
pub fn recorded_start(state_dir: &Path, key: &JobKey) -> Option<Start> {
    let state = StateDir::open_existing(state_dir).ok()??;
    let registry = Registry::open_existing(&state).ok()??;
    Some(registry.get(key).ok()??.start)
}

/// The records whose jobs are gone without an epilog, by the rule that all
/// parts of a job ask. To be asked under [`LOCK`].
///
/// # Errors
/// The directory cannot be listed.
pub fn gone(state: &StateDir, view: &View<'_>) -> Result<Vec<Record>, String> {
    let names = state.names().map_err(|error| error.to_string())?;
    let mut index = view.index();
    let mut gone = Vec::new();
    for name in names {
        let key = name.strip_prefix(SHARE_PREFIX).and_then(JobKey::of_file);
        let Some(key) = key.filter(|key| view.census.judges(key)) else {
            continue;
        };
        let Ok(Some(record)) = get(state, &key) else {
            continue;
        };
        // Without a record in the registry a job in its prolog has nothing that
        // shows that it exists.
        let shown = record.recorded || record.seen;
        let spool = view.census.spool.as_deref();
        let asked = spool.map(|spool| (&record.start, spool));
        if shown && view.existence(&mut index, &key, asked) == Existence::Gone {
            gone.push(record);
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::Gid;
    use host::state_layout::gres;
    use jobs::registry::Job;
    use jobs::sweep::Census;
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
        let made = change(&mut state, &key(7), Uid(1000), None, limit(), |it| {
            it.shards = Some(3)
        })
        .unwrap();
        assert_eq!(
            (made.uid, made.shards, made.share_mib()),
            (Uid(1000), Some(3), None)
        );
        change(&mut state, &key(7), Uid(1000), None, limit(), |it| {
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

    /// A state directory with a registry and the directory of shares.
    struct Node {
        dir: tempfile::TempDir,
        registry: Registry,
        gres: StateDir,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let registry = Registry::open(&state).unwrap();
            let gres = state.folder(gres::FOLDER).unwrap();
            Self {
                dir,
                registry,
                gres,
            }
        }

        /// As the plugin's prolog does.
        fn record(&mut self, job: u32) -> Start {
            let start = Start::now(BootId::current().unwrap()).unwrap();
            let spool = self.dir.path().to_owned();
            let job = Job::new(&key(job), start.clone(), Uid(1000), Gid(1000), spool);
            self.registry.put(&job).unwrap();
            start
        }

        fn share(&mut self, job: u32, seen: bool) -> Record {
            let start = recorded_start(self.dir.path(), &key(job));
            change(
                &mut self.gres,
                &key(job),
                Uid(1000),
                start.as_ref(),
                limit(),
                |it| it.seen = seen,
            )
            .unwrap()
        }

        fn gone(&self, spool: &Path) -> Vec<u32> {
            let census = Census {
                boot: BootId::current().unwrap(),
                node: None,
                spool: Some(spool.to_owned()),
                deadline: limit(),
                epilog_time: Duration::ZERO,
                starting: None,
            };
            let view = View {
                census: &census,
                registry: Some(&self.registry),
                gone: &[],
            };
            let gone = gone(&self.gres, &view).unwrap();
            gone.iter().map(|record| record.job.0).collect()
        }
    }

    #[test]
    fn a_job_in_its_prolog_is_never_taken_for_gone() {
        let mut node = Node::new();
        node.share(7, false);
        node.share(8, true);
        assert_eq!(node.gone(node.dir.path()), [8]);
        assert_eq!(node.gone(Path::new("/nonexistent")), [0; 0]);
    }

    #[test]
    fn a_share_has_the_start_of_its_jobs_record() {
        let mut node = Node::new();
        let start = node.record(7);
        let share = node.share(7, false);
        assert_eq!((share.start, share.recorded), (start, true));
    }

    #[test]
    fn a_share_of_a_job_that_was_never_seen_is_gone_with_its_record() {
        let mut node = Node::new();
        node.record(7);
        node.share(7, false);
        assert_eq!(node.gone(node.dir.path()), [0; 0]);
        let state = StateDir::open(node.dir.path()).unwrap();
        let job = node.registry.get(&key(7)).unwrap().unwrap();
        node.registry.end(&state, &job).unwrap();
        assert_eq!(node.gone(node.dir.path()), [7]);
    }

    #[test]
    fn a_share_of_an_earlier_start_says_nothing_of_the_next_one() {
        let mut node = Node::new();
        node.record(7);
        let start = recorded_start(node.dir.path(), &key(7));
        change(
            &mut node.gres,
            &key(7),
            Uid(1000),
            start.as_ref(),
            limit(),
            |it| {
                it.shards = Some(5);
            },
        )
        .unwrap();
        let again = node.record(7);
        let share = node.share(7, true);
        assert_eq!((share.start, share.shards), (again, None));
    }

    #[test]
    fn a_share_that_version_0_2_wrote_goes_on_to_hold_its_running_job() {
        let mut node = Node::new();
        node.record(7);
        let boot = serde_json::to_string(&BootId::current().unwrap()).unwrap();
        let text = format!(
            r#"{{"version":1,"job":7,"node":"n1","start":{{"boot":{boot},"since_boot_ms":5,
            "nonce":"0123456789abcdef"}},"uid":1000,"gpus":["GPU-1"],"shard_mib":1024,"shards":3,
            "seen":true,"sluid":null,"wants":"mps","tier":"mps","refused":null,"fenced":true}}"#
        );
        node.gres.write(&file(&key(7)), text.as_bytes()).unwrap();
        let share = node.share(7, true);
        assert_eq!((share.tier, share.share_mib()), (Tier::Mps, Some(3072)));
    }
}
