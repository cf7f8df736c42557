//! A node's store of jobs under load: prologs, steps, epilogs and a reconciliation
//! side by side, some epilogs killed, and nothing lost or left.
//!
//! Threads stand for the processes: each opens the files for itself, and flock(2)
//! keeps descriptions of one process apart as it does those of two. The kernel's
//! hugepages are simulated, so that the machine's own do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use efa::counters::{Moment, Snapshot};
use gpu::shares;
use host::state_dir::StateDir;
use host::state_layout::gres;
use host::{BootId, Deadline, Gid, Uid};
use hugepages::machine::{Due, Pages};
use hugepages::pool::PoolError;
use hugepages::{Claim, HugePages, NumaNode, PageClaim, PageSize, Pool, Pools, Spread};
use jobs::counters_at_start;
use jobs::registry::{self, Job, Registry, Reservation, Start};
use jobs::sweep::{self, Census, Remains, Swept, View};
use slurm::{JobId, JobKey};

const JOBS: u32 = 5000;
const AT_A_TIME: u32 = 64;

/// What the administrator set aside.
const BASELINE: u64 = 100;

const POOL: Pool = Pool {
    size: PageSize::TwoMiB,
    numa: NumaNode(0),
};

/// A kernel with all the memory that it is asked for.
#[derive(Clone)]
struct Kernel(Arc<Mutex<u64>>);

impl Pools for Kernel {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        Ok(vec![POOL])
    }

    fn persistent(&self, _: Pool) -> Result<HugePages, PoolError> {
        Ok(HugePages(*self.0.lock().unwrap()))
    }

    fn set_persistent(&mut self, _: Pool, pages: HugePages) -> Result<(), PoolError> {
        *self.0.lock().unwrap() = pages.0;
        Ok(())
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        Ok(())
    }
}

/// The shares as a part of the sweep, as `slurm-efa reconcile` has them.
struct Shares<'a>(&'a StateDir);

impl Remains for Shares<'_> {
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String> {
        let mut gres = self.0.folder(gres::FOLDER).unwrap();
        let _lock = gres.lock(shares::LOCK, limit()).unwrap();
        for record in shares::gone(&gres, view)? {
            shares::remove(&mut gres, &record.key())?;
        }
        Ok(())
    }
}

fn limit() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

