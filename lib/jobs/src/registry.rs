//! Which jobs run on this node: one file per job, written in its prolog and
//! removed in its epilog.
//!
//! Together with slurmstepd's sockets ([`slurm::stepd_sockets`]) it answers whether a
//! job still exists. Each alone is not enough: during the prolog there is no
//! socket yet and a job without a step may never have one; and a node whose
//! `PrologFlags` lack `Alloc` may run a job without ever running its prolog.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::counters_at_start;
use host::BootId;
use host::Deadline;
use host::Gather;
use host::printable;
use host::state_dir::{Held, StateDir, StateError, Store, nonce};
use host::state_layout::job::{LAST_START, LATEST, RECORD_VERSION, RECORDS};
use host::{Gid, Uid};
use slurm::NodeName;
use slurm::stepd_sockets;
use slurm::stepd_sockets::{JobState, Limits, Sockets};
use slurm::{JobId, JobKey};

/// One start of a job on this node. A requeued job keeps its id; its next
/// start has another identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Start {
    /// The boot during which it started.
    pub boot: BootId,
    /// Milliseconds since boot, including suspend (`CLOCK_BOOTTIME`): for
    /// people and for ordering, never compared across boots.
    pub since_boot_ms: u64,
    /// 64 random bits in hexadecimal.
    pub nonce: String,
}

impl Start {
    /// An identity for a job that starts now.
    ///
    /// # Errors
    /// The kernel has no random numbers yet; only very early during boot.
    pub fn now(boot: BootId) -> Result<Self, StateError> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
        let rest = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
        Ok(Self {
            boot,
            since_boot_ms: whole.saturating_add(rest),
            nonce: nonce(Path::new("a job's identity"))?,
        })
    }
}

/// What a job's prolog did about its hugepages, for its steps to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// What it has on this node, in MiB.
    pub mib: u64,
    /// What it should have, in MiB.
    pub wanted_mib: u64,
    /// Why its tasks must not run: a sentence for its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why it has less than it should have: a sentence for its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
}

/// What is known of a job from its prolog on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    version: u32,
    /// The job.
    pub job: JobId,
    /// Slurm's name of the node.
    #[serde(with = "as_text")]
    pub node: NodeName,
    /// This start of it.
    pub start: Start,
    /// Its user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// Where this node's slurmstepd sockets lie (`SlurmdSpoolDir`).
    pub spool_dir: PathBuf,
    /// The EFA profile's name.
    #[serde(default)]
    pub profile: Option<String>,
    /// The EFA devices it may use, by name.
    #[serde(default)]
    pub devices: Vec<String>,
    /// The size of hugepages in force for it, as it was written.
    #[serde(default)]
    pub hugepages: Option<String>,
    /// What became of that; `None` before the prolog knows.
    #[serde(default)]
    pub reservation: Option<Reservation>,
    /// Other jobs had a record when it started.
    #[serde(default)]
    pub others_at_start: bool,
    /// An extern step has been seen (`PrologFlags=Contain`). It lives as long
    /// as the job does, so once its socket is gone, so is the job, even if the
    /// epilog never ran.
    #[serde(default)]
    pub contained: bool,
    /// NVML's UUIDs of the GPUs that it has, as gres-helper's prolog found
    /// them; empty where that does not run.
    #[serde(default)]
    pub gpus: Vec<String>,
}

impl Job {
    /// A job without a profile.
    #[must_use]
    pub fn new(key: &JobKey, start: Start, uid: Uid, gid: Gid, spool_dir: PathBuf) -> Self {
        Self {
            version: RECORD_VERSION,
            job: key.job,
            node: key.node.clone(),
            start,
            uid,
            gid,
            spool_dir,
            profile: None,
            devices: Vec::new(),
            hugepages: None,
            reservation: None,
            others_at_start: false,
            contained: false,
            gpus: Vec::new(),
        }
    }

    /// What it is called.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey {
            job: self.job,
            node: self.node.clone(),
        }
    }
}

