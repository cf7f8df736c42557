//! The testbed itself: it boots a real Slurm, keeps to itself and leaves nothing.
//!
//! Needs root and Debian's slurmd, slurmctld, slurm-client and munge.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdylib_tests::simnode::Spec;
use cdylib_tests::testbed::{Error, JobState, LIMIT, NodeOptions, Testbed, boots_and_runs_jobs};

/// What a testbed is made of, to look for after its end.
struct Traces {
    dir: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Traces {
    fn of(tb: &Testbed) -> Traces {
        Traces {
            dir: tb.dir().to_owned(),
            cgroups: tb.cgroup_dirs(),
        }
    }

    /// Everything of the testbed that is still there.
    fn left(&self) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let mut left: Vec<String> = self
            .cgroups
            .iter()
            .chain([&self.dir])
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|m| m.contains(dir))
                .map(str::to_owned),
        );
        left.extend(processes_mentioning(dir));
        left
    }
}

/// Processes that name `dir` in their command line or environment.
fn processes_mentioning(dir: &str) -> Vec<String> {
    let mentions = |path: PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(dir)
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
        .filter(|pid| {
            let proc = Path::new("/proc").join(pid);
            mentions(proc.join("cmdline")) || mentions(proc.join("environ"))
        })
        .map(|pid| format!("process {pid}"))
        .collect()
}

/// Polls until nothing is left, because after a SIGKILL nobody announces it.
fn assert_all_gone(traces: &Traces) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = traces.left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_testbed_runs_steps_batch_jobs_users_and_cgroups() {
    boots_and_runs_jobs(None).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_three_users_are_three_uids_with_homes_of_their_own() {
    let tb = Testbed::builder().start().unwrap();
    let mut uids = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let id = tb
            .srun(user, &["sh", "-c", "id -un; id -u; pwd; echo x > mine"])
            .unwrap();
        let lines: Vec<&str> = id.stdout.lines().collect();
        assert_eq!(lines[0], user, "{id}");
        assert_eq!(Path::new(lines[2]), tb.user(user).unwrap().home, "{id}");
        uids.push(lines[1].to_owned());
    }
    uids.dedup();
    assert_eq!(uids, ["20001", "20002", "20003"]);
    let alice_home = &tb.user("alice").unwrap().home;
    let spying = tb
        .command("bob", &["cat"])
        .arg(alice_home.join("mine"))
        .output()
        .unwrap();
    assert!(!spying.success(), "bob reads alice's file: {spying}");
}

#[test]
fn two_testbeds_run_side_by_side_without_meeting() {
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Testbed::builder().start().unwrap());
        let two = scope.spawn(|| Testbed::builder().start().unwrap());
        (one.join().unwrap(), two.join().unwrap())
    });
    let script = "#!/bin/bash\nexec sleep 600\n";
    let first = one.sbatch::<&str>("alice", script, &[]).unwrap();
    let second = two.sbatch::<&str>("alice", script, &[]).unwrap();
    assert_eq!(first, second, "each cluster counts its own jobs");
    for (tb, job) in [(&one, first), (&two, second)] {
        tb.wait_job_until(job, LIMIT, |s| *s == JobState::Running)
            .unwrap();
    }
    let two_traces = Traces::of(&two);
    drop(two);
    assert_all_gone(&two_traces);
    assert_eq!(one.job(first).unwrap().state(), JobState::Running);
    one.scancel(first).unwrap();
    assert_eq!(one.wait_job(first).unwrap(), JobState::Cancelled);
    assert_eq!(one.queue_len().unwrap(), 0);
}

#[test]
fn a_dropped_testbed_leaves_no_process_mount_cgroup_or_file_even_with_a_job_running() {
    let tb = Testbed::builder().nodes(2).start().unwrap();
    let job = tb
        .sbatch(
            "alice",
            "#!/bin/bash\nsetsid sleep 600 & sleep 600\n",
            &["-N2"],
        )
        .unwrap();
    tb.wait_job_until(job, LIMIT, |s| *s == JobState::Running)
        .unwrap();
    let traces = Traces::of(&tb);
    assert!(!traces.cgroups.is_empty(), "no cgroups were in use");
    assert!(!traces.left().is_empty());
    drop(tb);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_testbed_whose_process_is_killed_by_sigkill_leaves_nothing() {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let dir = PathBuf::from(next());
    let _nsenter = next();
    let first = PathBuf::from(next());
    // Every hierarchy has a directory of the same name.
    let name = first.file_name().unwrap().to_owned();
    let parents = fs::read_dir("/sys/fs/cgroup").unwrap();
    let mut cgroups: Vec<PathBuf> = parents
        .map(|entry| entry.unwrap().path().join(&name))
        .filter(|path| path.exists())
        .collect();
    cgroups.push(first);
    let traces = Traces { dir, cgroups };
    assert!(traces.left().iter().any(|left| left.starts_with("process")));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_all_gone(&traces);
}

#[test]
fn the_next_testbed_sweeps_what_one_left_that_was_killed_with_its_keeper() {
    let tb = Testbed::builder().start().unwrap();
    let own = tb.cgroup_dirs()[0].clone();
    drop(tb);
    let name = own.file_name().unwrap().to_str().unwrap();
    let mut parts: Vec<&str> = name.split('.').collect();
    // Same namespace, but a pid above any that Linux gives (proc(5), pid_max).
    parts[2] = "4194305";
    let stale = own.with_file_name(parts.join("."));
    fs::create_dir_all(stale.join("slurm_n1/uid_20001")).unwrap();
    let _next = Testbed::builder().start().unwrap();
    assert!(!stale.exists(), "{} is still there", stale.display());
}

#[test]
fn a_testbed_that_cannot_boot_says_why_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("place");
    let copy = place.clone();
    let error = Testbed::builder()
        .prepare(move |dir| fs::write(copy, dir.to_str().unwrap()))
        .slurm_conf_extra("NoSuchParameter=1")
        .start()
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("slurmctld ended"), "{text}");
    assert!(text.contains("NoSuchParameter"), "{text}");
    let dir = fs::read_to_string(place).unwrap();
    assert!(!Path::new(&dir).exists());
    assert_eq!(processes_mentioning(&dir), Vec::<String>::new());
}

