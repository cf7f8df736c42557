//! The files: who was granted what, and what is not theirs.
//!
//! In `hugepages/` of the state directory, one file for each job,
//! `<job>@<node>.json`, and one more, `baseline.json`. All are changed under
//! one lock, so that a process killed at any moment leaves them as they were
//! before or after one change, and the next one to take the lock goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dry_run::OverlayStore;
use crate::pool::{Counts, NumaNode, Pool};
pub use config::sections::hugepages::Spread;
use config::size::{HugePages, PageSize};
use host::BootId;
use host::Deadline;
use host::Gather;
use host::state_dir::{Lock, StateDir, StateError, Store};
use host::state_layout::job::{LEDGER, LEDGER_BASELINE, LEDGER_LOCK, LEDGER_VERSION};
use jobs::registry::{Problem, Start, as_text};
use slurm::NodeName;
use slurm::{JobId, JobKey};

/// How many pages of one size a job wants on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageClaim {
    /// Their size.
    pub size: PageSize,
    /// Their number.
    pub pages: HugePages,
    /// Where.
    #[serde(default)]
    pub spread: Spread,
}

/// Pages of one pool that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Their size.
    pub size: PageSize,
    /// Where they lie.
    pub numa: NumaNode,
    /// Their number.
    pub pages: HugePages,
}

/// A job's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    version: u32,
    /// The job.
    pub job: JobId,
    /// Slurm's name of the node.
    #[serde(with = "as_text")]
    pub node: NodeName,
    /// Which start of the job.
    pub start: Start,
    /// Where the sockets of this node's steps lie.
    pub spool_dir: PathBuf,
    /// What it wants.
    pub wishes: Vec<PageClaim>,
    /// What it has. Not taken from it while it exists.
    pub granted: Vec<Grant>,
}

impl Entry {
    pub(super) fn new(key: &JobKey, start: Start, spool_dir: PathBuf) -> Self {
        Self {
            version: LEDGER_VERSION,
            job: key.job,
            node: key.node.clone(),
            start,
            spool_dir,
            wishes: Vec::new(),
            granted: Vec::new(),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey {
            job: self.job,
            node: self.node.clone(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for grant in &self.granted {
            let pool = Pool {
                size: grant.size,
                numa: grant.numa,
            };
            let pages = counts.entry(pool).or_default();
            *pages = pages.plus(grant.pages);
        }
        counts
    }

    pub(super) fn set_counts(&mut self, counts: &Counts) {
        self.granted = counts
            .iter()
            .filter(|(_, pages)| !pages.is_zero())
            .map(|(pool, pages)| Grant {
                size: pool.size,
                numa: pool.numa,
                pages: *pages,
            })
            .collect();
    }

    /// How many pages of this size it has.
    #[must_use]
    pub fn total(&self, size: PageSize) -> HugePages {
        let grants = self.granted.iter().filter(|grant| grant.size == size);
        grants.map(|grant| grant.pages).sum()
    }
}

/// What the ledger knows of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Row {
    /// The administrator's pages.
    pub baseline: HugePages,
    /// The jobs' pages, together.
    pub held: HugePages,
    /// What the kernel had when this was written. A crash may leave the kernel
    /// anywhere from here to `baseline + held`; whatever else it has is not
    /// our doing.
    pub seen: HugePages,
}

impl Row {
    pub(super) fn target(self) -> HugePages {
        self.baseline.plus(self.held)
    }
}

pub(super) type Rows = BTreeMap<Pool, Row>;

#[derive(Serialize, Deserialize)]
struct Baseline {
    version: u32,
    boot: BootId,
    pools: Vec<BaselinePool>,
}

#[derive(Serialize, Deserialize)]
struct BaselinePool {
    size: PageSize,
    numa: NumaNode,
    baseline: HugePages,
    held: HugePages,
    seen: HugePages,
}

/// Everything that was found.
pub(super) struct Books {
    /// `None`: no file of this boot, or it cannot be believed.
    pub rows: Option<Rows>,
    /// There is such a file, whatever is in it.
    pub rows_there: bool,
    pub entries: Vec<Entry>,
    /// Jobs whose file cannot be believed.
    pub torn: Vec<JobKey>,
    pub problems: Vec<Problem>,
}

/// The ledger, locked.
#[derive(Debug)]
pub struct Ledger<S: Store = StateDir> {
    store: S,
    _lock: Option<Lock>,
}

impl Ledger<StateDir> {
    /// Waits for the lock and opens it.
    ///
    /// # Errors
    /// The lock cannot be had before `deadline`, or the directory cannot be
    /// trusted. Nothing changed.
    pub fn open(state: &StateDir, deadline: Deadline) -> Result<Self, StateError> {
        let lock = state.lock(LEDGER_LOCK, deadline)?;
        Ok(Self {
            store: state.folder(LEDGER)?,
            _lock: Some(lock),
        })
    }

    /// As [`Ledger::open`], for who only reads: makes nothing; `None` where no
    /// job of this node was ever granted a page.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_existing(state: &StateDir, deadline: Deadline) -> Result<Option<Self>, StateError> {
        if state.existing_folder(LEDGER)?.is_none() {
            return Ok(None);
        }
        Self::open(state, deadline).map(Some)
    }
}

impl Ledger<OverlayStore> {
    /// One whose files nobody else sees.
    #[must_use]
    pub fn on_overlay(files: OverlayStore) -> Self {
        Self::unlocked(files)
    }