/// A file of ours that cannot be believed.
#[derive(Debug)]
pub struct Problem {
    /// The file's name; safe to print.
    pub file: String,
    /// The job that the name speaks of.
    pub key: Option<JobKey>,
    /// What is wrong with it; safe to print.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

impl Problem {
    /// A file of this name, and why it cannot be believed.
    #[must_use]
    pub fn new(file: &str, reason: impl fmt::Display) -> Self {
        Self {
            file: printable(file, 255),
            key: JobKey::of_file(file),
            reason: printable(&reason.to_string(), 512),
        }
    }
}

/// The registry in a state directory.
#[derive(Debug)]
pub struct Registry {
    dir: StateDir,
}

impl Registry {
    /// Opens it for the prolog and the epilog; makes its directory.
    ///
    /// # Errors
    /// See [`StateDir::open`].
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let dir = state.folder(RECORDS)?;
        Ok(Self { dir })
    }

    /// Opens it for those who only read. `None`: there never was a job.
    ///
    /// # Errors
    /// See [`StateDir::open`]. An error is not "there is no job".
    pub fn open_existing(state: &StateDir) -> Result<Option<Self>, StateError> {
        Ok(state.existing_folder(RECORDS)?.map(|dir| Self { dir }))
    }

    /// Records a job that starts, or replaces its record: the prolog of a
    /// requeued job finds the record of its earlier start if an epilog was
    /// missed.
    ///
    /// # Errors
    /// Nothing changed. The job must then not get anything that only its
    /// record protects.
    pub fn put(&mut self, job: &Job) -> Result<(), StateError> {
        let held = self.dir.hold()?;
        // What a killed writer left costs space, not the record of this job.
        let _ = held.sweep();
        held.write(&job.key().file_name(), &encode(job)?)
    }

    /// Changes the record of this start of the job. False, and nothing
    /// changed, where there is none: the job has ended, or started again.
    ///
    /// # Errors
    /// The record is as before, or cannot be read.
    pub fn amend(
        &mut self,
        key: &JobKey,
        start: &Start,
        change: impl FnOnce(&mut Job),
    ) -> Result<bool, StateError> {
        amend(&self.dir, key, |job| {
            let same = job.start == *start;
            if same {
                change(job);
            }
            same
        })
    }

    /// Removes this start of a job, which ended, with everything that is kept
    /// for it in `state`. A record of another start stays, with what belongs to
    /// that.
    ///
    /// # Errors
    /// The record stays, and the job counts as existing.
    pub fn end(&mut self, state: &StateDir, job: &Job) -> Result<(), StateError> {
        let held = self.dir.hold()?;
        let key = job.key();
        if let Ok(Some(recorded)) = self.get(&key)
            && recorded.start != job.start
        {
            return Ok(());
        }
        end(&held, state, &key, Some(job.uid))
    }

    /// As [`Registry::end`], for an epilog that finds a record which cannot be
    /// read: whatever start it was of has ended.
    ///
    /// # Errors
    /// As [`Registry::end`].
    pub fn end_unreadable(&mut self, state: &StateDir, key: &JobKey) -> Result<(), StateError> {
        let held = self.dir.hold()?;
        if self.get(key).is_ok() {
            return Ok(());
        }
        end(&held, state, key, None)
    }

    /// The record of a job.
    ///
    /// # Errors
    /// `Err(Problem)`: there is one and it cannot be read; such a job counts
    /// as existing.
    pub fn get(&self, key: &JobKey) -> Result<Option<Job>, Problem> {
        read(&self.dir, &key.file_name())
    }

