//! The one sweep: it removes everything of jobs that are gone, because their
//! epilog was killed or never ran.
//!
//! The plugin's prolog, gres-helper's prolog and `slurm-efa reconcile` call it,
//! and the plugin's epilog its first half ([`remains`]). A job's record, its notes
//! and its counters are small files under the registry's lock, and this module
//! removes them. Hugepages, hugetlb groups and
//! GPU shares have files of their own, since changing them asks the kernel, NVML
//! or a daemon, which may take seconds: each has a lock of its own, and an owner
//! that implements [`Remains`]. All owners ask the same rule ([`JobIndex`]) about
//! the same identity ([`Start`](crate::registry::Start)).
//!
//! A job's last socket goes shortly before its epilog reads the record, to
//! report what the job moved. So what a job held goes as soon as the job is gone,
//! and its record only [`Census::epilog_time`] after a sweep first saw that.
//!
//! Failure direction: a job of which nobody knows whether it exists keeps
//! everything. What fails here is tried again by the next sweep.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::state_dir::{StateDir, StateError};
use slurm::stepd_sockets::Sockets;
use slurm::{JobId, JobKey, NodeName};

use crate::index::{Existence, JobIndex};
use crate::registry::{self, Job, Problem, Registry, Start};

/// How long the record of a job that is gone waits for the epilog, unless an
/// administrator says otherwise: slurmd starts it within seconds.
pub const EPILOG_TIME: Duration = Duration::from_secs(60);

/// What a sweep needs to know to ask whether a job exists.
#[derive(Debug, Clone)]
pub struct Census {
    /// The running boot.
    pub boot: BootId,
    /// Only jobs of this node are judged; `None`: those of every node of this
    /// machine, and then files without a record are removed as well.
    pub node: Option<NodeName>,
    /// Where jobs have their sockets whose own files do not say it.
    pub spool: Option<PathBuf>,
    /// Bounds asking the jobs and whatever the owners of remains do, together.
    pub deadline: Deadline,
    /// How long the record of a job that is gone waits for the job's epilog.
    pub epilog_time: Duration,
    /// The job whose prolog asks: it exists, and need not be asked about.
    pub starting: Option<JobKey>,
}

impl Census {
    /// Whether the epilog of a job that is gone may still come, if a sweep first
    /// saw then that it is.
    fn waits(&self, job: &Job, gone_since_boot_ms: u64) -> bool {
        let waited = registry::since_boot_ms().saturating_sub(gone_since_boot_ms);
        job.start.boot == self.boot && Duration::from_millis(waited) < self.epilog_time
    }

    /// Whether this sweep judges the job.
    #[must_use]
    pub fn judges(&self, key: &JobKey) -> bool {
        self.node.as_ref().is_none_or(|node| key.node == *node)
    }
}

/// What the owner of remains is given.
#[derive(Debug)]
pub struct View<'a> {
    /// How to ask.
    pub census: &'a Census,
    /// `None`: no prolog of the plugin ever ran here.
    pub registry: Option<&'a Registry>,
    /// The jobs that are gone and have their records still.
    pub gone: &'a [Job],
}

impl View<'_> {
    /// An index that knows nothing yet. To be made after the owner took its
    /// lock: what is found under the lock then has its record already.
    #[must_use]
    pub fn index(&self) -> JobIndex {
        let Census {
            boot,
            spool,
            deadline,
            ..
        } = self.census;
        JobIndex::of_none(boot.clone(), spool.clone(), *deadline)
    }

    /// Whether a job exists; see [`JobIndex::existence`].
    pub fn existence(
        &self,
        index: &mut JobIndex,
        key: &JobKey,
        asked: Option<(&Start, &Path)>,
    ) -> Existence {
        if let Some(registry) = self.registry {
            index.learn(registry, key);
        }
        index.existence(key, asked)
    }
}

/// What a node keeps for jobs besides their records, and who undoes it.
pub trait Remains {
    /// Undoes what is left of jobs that are gone.
    ///
    /// # Errors
    /// What could not be undone, for the administrator. It is tried again by
    /// the next sweep.
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String>;
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// The jobs that are gone, whose records were removed.
    pub gone: Vec<Job>,
    /// Those that are gone and keep their records for their epilogs.
    pub waiting: Vec<Job>,
    /// All other jobs that have a record; `None` where the registry could not be
    /// listed.
    pub left: Option<Vec<JobKey>>,
    /// Records that cannot be read.
    pub unreadable: Vec<Problem>,
    /// What failed, a sentence each.
    pub failed: Vec<String>,
}

impl Swept {
    /// Whether jobs other than this one have a record, or may have one.
    #[must_use]
    pub fn has_others(&self, job: JobId) -> bool {
        let left = self.left.as_ref();
        left.is_none_or(|keys| keys.iter().any(|key| key.job != job))
    }

