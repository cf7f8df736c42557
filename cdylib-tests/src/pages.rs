//! A node whose jobs take and return hugepages of the running kernel.
//! Needs root and 128 MiB of free memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use host::BootId;
use host::Deadline;
use host::state_dir::StateDir;
use host::state_layout::job::LEDGER;
use host::{Gid, Uid};
use hugepages::ledger::Ledger;
use hugepages::reconcile::Claim;
use hugepages::{HugePages, PageClaim, PageSize, ReconcileError, Report, Spread, machine};
use jobs::registry::{Job, Registry, Start};
use slurm::{JobId, JobKey};

use crate::kernel_pages;
use crate::testbed::LIMIT;

/// The size of the pages that tests reserve.
pub const PAGE: PageSize = PageSize::TwoMiB;

/// More pages than any test takes.
const ROOM: u64 = 64;

/// The only test with hugepages, and what there was before it.
#[derive(Debug)]
pub struct Alone {
    before: Vec<(PathBuf, u64)>,
    _lock: kernel_pages::Alone,
}

impl Alone {
    /// Waits for its turn.
    ///
    /// # Panics
    /// Without root, or without NUMA nodes in sysfs.
    pub fn wait() -> Self {
        let lock = kernel_pages::alone().expect("tests with hugepages need root");
        make_room().expect("room for hugepages");
        Self {
            before: counts(),
            _lock: lock,
        }
    }

    /// How many pages of all sizes the kernel has more than at first, surplus
    /// included.
    pub fn more(&self) -> i64 {
        let sum = |counts: &[(PathBuf, u64)]| counts.iter().map(|(_, pages)| *pages).sum::<u64>();
        sum(&counts()).cast_signed() - sum(&self.before).cast_signed()
    }

    /// Asserts that each pool has what it had at first.
    ///
    /// # Panics
    /// When one has not.
    pub fn assert_as_before(&self) {
        assert_eq!(counts(), self.before);
    }
}

/// After a build most memory is page cache in small pieces, and the kernel may
/// not find a hugepage at once: has it look now, and not in a test.
fn make_room() -> io::Result<()> {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    let read = || -> io::Result<u64> {
        let text = fs::read_to_string(POOL)?;
        text.trim().parse().map_err(io::Error::other)
    };
    let had = read()?;
    for _ in 0..3 {
        fs::write(POOL, (had + ROOM).to_string())?;
        let has = read()?;
        fs::write(POOL, had.to_string())?;
        if has == had + ROOM {
            break;
        }
        fs::write("/proc/sys/vm/drop_caches", "1")?;
        fs::write("/proc/sys/vm/compact_memory", "1")?;
    }
    Ok(())
}

fn counts() -> Vec<(PathBuf, u64)> {
    kernel_pages::counts().expect("the kernel's hugepages")
}

/// A job of the node `n1`.
///
/// # Panics
/// Never.
pub fn key(job: u32) -> JobKey {
    JobKey {
        job: JobId(job),
        node: "n1".parse().expect("a node's name"),
    }
}

/// What a prolog does: the job is recorded, then it gets its pages.
///
/// # Errors
/// It has none.
pub fn prolog(state: &Path, spool: &Path, job: u32, pages: u64) -> Result<Report, ReconcileError> {
    let state = StateDir::open(state)?;
    let start = Start::now(BootId::current()?)?;
    let spool_dir = spool.to_owned();
    let record = Job::new(
        &key(job),
        start.clone(),
        Uid(20_001),
        Gid(20_001),
        spool_dir.clone(),
    );
    Registry::open(&state)?.put(&record)?;
    let claim = Claim {
        key: key(job),
        start,
        spool_dir,
        wishes: vec![PageClaim {
            size: PAGE,
            pages: HugePages(pages),
            spread: Spread::Even,
        }],
    };
    let spool = Some(spool.to_owned());
    machine::settle(&state, spool, Some(&claim), Deadline::after(LIMIT))
}

