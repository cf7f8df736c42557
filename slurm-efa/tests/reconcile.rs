//! `slurm-efa reconcile` on the running kernel's hugepages, with whatever a
//! ledger can look like. Needs root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cdylib_tests::pages::{Alone, Node, copies, key};
use cdylib_tests::sigkill::{End, killed_after, sweep};
use efa::counters::{Moment, Snapshot};
use host::BootId;
use host::state_dir::StateDir;
use jobs::counters_at_start;
use jobs::registry::{Job, Registry, Start};

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-efa"));
    command.arg("reconcile").arg("--config").arg(node.config());
    if !arguments.contains(&"--epilog-time") {
        // No epilog comes in these tests.
        command.args(["--epilog-time", "0s"]);
    }
    command.args(arguments);
    // Not the slurm.conf of the machine that runs the tests.
    command.env("SLURM_CONF", node.state().join("none.conf"));
    command
}

fn reconcile(node: &Node, arguments: &[&str]) -> Output {
    command(node, arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn assert_quiet(output: &Output) {
    assert_eq!(stdout(output) + &stderr(output), "");
    assert_eq!(code(output), 0);
}

#[test]
fn a_node_that_is_as_it_should_be_is_told_nothing() {
    let alone = Alone::wait();
    let node = Node::new();
    assert_quiet(&reconcile(&node, &[]));
    assert!(!node.state().exists(), "it made a state directory");
    node.start(1, 3);
    assert_quiet(&reconcile(&node, &[]));
    assert_quiet(&reconcile(&node, &["--dry-run"]));
    assert_eq!(alone.more(), 3);
    node.end(1);
    assert_quiet(&reconcile(&node, &[]));
    alone.assert_as_before();
}

#[test]
fn pages_of_a_job_that_is_gone_are_given_back_and_a_dry_run_only_says_so() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    node.start(2, 5);
    node.vanish(2);
    let ledger = node.ledger();
    let planned = reconcile(&node, &["--dry-run"]);
    assert_eq!((code(&planned), stderr(&planned)), (1, String::new()));
    assert!(stdout(&planned).contains("would be given back"));
    assert_eq!(node.ledger(), ledger);
    assert_eq!(alone.more(), 8);
    let done = reconcile(&node, &[]);
    assert_eq!((code(&done), stderr(&done)), (0, String::new()));
    let text = stdout(&done);
    assert!(text.contains("job 2@n1 is gone"), "{text}");
    assert!(text.contains("2M pages of NUMA node 0: changed"), "{text}");
    assert_eq!(alone.more(), 3);
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn json_tells_every_pool_and_all_that_was_done() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    node.start(2, 5);
    node.vanish(2);
    let output = reconcile(&node, &["--json"]);
    assert_eq!(code(&output), 0);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["dropped"], serde_json::json!(["2@n1"]));
    assert_eq!(document["exact"], true);
    assert_eq!(document["dry_run"], false);
    assert_eq!(
        (&document["version"], &document["severity"]),
        (&1.into(), &"ok".into())
    );
    assert!(
        document["node"].is_string() && document["time"].is_string(),
        "{document}"
    );
    let pools = document["pools"].as_array().unwrap();
    let sum = |field: &str| -> u64 {
        let pools = pools.iter().filter(|pool| pool["size"] == "2M");
        pools.map(|pool| pool[field].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("held"), 3);
    assert_eq!(sum("found"), sum("actual") + 5);
    assert_eq!(sum("actual"), sum("baseline") + 3);
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn reconcile_killed_after_each_of_its_system_calls_is_made_good_by_the_next() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    let calls = sweep(|calls| {
        node.start(2, 5);
        node.vanish(2);
        node.start(4, 2);
        node.vanish(4);
        fs::write(node.entry(4), "torn").unwrap();
        fs::write(node.state().join("hugepages/.tmp.left"), "half").unwrap();
        let mut command = command(&node, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let end = killed_after(calls, &mut command).unwrap();
        let report = node.reconcile();
        assert!(report.noticed.is_empty(), "{calls}: {:?}", report.noticed);
        assert_eq!(alone.more(), 3, "{calls}");
        assert_eq!(node.granted(1), Some(3), "{calls}");
        assert_eq!(node.ledger(), ["1@n1.json", "baseline.json"], "{calls}");
        // A torn file is worth a warning.
        assert!(!matches!(end, End::Lived(status) if status.code() != Some(1)));
        Ok::<_, ()>(end)
    })
    .unwrap();
    println!("killed after each of {calls} system calls");
    assert!(calls > 100, "{calls}");
    node.end(1);
    alone.assert_as_before();
}

/// A way to spoil a file.
type Damage = (&'static str, fn(&Path));

/// What a file of the ledger may have become.
const DAMAGES: [Damage; 7] = [
    ("torn", |file| {
        let text = fs::read(file).unwrap();
        fs::write(file, &text[..text.len() / 2]).unwrap();
    }),
    ("empty", |file| fs::write(file, "").unwrap()),
    ("alien", |file| fs::write(file, "\x7fELF\0\x1b[2J").unwrap()),
    ("of a later version", |file| {
        let text = fs::read_to_string(file).unwrap();
        let later = text.replace("\"version\":1", "\"version\":2");
        assert_ne!(text, later);
        fs::write(file, later).unwrap();
    }),
    ("a link", |file| {
        let original = file.with_file_name("original");
        fs::rename(file, &original).unwrap();
        // Outside the ledger, where a user could have it.
        let outside = file.parent().unwrap().with_file_name("original");
        fs::rename(&original, &outside).unwrap();
        symlink(outside, file).unwrap();
    }),
    ("a pipe", |file| {
        fs::remove_file(file).unwrap();
        let made = Command::new("mkfifo").arg(file).status().unwrap();
        assert!(made.success());
    }),
    ("huge", |file| {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_len(1 << 40).unwrap();
    }),
];

#[test]
fn a_job_whose_file_is_spoilt_keeps_its_pages_until_it_is_gone() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    for (damage, spoil) in DAMAGES {
        node.start(2, 5);
        spoil(&node.entry(2));
        let output = reconcile(&node, &[]);
        assert_eq!(code(&output), 1, "{damage}");
        assert!(stderr(&output).contains("2@n1.json"), "{damage}");
        assert!(!stderr(&output).contains('\x1b'), "{damage}");
        assert_eq!(alone.more(), 8, "{damage}");
        node.vanish(2);
        assert_eq!(
            stdout(&reconcile(&node, &[])).lines().count(),
            2,
            "{damage}"
        );
        assert_eq!(alone.more(), 3, "{damage}");
        assert_quiet(&reconcile(&node, &[]));
    }
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn a_folder_in_a_jobs_place_holds_its_pages_no_longer_than_the_job_lives_and_is_named() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(2, 5);
    fs::remove_file(node.entry(2)).unwrap();
    fs::create_dir(node.entry(2)).unwrap();
    assert_eq!(code(&reconcile(&node, &[])), 1);
    assert_eq!(alone.more(), 5);
    node.vanish(2);
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("2@n1.json"), "{}", stderr(&output));
    alone.assert_as_before();
    fs::remove_dir(node.entry(2)).unwrap();
    assert_quiet(&reconcile(&node, &[]));
}

/// Jobs 1 and 2, of which nobody knows the latter any more.
fn with_a_spoilt_file() -> Node {
    let node = Node::new();
    node.start(1, 3);
    node.start(2, 5);
    fs::write(node.entry(2), "torn").unwrap();
    fs::remove_file(node.state().join("jobs").join(key(2).file_name())).unwrap();
    node
}

#[test]
fn a_spoilt_file_of_which_nobody_knows_the_job_is_looked_up_where_slurm_conf_says() {
    let alone = Alone::wait();
    let node = with_a_spoilt_file();
    let mut command = command(&node, &[]);
    let output = command
        .env("SLURM_CONF", node.slurm_conf())
        .output()
        .unwrap();
    assert!(
        stderr(&output).contains("removed with its job"),
        "{output:?}"
    );
    assert_eq!(alone.more(), 3);
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn a_spoilt_file_of_which_nobody_knows_the_job_is_looked_up_where_one_says() {
    let alone = Alone::wait();
    let node = with_a_spoilt_file();
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("--spool-dir"),
        "{}",
        stderr(&output)
    );
    assert_eq!(alone.more(), 8);
    let spool = node.spool();
    let output = reconcile(&node, &["--spool-dir", spool.to_str().unwrap()]);
    assert!(stderr(&output).contains("removed with its job"));
    assert_quiet(&reconcile(&node, &[]));
    assert_eq!(alone.more(), 3);
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn a_spoilt_baseline_is_found_again_from_the_jobs_and_the_kernel() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    for (damage, spoil) in DAMAGES {
        spoil(&node.state().join("hugepages/baseline.json"));
        let output = reconcile(&node, &[]);
        assert_eq!(code(&output), 1, "{damage}: {}", stderr(&output));
        assert!(stderr(&output).contains("baseline.json"), "{damage}");
        assert_eq!(alone.more(), 3, "{damage}");
        assert_quiet(&reconcile(&node, &[]));
    }
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn what_somebody_else_changed_is_kept_and_told() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    let file = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    let read = || -> u64 { fs::read_to_string(file).unwrap().trim().parse().unwrap() };
    let had = read();
    fs::write(file, (had + 4).to_string()).unwrap();
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 0);
    assert!(
        stdout(&output).contains("somebody else"),
        "{}",
        stdout(&output)
    );
    assert_eq!(read(), had + 4);
    assert_quiet(&reconcile(&node, &[]));
    node.end(1);
    assert_eq!(alone.more(), 4);
    fs::write(file, (read() - 4).to_string()).unwrap();
    alone.assert_as_before();
}