struct Node {
    dir: tempfile::TempDir,
    kernel: Kernel,
    boot: BootId,
    counters: Snapshot,
    next: AtomicU32,
    ended: AtomicBool,
    /// How many epilogs found the record of their job.
    /// The jobs whose epilog was killed, and those that a sweep found to be gone.
    killed: Mutex<BTreeSet<JobKey>>,
    found: Mutex<BTreeMap<JobKey, u32>>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("spool")).unwrap();
        Self {
            kernel: Kernel(Arc::new(Mutex::new(BASELINE))),
            boot: BootId::current().unwrap(),
            counters: Snapshot::empty(Moment::now()),
            next: AtomicU32::new(1),
            ended: AtomicBool::new(false),
            killed: Mutex::default(),
            found: Mutex::default(),
            dir,
        }
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.dir.path().join("state")).unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn sweep(&self, whole: bool, registry: &mut Registry, remains: &mut [&mut dyn Remains]) {
        self.note(&sweep::sweep(
            Some(registry),
            &self.state(),
            &self.census(whole),
            remains,
        ));
    }

    /// While jobs end, a record waits for its epilog longer than this test takes.
    fn epilog_time(&self) -> Duration {
        match self.ended.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => Duration::from_secs(3600),
        }
    }

    fn census(&self, whole: bool) -> Census {
        Census {
            boot: self.boot.clone(),
            node: (!whole).then(|| "n1".parse().unwrap()),
            spool: Some(self.spool()),
            deadline: limit(),
            epilog_time: self.epilog_time(),
            starting: None,
        }
    }

    fn note(&self, swept: &Swept) {
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        assert!(swept.unreadable.is_empty(), "{:?}", swept.unreadable);
        for job in &swept.gone {
            *self.found.lock().unwrap().entry(job.key()).or_default() += 1;
        }
    }

    /// As the plugin's prolog and then gres-helper's.
    fn prolog(&self, key: &JobKey) -> Job {
        let (mut state, mut kernel) = (self.state(), self.kernel.clone());
        let mut registry = Registry::open(&state).unwrap();
        let start = Start::now(self.boot.clone()).unwrap();
        let user = 20_000 + key.job.0 % 7;
        let uid = Uid(user);
        let mut job = Job::new(key, start, uid, Gid(user), self.spool());
        registry.begin(&mut state, &job).unwrap();
        registry
            .keep_counters(&state, &job, &self.counters)
            .unwrap();
        let claim = self.claim(&job);
        let mut pages = match &claim {
            Some(claim) => Pages::with_claim(&state, claim),
            None => Pages::of(&state, Due::IfGone),
        }
        .on(&mut kernel);
        self.sweep(false, &mut registry, &mut [&mut pages]);
        let report = pages.outcome().transpose().unwrap();
        if claim.is_some() {
            let entry = report.unwrap().claimed.unwrap();
            assert_eq!(entry.total(POOL.size), wish(key.job), "{key}");
        }
        let reservation = Reservation {
            wanted_mib: 2 * wish(key.job).0,
            mib: 2 * wish(key.job).0,
            ..Reservation::default()
        };
        let reserved = Some(reservation);
        let same = registry.amend(key, &job.start, |job| job.reservation = reserved.clone());
        assert!(same.unwrap(), "{key}: its record is lost");
        job.reservation = reserved.clone();

        let mut gres = state.folder(gres::FOLDER).unwrap();
        let start = shares::recorded_start(self.state().path(), key);
        let of = start.as_ref();
        let share = shares::change(&mut gres, key, uid, of, limit(), |it| it.shards = Some(1));
        assert_eq!(
            share.unwrap().start,
            job.start,
            "{key}: two starts of one job"
        );
        registry
            .note_gpus(key, vec![format!("GPU-{}", key.job)])
            .unwrap();
        job.gpus = vec![format!("GPU-{}", key.job)];
        job
    }

    fn claim(&self, job: &Job) -> Option<Claim> {
        let pages = wish(job.job);
        (!pages.is_zero()).then(|| Claim {
            key: job.key(),
            start: job.start.clone(),
            spool_dir: self.spool(),
            wishes: vec![PageClaim {
                size: POOL.size,
                pages,
                spread: Spread::Even,
            }],
        })
    }

    /// The extern step, which lives as long as the job, and another one.
    fn steps(&self, job: &mut Job) -> UnixListener {
        let (state, key) = (self.state(), job.key());
        let socket = UnixListener::bind(self.socket(&key)).unwrap();
        let mut registry = Registry::open_existing(&state).unwrap().unwrap();
        registry.note_contained(&key).unwrap();
        job.contained = true;
        let recorded = registry.get(&key).unwrap();
        assert_eq!(recorded.as_ref(), Some(&*job), "{key}: its record is lost");
        let counters = counters_at_start::kept(&state, &key).unwrap();
        assert!(counters.is_some(), "{key}: its counters are lost");
        let gres = state.folder(gres::FOLDER).unwrap();
        let share = shares::get(&gres, &key).unwrap();
        assert_eq!(share.map(|it| it.start), Some(job.start.clone()), "{key}");
        assert!(registry::shared(&state, job).is_some(), "{key}");
        socket
    }

    fn socket(&self, key: &JobKey) -> PathBuf {
        self.spool().join(format!("n1_{}.4294967292", key.job))
    }

    /// As gres-helper's epilog and the plugin's.
    fn epilog(&self, job: &Job) {
        let (state, mut kernel, key) = (self.state(), self.kernel.clone(), job.key());
        let mut gres = state.folder(gres::FOLDER).unwrap();
        let lock = gres.lock(shares::LOCK, limit()).unwrap();
        shares::remove(&mut gres, &key).unwrap();
        drop(lock);
        let mut registry = Registry::open(&state).unwrap();
        let recorded = registry.get(&key).unwrap();
        assert!(
            recorded.is_some(),
            "{key}: its epilog has nothing to report"
        );
        registry.end(&state, job).unwrap();
        let mut pages = Pages::of(&state, Due::IfGranted).on(&mut kernel);
        let census = self.census(false);
        let failed = sweep::remains(Some(&registry), &census, &[], &mut [&mut pages]);
        assert!(failed.is_empty(), "{failed:?}");
        pages.outcome().transpose().unwrap();
    }

    fn run_jobs(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number > JOBS {
                return;
            }
            let key = JobKey {
                job: JobId(number),
                node: "n1".parse().unwrap(),
            };
            let mut job = self.prolog(&key);
            let socket = self.steps(&mut job);
            drop(socket);
            // From now on a sweep may find the job to be gone.
            fs::remove_file(self.socket(&key)).unwrap();
            if number.is_multiple_of(25) {
                self.killed.lock().unwrap().insert(key);
            } else {
                self.epilog(&job);
            }
        }
    }

    /// As `slurm-efa reconcile`.
    fn reconcile(&self) {
        let (state, mut kernel) = (self.state(), self.kernel.clone());
        let mut registry = Registry::open(&state).unwrap();
        let mut pages = Pages::of(&state, Due::Now).on(&mut kernel);
        let mut shares = Shares(&state);
        self.sweep(true, &mut registry, &mut [&mut pages, &mut shares]);
        let report = pages.outcome().unwrap().unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert!(report.noticed.is_empty(), "{:?}", report.noticed);
    }

    /// What is left for jobs in the state directory.
    fn left(&self) -> Vec<String> {
        use host::state_layout::job::{COUNTERS, LATEST, LEDGER, RECORDS};
        let mut left = Vec::new();
        for folder in [RECORDS, COUNTERS, LEDGER, LATEST, gres::FOLDER] {
            for entry in fs::read_dir(self.state().path().join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if ![".lock", gres::LOCK].contains(&name.as_str()) {
                    left.push(format!("{folder}/{name}"));
                }
            }
        }
        left
    }
}

/// One job in eight has pages, so that those are exact while others come and go.
fn wish(job: JobId) -> HugePages {
    match job.0 % 8 {
        0 => HugePages(1 + u64::from(job.0 / 8 % 4)),
        _ => HugePages(0),
    }
}

#[test]
fn five_thousand_jobs_side_by_side_lose_nothing_and_leave_nothing() {
    let node = Node::new();
    node.reconcile();
    thread::scope(|scope| {
        let runners: Vec<_> = (0..AT_A_TIME)
            .map(|_| scope.spawn(|| node.run_jobs()))
            .collect();
        let reconciler = scope.spawn(|| {
            while !node.ended.load(Ordering::Relaxed) {
                node.reconcile();
            }
        });
        let results: Vec<_> = runners.into_iter().map(|it| it.join()).collect();
        node.ended.store(true, Ordering::Relaxed);
        reconciler.join().unwrap();
        assert!(results.iter().all(Result::is_ok));
    });
    node.reconcile();
    assert_eq!(node.left(), [""; 0]);
    assert_eq!(*node.kernel.0.lock().unwrap(), BASELINE);
    let found = node.found.into_inner().unwrap();
    let killed = node.killed.into_inner().unwrap();
    // Every other job was ended by its own epilog, which found its record.
    let found: BTreeSet<JobKey> = found.into_keys().collect();
    assert_eq!(found, killed);
}