/// What an epilog does: the record goes, then the pages.
///
/// # Errors
/// The next reconciliation has to do it.
pub fn epilog(state: &Path, spool: &Path, job: u32) -> Result<Report, ReconcileError> {
    let state = StateDir::open(state)?;
    let mut registry = Registry::open(&state)?;
    if let Ok(Some(record)) = registry.get(&key(job)) {
        registry.end(&state, &record)?;
    }
    machine::settle(&state, Some(spool.to_owned()), None, Deadline::after(LIMIT))
}

/// Makes files as if these jobs had started as `job` did.
///
/// # Errors
/// A file cannot be read or written.
pub fn copies(state: &Path, job: u32, jobs: impl Iterator<Item = u32> + Clone) -> io::Result<()> {
    for folder in ["hugepages", "jobs"] {
        let folder = state.join(folder);
        let text = fs::read_to_string(folder.join(key(job).file_name()))?;
        for other in jobs.clone() {
            let text = text.replace(&format!("\"job\":{job},"), &format!("\"job\":{other},"));
            fs::write(folder.join(key(other).file_name()), text)?;
        }
    }
    Ok(())
}

/// A node of its own state and configuration, on the running kernel's pages.
#[derive(Debug)]
pub struct Node {
    dir: tempfile::TempDir,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// One without jobs.
    ///
    /// # Panics
    /// Where its files cannot be written, as every method.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let node = Self { dir };
        fs::create_dir(node.spool()).expect("a spool directory");
        let text = format!("state_dir = '{}'\n", node.state().display());
        fs::write(node.config(), text).expect("a configuration");
        let text = format!("SlurmdSpoolDir={}\n", node.spool().display());
        fs::write(node.slurm_conf(), text).expect("a slurm.conf");
        node
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where slurmd's sockets would be: there are none.
    pub fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// A configuration that names the state directory.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("slurm-efa.toml")
    }

    /// A slurm.conf that names the spool directory.
    pub fn slurm_conf(&self) -> PathBuf {
        self.dir.path().join("slurm.conf")
    }

    /// The file of a job in the ledger.
    pub fn entry(&self, job: u32) -> PathBuf {
        self.state().join(LEDGER).join(key(job).file_name())
    }

    /// The names of all files of the ledger.
    pub fn ledger(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state().join(LEDGER)).expect("a ledger");
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("a name in UTF-8")
        };
        let mut names: Vec<String> = entries.map(name).collect();
        // The folder's lock.
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// The jobs that have a record.
    pub fn records(&self) -> Vec<JobKey> {
        let state = StateDir::open(&self.state()).expect("a state directory");
        let registry = Registry::open(&state).expect("a registry");
        registry.keys().expect("records")
    }

    /// How many pages the ledger says that the job has; none without an entry.
    pub fn granted(&self, job: u32) -> Option<u64> {
        let state = StateDir::open(&self.state()).expect("a state directory");
        let ledger = Ledger::open(&state, Deadline::after(LIMIT)).expect("a ledger");
        let (entries, _) = ledger.entries().expect("entries");
        let entry = entries.into_iter().find(|entry| entry.key() == key(job))?;
        Some(entry.total(PAGE).0)
    }

    /// A job starts, and gets all its pages.
    pub fn start(&self, job: u32, pages: u64) {
        let report = prolog(&self.state(), &self.spool(), job, pages).expect("a prolog");
        let entry = report.claimed.expect("an entry");
        assert_eq!(
            entry.total(PAGE).0,
            pages,
            "this machine has no free memory"
        );
    }

    /// A job ends, with an epilog.
    pub fn end(&self, job: u32) {
        epilog(&self.state(), &self.spool(), job).expect("an epilog");
    }

    /// A job ends without an epilog. It had an extern step and has none now.
    pub fn vanish(&self, job: u32) {
        let state = StateDir::open(&self.state()).expect("a state directory");
        let mut registry = Registry::open(&state).expect("a registry");
        registry.note_contained(&key(job)).expect("a record");
    }

    /// The next reconciliation.
    pub fn reconcile(&self) -> Report {
        let state = StateDir::open(&self.state()).expect("a state directory");
        let deadline = Deadline::after(LIMIT);
        machine::settle(&state, Some(self.spool()), None, deadline).expect("a reconciliation")
    }
}
