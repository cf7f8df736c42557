//! Reservation against a simulated machine that can be killed between any two
//! effects, and in the middle of one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::ledger::{Entry, Ledger, PageClaim, Spread};
use super::pool::{Counts, NumaNode, Pool, PoolError, Pools, at};
use super::reconcile::{Claim, ReconcileError, Report, reconcile};
use config::size::{HugePages, PageSize};
use host::BootId;
use host::Deadline;
use host::state_dir::{StateError, Store};
use jobs::Existence;
use jobs::registry::Start;
use slurm::{JobId, JobKey};

use host::state_layout::job::LEDGER_BASELINE as BASELINE;
const TEMPORARY: &str = ".tmp.left";

/// A pool of a kernel with a memory of its own.
#[derive(Debug, Clone, Copy)]
struct FakePool {
    persistent: u64,
    /// As many as the kernel can have as memory lies now.
    limit: u64,
    /// As many more after compaction.
    scattered: u64,
}

/// What survives a process: files and kernel.
#[derive(Debug, Clone)]
struct World {
    disk: BTreeMap<String, Vec<u8>>,
    pools: BTreeMap<Pool, FakePool>,
    /// Effects until SIGKILL.
    fuse: Option<u32>,
    dead: bool,
    /// The file system is full.
    full: bool,
    compactions: u32,
    writes: u32,
}