#[test]
fn a_command_that_takes_too_long_is_killed_inside_too() {
    let tb = Testbed::builder().start().unwrap();
    let started = Instant::now();
    let error = tb
        .command("alice", &["sh", "-c", "echo before; exec sleep 4711"])
        .timeout(Duration::from_millis(500))
        .output()
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("before"), "{error}");
    assert!(started.elapsed() < LIMIT);
    let inside = tb
        .run(
            "root",
            &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"],
            &[],
        )
        .unwrap();
    assert!(!inside.stdout.contains("sleep 4711"), "{inside}");
}

#[test]
fn a_command_sees_only_the_environment_it_is_given() {
    let tb = Testbed::builder().start().unwrap();
    let env = tb
        .run("alice", &["env"], &[("EXTRA", "two words")])
        .unwrap();
    let mut names: Vec<&str> = env
        .stdout
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "EXTRA",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "SHELL",
            "SLURM_CONF",
            "USER"
        ]
    );
    assert!(env.stdout.contains("EXTRA=two words\n"));
    let echoed = tb
        .command("alice", &["cat"])
        .stdin(vec![0, 255, 10])
        .output()
        .unwrap();
    assert_eq!(echoed.stdout_bytes, [0, 255, 10]);
}

#[test]
fn output_of_many_megabytes_comes_whole_and_a_background_process_holds_nothing_up() {
    let tb = Testbed::builder().start().unwrap();
    let big = tb
        .run("alice", &["head", "-c", "5000000", "/dev/zero"], &[])
        .unwrap();
    assert_eq!(big.stdout_bytes.len(), 5_000_000);
    let started = Instant::now();
    let left_open = tb
        .run("alice", &["sh", "-c", "sleep 600 & echo done"], &[])
        .unwrap();
    assert_eq!(left_open.stdout, "done\n");
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn nodes_of_one_testbed_may_have_different_hardware_trees() {
    let tb = Testbed::builder()
        .node(NodeOptions::simulated(Spec::named("p5.48xlarge").unwrap()))
        .node(NodeOptions::simulated(Spec::named("g5.8xlarge").unwrap()))
        .file("site/site.toml", "sysroot = \"{dir}/sysroots/%n\"\n")
        .start()
        .unwrap();
    let script = "cat $0/sysroots/$SLURMD_NODENAME/sys/devices/virtual/dmi/id/product_name";
    for (node, product) in [("n1", "p5.48xlarge\n"), ("n2", "g5.8xlarge\n")] {
        let dir = tb.dir().to_str().unwrap();
        let seen = tb
            .srun("alice", &["-w", node, "sh", "-c", script, dir])
            .unwrap();
        assert_eq!(seen.stdout, product, "{seen}");
    }
    let text = fs::read_to_string(tb.dir().join("site/site.toml")).unwrap();
    let sysroots = tb.sysroot("n1");
    assert!(text.contains(sysroots.parent().unwrap().to_str().unwrap()));
}

#[test]
fn a_missing_program_is_an_error_that_names_the_command_to_run() {
    let empty = tempfile::tempdir().unwrap();
    let error = Testbed::builder().root(empty.path()).start().unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(error.to_string().contains("debootstrap"), "{error}");
}

#[test]
fn drained_nodes_and_unknown_names_are_told() {
    let tb = Testbed::builder().start().unwrap();
    tb.scontrol(&[
        "update",
        "NodeName=n1",
        "State=DRAIN",
        "Reason=a good reason",
    ])
    .unwrap();
    let node = tb.node_state("n1").unwrap();
    assert!(node.is_drained(), "{node:?}");
    assert!(node.reason.starts_with("a good reason"), "{node:?}");
    assert!(matches!(
        tb.srun("mallory", &["true"]),
        Err(Error::Unknown { .. })
    ));
    assert!(matches!(tb.start_slurmd("n9"), Err(Error::Unknown { .. })));
    let refused = tb.sbatch::<&str>("alice", "no interpreter line", &[]);
    assert!(matches!(refused, Err(Error::Failed { .. })));
}

/// Runs the `testbed` program as `nobody`, from a place that nobody may enter.
fn as_nobody(args: &[&str]) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("testbed");
    fs::copy(env!("CARGO_BIN_EXE_testbed"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(args)
        .env_remove("TMPDIR")
        .current_dir("/")
        .output()
        .unwrap()
}

#[test]
fn an_ordinary_user_gets_an_unprivileged_slurm() {
    let output = as_nobody(&["--unprivileged", "--", "srun", "-N2", "id", "-un"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text,
        "nobody\nnobody\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_ordinary_user_without_the_unprivileged_mode_is_told_both_ways_out() {
    let output = as_nobody(&["--", "true"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("sudo"), "{text}");
    assert!(text.contains("unprivileged"), "{text}");
}
