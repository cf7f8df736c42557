//! `slurm-efa report` on folders and logs of made-up records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use efa::counters::{Amount, DeviceUsage, Unknown, Usage};
use host::Deadline;
use usage::{Step, UsageRecord, VERSION, folder, log};

/// A site with a folder of records.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("reports")).unwrap();
        let site = Self { dir };
        site.configure(&format!("[report]\ndir = '{}'\n", site.reports().display()));
        site
    }

    fn with_log_only() -> Self {
        let site = Self::new();
        site.configure(&format!("[report]\nlog = '{}'\n", site.log().display()));
        site
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("slurm-efa.toml")
    }

    fn reports(&self) -> PathBuf {
        self.dir.path().join("reports")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log/jobs.jsonl")
    }

    fn add(&self, record: &UsageRecord) {
        folder::write(&self.reports(), record).unwrap();
    }

    fn add_to_log(&self, record: &UsageRecord) {
        let deadline = Deadline::after(Duration::from_secs(60));
        log::append(&self.log(), 1 << 20, record, deadline).unwrap();
    }

    fn report(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        let mut all = vec!["report", "--config", config.to_str().unwrap()];
        all.extend(arguments);
        run(&all)
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn device(bytes: u64) -> DeviceUsage {
    let counters = [
        ("tx_bytes", bytes),
        ("rx_bytes", bytes),
        ("send_wrs", bytes / 4096),
        ("recv_wrs", bytes / 4096),
        ("rdma_write_wrs", 0),
        ("rdma_read_wrs", 0),
        ("send_bytes", bytes / 4),
        ("recv_bytes", bytes / 4),
        ("rdma_write_bytes", bytes - bytes / 4),
        ("rdma_write_recv_bytes", bytes - bytes / 4),
        ("rdma_read_bytes", 0),
        ("rdma_read_resp_bytes", 0),
        ("retrans_pkts", 2),
        ("rdma_read_wr_err", 0),
        ("rdma_write_wr_err", 0),
        ("unresponsive_remote_events", 0),
        ("impaired_remote_conn_events", 0),
        ("rx_drops", 0),
    ];
    let counters = counters.map(|(name, value)| (name.to_owned(), Amount::Known(value)));
    DeviceUsage::Counted(counters.into_iter().collect())
}

/// One of the two nodes `n1` and `n2` of a job that ran an hour.
fn record(job: u32, node: &str, bytes: u64) -> UsageRecord {
    let devices = ["rdmap79s0", "rdmap80s0"].map(|name| (name.to_owned(), device(bytes)));
    UsageRecord {
        version: VERSION,
        job,
        step: None,
        restart: Some(0),
        start_id: None,
        node: node.parse().unwrap(),
        node_index: node[1..].parse().ok().map(|number: u32| number - 1),
        nodes: Some(2),
        node_list: Some("n[1-2]".to_owned()),
        uid: 1000,
        profile: Some("p5".to_owned()),
        instance_type: Some("p5.48xlarge".to_owned()),
        start: Some(1_795_320_000),
        end: 1_795_323_600,
        shared: Some(false),
        first_reading: None,
        lustre: Some(false),
        problems: Vec::new(),
        devices: Usage(devices.into_iter().collect()),
    }
}

const GIB: u64 = 1 << 30;

#[test]
fn a_job_is_shown_by_node_and_device_with_its_totals_and_steps() {
    let site = Site::new();
    site.add(&record(12, "n2", 2 * GIB));
    site.add(&record(12, "n1", GIB));
    for node in ["n1", "n2"] {
        site.add(&UsageRecord {
            step: Some(Step::Number(0)),
            ..record(12, node, GIB)
        });
    }
    let output = site.report(&["12"]);
    let expected = "\
job 12: 2 of 2 nodes, uid 1000, profile p5, 2026-11-22 04:00:00 to 2026-11-22 05:00:00 UTC

NODE   DEVICE        SENT  RECEIVED  SEND OPS  RECV OPS  RDMA WRITE  RDMA READ  RETRANS  ERRORS
n1     rdmap79s0  1.0 GiB   1.0 GiB    262144    262144        75 %        0 %        2       0
n1     rdmap80s0  1.0 GiB   1.0 GiB    262144    262144        75 %        0 %        2       0
n1     all 2      2.0 GiB   2.0 GiB    524288    524288        75 %        0 %        4       0
n2     rdmap79s0  2.0 GiB   2.0 GiB    524288    524288        75 %        0 %        2       0
n2     rdmap80s0  2.0 GiB   2.0 GiB    524288    524288        75 %        0 %        2       0
n2     all 2      4.0 GiB   4.0 GiB   1048576   1048576        75 %        0 %        4       0
total  all 4      6.0 GiB   6.0 GiB   1572864   1572864        75 %        0 %        8       0

STEP  NODES     SENT  RECEIVED  SEND OPS  RECV OPS  RDMA WRITE  RDMA READ  RETRANS  ERRORS
0     2      4.0 GiB   4.0 GiB   1048576   1048576        75 %        0 %        8       0
";
    assert_eq!(stdout(&output), expected);
    assert_eq!((stderr(&output), output.status.code()), ("", Some(0)));
}

#[test]
fn what_is_unknown_missing_or_not_to_be_told_apart_is_said() {
    let site = Site::new();
    let mut first = record(12, "n1", GIB);
    first.nodes = Some(4);
    first.node_list = Some("n[1-4]".to_owned());
    first.shared = None;
    first.lustre = Some(true);
    first.devices.0.insert(
        "rdmap80s0".to_owned(),
        DeviceUsage::Unknown(Unknown::DeviceVanished),
    );
    first.add_problem("the log is full");
    site.add(&first);
    site.add(&record(12, "n2", GIB));
    let output = site.report(&["12"]);
    let text = stdout(&output);
    for expected in [
        "job 12: 2 of 4 nodes",
        "
NODE   DEVICE          SENT   RECEIVED  SEND OPS  RECV OPS  RDMA WRITE  RDMA READ  RETRANS  ERRORS
n1     rdmap79s0    1.0 GiB    1.0 GiB    262144    262144        75 %        0 %        2       0
n1     rdmap80s0          ?          ?         ?         ?           ?          ?        ?       ?
n1     all 2      >=1.0 GiB  >=1.0 GiB  >=262144  >=262144           ?          ?      >=2     >=0
",
        "
total  all 4      >=3.0 GiB  >=3.0 GiB  >=786432  >=786432           ?          ?      >=6     >=0
",
        "\nno record of n3, n4: the job has not ended there",
        "\nit is not known whether other jobs ran meanwhile on n1",
        "\nLustre can use EFA on n1",
        "\nn1: rdmap80s0: the device vanished in between\n",
        "\nn1: the log is full\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_node_list_that_does_not_fit_the_number_of_nodes_names_nobody() {
    let site = Site::new();
    site.add(&UsageRecord {
        nodes: Some(4),
        node_list: Some("root,evil[1-99]".to_owned()),
        ..record(12, "n1", GIB)
    });
    let output = site.report(&["12"]);
    assert!(stdout(&output).contains("no record of 3 nodes"));
    assert!(!stdout(&output).contains("evil"));
}

#[test]
fn a_job_without_any_traffic_is_warned_and_one_silent_node_is_named() {
    let site = Site::new();
    site.add(&record(12, "n1", 0));
    site.add(&record(12, "n2", 0));
    let text = stdout(&site.report(&["12"])).to_owned();
    assert!(text.contains("EFA moved nothing on n1."), "{text}");
    assert!(text.contains("NCCL_NET=\"AWS Libfabric\""), "{text}");
    site.add(&record(12, "n1", GIB));
    let text = stdout(&site.report(&["12"])).to_owned();
    assert!(text.ends_with("\nEFA moved nothing on n2\n"), "{text}");
    assert!(!text.contains("AWS Libfabric"), "{text}");
}

#[test]
fn runs_before_a_requeue_and_earlier_jobs_of_the_same_number_are_not_added() {
    let site = Site::new();
    let before = |change: fn(&mut UsageRecord)| {
        let mut record = record(12, "n2", GIB);
        record.end -= 7200;
        record.start = record.start.map(|start| start - 7200);
        change(&mut record);
        record
    };
    for earlier in [
        before(|_| {}),
        before(|r| r.restart = None),
        before(|r| r.uid = 1001),
    ] {
        site.add(&earlier);
        site.add(&record(12, "n1", GIB));
        let text = stdout(&site.report(&["12"])).to_owned();
        assert!(text.contains("total  all 2      2.0 GiB"), "{text}");
        assert!(text.contains("1 records of earlier runs"), "{text}");
        assert!(text.contains("no record of n2"), "{text}");
    }
}

#[test]
fn while_a_job_still_runs_its_steps_are_shown() {
    let site = Site::new();
    for number in [0, 1] {
        site.add(&UsageRecord {
            step: Some(Step::Number(number)),
            end: 1_795_320_100 + u64::from(number) * 10_000,
            start: Some(1_795_320_000 + u64::from(number) * 10_000),
            ..record(12, "n1", GIB)
        });
    }
    let output = site.report(&["12"]);
    let text = stdout(&output);
    assert!(
        text.starts_with("job 12: there are records of steps only"),
        "{text}"
    );
    assert!(text.contains("\n0     1      2.0 GiB"), "{text}");
    assert!(text.contains("\n1     1      2.0 GiB"), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn json_has_the_records_the_sums_and_what_is_missing() {
    let site = Site::new();
    site.add(&record(12, "n1", GIB));
    let output = site.report(&["12", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["job"], 12);
    assert_eq!(json["totals"]["sent_bytes"], 2 * GIB);
    assert_eq!(json["nodes"][0]["node"], "n1");
    assert_eq!(json["nodes"][0]["devices"]["rdmap79s0"]["tx_bytes"], GIB);
    assert_eq!(json["missing"], 1);
    assert_eq!(json["missing_nodes"][0], "n2");
    assert_eq!(json["all_nodes"], true);
}

#[test]
fn without_a_folder_the_log_of_this_node_is_read_and_that_is_said() {
    let site = Site::with_log_only();
    site.add_to_log(&record(12, "n1", 5));
    site.add_to_log(&record(12, "n1", GIB));
    site.add_to_log(&record(13, "n1", GIB));
    let output = site.report(&["12"]);
    let text = stdout(&output);
    assert!(text.contains("total  all 2      2.0 GiB"), "{text}");
    assert!(text.contains("only this node's log"), "{text}");
    assert!(!text.contains("no record of"), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_job_nobody_knows_of_is_exit_code_3_and_says_where_was_looked() {
    for site in [Site::new(), Site::with_log_only()] {
        let output = site.report(&["99"]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(3), ""));
        assert!(stderr(&output).starts_with("slurm-efa: nothing is known of job 99: /"));
        let output = site.report(&["99", "--json"]);
        assert_eq!(output.status.code(), Some(3));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["nodes"], serde_json::json!([]));
    }
}

#[test]
fn wrong_use_is_exit_code_64_and_help_and_version_are_0() {
    for wrong in [
        &["report"][..],
        &["report", "x"],
        &["report", "0"],
        &["report", "-1"],
        &["report", "99999999999"],
        &["report", "1;rm"],
        &["report", "1", "--node", "../x"],
        &["frobnicate"],
        &[],
        &["--nonsense"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert_eq!(stdout(&output), "", "{wrong:?}");
    }
    for fine in [&["--help"][..], &["--version"], &["report", "--help"]] {
        let output = run(fine);
        assert_eq!(output.status.code(), Some(0), "{fine:?}");
        assert!(stdout(&output).contains("slurm-efa"), "{fine:?}");
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_78_with_file_and_line() {
    let site = Site::new();
    for (text, expected) in [
        ("[report]\ndri = '/x'\n", "slurm-efa.toml:2: "),
        ("[report]\ndir = 'x'\n", "slurm-efa.toml:2: "),
        ("[report]\nlog = '/x/%n/y'\n", "%n"),
        ("nonsense", "slurm-efa.toml:1: "),
    ] {
        site.configure(text);
        let output = site.report(&["12"]);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    fs::remove_file(site.config()).unwrap();
    assert_eq!(site.report(&["12"]).status.code(), Some(78));
}

#[test]
fn the_nodes_name_fills_a_path_that_needs_it() {
    let site = Site::new();
    let template = site.dir.path().join("%n/jobs.jsonl");
    site.configure(&format!("[report]\nlog = '{}'\n", template.display()));
    let log = site.dir.path().join("n1/jobs.jsonl");
    let deadline = Deadline::after(Duration::from_secs(60));
    log::append(&log, 1 << 20, &record(12, "n1", GIB), deadline).unwrap();
    let output = site.report(&["12", "--node", "n1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_missing_folder_is_exit_code_74_and_no_claim_about_the_job() {
    let site = Site::new();
    fs::remove_dir(site.reports()).unwrap();
    let output = site.report(&["12"]);
    assert_eq!(output.status.code(), Some(74));
    assert!(
        stderr(&output).contains("cannot list /"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn hostile_files_are_skipped_told_of_and_reach_no_terminal() {
    let site = Site::new();
    site.add(&record(12, "n1", GIB));
    let job = site.reports().join("12");
    let plant = |name: &str, text: &str| fs::write(job.join(Path::new(name)), text).unwrap();
    plant("n2.json", "\x1b[2J");
    plant("n3\x1b[2J.json", "{}");
    plant("n4.json", &"[".repeat(300_000));
    let mut escaping = record(12, "n5", GIB);
    escaping.profile = Some("\x1b[2J".to_owned());
    escaping.problems = vec!["\x1b[2J\n".to_owned()];
    escaping.devices.0.insert("\x1b[2J".to_owned(), device(1));
    site.add(&escaping);
    for arguments in [&["12"][..], &["12", "--json"]] {
        let output = site.report(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!stdout(&output).contains('\x1b'), "{}", stdout(&output));
    }
    let text = stdout(&site.report(&["12"])).to_owned();
    assert_eq!(text.matches(": not used: ").count(), 3, "{text}");
}
