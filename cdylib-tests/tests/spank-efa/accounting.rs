//! What is told at the end of steps and jobs about the traffic of simulated
//! EFA devices: on stderr, in the node's log, in the site's folder.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use cdylib_tests::efa_cluster;
use cdylib_tests::simnode::SimNode;
use cdylib_tests::stuck::Stuck;
use cdylib_tests::testbed::{JobId, JobState, LIMIT, Progress, Testbed};
use efa::counters::{Amount, Measure, Unknown};
use usage::{UsageRecord, load_job};

/// Root's folder for all nodes, and a log for each node.
const SITE: &str = "state_dir = \"{dir}/efa/%n\"\nreport_dir = \"{dir}/records\"\n\
                    [report]\nlog = \"{dir}/log/%n.jsonl\"\n";

fn cluster(nodes: &[&str]) -> Testbed {
    efa_cluster::cluster(SITE, nodes)
        .prepare(|dir| fs::create_dir(dir.join("records")))
        .start()
        .unwrap()
}

fn sim(tb: &Testbed, node: &str) -> SimNode {
    SimNode::open(&tb.sysroot(node)).unwrap()
}

/// Runs a batch job that does its `work` once its script has begun.
fn job_with(tb: &Testbed, args: &[&str], script: &str, work: impl FnOnce()) -> (JobId, String) {
    let script =
        format!("#!/bin/bash\necho begun\nuntil [ -e go ]; do sleep 0.05; done\n{script}\n");
    let go = tb.user("alice").unwrap().home.join("go");
    let _ = fs::remove_file(&go);
    let job = tb.sbatch("alice", &script, args).unwrap();
    tb.wait_until("the script to begin", LIMIT, || {
        let printed = tb.job_output(job).unwrap_or_default();
        Ok(match printed.contains("begun") {
            true => Progress::Done(()),
            false => Progress::Waiting(printed),
        })
    })
    .unwrap();
    work();
    fs::write(&go, "").unwrap();
    assert_eq!(tb.wait_job(job).unwrap(), JobState::Completed);
    (job, tb.job_output(job).unwrap())
}

/// The records in the site's folder, once there are so many.
fn records(tb: &Testbed, job: JobId, count: usize) -> Vec<UsageRecord> {
    let folder = tb.dir().join("records");
    tb.wait_until("the records", LIMIT, || {
        let (records, problems) = load_job(&folder, job.0).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        Ok(match records.len() == count {
            true => Progress::Done(records),
            false => Progress::Waiting(format!("{} records", records.len())),
        })
    })
    .unwrap()
}

#[test]
fn at_the_end_of_a_job_its_first_node_says_what_moved_and_every_node_leaves_a_record() {
    let tb = cluster(&["p5.48xlarge", "p5.48xlarge"]);
    let traffic = || {
        for node in ["n1", "n2"] {
            let sim = sim(&tb, node);
            for device in sim.devices() {
                sim.add_traffic(device, 1 << 20).unwrap();
            }
        }
    };
    let (job, printed) = job_with(&tb, &["-N2", "--efa-profile=p5"], "srun true", traffic);
    let said = efa_cluster::lines_with(&printed, &["efa: "]);
    assert_eq!(
        said.len(),
        2,
        "one for the step, one for the job: {printed}"
    );
    let step = format!("efa: step {job}.0 on n1 (32 devices): sent 0 B, received 0 B");
    assert!(said[0].starts_with(&step), "{printed}");
    let whole = format!("efa: job {job} on n1 (32 devices): sent 32.0 MiB, received 32.0 MiB (");
    assert!(said[1].starts_with(&whole), "{printed}");
    assert!(said[1].contains("% RDMA read)"), "{printed}");
    assert!(!printed.contains("warning"), "{printed}");
    // Two nodes, each with the step and the job.
    let records = records(&tb, job, 4);
    for node in ["n1", "n2"] {
        let of = |step: bool| {
            let mut records = records.iter();
            records.find(|it| it.node.as_str() == node && it.step.is_some() == step)
        };
        let job = of(false).unwrap();
        assert_eq!(job.totals().of(Measure::SentBytes).exact(), Some(32 << 20));
        assert_eq!((job.nodes, job.profile.as_deref()), (Some(2), Some("p5")));
        assert_eq!(job.shared, Some(false));
        assert!(of(true).unwrap().totals().is_none());
        let log = fs::read_to_string(tb.dir().join(format!("log/{node}.jsonl"))).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
    }
}