    /// Parts those that keep their records for their epilogs from what [`find`]
    /// found.
    #[must_use]
    pub fn with_those_that_wait(mut self, census: &Census) -> Self {
        let now = registry::since_boot_ms();
        let waits = |job: &Job| census.waits(job, job.gone_since_boot_ms.unwrap_or(now));
        let (waiting, gone) = std::mem::take(&mut self.gone).into_iter().partition(waits);
        (self.waiting, self.gone) = (waiting, gone);
        if let Some(left) = &mut self.left {
            left.extend(self.waiting.iter().map(Job::key));
        }
        self
    }

    /// Notes that the jobs which wait were seen to be gone, if no sweep did.
    fn note_waiting(&mut self, registry: &mut Registry) {
        let now = registry::since_boot_ms();
        let unnoted = |job: &&Job| job.gone_since_boot_ms.is_none();
        for job in self.waiting.iter().filter(unnoted) {
            let note = |job: &mut Job| {
                job.gone_since_boot_ms.get_or_insert(now);
            };
            if let Err(error) = registry.amend(&job.key(), &job.start, note) {
                self.failed.push(format!("job {}: {error}", job.key()));
            }
        }
    }

    /// Removes the records of the jobs that are gone.
    fn end_gone(&mut self, registry: &mut Registry, state: &StateDir) {
        for job in std::mem::take(&mut self.gone) {
            match registry.end_outlived(state, &job) {
                Ok(true) => self.gone.push(job),
                // Its epilog came first, or the job started again.
                Ok(false) => {}
                Err(error) => {
                    self.failed.push(format!("job {}: {error}", job.key()));
                    self.left.get_or_insert_default().push(job.key());
                }
            }
        }
    }
}

/// Removes what jobs left that are gone: first what the owners keep, then the
/// record with notes and counters. As long as that is there, the next sweep finds
/// the rest.
pub fn sweep(
    registry: Option<&mut Registry>,
    state: &StateDir,
    census: &Census,
    owners: &mut [&mut dyn Remains],
) -> Swept {
    let Some(registry) = registry else {
        return Swept {
            failed: remains(None, census, &[], owners),
            ..Swept::default()
        };
    };
    let mut swept = find(registry, census).unwrap_or_else(|error| Swept {
        failed: vec![error.to_string()],
        ..Swept::default()
    });
    let failed = remains(Some(registry), census, &swept.gone, owners);
    swept.failed.extend(failed);
    let mut swept = swept.with_those_that_wait(census);
    swept.note_waiting(registry);
    swept.end_gone(registry, state);
    if census.node.is_none() {
        let orphans = [
            registry.remove_orphaned_counters(state),
            registry::remove_orphaned_notes(registry, state),
        ];
        let failed = orphans.into_iter().filter_map(Result::err);
        swept.failed.extend(failed.map(|error| error.to_string()));
    }
    swept
}

/// The first half of a sweep, and all of it that an epilog does: other jobs keep
/// their records, since one that has no socket any more may be about to report
/// what it moved in its own epilog. Returns what failed.
pub fn remains(
    registry: Option<&Registry>,
    census: &Census,
    gone: &[Job],
    owners: &mut [&mut dyn Remains],
) -> Vec<String> {
    let view = View {
        census,
        registry,
        gone,
    };
    let swept = owners.iter_mut().map(|owner| owner.sweep(&view));
    swept.filter_map(Result::err).collect()
}

/// What a sweep would find: nothing is removed.
///
/// # Errors
/// The registry cannot be listed.
pub fn find(registry: &Registry, census: &Census) -> Result<Swept, StateError> {
    let (mut gone, mut unreadable) = (Vec::new(), Vec::new());
    let mut left = registry.keys()?;
    let mut asked = left.clone();
    asked.retain(|key| census.judges(key) && census.starting.as_ref() != Some(key));
    // Most jobs have a socket, and their records need not be read.
    if let (Some(node), Some(spool)) = (&census.node, &census.spool)
        && asked.len() > 1
        && let Ok(sockets) = Sockets::list(spool, node)
    {
        asked.retain(|key| !sockets.has(key.job));
    }
    let boot = census.boot.clone();
    let mut index = JobIndex::of_none(boot, census.spool.clone(), census.deadline);
    for key in asked {
        match registry.get(&key) {
            Ok(Some(job)) => {
                index.insert(job.clone());
                // Where its record says, also if that is of an earlier boot.
                let place = Some((&job.start, &*job.spool_dir));
                if index.existence(&key, place) == Existence::Gone {
                    gone.push(job);
                }
            }
            Ok(None) => {}
            Err(problem) => unreadable.push(problem),
        }
    }
    left.retain(|key| gone.iter().all(|job| job.key() != *key));
    Ok(Swept {
        gone,
        left: Some(left),
        waiting: Vec::new(),
        unreadable,
        failed: Vec::new(),
    })
}
