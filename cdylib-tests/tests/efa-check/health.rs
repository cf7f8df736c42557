//! efa-check as prolog and health check of a real Slurm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdylib_tests::health::{self, HEALTHCHECK, PROLOG, prolog_took, wait_node};
use cdylib_tests::stuck::Stuck;
use cdylib_tests::testbed::{Error, JobState, LIMIT, Output, Testbed};
use cdylib_tests::{efa_cluster, modules};

/// What the testbed did, or why it did not.
fn must<T>(outcome: Result<T, Error>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

fn program() -> PathBuf {
    modules::program("efa-check")
}

/// A cluster of p4d that efa-check looks after, with `health` as its section.
fn cluster(nodes: usize, health: &str, slurm_conf: &str) -> Testbed {
    let bare = efa_cluster::bare(&vec!["p4d.24xlarge"; nodes]);
    must(health::guarded(bare, &program(), health, slurm_conf).start())
}

fn check(tb: &Testbed, node: &str, command: &str) -> Output {
    must(health::check(tb, &program(), node, command))
}

fn break_adapter(tb: &Testbed, node: &str) -> health::Broken {
    health::break_adapter(tb, node, "rdmap160s27").expect("the adapter was there")
}

fn drained_by_us(tb: &Testbed, node: &str) -> String {
    must(health::drained_by_us(tb, node))
}

fn wait_for_speakers(tb: &Testbed) {
    must(health::wait_for_speakers(tb));
}

/// Where a batch job ran to its good end.
fn run_job(tb: &Testbed) -> String {
    let (state, place) = must(health::run_job(tb));
    assert_eq!(state, JobState::Completed);
    place
}

#[test]
fn a_sick_node_is_drained_with_our_reason_and_its_batch_job_runs_elsewhere() {
    let tb = cluster(2, "", PROLOG);
    assert_eq!(check(&tb, "n1", "baseline").code(), 0);
    let _broken = break_adapter(&tb, "n1");
    assert_eq!(run_job(&tb), "n2\n");
    let reason = drained_by_us(&tb, "n1");
    assert!(
        reason.starts_with("EFA: 3/4 devices, rdmap160s27 gone (pci 0000:a0:1b.0)"),
        "{reason}"
    );
    assert_eq!(prolog_took(&tb, "n1").len(), 1, "n1 got the job first");
    // It stays: Slurm's own words, which come by another way, do not replace it.
    wait_for_speakers(&tb);
    assert_eq!(run_job(&tb), "n2\n");
    assert!(drained_by_us(&tb, "n1").starts_with("EFA: 3/4"));
}

/// A prolog of a folder, as a link to the program would be: called by this
/// name, and for the testbed with these arguments.
fn in_prolog_folder(tb: &Testbed, name: &str, program: &Path, arguments: &str) {
    let path = tb.dir().join("site/prolog.d").join(name);
    let program = program.display();
    let script = format!("#!/bin/bash\nexec -a \"$0\" {program} {arguments}\n");
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
    fs::write(&path, script).expect("the script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the mode");
}

const PROLOG_FOLDER: &str = "Prolog={dir}/site/prolog.d/*";

#[test]
fn a_numbered_link_in_a_folder_of_prologs_drains_a_sick_node() {
    let tb = cluster(2, "", PROLOG_FOLDER);
    let config = format!("--config {}", tb.dir().join(efa_cluster::CONFIG).display());
    in_prolog_folder(&tb, "50-efa-check-prolog", &program(), &config);
    let _broken = break_adapter(&tb, "n1");
    assert_eq!(run_job(&tb), "n2\n");
    assert!(drained_by_us(&tb, "n1").starts_with("EFA: 3/4 devices"));
    wait_for_speakers(&tb);
}

#[test]
fn wrong_use_in_a_folder_of_prologs_fails_no_job() {
    let tb = cluster(1, "", PROLOG_FOLDER);
    for name in ["efa-check", "gres-helper"] {
        let program = modules::program(name);
        in_prolog_folder(&tb, &format!("50-{name}"), &program, "");
        in_prolog_folder(&tb, &format!("60-{name}"), &program, "--no-such-option");
    }
    assert_eq!(run_job(&tb), "n1\n");
    let state = must(tb.node_state("n1"));
    assert!(!state.is_drained(), "{state:?}");
}

#[test]
fn a_warning_does_not_stop_a_job_nor_drain_the_node() {
    let tb = cluster(1, "", PROLOG);
    let scope = tb.sysroot("n1").join("proc/sys/kernel/yama/ptrace_scope");
    fs::create_dir_all(scope.parent().expect("a folder")).expect("the folder");
    fs::write(scope, "1\n").expect("the file");
    assert_eq!(check(&tb, "n1", "node").code(), 1);
    assert_eq!(run_job(&tb), "n1\n");
    let state = must(tb.node_state("n1"));
    assert!(!state.is_drained(), "{state:?}");
}

#[test]
fn a_probe_that_hangs_costs_the_prolog_its_limit_and_drains_the_node() {
    // Before the testbed's own mounts, which then have it.
    let dir = tempfile::tempdir().expect("a folder");
    let stuck = Stuck::mount(dir.path()).expect("a file system that hangs");
    let tb = cluster(2, "probe_limit = \"2s\"", PROLOG);
    // Gone before the testbed, which cannot end while a process hangs.
    let stuck = stuck;
    let counter = health::device(&tb, "n1", "rdmap32s27").join("ports/1/hw_counters/rx_drops");
    fs::remove_file(&counter).expect("a counter to replace");
    std::os::unix::fs::symlink(stuck.file(), counter).expect("a link");
    assert_eq!(run_job(&tb), "n2\n");
    let reason = drained_by_us(&tb, "n1");
    assert!(
        reason.contains("rdmap32s27 (pci 0000:20:1b.0) does not answer"),
        "{reason}"
    );
    let took = prolog_took(&tb, "n1");
    // The read never ends: whatever ends the prolog is its limit.
    assert!(took.len() == 1 && took[0] < 30_000, "{took:?} ms");
}

#[test]
fn the_health_check_drains_a_sick_node_and_resumes_it_after_the_repair() {
    let tb = cluster(2, "resume = true\nresume_after = 2", HEALTHCHECK);
    assert_eq!(check(&tb, "n1", "baseline").code(), 0);
    let broken = break_adapter(&tb, "n1");
    let reason = drained_by_us(&tb, "n1");
    assert!(reason.contains("3/4 devices, rdmap160s27 gone"), "{reason}");
    assert_eq!(run_job(&tb), "n2\n");
    broken.repair().expect("the adapter was aside");
    must(wait_node(&tb, "n1", "the resume", |_, drained| !drained));
    assert!(!must(tb.node_state("n2")).is_drained());
}

#[test]
fn what_an_administrator_drained_is_neither_renamed_nor_resumed() {
    let tb = cluster(1, "resume = true\nresume_after = 1", "");
    assert_eq!(check(&tb, "n1", "baseline").code(), 0);
    tb.scontrol(&[
        "update",
        "NodeName=n1",
        "State=DRAIN",
        "Reason=disk is full",
    ])
    .unwrap_or_else(|error| panic!("{error}"));
    let broken = break_adapter(&tb, "n1");
    assert_eq!(check(&tb, "n1", "healthcheck").code(), 2);
    wait_for_speakers(&tb);
    let untouched = |tb: &Testbed| {
        let state = must(tb.node_state("n1"));
        assert!(
            state.is_drained() && state.reason.starts_with("disk is full"),
            "{state:?}"
        );
    };
    untouched(&tb);
    broken.repair().expect("the adapter was aside");
    assert_eq!(check(&tb, "n1", "healthcheck").code(), 0);
    wait_for_speakers(&tb);
    untouched(&tb);
}

#[test]
fn while_slurmctld_is_down_nothing_hangs_and_the_drain_follows_when_it_is_back() {
    let tb = cluster(1, "scontrol_limit = \"2s\"", "");
    assert_eq!(check(&tb, "n1", "baseline").code(), 0);
    let _broken = break_adapter(&tb, "n1");
    let script = format!(
        "pid=$(cat {}/pid/slurmctld); kill -KILL $pid; while kill -0 $pid 2>/dev/null && \
         ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.05; done",
        tb.dir().display()
    );
    let killed = tb.run("root", &["/bin/sh", "-c", &script], &[]);
    assert!(killed.unwrap_or_else(|error| panic!("{error}")).success());
    for command in ["prolog", "healthcheck", "prolog"] {
        let said = check(&tb, "n1", command);
        assert_eq!(said.code(), 2, "{said}");
        assert!(
            // It is tried for ten minutes, but not by these.
            said.took < LIMIT,
            "{command}: {:?}",
            said.took
        );
    }
    let _slurmctld = tb
        .command("root", &["/usr/sbin/slurmctld", "-D"])
        .cwd(tb.dir())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}"));
    // The testbed takes its dead slurmctld for a failure, so this waits by itself.
    let begun = Instant::now();
    loop {
        let state = tb.node_state("n1");
        if state
            .as_ref()
            .is_ok_and(|s| s.is_drained() && s.reason.starts_with("EFA: 3/4"))
        {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{state:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_node_that_hyperpod_shall_replace_fails_with_exactly_its_words() {
    let tb = cluster(2, "on_fatal = \"hyperpod-replace\"", PROLOG);
    assert_eq!(check(&tb, "n1", "baseline").code(), 0);
    let _broken = break_adapter(&tb, "n1");
    assert_eq!(run_job(&tb), "n2\n");
    let said = |reason: &str, _: bool| reason.split(" [").next() == Some("Action:Replace");
    must(wait_node(&tb, "n1", "HyperPod's words", said));
    wait_for_speakers(&tb);
    // Neither Slurm's own drain nor our next round takes them back.
    assert_eq!(check(&tb, "n1", "healthcheck").code(), 2);
    wait_for_speakers(&tb);
    let state = must(tb.node_state("n1"));
    assert!(
        said(&state.reason, true) && state.state.contains("FAIL"),
        "{state:?}"
    );
}