#[test]
fn a_job_of_several_nodes_whose_efa_moved_nothing_is_warned_once() {
    let tb = cluster(&["p5.48xlarge", "p5.48xlarge"]);
    let (_, printed) = job_with(&tb, &["-N2", "--efa-profile=p5"], "srun true", || {});
    assert_eq!(
        printed.matches("but EFA moved nothing on n1").count(),
        1,
        "{printed}"
    );
    assert!(printed.contains("NCCL_NET=\"AWS Libfabric\""), "{printed}");
    // On one node there is nothing to communicate; without a profile nobody asked.
    let (_, printed) = job_with(&tb, &["-N1", "--efa-profile=p5"], "srun true", || {});
    assert!(
        printed.contains("sent 0 B") && !printed.contains("warning"),
        "{printed}"
    );
    let (job, printed) = job_with(&tb, &["-N2"], "srun true", || {});
    assert_eq!(printed, "begun\n");
    tb.wait_idle().unwrap();
    assert!(!tb.dir().join(format!("records/{job}")).exists());
    // A step that is the whole job.
    let step = tb
        .srun("alice", &["-N2", "--efa-profile=p5", "true"])
        .unwrap();
    assert_eq!(
        step.stderr.matches("but EFA moved nothing").count(),
        1,
        "{step}"
    );
}

#[test]
fn counters_that_wrap_vanish_or_appear_are_told_and_nothing_is_invented() {
    let tb = cluster(&["p4d.24xlarge"]);
    let mut sim = sim(&tb, "n1");
    let devices = sim.devices().to_vec();
    let late = devices[3].clone();
    // The last device appears while the job runs, the first wraps, the second vanishes.
    let class = sim.path("sys/class/infiniband");
    let place = fs::read_link(class.join(&late)).unwrap();
    fs::remove_file(class.join(&late)).unwrap();
    sim.set_counter(&devices[0], "tx_bytes", u64::MAX - 5)
        .unwrap();
    let (job, printed) = job_with(&tb, &["--efa-profile=p4d"], "true", || {
        sim.set_counter(&devices[0], "tx_bytes", 7).unwrap();
        sim.remove_device(1).unwrap();
        sim.add_traffic(&devices[2], 1 << 20).unwrap();
        std::os::unix::fs::symlink(&place, class.join(&late)).unwrap();
    });
    for words in [
        "sent at least 1.0 MiB",
        "went backwards",
        "vanished in between",
        "was added in between",
    ] {
        assert!(printed.contains(words), "{words:?} is not in: {printed}");
    }
    let records = records(&tb, job, 1);
    let amount = |device: &str| records[0].devices.0[device].amount("tx_bytes");
    assert_eq!(amount(&devices[0]), Amount::Unknown(Unknown::WentBackwards));
    assert_eq!(
        amount(&devices[1]),
        Amount::Unknown(Unknown::DeviceVanished)
    );
    assert_eq!(amount(&devices[2]), Amount::Known(1 << 20));
    assert_eq!(amount(&late), Amount::Unknown(Unknown::DeviceAdded));
}