    /// As [`Ledger::open`], but nothing that is done with it reaches the files.
    /// Where there is no ledger yet, an empty one.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn rehearse(state: Option<&StateDir>, deadline: Deadline) -> Result<Self, StateError> {
        let Some(state) = state else {
            return Ok(Self::on_overlay(OverlayStore::default()));
        };
        let Some(folder) = state.existing_folder(LEDGER)? else {
            return Ok(Self::on_overlay(OverlayStore::default()));
        };
        Ok(Self {
            _lock: Some(state.lock(LEDGER_LOCK, deadline)?),
            store: OverlayStore::over(folder),
        })
    }
}

impl<S: Store> Ledger<S> {
    /// How many pages of a size the kernel shall set aside: the
    /// administrator's and the jobs'. `None` where nothing is known of this boot.
    ///
    /// # Errors
    /// The file cannot be believed.
    pub fn target(&self, size: PageSize, boot: &BootId) -> Result<Option<HugePages>, Problem> {
        let rows = self.read_rows(boot)?.flatten();
        Ok(rows.map(|rows| {
            let of_size = rows.iter().filter(|(pool, _)| pool.size == size);
            of_size.map(|(_, row)| row.target()).sum()
        }))
    }

    pub(super) fn unlocked(store: S) -> Self {
        Self { store, _lock: None }
    }

    /// All jobs' entries, and the files that cannot be believed.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn entries(&self) -> Result<(Vec<Entry>, Vec<Problem>), StateError> {
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        for name in self.store.names()? {
            if name == LEDGER_BASELINE {
                continue;
            }
            match self.read_entry(&name) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        Ok((entries, problems))
    }

    /// Reads everything of this boot and removes what was of another.
    pub(super) fn load(&mut self, boot: &BootId) -> Result<Books, StateError> {
        self.store.sweep()?;
        let (all, mut problems) = self.entries()?;
        let torn = problems.iter().filter_map(|it| it.key.clone()).gather();
        let mut entries = Vec::new();
        for entry in all {
            if entry.start.boot == *boot {
                entries.push(entry);
            } else {
                self.drop_entry(&entry.key())?;
            }
        }
        let (rows, rows_there) = match self.read_rows(boot) {
            Ok(Some(rows)) => (rows, true),
            Ok(None) => (None, false),
            Err(problem) => {
                problems.push(problem);
                (None, true)
            }
        };
        Ok(Books {
            rows,
            rows_there,
            entries,
            torn,
            problems,
        })
    }

    fn read_entry(&self, name: &str) -> Result<Option<Entry>, Problem> {
        let Some(key) = JobKey::of_file(name) else {
            return Err(Problem::new(name, "not a file of the ledger; remove it"));
        };
        let Some(entry) = self.read_json::<Entry>(name)? else {
            return Ok(None);
        };
        if entry.version != LEDGER_VERSION {
            return Err(Problem::new(name, "of another version of the format"));
        }
        if entry.key() != key {
            return Err(Problem::new(name, "its content speaks of another job"));
        }
        Ok(Some(entry))
    }

    /// `Some(None)` where the file is of another boot.
    fn read_rows(&self, boot: &BootId) -> Result<Option<Option<Rows>>, Problem> {
        let Some(file) = self.read_json::<Baseline>(LEDGER_BASELINE)? else {
            return Ok(None);
        };
        if file.version != LEDGER_VERSION {
            return Err(Problem::new(
                LEDGER_BASELINE,
                "of another version of the format",
            ));
        }
        if file.boot != *boot {
            return Ok(Some(None));
        }
        let row = |it: &BaselinePool| {
            let pool = Pool {
                size: it.size,
                numa: it.numa,
            };
            let row = Row {
                baseline: it.baseline,
                held: it.held,
                seen: it.seen,
            };
            (pool, row)
        };
        Ok(Some(Some(file.pools.iter().map(row).gather())))
    }

    fn read_json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let read = self.store.read(name);
        match read.map_err(|error| Problem::new(name, error))? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Problem::new(name, error)),
            None => Ok(None),
        }
    }

    pub(super) fn write_entry(&mut self, entry: &Entry) -> Result<(), StateError> {
        self.write_json(&entry.key().file_name(), entry)
    }

    pub(super) fn drop_entry(&mut self, key: &JobKey) -> Result<(), StateError> {
        self.store.remove(&key.file_name())
    }

    pub(super) fn write_rows(&mut self, boot: &BootId, rows: &Rows) -> Result<(), StateError> {
        let pools = rows.iter().map(|(pool, row)| BaselinePool {
            size: pool.size,
            numa: pool.numa,
            baseline: row.baseline,
            held: row.held,
            seen: row.seen,
        });
        let file = Baseline {
            version: LEDGER_VERSION,
            boot: boot.clone(),
            pools: pools.collect(),
        };
        self.write_json(LEDGER_BASELINE, &file)
    }

    pub(super) fn drop_rows(&mut self) -> Result<(), StateError> {
        self.store.remove(LEDGER_BASELINE)
    }

    fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(value).map_err(|error| StateError::Io {
            action: "write",
            path: PathBuf::from(name),
            source: error.into(),
        })?;
        self.store.write(name, &bytes)
    }
}