    /// The jobs that have a record, which need not be readable; in no order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn keys(&self) -> Result<Vec<JobKey>, StateError> {
        let names = self.dir.names()?;
        Ok(names.iter().filter_map(|it| JobKey::of_file(it)).collect())
    }

    /// Whether jobs other than this one have a record.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn has_others(&self, job: JobId) -> Result<bool, StateError> {
        Ok(self.keys()?.iter().any(|key| key.job != job))
    }

    /// Notes that the job has an extern step; see [`Job::contained`]. For that
    /// step to call, while it starts. A job without a record is left alone.
    ///
    /// # Errors
    /// The record is as before; the job then counts as existing until its
    /// epilog.
    pub fn note_contained(&mut self, key: &JobKey) -> Result<(), StateError> {
        amend(&self.dir, key, |job| {
            let new = !job.contained;
            job.contained = true;
            new
        })
        .map(|_| ())
    }

    /// Notes which GPUs the job has. For a prolog that runs after the plugin's.
    /// A job without a record is left alone.
    ///
    /// # Errors
    /// The record is as before.
    pub fn note_gpus(&mut self, key: &JobKey, gpus: Vec<String>) -> Result<(), StateError> {
        amend(&self.dir, key, |job| {
            job.gpus = gpus;
            true
        })
        .map(|_| ())
    }

    /// All jobs, by id and node, and the files that cannot be believed: torn,
    /// alien, links, of another version.
    ///
    /// # Errors
    /// The directory itself cannot be listed: nothing is known then.
    pub fn list(&self) -> Result<(Vec<Job>, Vec<Problem>), StateError> {
        let mut jobs = Vec::new();
        let mut problems = Vec::new();
        for name in self.dir.names()? {
            match read(&self.dir, &name) {
                Ok(Some(job)) => jobs.push(job),
                // Removed between listing and reading.
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        jobs.sort_by_key(Job::key);
        Ok((jobs, problems))
    }
}

/// Reads a record, lets `change` change it, and writes it if that says so;
/// nobody else changes or removes it in between. Returns what `change` said,
/// and false where there is no record that can be read.
fn amend(
    dir: &StateDir,
    key: &JobKey,
    change: impl FnOnce(&mut Job) -> bool,
) -> Result<bool, StateError> {
    let held = dir.hold()?;
    let name = key.file_name();
    let Ok(Some(mut job)) = read(dir, &name) else {
        return Ok(false);
    };
    let changed = change(&mut job);
    if changed {
        held.write(&name, &encode(&job)?)?;
    }
    Ok(changed)
}

/// The record goes last: as long as it is there, the next prolog finds the rest.
fn end(
    held: &Held<'_>,
    state: &StateDir,
    key: &JobKey,
    uid: Option<Uid>,
) -> Result<(), StateError> {
    let counters = counters_at_start::forget(state, key);
    let note = uid.map_or(Ok(()), |uid| forget_latest(state, key, uid));
    held.remove(&key.file_name())?;
    counters.and(note)
}

/// For a prolog, once the job has its record: notes it as the one that
/// started last, of all and of its user's, and tells whether there were others
/// before.
///
/// # Errors
/// It is not known whether the job is alone.
pub fn note_start(
    state: &mut StateDir,
    registry: &Registry,
    job: &Job,
) -> Result<bool, StateError> {
    // A login that misses it reads every record.
    let _ = state.folder(LATEST).and_then(|latest| {
        let held = latest.hold()?;
        let _ = held.sweep();
        held.write(&job.uid.to_string(), job.key().file_name().as_bytes())
    });
    // In this order two prologs at the same time cannot both miss each other:
    // whoever lists first has its note replaced.
    state.write(LAST_START, job.job.to_string().as_bytes())?;
    registry.has_others(job.job)
}

/// Which of the user's jobs started last, if that was noted; whether it still
/// exists is another question.
#[must_use]
pub fn latest(state: &StateDir, uid: Uid) -> Option<JobKey> {
    let latest = state.existing_folder(LATEST).ok()??;
    noted(&latest, uid)
}

fn noted(latest: &StateDir, uid: Uid) -> Option<JobKey> {
    let name = latest.read(&uid.to_string()).ok()??;
    JobKey::of_file(std::str::from_utf8(&name).ok()?)
}

/// Takes the note of this job away, not that of the user's next job.
fn forget_latest(state: &StateDir, key: &JobKey, uid: Uid) -> Result<(), StateError> {
    let Some(latest) = state.existing_folder(LATEST)? else {
        return Ok(());
    };
    let held = latest.hold()?;
    if noted(&latest, uid).as_ref() == Some(key) {
        held.remove(&uid.to_string())?;
    }
    Ok(())
}

/// The jobs whose record outlived them, since their epilog was killed or never
/// ran; and the records that cannot be read. Of `node` only, where one is
/// named. `spool` is where jobs without a readable record have their sockets.
///
/// Failure direction: a job of which nobody can tell stays.
///
/// # Errors
/// The registry cannot be listed.
pub fn outlived(
    registry: &Registry,
    boot: BootId,
    node: Option<&NodeName>,
    spool: Option<PathBuf>,
    deadline: Deadline,
) -> Result<(Vec<Job>, Vec<Problem>), StateError> {
    let (mut gone, mut problems) = (Vec::new(), Vec::new());
    let mut keys = registry.keys()?;
    keys.retain(|key| node.is_none_or(|node| key.node == *node));
    // Most jobs have a socket, and their records need not be read.
    if let (Some(node), Some(spool)) = (node, &spool)
        && keys.len() > 1
        && let Ok(sockets) = Sockets::list(spool, node)
    {
        keys.retain(|key| !sockets.has(key.job));
    }
    let mut known = Known::of_none(boot, deadline);
    known.default_spool = spool;
    for key in keys {
        match registry.get(&key) {
            Ok(Some(job)) => {
                known.jobs.insert(key.clone(), job.clone());
                // Where its record says, also if that is of an earlier boot.
                let asked = Some((&job.start, &*job.spool_dir));
                if known.existence(&key, asked) == Existence::Gone {
                    gone.push(job);
                }
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    Ok((gone, problems))
}

/// Whether any other job ran here since the job started; `None` where that
/// cannot be read.
#[must_use]
pub fn shared(state: &StateDir, job: &Job) -> Option<bool> {
    if job.others_at_start {
        return Some(true);
    }
    let last = state.read(LAST_START).ok()??;
    Some(last != job.job.to_string().as_bytes())
}

fn encode(job: &Job) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(job).map_err(|error| StateError::Io {
        action: "write",
        path: PathBuf::from(job.key().file_name()),
        source: error.into(),
    })
}

fn read(store: &impl Store, name: &str) -> Result<Option<Job>, Problem> {
    let problem = |reason: &dyn fmt::Display| Problem::new(name, reason);
    let Some(key) = JobKey::of_file(name) else {
        return Err(problem(&"not a file of the registry; remove it"));
    };
    let Some(bytes) = store.read(name).map_err(|error| problem(&error))? else {
        return Ok(None);
    };
    let job: Job = serde_json::from_slice(&bytes).map_err(|error| problem(&error))?;
    if job.version != RECORD_VERSION {
        let reason = format!(
            "version {} of the format, not {RECORD_VERSION}",
            job.version
        );
        return Err(problem(&reason));
    }
    if job.key() != key {
        return Err(problem(&"its content speaks of another job"));
    }
    Ok(Some(job))
}

/// Whether a job still exists on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It does.
    Exists,
    /// The registry and the sockets both say that it does not.
    Gone,
    /// It could not be found out. Whoever asks acts as if it did.
    Unknown,
}

/// Registry and sockets, looked at once: what exists on this machine.
///
/// Failure direction: whatever cannot be read makes jobs [`Existence::Unknown`],
/// never [`Existence::Gone`].
pub struct Known {
    boot: BootId,
    jobs: BTreeMap<JobKey, Job>,
    unreadable: BTreeSet<JobKey>,
    /// The registry itself could be listed.
    complete: bool,
    sockets: BTreeMap<(PathBuf, NodeName), Option<Sockets>>,
    answers: BTreeMap<JobKey, JobState>,
    default_spool: Option<PathBuf>,
    limits: Limits,
}

impl Known {
    /// Reads the registry now; sockets are looked at when a job is asked for.
    ///
    /// `default_spool` is where to look for jobs without a readable record.
    /// `deadline` bounds all looking at sockets together.
    #[must_use]
    pub fn read(
        registry: &Registry,
        boot: BootId,
        default_spool: Option<PathBuf>,
        deadline: Deadline,
    ) -> Self {
        let listed = registry.list();
        let complete = listed.is_ok();
        let (jobs, problems) = listed.unwrap_or_default();
        Self {
            jobs: jobs.into_iter().map(|job| (job.key(), job)).gather(),
            unreadable: problems.into_iter().filter_map(|it| it.key).gather(),
            complete,
            default_spool,
            ..Self::of_none(boot, deadline)
        }
    }

    /// Knows of no job's record until it is told to [`Known::learn`] it: for
    /// those who need not know all.
    #[must_use]
    pub fn of_none(boot: BootId, deadline: Deadline) -> Self {
        Self {
            boot,
            jobs: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            complete: true,
            sockets: BTreeMap::new(),
            answers: BTreeMap::new(),
            default_spool: None,
            limits: Limits {
                each: Duration::from_secs(1),
                all: deadline,
            },
        }
    }

    /// Reads a job's record; `None` without one of this boot, or if it cannot
    /// be read, which leaves a doubt.
    pub fn learn(&mut self, registry: &Registry, key: &JobKey) -> Option<&Job> {
        match registry.get(key) {
            Ok(Some(job)) => {
                self.jobs.insert(key.clone(), job);
                self.jobs.get(key).filter(|job| job.start.boot == self.boot)
            }
            Ok(None) => None,
            Err(_) => {
                self.unreadable.insert(key.clone());
                None
            }
        }
    }

    /// The jobs of the registry, by key, of this boot.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.start.boot == self.boot)
    }

    /// Whether there may be jobs that [`Known::jobs`] does not show: the
    /// registry, or a record in it, could not be read.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        !self.complete || !self.unreadable.is_empty()
    }

    /// Whether the job exists. `asked` is what the asker's own record says, if
    /// it has one: which start of the job, and where its sockets lie. Of a job
    /// that was requeued, an earlier start exists only while it has sockets.
    pub fn existence(&mut self, key: &JobKey, asked: Option<(&Start, &Path)>) -> Existence {
        if !self.complete || self.unreadable.contains(key) {
            return Existence::Unknown;
        }
        let record = self.jobs.get(key).filter(|job| {
            let same = asked.is_none_or(|(start, _)| *start == job.start);
            same && job.start.boot == self.boot
        });
        if record.is_some_and(|job| !job.contained) {
            return Existence::Exists;
        }
        let recorded = record.is_some();
        let spool = record
            .map(|job| job.spool_dir.clone())
            .or_else(|| asked.map(|(_, spool)| spool.to_owned()))
            .or_else(|| self.default_spool.clone());
        let Some(spool) = spool else {
            return Existence::Unknown;
        };
        // A contained job mostly has its extern step's socket: one look at that
        // instead of reading a directory of hundreds.
        if recorded && stepd_sockets::has_extern(&spool, key) {
            return Existence::Exists;
        }
        self.by_sockets(key, spool, recorded)
    }

    fn by_sockets(&mut self, key: &JobKey, spool: PathBuf, recorded: bool) -> Existence {
        let place = (spool, key.node.clone());
        let sockets = self
            .sockets
            .entry(place)
            .or_insert_with_key(|(spool, node)| Sockets::list(spool, node).ok());
        let Some(sockets) = sockets else {
            return Existence::Unknown;
        };
        if !sockets.has(key.job) {
            return Existence::Gone;
        }
        // A job with a record is not asked: each question makes slurmstepd
        // start a thread, and slurmd itself removes dead sockets in time.
        if recorded {
            return Existence::Exists;
        }
        let limits = self.limits;
        let state = self
            .answers
            .entry(key.clone())
            .or_insert_with(|| stepd_sockets::ask_job(sockets, key.job, limits));
        match state {
            JobState::Alive { .. } | JobState::Ending { .. } => Existence::Exists,
            JobState::Unknown => Existence::Unknown,
            JobState::Gone => Existence::Gone,
        }
    }
}

