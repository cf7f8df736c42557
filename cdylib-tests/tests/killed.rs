//! A process that changes the kernel's hugepages is killed after each system
//! call that it makes; the next reconciliation finds every page again.

use std::process::{Command, Stdio};

use cdylib_tests::pages::{Alone, Node};
use cdylib_tests::sigkill::{End, killed_after, sweep};

/// A live job whose pages nothing may touch, and how many it has.
const NEIGHBOUR: u32 = 1;
const ITS_PAGES: u64 = 3;

/// The job whose prolog or epilog is killed.
const JOB: u32 = 2;

struct Stage {
    alone: Alone,
    node: Node,
}

impl Stage {
    fn new() -> Self {
        let alone = Alone::wait();
        let node = Node::new();
        node.start(NEIGHBOUR, ITS_PAGES);
        Self { alone, node }
    }

    fn prolog(&self, pages: &str) -> Command {
        let mut command = self.part("prolog");
        command.arg(pages);
        command
    }

    fn epilog(&self) -> Command {
        self.part("epilog")
    }

    fn part(&self, part: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_job-pages"));
        command
            .arg(part)
            .args([self.node.state(), self.node.spool()])
            .arg(JOB.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Reconciles, and asserts that the kernel has what the live jobs have and
    /// not a page more. Returns what the job has.
    fn reconciled(&self, calls: usize) -> u64 {
        let report = self.node.reconcile();
        assert!(report.problems.is_empty(), "{calls}: {:?}", report.problems);
        assert!(report.noticed.is_empty(), "{calls}: {:?}", report.noticed);
        let has = self.node.granted(JOB).unwrap_or(0);
        assert_eq!(self.node.granted(NEIGHBOUR), Some(ITS_PAGES), "{calls}");
        let total = i64::try_from(ITS_PAGES + has).unwrap();
        assert_eq!(self.alone.more(), total, "{calls}");
        has
    }

    /// Everything ends, and nothing is left.
    fn close(self, calls: usize, at_least: usize) {
        println!("killed after each of {calls} system calls");
        assert!(calls > at_least, "{calls}: it was not the program");
        self.node.end(NEIGHBOUR);
        assert_eq!(self.node.ledger(), [""; 0]);
        self.alone.assert_as_before();
    }
}

fn lived_well(end: End) -> bool {
    match end {
        End::Lived(status) => {
            assert!(status.success());
            true
        }
        End::Killed => false,
    }
}

#[test]
fn a_prolog_killed_anywhere_leaves_its_job_all_its_pages_or_none() {
    let stage = Stage::new();
    let calls = sweep(|calls| {
        let end = killed_after(calls, &mut stage.prolog("5")).unwrap();
        let has = stage.reconciled(calls);
        assert!(has == 0 || has == 5, "{calls}: {has}");
        assert!(!lived_well(end) || has == 5);
        // Slurm runs the epilog of a job whose prolog failed, too.
        stage.node.end(JOB);
        assert_eq!(stage.reconciled(calls), 0, "{calls}");
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 100);
}

#[test]
fn the_first_prolog_of_a_node_killed_anywhere_leaves_it_as_it_was() {
    let alone = Alone::wait();
    let stage = Stage {
        alone,
        node: Node::new(),
    };
    let calls = sweep(|calls| {
        // Nothing is there yet, not even a directory.
        let _ = std::fs::remove_dir_all(stage.node.state());
        let end = killed_after(calls, &mut stage.prolog("5")).unwrap();
        stage.node.end(JOB);
        stage.alone.assert_as_before();
        assert_eq!(stage.node.ledger(), [""; 0]);
        lived_well(end);
        Ok::<_, ()>(end)
    })
    .unwrap();
    assert!(calls > 100, "{calls}");
}

#[test]
fn the_prolog_of_a_requeued_job_killed_anywhere_counts_no_page_twice() {
    let stage = Stage::new();
    let calls = sweep(|calls| {
        // Its earlier start ended without an epilog.
        stage.node.start(JOB, 5);
        let end = killed_after(calls, &mut stage.prolog("2")).unwrap();
        let has = stage.reconciled(calls);
        assert!([0, 2, 5].contains(&has), "{calls}: {has}");
        assert!(!lived_well(end) || has == 2);
        stage.node.end(JOB);
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 100);
}

#[test]
fn an_epilog_killed_anywhere_is_made_good_by_the_next_reconciliation() {
    let stage = Stage::new();
    let calls = sweep(|calls| {
        stage.node.start(JOB, 5);
        stage.node.vanish(JOB);
        let end = killed_after(calls, &mut stage.epilog()).unwrap();
        assert_eq!(stage.reconciled(calls), 0, "{calls}");
        lived_well(end);
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 100);
}

#[test]
fn without_an_extern_step_an_epilog_killed_anywhere_is_made_good_by_its_repetition() {
    let stage = Stage::new();
    let calls = sweep(|calls| {
        stage.node.start(JOB, 5);
        let end = killed_after(calls, &mut stage.epilog()).unwrap();
        let has = stage.reconciled(calls);
        assert!(has == 0 || has == 5, "{calls}: {has}");
        assert!(!lived_well(end) || has == 0);
        stage.node.end(JOB);
        assert_eq!(stage.reconciled(calls), 0, "{calls}");
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 100);
}