impl World {
    /// False: killed here, or before.
    fn alive(&mut self) -> bool {
        match &mut self.fuse {
            _ if self.dead => {}
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<World>>);

fn killed() -> StateError {
    StateError::Io {
        action: "go on with",
        path: PathBuf::new(),
        source: io::ErrorKind::Interrupted.into(),
    }
}

impl Store for Shared {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let world = self.0.borrow();
        match world.dead {
            true => Err(killed()),
            false => Ok(world.disk.get(name).cloned()),
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let mut world = self.0.borrow_mut();
        if !world.alive() {
            return Err(killed());
        }
        if world.full {
            return Err(StateError::Io {
                action: "write",
                path: name.into(),
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        let half = bytes[..bytes.len() / 2].to_vec();
        world.disk.insert(TEMPORARY.to_owned(), half);
        if !world.alive() {
            return Err(killed());
        }
        world.disk.remove(TEMPORARY);
        world.disk.insert(name.to_owned(), bytes.to_vec());
        world.writes += 1;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StateError> {
        let mut world = self.0.borrow_mut();
        if !world.alive() {
            return Err(killed());
        }
        world.disk.remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        let world = self.0.borrow();
        if world.dead {
            return Err(killed());
        }
        let names = world.disk.keys().filter(|name| *name != TEMPORARY);
        Ok(names.cloned().collect())
    }

    fn sweep(&mut self) -> Result<(), StateError> {
        self.remove(TEMPORARY)
    }
}

impl Shared {
    fn kernel_killed(pool: Pool) -> PoolError {
        PoolError::Unsteady { pool }
    }
}

impl Pools for Shared {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        Ok(self.0.borrow().pools.keys().copied().collect())
    }

    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError> {
        let world = self.0.borrow();
        match world.dead {
            true => Err(Self::kernel_killed(pool)),
            false => Ok(HugePages(world.pools[&pool].persistent)),
        }
    }

    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError> {
        let mut world = self.0.borrow_mut();
        if !world.alive() {
            return Err(Self::kernel_killed(pool));
        }
        let now = world.pools[&pool];
        let given = match pages.0 {
            less if less <= now.persistent => less,
            more => more.min(now.limit).max(now.persistent),
        };
        // SIGKILL while the kernel is at it.
        let survived = world.alive();
        let pool_now = world.pools.get_mut(&pool).unwrap();
        pool_now.persistent = match survived {
            true => given,
            false => u64::midpoint(now.persistent, given),
        };
        match survived {
            true => Ok(()),
            false => Err(Self::kernel_killed(pool)),
        }
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        let mut world = self.0.borrow_mut();
        if !world.alive() {
            return Err(Self::kernel_killed(pool(PageSize::TwoMiB, 0)));
        }
        world.compactions += 1;
        for pool in world.pools.values_mut() {
            pool.limit += std::mem::take(&mut pool.scattered);
        }
        Ok(())
    }
}

fn pool(size: PageSize, numa: u32) -> Pool {
    Pool {
        size,
        numa: NumaNode(numa),
    }
}

const TWO: PageSize = PageSize::TwoMiB;
const ONE: PageSize = PageSize::OneGiB;

fn all_pools() -> [Pool; 4] {
    [pool(TWO, 0), pool(TWO, 1), pool(ONE, 0), pool(ONE, 1)]
}

fn key(job: u32) -> JobKey {
    JobKey {
        job: JobId(job),
        node: "n1".parse().unwrap(),
    }
}

/// A job as the test knows it.
#[derive(Debug, Clone)]
struct ModelJob {
    start: Start,
    wishes: Vec<PageClaim>,
    /// It ended, but whether it exists cannot be found out.
    unclear: bool,
    /// What it was seen to have and must not lose.
    has: Counts,
}

/// The machine and what should be true of it.
#[derive(Clone)]
struct Machine {
    world: World,
    boot: u32,
    starts: u32,
    baseline: BTreeMap<Pool, u64>,
    jobs: BTreeMap<u32, ModelJob>,
}

#[derive(Debug, Clone)]
enum Op {
    /// A prolog; the same one again if the job is alive.
    Start(u32, Vec<PageClaim>),
    /// The job starts anew without an epilog in between.
    Requeue(u32, Vec<PageClaim>),
    /// An epilog, for a job that may not exist.
    End(u32),
    /// The job ends and nobody is told.
    Missed(u32),
    /// It ends, and whether it did cannot be found out for a while.
    Unclear(u32),
    /// That can be found out again.
    Clear(u32),
    /// The administrator writes a number.
    Admin(Pool, u64),
    /// The boot-time setting is applied again.
    AdminAgain(PageSize),
    /// Memory is used up in between.
    Scatter(Pool, u64),
    Reboot,
    Reconcile,
}

/// What befalls the process that carries out an operation.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Lives,
    /// SIGKILL after so many effects.
    Killed(u32),
    /// `/run` is full.
    Full,
}

#[derive(Debug, PartialEq)]
enum Ended {
    Well,
    Killed,
    Badly,
}

impl Machine {
    fn new() -> Self {
        let baseline = BTreeMap::from([(pool(TWO, 0), 7), (pool(TWO, 1), 4), (pool(ONE, 0), 1)]);
        let fresh = |it: &Pool| FakePool {
            persistent: baseline.get(it).copied().unwrap_or(0),
            limit: 60,
            scattered: 20,
        };
        Self {
            world: World {
                disk: BTreeMap::new(),
                pools: all_pools().iter().map(|it| (*it, fresh(it))).collect(),
                fuse: None,
                dead: false,
                full: false,
                compactions: 0,
                writes: 0,
            },
            boot: 0,
            starts: 0,
            baseline,
            jobs: BTreeMap::new(),
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::for_test(&self.boot.to_string())
    }

    fn start(&mut self) -> Start {
        self.starts += 1;
        Start {
            boot: self.boot_id(),
            since_boot_ms: u64::from(self.starts),
            nonce: self.starts.to_string(),
        }
    }

    /// One process: prolog, epilog or `reconcile`.
    fn process(&mut self, claim: Option<u32>, fate: Fate) -> (Ended, Option<Report>) {
        self.world.fuse = match fate {
            Fate::Killed(effects) => Some(effects),
            Fate::Lives | Fate::Full => None,
        };
        self.world.full = matches!(fate, Fate::Full);
        let shared = Shared(Rc::new(RefCell::new(self.world.clone())));
        let claim = claim.map(|job| Claim {
            key: key(job),
            start: self.jobs[&job].start.clone(),
            spool_dir: "/spool".into(),
            wishes: self.jobs[&job].wishes.clone(),
        });
        let mut exists = |key: &JobKey, entry: Option<&Entry>| match self.jobs.get(&key.job.0) {
            Some(job) if entry.is_some_and(|entry| entry.start != job.start) => Existence::Gone,
            Some(job) if job.unclear => Existence::Unknown,
            Some(_) => Existence::Exists,
            None => Existence::Gone,
        };
        let result: Result<Report, ReconcileError> = reconcile(
            &mut Ledger::unlocked(shared.clone()),
            &mut shared.clone(),
            &self.boot_id(),
            &mut exists,
            claim.as_ref(),
            Deadline::after(Duration::from_secs(3600)),
        );
        self.world = shared.0.borrow().clone();
        let ended = match &result {
            _ if self.world.dead => Ended::Killed,
            Ok(_) => Ended::Well,
            Err(error) => {
                assert!(self.world.full, "{error}");
                Ended::Badly
            }
        };
        (self.world.fuse, self.world.dead, self.world.full) = (None, false, false);
        (ended, result.ok())
    }

    /// The part of an operation that is not ours; then our process.
    fn run(&mut self, op: &Op, fate: Fate) -> Ended {
        let claim = self.happen(op);
        let (ended, report) = self.process(claim, fate);
        if let (Some(job), Some(report), Ended::Well) = (claim, report, &ended) {
            self.check_claim(job, &report);
        }
        ended
    }

    fn happen(&mut self, op: &Op) -> Option<u32> {
        match op {
            Op::Start(job, wishes) | Op::Requeue(job, wishes) => {
                let again = matches!(op, Op::Start(..));
                let alive = self.jobs.get(job).is_some_and(|it| !it.unclear);
                if !(again && alive) {
                    let start = self.start();
                    let new = ModelJob {
                        start,
                        wishes: wishes.clone(),
                        unclear: false,
                        has: Counts::new(),
                    };
                    self.jobs.insert(*job, new);
                }
                return Some(*job);
            }
            Op::End(job) | Op::Missed(job) | Op::Clear(job) => {
                let clear = matches!(op, Op::Clear(_));
                if !clear || self.jobs.get(job).is_some_and(|it| it.unclear) {
                    self.jobs.remove(job);
                }
            }
            Op::Unclear(job) => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.unclear = true;
                }
            }
            Op::Admin(pool, pages) => self.admin(&[(*pool, *pages)]),
            Op::AdminAgain(size) => {
                let pools = all_pools().into_iter().filter(|pool| pool.size == *size);
                let again: Vec<(Pool, u64)> = pools.map(|it| (it, self.baseline_of(it))).collect();
                self.admin(&again);
            }
            Op::Scatter(pool, pages) => {
                let pool = self.world.pools.get_mut(pool).unwrap();
                let less = (*pages).min(pool.limit - pool.persistent);
                pool.limit -= less;
                pool.scattered += less / 2;
            }
            Op::Reboot => {
                let disk = std::mem::take(&mut self.world.disk);
                let boot = self.boot + 1;
                *self = Self {
                    boot,
                    starts: self.starts,
                    ..Self::new()
                };
                self.world.disk = disk;
            }
            Op::Reconcile => {}
        }
        None
    }

    fn baseline_of(&self, pool: Pool) -> u64 {
        self.baseline.get(&pool).copied().unwrap_or(0)
    }

    fn admin(&mut self, written: &[(Pool, u64)]) {
        let size = written[0].0.size;
        let before = self.world.pools.clone();
        for (pool, pages) in written {
            let shared = Shared(Rc::new(RefCell::new(self.world.clone())));
            shared
                .clone()
                .set_persistent(*pool, HugePages(*pages))
                .unwrap();
            self.world = shared.0.borrow().clone();
        }
        let of_size = || all_pools().into_iter().filter(|it| it.size == size);
        let now: u64 = of_size().map(|it| self.world.pools[&it].persistent).sum();
        let known = self.world.disk.contains_key(BASELINE);
        let old: u64 = of_size().map(|it| self.baseline_of(it)).sum();
        if known && now == old {
            return;
        }
        for it in of_size() {
            let (was, is) = (before[&it].persistent, self.world.pools[&it].persistent);
            let baseline = (self.baseline_of(it) + is).saturating_sub(was);
            self.baseline.insert(it, baseline);
        }
    }

    /// A job got what it wanted, or all there is.
    fn check_claim(&self, job: u32, report: &Report) {
        let entry = report.claimed.as_ref().unwrap();
        assert_eq!(entry.key(), key(job));
        for wish in &self.jobs[&job].wishes {
            let got = entry.total(wish.size);
            assert!(got <= wish.pages);
            let pools = all_pools().into_iter().filter(|it| it.size == wish.size);
            let used_up = pools.into_iter().all(|it| {
                let pool = self.world.pools[&it];
                pool.persistent == pool.limit && pool.scattered == 0
            });
            let strict = wish.spread == Spread::Strict;
            assert!(
                got == wish.pages || used_up || strict,
                "{got} of {wish:?} in {:?}",
                self.world.pools
            );
        }
    }

    /// What must be true after a reconciliation that nobody killed.
    fn check(&mut self) {
        let shared = Shared(Rc::new(RefCell::new(self.world.clone())));
        let (entries, problems) = Ledger::unlocked(shared).entries().unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let mut total = Counts::new();
        for entry in &entries {
            let job = self.jobs.get_mut(&entry.job.0).unwrap();
            assert_eq!(entry.start, job.start, "an earlier start has pages");
            let counts = entry.counts();
            for (pool, pages) in &job.has {
                assert!(
                    at(&counts, *pool) >= *pages,
                    "{pool}: a live job lost pages"
                );
            }
            for wish in &job.wishes {
                assert!(entry.total(wish.size) <= wish.pages);
            }
            for (pool, pages) in &counts {
                let sum = total.entry(*pool).or_default();
                *sum = sum.plus(*pages);
            }
            job.has = counts;
        }
        for job in self.jobs.values().filter(|job| !job.has.is_empty()) {
            let there = entries.iter().any(|entry| entry.start == job.start);
            assert!(there, "a live job lost its entry");
        }
        for (pool, it) in &self.world.pools {
            let expected = self.baseline_of(*pool) + at(&total, *pool).0;
            assert_eq!(it.persistent, expected, "{pool}");
        }
        assert!(!self.world.disk.contains_key(TEMPORARY));
        if entries.is_empty() {
            assert!(self.world.disk.is_empty(), "{:?}", self.world.disk.keys());
        }
    }

    fn reconcile_and_check(&mut self) {
        let (ended, _) = self.process(None, Fate::Lives);
        assert_eq!(ended, Ended::Well);
        self.check();
    }
}

fn wish(size: PageSize, pages: u64) -> PageClaim {
    PageClaim {
        size,
        pages: HugePages(pages),
        spread: Spread::Even,
    }
}

/// The life of a node, with a shortage, odd numbers and every kind of end.
fn a_day() -> Vec<Op> {
    let first = vec![wish(TWO, 21), wish(ONE, 3)];
    vec![
        Op::Start(1, first.clone()),
        Op::Start(2, vec![wish(TWO, 90)]),
        Op::Start(1, first),
        Op::Admin(pool(TWO, 1), 80),
        Op::AdminAgain(TWO),
        Op::Requeue(1, vec![wish(TWO, 5)]),
        Op::Start(3, vec![wish(TWO, 400), wish(ONE, 400)]),
        Op::Missed(2),
        Op::Unclear(3),
        Op::Start(2, vec![wish(ONE, 2)]),
        Op::Admin(pool(TWO, 0), 0),
        Op::Clear(3),
        Op::End(1),
        Op::Reboot,
        Op::Start(1, vec![wish(TWO, 10)]),
        Op::End(1),
        Op::End(2),
    ]
}

#[test]
fn after_a_day_of_jobs_every_pool_is_as_the_administrator_left_it() {
    let mut machine = Machine::new();
    for op in a_day() {
        assert_eq!(machine.run(&op, Fate::Lives), Ended::Well, "{op:?}");
        machine.check();
    }
    assert!(machine.jobs.is_empty());
    assert!(machine.world.disk.is_empty());
}

#[test]
fn whichever_effect_is_the_last_before_sigkill_the_next_reconciliation_is_exact() {
    let mut machine = Machine::new();
    let mut kills = 0;
    for op in a_day() {
        for effects in 0.. {
            let mut victim = machine.clone();
            let ended = victim.run(&op, Fate::Killed(effects));
            if ended == Ended::Well {
                break;
            }
            kills += 1;
            // The reconciliation that heals is killed, too, everywhere.
            for again in 0.. {
                let mut second = victim.clone();
                let (ended, _) = second.process(None, Fate::Killed(again));
                second.reconcile_and_check();
                if ended == Ended::Well {
                    break;
                }
                kills += 1;
            }
        }
        machine.run(&op, Fate::Lives);
        machine.check();
    }
    assert!(kills > 1000, "only {kills} kills");
}

#[test]
fn with_a_full_file_system_nobody_loses_pages_and_the_rest_heals_with_room() {
    let mut machine = Machine::new();
    for op in a_day() {
        let mut full = machine.clone();
        full.run(&op, Fate::Full);
        full.reconcile_and_check();
        machine.run(&op, Fate::Lives);
    }
}

#[test]
fn pages_are_spread_evenly_and_an_odd_one_lies_anywhere() {
    let mut machine = Machine::new();
    machine.run(&Op::Start(1, vec![wish(TWO, 21)]), Fate::Lives);
    machine.check();
    let has = &machine.jobs[&1].has;
    assert_eq!(at(has, pool(TWO, 0)), HugePages(11));
    assert_eq!(at(has, pool(TWO, 1)), HugePages(10));
    assert_eq!(machine.world.compactions, 0);
}

#[test]
fn what_one_numa_node_lacks_the_other_gives_before_memory_is_compacted() {
    let mut machine = Machine::new();
    machine.run(&Op::Scatter(pool(TWO, 0), 48), Fate::Lives);
    machine.run(&Op::Start(1, vec![wish(TWO, 40)]), Fate::Lives);
    machine.check();
    let has = &machine.jobs[&1].has;
    assert_eq!(at(has, pool(TWO, 0)), HugePages(5));
    assert_eq!(at(has, pool(TWO, 1)), HugePages(35));
    assert_eq!(machine.world.compactions, 0);
}

#[test]
fn a_strict_job_is_not_given_what_lies_on_another_numa_node() {
    let mut machine = Machine::new();
    let strict = PageClaim {
        spread: Spread::Strict,
        ..wish(TWO, 200)
    };
    machine.run(&Op::Scatter(pool(TWO, 0), 48), Fate::Lives);
    machine.run(&Op::Start(1, vec![strict]), Fate::Lives);
    machine.check();
    let has = &machine.jobs[&1].has;
    assert_eq!(at(has, pool(TWO, 0)), HugePages(12 - 7 + 20 + 24));
    assert_eq!(at(has, pool(TWO, 1)), HugePages(80 - 4));
    assert_eq!(machine.world.compactions, 2);
}

#[test]
fn after_the_deadline_a_job_has_what_there_is_and_nobody_compacts() {
    let mut machine = Machine::new();
    machine.happen(&Op::Start(1, vec![wish(TWO, 200)]));
    let shared = Shared(Rc::new(RefCell::new(machine.world.clone())));
    let claim = Claim {
        key: key(1),
        start: machine.jobs[&1].start.clone(),
        spool_dir: "/spool".into(),
        wishes: vec![wish(TWO, 200)],
    };
    let report = reconcile(
        &mut Ledger::unlocked(shared.clone()),
        &mut shared.clone(),
        &machine.boot_id(),
        &mut |_, _| Existence::Exists,
        Some(&claim),
        Deadline::after(Duration::ZERO),
    );
    let got = report.unwrap().claimed.unwrap().total(TWO);
    assert_eq!(got, HugePages(60 - 7 + 60 - 4));
    machine.world = shared.0.borrow().clone();
    assert_eq!(machine.world.compactions, 0);
    machine.reconcile_and_check();
}

#[test]
fn without_jobs_a_reconciliation_writes_nothing() {
    let mut machine = Machine::new();
    machine.reconcile_and_check();
    machine.run(&Op::Admin(pool(TWO, 0), 33), Fate::Lives);
    machine.check();
    assert_eq!(machine.world.writes, 0);
}

#[test]
fn a_reconciliation_that_finds_all_well_writes_nothing() {
    let mut machine = Machine::new();
    machine.run(&Op::Start(1, vec![wish(TWO, 21)]), Fate::Lives);
    let writes = machine.world.writes;
    machine.reconcile_and_check();
    assert_eq!(machine.world.writes, writes);
}

#[test]
fn the_boot_time_setting_applied_again_during_a_job_is_not_a_smaller_baseline() {
    let mut machine = Machine::new();
    machine.run(&Op::Start(1, vec![wish(TWO, 21)]), Fate::Lives);
    machine.run(&Op::AdminAgain(TWO), Fate::Lives);
    machine.check();
    machine.run(&Op::End(1), Fate::Lives);
    assert_eq!(machine.world.pools[&pool(TWO, 0)].persistent, 7);
    assert_eq!(machine.world.pools[&pool(TWO, 1)].persistent, 4);
}

#[test]
fn pages_that_the_administrator_adds_during_a_job_stay_after_it() {
    let mut machine = Machine::new();
    machine.run(&Op::Start(1, vec![wish(TWO, 20)]), Fate::Lives);
    machine.run(&Op::Admin(pool(TWO, 0), 17 + 5), Fate::Lives);
    machine.run(&Op::End(1), Fate::Lives);
    assert_eq!(machine.world.pools[&pool(TWO, 0)].persistent, 12);
}

#[test]
fn an_administrator_who_takes_all_pages_away_takes_none_of_a_running_job() {
    let mut machine = Machine::new();
    machine.run(&Op::Start(1, vec![wish(TWO, 20)]), Fate::Lives);
    machine.run(&Op::Admin(pool(TWO, 0), 3), Fate::Lives);
    assert_eq!(machine.world.pools[&pool(TWO, 0)].persistent, 10);
    machine.run(&Op::End(1), Fate::Lives);
    assert_eq!(machine.world.pools[&pool(TWO, 0)].persistent, 0);
}

/// Ways in which a job's file stops being one.
const DAMAGES: [&str; 4] = ["", "{\"version\":1,\"jo", "[]", "\u{0}\u{0}\u{0}"];

#[test]
fn a_job_whose_file_is_torn_keeps_its_pages_until_it_ends_and_then_totals_are_exact() {
    for damage in DAMAGES {
        let mut machine = Machine::new();
        for job in 1..=3 {
            let op = Op::Start(job, vec![wish(TWO, 10 * u64::from(job))]);
            machine.run(&op, Fate::Lives);
        }
        for torn in [2, 3] {
            let file = key(torn).file_name();
            machine.world.disk.insert(file, damage.as_bytes().to_vec());
        }
        let persistent = |machine: &Machine| machine.world.pools[&pool(TWO, 0)].persistent;
        let (_, report) = machine.process(None, Fate::Lives);
        assert_eq!(report.unwrap().problems.len(), 2);
        assert_eq!(persistent(&machine), 7 + 5 + 10 + 15);
        machine.run(&Op::End(1), Fate::Lives);
        assert_eq!(persistent(&machine), 7 + 10 + 15);
        // Which of the two had how many is lost, so both keep them.
        machine.run(&Op::End(2), Fate::Lives);
        assert_eq!(persistent(&machine), 7 + 10 + 15);
        machine.run(&Op::End(3), Fate::Lives);
        machine.check();
        assert!(machine.world.disk.is_empty());
    }
}

#[test]
fn a_torn_baseline_is_found_again_from_the_kernel_and_the_jobs() {
    for damage in DAMAGES {
        let mut machine = Machine::new();
        machine.run(&Op::Start(1, vec![wish(TWO, 20)]), Fate::Lives);
        let bytes = damage.as_bytes().to_vec();
        machine.world.disk.insert(BASELINE.to_owned(), bytes);
        machine.reconcile_and_check();
        machine.run(&Op::End(1), Fate::Lives);
        machine.check();
    }
}

#[test]
fn alien_files_are_told_and_left_alone() {
    let mut machine = Machine::new();
    let alien = "notes.txt".to_owned();
    machine.world.disk.insert(alien.clone(), b"x".to_vec());
    machine.run(&Op::Start(1, vec![wish(TWO, 20)]), Fate::Lives);
    let (_, report) = machine.process(None, Fate::Lives);
    assert_eq!(report.unwrap().problems[0].file, alien);
    machine.run(&Op::End(1), Fate::Lives);
    assert_eq!(machine.world.pools[&pool(TWO, 0)].persistent, 7);
    assert_eq!(machine.world.disk.len(), 1);
}

#[test]
fn many_jobs_that_end_in_another_order_leave_nothing() {
    let mut machine = Machine::new();
    for it in machine.world.pools.values_mut() {
        it.limit = 10_000;
    }
    for job in 0..60 {
        let wishes = vec![wish(TWO, u64::from(job % 7)), wish(ONE, u64::from(job % 3))];
        machine.run(&Op::Start(job, wishes), Fate::Lives);
    }
    machine.check();
    for job in (0..60).map(|at| at * 7 % 60) {
        machine.run(&Op::End(job), Fate::Lives);
        machine.check();
    }
    assert!(machine.world.disk.is_empty());
}

fn wishes() -> impl Strategy<Value = Vec<PageClaim>> {
    let wish = |size| {
        (0u64..60, any::<bool>()).prop_map(move |(pages, strict)| PageClaim {
            size,
            pages: HugePages(pages),
            spread: if strict { Spread::Strict } else { Spread::Even },
        })
    };
    prop_oneof![
        wish(TWO).prop_map(|it| vec![it]),
        wish(ONE).prop_map(|it| vec![it]),
        (wish(TWO), wish(ONE)).prop_map(|(two, one)| vec![two, one]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let job = 0u32..4;
    let a_pool = (0usize..4).prop_map(|at| all_pools()[at]);
    prop_oneof![
        4 => (job.clone(), wishes()).prop_map(|(job, wishes)| Op::Start(job, wishes)),
        1 => (job.clone(), wishes()).prop_map(|(job, wishes)| Op::Requeue(job, wishes)),
        3 => job.clone().prop_map(Op::End),
        1 => job.clone().prop_map(Op::Missed),
        1 => job.clone().prop_map(Op::Unclear),
        1 => job.prop_map(Op::Clear),
        2 => (a_pool.clone(), 0u64..70).prop_map(|(pool, pages)| Op::Admin(pool, pages)),
        1 => any::<bool>().prop_map(|two| Op::AdminAgain(if two { TWO } else { ONE })),
        1 => (a_pool, 0u64..40).prop_map(|(pool, pages)| Op::Scatter(pool, pages)),
        1 => Just(Op::Reboot),
        1 => Just(Op::Reconcile),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        2 => Just(Fate::Lives),
        3 => (0u32..40).prop_map(Fate::Killed),
        1 => Just(Fate::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn whatever_happens_in_whatever_order_totals_are_baseline_and_live_jobs(
        day in proptest::collection::vec((op(), fate(), fate()), 1..25)
    ) {
        let mut machine = Machine::new();
        for (op, fate, healing) in day {
            machine.run(&op, fate);
            machine.process(None, healing);
            machine.reconcile_and_check();
        }
        machine.jobs.clear();
        machine.reconcile_and_check();
        prop_assert!(machine.world.disk.is_empty());
    }
}