/// A node's name as JSON.
pub mod as_text {
    use super::{Deserialize, Deserializer, FromStr, NodeName, Serializer};

    /// Writes the name.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn serialize<S: Serializer>(name: &NodeName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    /// Reads a name.
    ///
    /// # Errors
    /// It is not the name of a node.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeName, D::Error> {
        let text = String::deserialize(from)?;
        NodeName::from_str(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use efa::counters::{Moment, Snapshot};
    use host::Sysroot;
    use host::interleaving::{Actor, every_order};
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    fn key(job: u32, node: &str) -> JobKey {
        JobKey {
            job: JobId(job),
            node: node.parse().unwrap(),
        }
    }

    fn boot() -> BootId {
        BootId::for_test("this")
    }

    struct Place {
        _dir: tempfile::TempDir,
        path: PathBuf,
        spool: PathBuf,
        registry: Registry,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let spool = dir.path().join("spool");
        fs::create_dir(&spool).unwrap();
        let registry = Registry::open(&StateDir::open(&path).unwrap()).unwrap();
        Place {
            _dir: dir,
            path: path.join(RECORDS),
            spool,
            registry,
        }
    }

    impl Place {
        fn job(&self, key: &JobKey) -> Job {
            let start = Start::now(boot()).unwrap();
            Job::new(key, start, Uid(20_001), Gid(20_001), self.spool.clone())
        }

        fn state(&self) -> StateDir {
            StateDir::open(self.path.parent().unwrap()).unwrap()
        }

        fn known(&self) -> Known {
            let deadline = Deadline::after(Duration::from_secs(5));
            Known::read(&self.registry, boot(), Some(self.spool.clone()), deadline)
        }

        fn put_text(&self, name: &str, text: &str) {
            let file = self.path.join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn a_job_is_there_from_put_to_remove() {
        let mut it = place();
        let key = key(7, "n_1.x");
        assert_eq!(it.registry.get(&key).unwrap(), None);
        let mut job = it.job(&key);
        job.profile = Some("p5".to_owned());
        it.registry.put(&job).unwrap();
        assert_eq!(it.registry.get(&key).unwrap(), Some(job.clone()));
        assert_eq!(it.registry.list().unwrap().0, [job.clone()]);
        let state = it.state();
        it.registry.end(&state, &job).unwrap();
        it.registry.end(&state, &job).unwrap();
        assert_eq!(it.registry.get(&key).unwrap(), None);
    }

    #[test]
    fn the_note_of_a_users_latest_job_goes_with_that_job_only() {
        let mut it = place();
        let mut state = it.state();
        let (first, second) = (it.job(&key(7, "n1")), it.job(&key(6, "n1")));
        assert_eq!(latest(&state, first.uid), None);
        for job in [&first, &second] {
            it.registry.put(job).unwrap();
            note_start(&mut state, &it.registry, job).unwrap();
            assert_eq!(latest(&state, job.uid), Some(job.key()));
        }
        assert_eq!(latest(&state, Uid(20_002)), None);
        it.registry.end(&state, &first).unwrap();
        assert_eq!(latest(&state, first.uid), Some(second.key()));
        it.registry.end(&state, &second).unwrap();
        assert_eq!(latest(&state, first.uid), None);
    }

    #[test]
    fn a_requeued_job_keeps_its_id_and_gets_another_start() {
        let it = place();
        let key = key(7, "n1");
        assert_ne!(it.job(&key).start, it.job(&key).start);
    }

    #[test]
    fn torn_alien_empty_and_misnamed_files_are_told_and_do_not_hide_the_others() {
        let mut it = place();
        let whole = it.job(&key(1, "n1"));
        it.registry.put(&whole).unwrap();
        let text = fs::read_to_string(it.path.join("1@n1.json")).unwrap();
        it.put_text("2@n1.json", &text[..text.len() / 2]);
        it.put_text("3@n1.json", "");
        it.put_text("4@n1.json", &text);
        it.put_text("05@n1.json", &text);
        it.put_text("readme", "hello");
        it.put_text("6@n1.json", &text.replace("\"version\":1", "\"version\":2"));
        std::os::unix::fs::symlink("1@n1.json", it.path.join("7@n1.json")).unwrap();
        let (jobs, problems) = it.registry.list().unwrap();
        assert_eq!(jobs, [whole]);
        let files: Vec<&str> = problems.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "05@n1.json",
                "2@n1.json",
                "3@n1.json",
                "4@n1.json",
                "6@n1.json",
                "7@n1.json",
                "readme"
            ]
        );
        assert!(it.registry.get(&key(7, "n1")).is_err());
    }

    #[test]
    fn a_job_with_a_record_exists_although_it_has_no_step() {
        let mut it = place();
        let key = key(7, "n1");
        let job = it.job(&key);
        it.registry.put(&job).unwrap();
        assert_eq!(it.known().existence(&key, None), Existence::Exists);
    }

    /// The counters of a node without a device.
    fn nothing_counted() -> Snapshot {
        let empty = tempfile::tempdir().unwrap();
        let sysroot = Sysroot::new(empty.path().to_owned());
        let deadline = Deadline::after(Duration::from_secs(5));
        Snapshot::traffic(&sysroot, Moment::now(), deadline).unwrap()
    }

    /// The state directory, and the registry in it as each process opens it.
    fn stage() -> (Place, impl Fn() -> Registry) {
        let it = place();
        let state = it.state();
        (it, move || Registry::open(&state).unwrap())
    }

    #[test]
    fn a_note_and_an_epilog_in_any_order_leave_no_record() {
        let orders = every_order(
            || {
                let (mut it, open) = stage();
                let job = it.job(&key(7, "n1"));
                it.registry.put(&job).unwrap();
                let (mut stepd, mut epilog, mut gres) = (open(), open(), open());
                let (state, ended) = (it.state(), job.clone());
                let actors: Vec<Actor> = vec![
                    Box::new(move || stepd.note_contained(&key(7, "n1")).unwrap()),
                    Box::new(move || epilog.end(&state, &ended).unwrap()),
                    Box::new(move || gres.note_gpus(&key(7, "n1"), vec!["G".into()]).unwrap()),
                ];
                (it, actors)
            },
            |it, order| {
                assert_eq!(it.registry.keys().unwrap(), [], "{order}");
            },
        );
        assert!(orders > 20, "{orders}");
    }

    #[test]
    fn notes_of_two_processes_in_any_order_are_both_kept() {
        every_order(
            || {
                let (mut it, open) = stage();
                let job = it.job(&key(7, "n1"));
                it.registry.put(&job).unwrap();
                let (mut stepd, mut gres, mut prolog) = (open(), open(), open());
                let actors: Vec<Actor> = vec![
                    Box::new(move || stepd.note_contained(&key(7, "n1")).unwrap()),
                    Box::new(move || gres.note_gpus(&key(7, "n1"), vec!["G".into()]).unwrap()),
                    Box::new(move || {
                        let reserved =
                            |job: &mut Job| job.reservation = Some(Reservation::default());
                        let same = prolog.amend(&key(7, "n1"), &job.start, reserved);
                        assert!(same.unwrap());
                    }),
                ];
                (it, actors)
            },
            |it, order| {
                let job = it.registry.get(&key(7, "n1")).unwrap().unwrap();
                assert!(job.contained, "{order}");
                assert_eq!(job.gpus, ["G"], "{order}");
                assert!(job.reservation.is_some(), "{order}");
            },
        );
    }

    #[test]
    fn the_end_of_an_earlier_start_in_any_order_spares_the_next_one() {
        every_order(
            || {
                let (mut it, open) = stage();
                let earlier = it.job(&key(7, "n1"));
                it.registry.put(&earlier).unwrap();
                let later = it.job(&key(7, "n1"));
                let (mut epilog, mut prolog) = (open(), open());
                let (before, after) = (it.state(), it.state());
                let (start, counters) = (later.start.clone(), nothing_counted());
                let actors: Vec<Actor> = vec![
                    Box::new(move || epilog.end(&before, &earlier).unwrap()),
                    Box::new(move || {
                        prolog.put(&later).unwrap();
                        counters_at_start::keep(&after, &later.key(), &counters).unwrap();
                    }),
                ];
                ((it, start), actors)
            },
            |(it, start), order| {
                let job = it.registry.get(&key(7, "n1")).unwrap();
                assert_eq!(job.map(|job| job.start), Some(start), "{order}");
                let counters = counters_at_start::kept(&it.state(), &key(7, "n1")).unwrap();
                assert!(counters.is_some(), "{order}: its counters are lost");
            },
        );
    }

    #[test]
    fn two_jobs_that_start_while_counters_are_cleared_keep_theirs() {
        every_order(
            || {
                let (it, open) = stage();
                let actor = |number| -> Actor {
                    let (job, state) = (it.job(&key(number, "n1")), it.state());
                    let mut registry = open();
                    Box::new(move || {
                        registry.put(&job).unwrap();
                        counters_at_start::keep(&state, &job.key(), &nothing_counted()).unwrap();
                    })
                };
                let actors = vec![actor(1), actor(2)];
                (it, actors)
            },
            |it, order| {
                for number in [1, 2] {
                    let kept = counters_at_start::kept(&it.state(), &key(number, "n1"));
                    assert!(kept.unwrap().is_some(), "{order}: {number}");
                }
            },
        );
    }

    #[test]
    fn a_job_whose_epilog_was_missed_is_found_by_what_it_left() {
        let mut it = place();
        let mut left = it.job(&key(7, "n1"));
        left.contained = true;
        it.registry.put(&left).unwrap();
        let mut old = it.job(&key(8, "n1"));
        old.start.boot = BootId::for_test("earlier");
        it.registry.put(&old).unwrap();
        it.registry.put(&it.job(&key(9, "n1"))).unwrap();
        let mut runs = it.job(&key(10, "n1"));
        runs.contained = true;
        it.registry.put(&runs).unwrap();
        let _extern = UnixListener::bind(it.spool.join("n1_10.4294967292")).unwrap();
        it.put_text("11@n1.json", "torn");
        let found = |node: Option<&NodeName>, spool| {
            let deadline = Deadline::after(Duration::from_secs(5));
            let (gone, problems) = outlived(&it.registry, boot(), node, spool, deadline).unwrap();
            let gone: Vec<u32> = gone.iter().map(|job| job.job.0).collect();
            let problems: Vec<String> = problems.into_iter().map(|it| it.file).collect();
            (gone, problems)
        };
        let expected = (vec![7, 8], vec!["11@n1.json".to_owned()]);
        for spool in [None, Some(it.spool.clone())] {
            let (mut gone, problems) = found(None, spool.clone());
            gone.sort_unstable();
            assert_eq!((gone, problems), expected);
            let n1 = "n1".parse().unwrap();
            let (mut gone, problems) = found(Some(&n1), spool);
            gone.sort_unstable();
            assert_eq!((gone, problems), expected);
        }
        let n2 = "n2".parse().unwrap();
        assert_eq!(found(Some(&n2), None), (vec![], vec![]));
    }

    #[test]
    fn a_job_without_record_and_socket_is_gone() {
        let it = place();
        assert_eq!(it.known().existence(&key(7, "n1"), None), Existence::Gone);
    }

    #[test]
    fn a_job_that_had_an_extern_step_is_gone_with_its_last_socket_even_without_an_epilog() {
        let mut it = place();
        let key = key(7, "n1");
        let job = it.job(&key);
        it.registry.put(&job).unwrap();
        it.registry.note_contained(&key).unwrap();
        let socket = it.spool.join("n1_7.4294967292");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(it.known().existence(&key, None), Existence::Exists);
        fs::remove_file(&socket).unwrap();
        assert_eq!(it.known().existence(&key, None), Existence::Gone);
    }

    #[test]
    fn an_earlier_start_of_a_requeued_job_is_gone_unless_it_still_has_a_step() {
        let mut it = place();
        let key = key(7, "n1");
        let earlier = it.job(&key).start;
        let job = it.job(&key);
        it.registry.put(&job).unwrap();
        let spool = it.spool.clone();
        let asked = |known: &mut Known, start| known.existence(&key, Some((start, &spool)));
        assert_eq!(asked(&mut it.known(), &job.start), Existence::Exists);
        assert_eq!(asked(&mut it.known(), &earlier), Existence::Gone);
        let _listener = UnixListener::bind(it.spool.join("n1_7.0")).unwrap();
        let deadline = Deadline::after(Duration::from_millis(50));
        let mut known = Known::read(&it.registry, boot(), None, deadline);
        assert_eq!(asked(&mut known, &earlier), Existence::Unknown);
    }

    #[test]
    fn a_record_of_another_boot_is_void() {
        let mut it = place();
        let key = key(7, "n1");
        let mut job = it.job(&key);
        job.start.boot = BootId::for_test("earlier");
        it.registry.put(&job).unwrap();
        assert_eq!(it.known().existence(&key, None), Existence::Gone);
        assert_eq!(it.known().jobs().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_never_gone() {
        let mut it = place();
        it.put_text("7@n1.json", "torn");
        assert_eq!(
            it.known().existence(&key(7, "n1"), None),
            Existence::Unknown
        );
        let elsewhere = Path::new("/nonexistent");
        let other = key(8, "n1");
        let asked = Start::now(boot()).unwrap();
        assert_eq!(
            it.known().existence(&other, Some((&asked, elsewhere))),
            Existence::Unknown
        );
        let mut job = it.job(&key(9, "n1"));
        job.contained = true;
        job.spool_dir = elsewhere.to_owned();
        it.registry.put(&job).unwrap();
        assert_eq!(it.known().existence(&job.key(), None), Existence::Unknown);
    }

    #[test]
    fn a_socket_that_never_answers_keeps_a_job_without_record() {
        let it = place();
        let _listener = UnixListener::bind(it.spool.join("n1_7.0")).unwrap();
        let deadline = Deadline::after(Duration::from_millis(50));
        let mut known = Known::read(&it.registry, boot(), Some(it.spool.clone()), deadline);
        assert_eq!(known.existence(&key(7, "n1"), None), Existence::Unknown);
    }

    proptest! {
        #[test]
        fn a_file_name_is_of_one_job_only(job: u32, node in "[a-z0-9][a-z0-9._-]{0,20}") {
            prop_assume!(node.parse::<NodeName>().is_ok());
            let key = key(job, &node);
            prop_assert_eq!(JobKey::of_file(&key.file_name()), Some(key));
        }

        #[test]
        fn no_file_name_and_no_content_panics(name in ".{0,30}", bytes: Vec<u8>) {
            if let Some(key) = JobKey::of_file(&name) {
                prop_assert_eq!(key.file_name(), name);
            }
            let _ = serde_json::from_slice::<Job>(&bytes);
        }
    }
}