#[test]
fn a_folder_that_users_may_write_gets_no_record_and_the_job_is_well() {
    use std::os::unix::fs::PermissionsExt;
    let tb = cluster(&["p5.48xlarge"]);
    let folder = tb.dir().join("records");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let (_, printed) = job_with(&tb, &["--efa-profile=p5"], "srun true", || {});
    assert!(printed.contains("efa: job "), "{printed}");
    tb.wait_idle().unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let log = fs::read_to_string(tb.dir().join("log/n1.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
}

#[test]
fn a_neighbours_job_is_not_taken_for_none() {
    let tb = cluster(&["p5.48xlarge"]);
    let args = ["-n1", "--efa-profile=p5"];
    let (job, printed) = job_with(&tb, &args, "true", || {
        assert!(tb.srun("alice", &["-n1", "true"]).unwrap().success());
        let sim = sim(&tb, "n1");
        sim.add_traffic(&sim.devices()[0], 1 << 20).unwrap();
    });
    assert!(printed.contains("other jobs ran on this node"), "{printed}");
    assert_eq!(records(&tb, job, 1)[0].shared, Some(true));
}

// -------------------------------------------------------- a device that is dead

/// Makes each process that reads this device's counters hang in the kernel.
fn hang(stuck: &Stuck, sim: &SimNode, device: &str) {
    let port = sim.path("sys/class/infiniband").join(device);
    let counter = port.join("ports/1/hw_counters/tx_bytes");
    fs::remove_file(&counter).unwrap();
    symlink(stuck.file(), counter).unwrap();
}

/// The processes that a node's log says to hang on this device.
fn hanging(tb: &Testbed, device: &str) -> BTreeSet<u32> {
    let log = tb.log("slurmd n1");
    let words = format!("spank_efa: {device} does not answer: process ");
    let named = log.lines().filter_map(|line| {
        let (_, after) = line.split_once(&words)?;
        after.split_once(',')?.0.parse().ok()
    });
    named.collect()
}

/// A file of a process that the cluster's processes know by this number; empty
/// when it has ended.
fn of_process(tb: &Testbed, process: u32, file: &str) -> String {
    let path = format!("/proc/{process}/{file}");
    tb.run("root", &["cat", &path], &[]).unwrap().stdout
}

/// A step on a node with a dead device, and how long it took.
fn quick_step(tb: &Testbed) -> String {
    let begun = Instant::now();
    let step = tb.srun("alice", &["--efa-profile=p4d", "true"]).unwrap();
    assert!(step.success(), "{step}");
    // The device never answers: whatever ends the wait is a limit.
    assert!(begun.elapsed() < Duration::from_secs(10), "{step}");
    step.stderr
}

#[test]
fn a_device_that_is_dead_before_a_job_is_left_alone_and_named_and_hangs_one_process_only() {
    // Before the testbed's own mounts, which then have it.
    let dir = tempfile::tempdir().unwrap();
    let stuck = Stuck::mount(dir.path()).unwrap();
    let tb = cluster(&["p4d.24xlarge"]);
    // Gone before the testbed, which cannot end while a process hangs.
    let stuck = stuck;
    let sim = sim(&tb, "n1");
    let dead = sim.devices()[1].clone();
    hang(&stuck, &sim, &dead);
    for _ in 0..3 {
        let said = quick_step(&tb);
        let line = "(4 devices): sent at least 0 B, received at least 0 B";
        assert!(said.contains(line), "{said}");
        let why = format!("; {dead}: the device did not answer at the start");
        assert!(said.contains(&why), "{said}");
        tb.wait_idle().unwrap();
        let named = hanging(&tb, &dead);
        assert_eq!(named.len(), 1, "{named:?}");
    }
    assert!(!tb.node_state("n1").unwrap().is_drained());
    let reader = hanging(&tb, &dead);
    let reader = reader.first().unwrap();
    assert_ne!(of_process(&tb, *reader, "stat"), "");
    drop(stuck);
    tb.wait_until("the reader's end", LIMIT, || {
        let stat = of_process(&tb, *reader, "stat");
        Ok(match stat.is_empty() {
            true => Progress::Done(()),
            false => Progress::Waiting(stat),
        })
    })
    .unwrap();
}

#[test]
fn a_device_that_dies_while_a_job_runs_costs_neither_its_end_nor_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = Stuck::mount(dir.path()).unwrap();
    let tb = cluster(&["p4d.24xlarge"]);
    let stuck = stuck;
    let sim = sim(&tb, "n1");
    let dead = sim.devices()[1].clone();
    let (job, printed) = job_with(&tb, &["--efa-profile=p4d"], "srun true", || {
        sim.add_traffic(&sim.devices()[0], 1 << 20).unwrap();
        hang(&stuck, &sim, &dead);
    });
    let of_step = format!("; {dead}: the device did not answer at the start");
    let of_job = format!("; {dead}: the device did not answer at the end");
    assert!(printed.contains(&of_step), "{printed}");
    assert!(printed.contains(&of_job), "{printed}");
    assert!(printed.contains("sent at least 1.0 MiB"), "{printed}");
    tb.wait_idle().unwrap();
    let whole = records(&tb, job, 2)
        .into_iter()
        .find(|it| it.step.is_none());
    let whole = whole.unwrap();
    assert_eq!(
        whole.devices.0[&dead].amount("tx_bytes"),
        Amount::Unknown(Unknown::NoAnswerAfter)
    );
    assert_eq!(
        whole.totals().of(Measure::SentBytes).at_least(),
        Some(1 << 20)
    );
    // The step's reader hangs, and is nothing that the step's end waits for.
    for reader in hanging(&tb, &dead) {
        let groups = of_process(&tb, reader, "cgroup");
        assert!(groups.contains(":/"), "{groups}");
        assert!(!groups.contains("job_"), "{groups}");
    }
    assert!(!tb.node_state("n1").unwrap().is_drained());
    drop(stuck);
}

#[test]
fn a_record_says_how_late_its_first_reading_was() {
    let tb = cluster(&["p4d.24xlarge"]);
    let (job, _) = job_with(&tb, &["--efa-profile=p4d"], "srun true", || {});
    for record in records(&tb, job, 2) {
        let first = record.first_reading.unwrap();
        assert!(first.late.is_empty(), "{first:?}");
    }
}