#[test]
fn what_a_killed_epilog_left_of_a_job_without_pages_is_removed() {
    let _alone = Alone::wait();
    let node = Node::new();
    let state = StateDir::open(&node.state()).unwrap();
    let start = Start::now(BootId::current().unwrap()).unwrap();
    let record = Job::new(
        &key(7),
        start,
        host::Uid(20_001),
        host::Gid(20_001),
        node.spool(),
    );
    let mut registry = Registry::open(&state).unwrap();
    registry.put(&record).unwrap();
    let counters = Snapshot::empty(Moment::now());
    registry.keep_counters(&state, &record, &counters).unwrap();
    assert_quiet(&reconcile(&node, &[]));
    node.vanish(7);
    for mode in [
        &["--epilog-time", "1h"][..],
        &["--epilog-time", "1h", "--dry-run"],
    ] {
        let output = reconcile(&node, mode);
        let expected = "job 7@n1 is gone; its record waits for its epilog\n";
        assert_eq!(stdout(&output), expected, "{mode:?}");
        assert!(counters_at_start::kept(&state, &key(7)).unwrap().is_some());
    }
    let output = reconcile(&node, &["--dry-run"]);
    assert_eq!(code(&output), 1);
    let expected = "job 7@n1 ended without its epilog; its record would be removed\n";
    assert_eq!(stdout(&output), expected);
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let expected = "job 7@n1 ended without its epilog; its record is removed\n";
    assert_eq!(stdout(&output), expected);
    assert!(counters_at_start::kept(&state, &key(7)).unwrap().is_none());
    assert_quiet(&reconcile(&node, &[]));
}

