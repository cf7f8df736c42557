//! Whether a job still exists: the one rule, which everything that depends on a
//! job asks.
//!
//! Together with slurmstepd's sockets ([`slurm::stepd_sockets`]) the registry
//! answers it. Each alone is not enough: during the prolog there is no socket yet
//! and a job without a step may never have one; and a node whose `PrologFlags`
//! lack `Alloc` may run a job without ever running its prolog.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::Gather;
use slurm::stepd_sockets::{self, JobState, Limits, Sockets};
use slurm::{JobKey, NodeName};

use crate::registry::{Job, Registry, Start};

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
pub struct JobIndex {
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

impl JobIndex {
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
            ..Self::of_none(boot, default_spool, deadline)
        }
    }

    /// Knows of no job's record until it is told to [`JobIndex::learn`] it: for
    /// those who need not know all.
    #[must_use]
    pub fn of_none(boot: BootId, default_spool: Option<PathBuf>, deadline: Deadline) -> Self {
        Self {
            boot,
            jobs: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            complete: true,
            sockets: BTreeMap::new(),
            answers: BTreeMap::new(),
            default_spool,
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
            Ok(None) => {
                self.jobs.remove(key);
                None
            }
            Err(_) => {
                self.unreadable.insert(key.clone());
                None
            }
        }
    }

    /// As [`JobIndex::learn`], of a record that was read already.
    pub(crate) fn insert(&mut self, job: Job) {
        self.jobs.insert(job.key(), job);
    }

    /// The jobs of the registry, by key, of this boot.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.start.boot == self.boot)
    }

    /// Whether there may be jobs that [`JobIndex::jobs`] does not show: the
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
