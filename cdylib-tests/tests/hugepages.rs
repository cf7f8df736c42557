//! Reservation on the running kernel. Needs root and 128 MiB of free memory.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node::Sysroot;
use node::hugepages::ledger::Ledger;
use node::hugepages::{
    Claim, HugePages, KernelPools, PageSize, Pools, Report, Spread, Wish, reconcile,
};
use node::registry::{BootId, Existence, JobId, JobKey, Start};
use node::state::{Deadline, StateDir};

const LIMIT: Duration = Duration::from_secs(60);
const PAGE: PageSize = PageSize::TwoMiB;

/// The kernel's pages belong to the machine: one test at a time changes them.
fn alone() -> File {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open("/run/slurm-efa-test-hugepages.lock")
        .unwrap();
    // SAFETY: flock takes an open descriptor, which `lock` is, and waits.
    let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) };
    assert_eq!(locked, 0);
    lock
}

fn kernel() -> KernelPools {
    KernelPools::new(Sysroot::real()).unwrap()
}

/// The counts of all pools, surplus included.
fn counts() -> Vec<u64> {
    let pools = kernel().pools().unwrap();
    let count = |pool: &node::hugepages::Pool| {
        let size = pool.size.directory();
        let path = format!(
            "/sys/devices/system/node/node{}/hugepages/{size}/nr_hugepages",
            pool.numa.0
        );
        std::fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    pools.iter().map(count).collect()
}

fn key(job: u32) -> JobKey {
    JobKey {
        job: JobId(job),
        node: "n1".parse().unwrap(),
    }
}

fn claim(job: u32, pages: u64) -> Claim {
    Claim {
        key: key(job),
        start: Start::now(BootId::current().unwrap()).unwrap(),
        spool_dir: PathBuf::from("/var/spool/slurmd"),
        wishes: vec![Wish {
            size: PAGE,
            pages: HugePages(pages),
            spread: Spread::Even,
        }],
    }
}

/// One prolog, or one epilog after which only `alive` are left.
fn run(state: &StateDir, alive: &[u32], claim: Option<&Claim>) -> Report {
    let deadline = Deadline::after(LIMIT);
    reconcile(
        &mut Ledger::open(state, deadline).unwrap(),
        &mut kernel(),
        &BootId::current().unwrap(),
        &mut |key, _| match alive.contains(&key.job.0) {
            true => Existence::Exists,
            false => Existence::Gone,
        },
        claim,
        deadline,
    )
    .unwrap()
}

/// Huge pages of this process.
struct Mapped {
    at: *mut libc::c_void,
    bytes: usize,
}

impl Mapped {
    fn new(pages: usize) -> Self {
        let bytes = pages * usize::try_from(PAGE.bytes()).unwrap();
        // SAFETY: a private anonymous mapping anywhere has no preconditions.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "no pages to map");
        Self { at, bytes }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this size, and nothing points into it.
        let unmapped = unsafe { libc::munmap(self.at, self.bytes) };
        assert_eq!(unmapped, 0);
    }
}

#[test]
fn pages_are_reserved_and_given_back_exactly() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let report = run(&state, &[], Some(&claim(1, 8)));
    assert_eq!(report.claimed.unwrap().total(PAGE), HugePages(8));
    let during: u64 = counts().iter().sum();
    assert_eq!(during, before.iter().sum::<u64>() + 8);
    let second = run(&state, &[1], Some(&claim(2, 3)));
    assert_eq!(second.claimed.unwrap().total(PAGE), HugePages(3));
    let report = run(&state, &[2], None);
    assert_eq!(report.dropped, [key(1)]);
    run(&state, &[], None);
    assert_eq!(counts(), before);
    let left = std::fs::read_dir(dir.path().join("hugepages")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn pages_that_a_dying_process_still_maps_come_back_when_it_lets_go() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    run(&state, &[], Some(&claim(1, 8)));
    let mapped = Mapped::new(6);
    let report = run(&state, &[], None);
    for pool in report.pools {
        assert_eq!(pool.actual, pool.baseline, "{}", pool.pool);
    }
    assert_eq!(counts().iter().sum::<u64>(), before.iter().sum::<u64>() + 6);
    // A job that starts meanwhile gets its own.
    let next = run(&state, &[], Some(&claim(2, 4)));
    assert_eq!(next.claimed.unwrap().total(PAGE), HugePages(4));
    drop(mapped);
    assert_eq!(counts().iter().sum::<u64>(), before.iter().sum::<u64>() + 4);
    run(&state, &[], None);
    assert_eq!(counts(), before);
}

#[test]
fn prologs_and_epilogs_at_the_same_time_wait_for_each_other() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let all: Vec<u32> = (0..8).collect();
    std::thread::scope(|scope| {
        for &job in &all {
            let (state, all) = (&state, &all);
            scope.spawn(move || {
                for _ in 0..5 {
                    let pages = u64::from(job % 3 + 1);
                    let report = run(state, all, Some(&claim(job, pages)));
                    let got = report.claimed.unwrap().total(PAGE);
                    assert_eq!(got, HugePages(pages));
                    let others: Vec<u32> = all.iter().copied().filter(|it| *it != job).collect();
                    run(state, &others, None);
                }
            });
        }
    });
    run(&state, &[], None);
    assert_eq!(counts(), before);
}

#[test]
fn a_thousand_jobs_in_the_ledger_are_reconciled_in_no_time() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    run(&state, &[], Some(&claim(0, 0)));
    let folder = dir.path().join("hugepages");
    let text = std::fs::read_to_string(folder.join("0@n1.json")).unwrap();
    let all: Vec<u32> = (0..1000).collect();
    for job in &all[1..] {
        let text = text.replace("\"job\":0", &format!("\"job\":{job}"));
        std::fs::write(folder.join(key(*job).file_name()), text).unwrap();
    }
    let start = Instant::now();
    let report = run(&state, &all, None);
    let took = start.elapsed();
    println!("1,000 entries: {took:?}");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(run(&state, &[], None).dropped.len(), 1000);
    assert_eq!(counts(), before);
}
