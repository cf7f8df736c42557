//! `slurm-efa-job prolog` and `epilog` are killed after each system call that they
//! make, or meet a full `/run`; the next reconciliation finds every page again.
//! (`slurm-efa reconcile` killed so: `slurm-efa/tests/reconcile.rs`.)

use std::fs;
use std::process::{Child, Command, Stdio};

use cdylib_tests::modules;
use cdylib_tests::pages::{Alone, Node, key};
use cdylib_tests::sigkill::{End, killed_after, killed_after_change, sweep};
use cdylib_tests::simnode::{SimNode, Spec};

/// A live job whose pages nothing may touch, and how many it has.
const NEIGHBOUR: u32 = 1;
const ITS_PAGES: u64 = 3;

/// The job whose prolog or epilog is killed.
const JOB: u32 = 2;

/// The program as slurmd calls it.
fn call(node: &Node, command: &str, job: u32) -> Command {
    let mut program = Command::new(modules::program("slurm-efa-job"));
    program
        .arg(command)
        .arg("--config")
        .arg(node.config())
        .env("SLURMD_NODENAME", "n1")
        .env("SLURM_JOB_ID", job.to_string())
        .env("SLURM_JOB_UID", "1000")
        .env("SLURM_JOB_GID", "1000")
        .env("SLURM_CONF", node.slurm_conf())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    program
}

