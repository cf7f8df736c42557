#![no_main]
//! Reconciliation with whatever a ledger may hold: the kernel gets what the
//! result says, and doing it again changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::state_dir::Store;
use hugepages::dry_run::{OverlayPools, OverlayStore};
use hugepages::ledger::Ledger;
use hugepages::pool::{NumaNode, Pool, PoolError, Pools};
use hugepages::{HugePages, PageSize, Report, reconcile};
use jobs::Existence;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// What a kernel has at first.
struct Kernel(BTreeMap<Pool, HugePages>);

impl Pools for Kernel {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        Ok(self.0.keys().copied().collect())
    }

    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError> {
        Ok(self.0[&pool])
    }

    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError> {
        self.0.insert(pool, pages);
        Ok(())
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        Ok(())
    }
}

/// Size and NUMA node; pages.
type Pages = (bool, bool, u8);

/// The baseline's rows; each job's existence and grants; the kernel's pages; a
/// file of any content.
type Input = (
    Vec<(bool, bool, [u8; 3])>,
    Vec<(u8, Vec<Pages>)>,
    [u8; 4],
    Option<(u8, Vec<u8>)>,
);

fuzz_target!(|input: Input| {
    let (rows, jobs, kernel, alien) = input;
    let mut store = OverlayStore::default();
    let mut put = |name: &str, bytes: &[u8]| store.write(name, bytes).expect("on paper");
    let rows: Vec<Value> = rows
        .iter()
        .map(|(large, second, pages)| {
            json!({"size": size(*large), "numa": u8::from(*second),
               "baseline": pages[0], "held": pages[1], "seen": pages[2]})
        })
        .collect();
    let baseline = json!({"version": 1, "boot": "b", "pools": rows});
    put("baseline.json", baseline.to_string().as_bytes());
    for (job, (_, grants)) in jobs.iter().enumerate().take(200) {
        let granted: Vec<Value> = grants.iter().map(|(large, second, pages)| {
            json!({"size": size(*large), "numa": u8::from(*second), "pages": pages})
        }).collect();
        let entry = json!({"version": 1, "job": job, "node": "n1", "spool_dir": "/s",
            "start": {"boot": "b", "since_boot_ms": 1, "nonce": "0"},
            "wishes": [], "granted": granted});
        put(&format!("{job}@n1.json"), entry.to_string().as_bytes());
    }
    if let Some((job, bytes)) = alien {
        let name = match job {
            255 => "baseline.json".to_owned(),
            254 => "alien".to_owned(),
            job => format!("{job}@n1.json"),
        };
        put(&name, &bytes);
    }
    let pools = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(size, numa)| Pool {
        size: PageSize::ALL[size],
        numa: NumaNode(numa),
    });
    let kernel = kernel.map(|pages| HugePages(pages.into()));
    let mut kernel = OverlayPools::over(Kernel(pools.into_iter().zip(kernel).collect()));
    let mut ledger = Ledger::on_overlay(store);
    let boot: BootId = serde_json::from_value(json!("b")).expect("a boot's name");
    let mut run = || -> Report {
        let deadline = Deadline::after(Duration::from_secs(60));
        let mut exists = |key: &slurm::JobKey, _: Option<&_>| {
            let job = usize::try_from(key.job.0).unwrap_or(usize::MAX);
            match jobs.get(job).map(|(exists, _)| exists % 3) {
                Some(0) => Existence::Exists,
                Some(1) => Existence::Unknown,
                _ => Existence::Gone,
            }
        };
        reconcile(&mut ledger, &mut kernel, &boot, &mut exists, None, deadline).expect("on paper")
    };
    let first = run();
    for pool in &first.pools {
        assert_eq!(pool.actual, pool.target(), "{first:?}");
    }
    let second = run();
    assert!(
        second.dropped.is_empty() && second.noticed.is_empty(),
        "{second:?}"
    );
    for (before, after) in first.pools.iter().zip(&second.pools) {
        assert_eq!(before.actual, after.actual, "{first:?} {second:?}");
    }
});

fn size(large: bool) -> &'static str {
    if large { "1G" } else { "2M" }
}
