//! Which jobs run on this node: one file per job, written in its prolog and
//! removed in its epilog.
//!
//! Together with slurmstepd's sockets it answers whether a job still exists (see
//! [`index`](crate::index)).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::counters_at_start::{self, KeepError};
use efa::counters::Snapshot;
use host::BootId;
use host::printable;
use host::state_dir::{Held, StateDir, StateError, Store, nonce};
use host::state_layout::job::{LAST_START, LATEST, RECORD_VERSION, RECORDS};
use host::{Gid, Uid};
use slurm::NodeName;
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
        Ok(Self {
            boot,
            since_boot_ms: since_boot_ms(),
            nonce: nonce(Path::new("a job's identity"))?,
        })
    }
}

/// Now, as [`Start::since_boot_ms`].
pub(crate) fn since_boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
    let rest = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    whole.saturating_add(rest)
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
    /// The prolog started a reading of the EFA counters, which is kept with the
    /// record once it is done.
    #[serde(default)]
    pub counting: bool,
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
    /// When a sweep first saw that the job is gone although it has its record,
    /// as [`Start::since_boot_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since_boot_ms: Option<u64>,
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
            counting: false,
            others_at_start: false,
            contained: false,
            gpus: Vec::new(),
            gone_since_boot_ms: None,
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

    /// Records a job that starts, removes what an earlier start of it left, and
    /// notes it as the job that started last, of all and of its user's.
    ///
    /// # Errors
    /// As [`Registry::put`]. If only the notes failed, the job has its record.
    pub fn begin(&mut self, state: &mut StateDir, job: &Job) -> Result<(), StateError> {
        let (key, held) = (job.key(), self.dir.hold()?);
        let name = key.file_name();
        // What a killed writer left costs space, not the record of this job.
        let _ = held.sweep();
        if !self.has_none(&name).unwrap_or(false) {
            // Without a record of that start nobody would look for them.
            let _ = counters_at_start::forget(&held, state, &key);
        }
        held.write(&name, &encode(job)?)?;
        drop(held);
        note_start(state, job)
    }

    /// Keeps the counters at a job's start, which must have its record already.
    /// For the process that reads them, which may outlive the job.
    ///
    /// # Errors
    /// The job ends without knowing what it moved.
    pub fn keep_counters(
        &mut self,
        state: &StateDir,
        job: &Job,
        counters: &Snapshot,
    ) -> Result<(), KeepError> {
        let (key, held) = (job.key(), self.dir.hold()?);
        let recorded = self.get(&key).ok().flatten();
        if recorded.is_none_or(|recorded| recorded.start != job.start) {
            return Err(KeepError::NoRecord);
        }
        counters_at_start::write(&held, state, &key, counters)
    }

    /// Removes counters without a record: somebody removed the record, or an
    /// earlier version left them.
    pub(crate) fn remove_orphaned_counters(&self, state: &StateDir) -> Result<(), StateError> {
        // Nobody writes a record or counters meanwhile.
        let held = self.dir.hold()?;
        counters_at_start::remove_orphans(&held, state, |name| self.has_none(name))
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

    /// As [`Registry::end`], for a sweep: false where an epilog came first.
    pub(crate) fn end_outlived(&mut self, state: &StateDir, job: &Job) -> Result<bool, StateError> {
        let held = self.dir.hold()?;
        let key = job.key();
        let recorded = self.get(&key).ok().flatten();
        if recorded.is_none_or(|recorded| recorded.start != job.start) {
            return Ok(false);
        }
        end(&held, state, &key, Some(job.uid))?;
        Ok(true)
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

    /// Keeps others from changing a record, or what is kept with one.
    pub(crate) fn hold(&self) -> Result<Held<'_>, StateError> {
        self.dir.hold()
    }

    /// Whether there is no record of this name, readable or not.
    pub(crate) fn has_none(&self, name: &str) -> Result<bool, StateError> {
        Ok(self.dir.open_file(name)?.is_none())
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
    let counters = counters_at_start::forget(held, state, key);
    let note = uid.map_or(Ok(()), |uid| forget_latest(state, key, uid));
    held.remove(&key.file_name())?;
    counters.and(note)
}

/// Notes a job that has its record as the one that started last, of all and of
/// its user's. Who lists the registry afterwards sees every job that started
/// before, and whoever started before sees that its note was replaced: two
/// prologs at the same time cannot both miss each other.
fn note_start(state: &mut StateDir, job: &Job) -> Result<(), StateError> {
    // A login that misses it reads every record.
    let _ = state.folder(LATEST).and_then(|latest| {
        let held = latest.hold()?;
        let _ = held.sweep();
        held.write(&job.uid.to_string(), job.key().file_name().as_bytes())
    });
    state.write(LAST_START, job.job.to_string().as_bytes())
}

/// Removes the notes of users' latest jobs that have no record.
pub(crate) fn remove_orphaned_notes(
    registry: &Registry,
    state: &StateDir,
) -> Result<(), StateError> {
    let Some(latest) = state.existing_folder(LATEST)? else {
        return Ok(());
    };
    let _held = registry.hold()?;
    let held = latest.hold()?;
    for name in latest.names()? {
        let noted = latest.read(&name)?.unwrap_or_default();
        let key = std::str::from_utf8(&noted).ok().and_then(JobKey::of_file);
        if key.is_none_or(|key| registry.has_none(&key.file_name()).unwrap_or(false)) {
            held.remove(&name)?;
        }
    }
    Ok(())
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