/// The variables by which a prolog learns of the job's options.
const PROFILE: &str = "SPANK_EFA_PROFILE";
const HUGEPAGES: &str = "SPANK_EFA_HUGEPAGES";

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

    fn prolog(&self, size: &str) -> Command {
        let mut command = call(&self.node, "prolog", JOB);
        command.env(HUGEPAGES, size);
        command
    }

    fn epilog(&self) -> Command {
        call(&self.node, "epilog", JOB)
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
        let end = killed_after(calls, &mut stage.prolog("10M")).unwrap();
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
        let end = killed_after(calls, &mut stage.prolog("10M")).unwrap();
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
        let end = killed_after(calls, &mut stage.prolog("4M")).unwrap();
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

/// A node with EFA devices and a log of its own.
fn with_devices(node: &Node) {
    let dir = node.config().parent().unwrap().to_owned();
    SimNode::build(&dir.join("root"), &Spec::named("p4d.24xlarge").unwrap()).unwrap();
    let mut text = fs::read_to_string(node.config()).unwrap();
    let log = dir.join("log/jobs.jsonl");
    text.push_str(&format!("sysroot = '{}'\n", dir.join("root").display()));
    text.push_str(&format!("[report]\nlog = '{}'\n", log.display()));
    fs::write(node.config(), text).unwrap();
}

#[test]
fn a_prolog_that_has_counters_read_killed_anywhere_leaves_its_job_all_its_pages_or_none() {
    let stage = Stage::new();
    with_devices(&stage.node);
    let calls = sweep(|calls| {
        let mut prolog = stage.prolog("10M");
        let end = killed_after(calls, prolog.env(PROFILE, "p4d")).unwrap();
        let has = stage.reconciled(calls);
        assert!(has == 0 || has == 5, "{calls}: {has}");
        assert!(!lived_well(end) || has == 5);
        // The reader may be at work: what it reads is kept for no other start.
        stage.node.end(JOB);
        assert_eq!(stage.reconciled(calls), 0, "{calls}");
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 200);
}

#[test]
fn an_epilog_that_has_counters_read_killed_after_any_change_is_made_good_by_its_repetition() {
    let stage = Stage::new();
    with_devices(&stage.node);
    let calls = sweep(|calls| {
        let mut prolog = stage.prolog("10M");
        assert!(prolog.env(PROFILE, "p4d").status().unwrap().success());
        let end = killed_after_change(calls, &mut stage.epilog()).unwrap();
        let has = stage.reconciled(calls);
        assert!(has == 0 || has == 5, "{calls}: {has}");
        assert!(!lived_well(end) || has == 0);
        assert!(stage.epilog().status().unwrap().success());
        assert_eq!(stage.reconciled(calls), 0, "{calls}");
        Ok::<_, ()>(end)
    })
    .unwrap();
    stage.close(calls, 20);
}

#[test]
fn jobs_that_start_and_end_side_by_side_each_have_their_record_and_leave_nothing() {
    const AT_ONCE: u32 = 64;
    let stage = Stage::new();
    let jobs = 100..100 + AT_ONCE;
    for round in 0..3 {
        let all = |role: &str, size: Option<&str>| {
            let started: Vec<Child> = jobs
                .clone()
                .map(|job| {
                    let mut program = call(&stage.node, role, job);
                    program.envs(size.iter().map(|size| (HUGEPAGES, size)));
                    program.stderr(Stdio::piped()).spawn().unwrap()
                })
                .collect();
            stage.node.reconcile();
            for program in started {
                let output = program.wait_with_output().unwrap();
                assert!(output.status.success());
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(said, "", "{role}, round {round}");
            }
        };
        all("prolog", Some("2M"));
        for job in jobs.clone() {
            let granted = stage.node.granted(job);
            assert_eq!(granted, Some(1), "job {job}, round {round}");
        }
        all("epilog", None);
        let left = stage.node.records();
        assert_eq!(left, [key(NEIGHBOUR)], "round {round}");
    }
    stage.node.end(NEIGHBOUR);
    assert_eq!(stage.node.ledger(), [""; 0]);
    stage.alone.assert_as_before();
}

/// Job 1 has 3 pages and job 2 has 5, then `/run` is full.
const FULL: &str = r#"
    total() { echo $(($(cat /sys/devices/system/node/node*/hugepages/*/nr_hugepages | tr '\n' +)0)); }
    before=$(total)
    export SLURM_JOB_UID=1000
    prolog() { SLURM_JOB_ID=$1 SPANK_EFA_HUGEPAGES=$2 "$PROGRAM" prolog --config "$CONFIG"; }
    epilog() { SLURM_JOB_ID=$1 "$PROGRAM" epilog --config "$CONFIG"; }
    say() { echo "$1: $(($(total) - before)) pages"; }
    pool=/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
    mkdir "$STATE"
    # In a chroot whose root is no mount point this fails, and the mount may be
    # seen outside until it is undone.
    mount --make-rprivate / 2>/dev/null || :
    trap 'umount "$STATE"' EXIT
    mount -t tmpfs -o size=64k,mode=0755 none "$STATE"
    prolog 1 6M
    prolog 2 10M
    dd if=/dev/zero of="$STATE/filler" bs=1k 2>/dev/null || say full
    prolog 3 8M
    say refused
    had=$(cat $pool)
    echo $((had + 1)) >$pool
    "$SLURM_EFA" reconcile --config "$CONFIG" || say "code $?"
    echo "$had" >$pool
    epilog 2
    say ended
    rm "$STATE/filler"
    "$SLURM_EFA" reconcile --config "$CONFIG" && say reconciled
    epilog 1
    say empty
"#;

#[test]
fn a_full_run_refuses_new_jobs_their_pages_and_neither_costs_nor_keeps_those_of_others() {
    let alone = Alone::wait();
    let node = Node::new();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "unchanged",
            "bash",
            "-euc",
            FULL,
        ])
        .env("PROGRAM", modules::program("slurm-efa-job"))
        .env("SLURM_EFA", modules::program("slurm-efa"))
        .env("STATE", node.state())
        .env("CONFIG", node.config())
        .env("SLURMD_NODENAME", "n1")
        .env("SLURM_CONF", node.slurm_conf())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = [
        "full: 8 pages",
        "refused: 8 pages",
        // A change that could not be noted down is not made either.
        "code 3: 9 pages",
        "ended: 3 pages",
        "reconciled: 3 pages",
        "empty: 0 pages",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected, "{stderr}");
    assert_eq!(
        stderr.matches("No space left on device").count(),
        2,
        "{stderr}"
    );
    alone.assert_as_before();
}