#[test]
fn a_record_that_cannot_be_read_is_named_with_what_to_do() {
    let _alone = Alone::wait();
    let node = Node::new();
    node.start(1, 0);
    fs::write(node.state().join("jobs").join(key(1).file_name()), "torn").unwrap();
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("1@n1.json") && said.contains("remove the file"),
        "{said}"
    );
}

#[test]
fn a_thousand_jobs_are_reconciled_and_given_back() {
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 0);
    copies(&node.state(), 1, 2..=1000).unwrap();
    assert_quiet(&reconcile(&node, &[]));
    for job in 1..=1000 {
        node.vanish(job);
    }
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 1000);
    assert_eq!(node.ledger(), [""; 0]);
    alone.assert_as_before();
}

#[test]
fn a_state_directory_that_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let alone = Alone::wait();
    let node = Node::new();
    node.start(1, 3);
    let mode = |mode| fs::set_permissions(node.state(), fs::Permissions::from_mode(mode));
    mode(0o777).unwrap();
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 3);
    assert!(
        stderr(&output).contains("not used, because"),
        "{}",
        stderr(&output)
    );
    assert_eq!(alone.more(), 3);
    mode(0o755).unwrap();
    node.end(1);
    alone.assert_as_before();
}

#[test]
fn wrong_use_and_a_wrong_configuration_have_their_own_codes() {
    let node = Node::new();
    assert_eq!(code(&reconcile(&node, &["--dryrun"])), 64);
    fs::write(node.config(), "state_dir = '/run/slurm-efa/%n'\n").unwrap();
    let output = reconcile(&node, &[]);
    assert_eq!(code(&output), 78, "{}", stderr(&output));
    fs::write(node.config(), "state_dir = 5\n").unwrap();
    assert_eq!(code(&reconcile(&node, &[])), 78);
}
