//! efa-check as prolog and health check of a real Slurm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdylib_tests::modules;
use cdylib_tests::simnode::Spec;
use cdylib_tests::testbed::{Builder, JobState, NodeOptions, Progress, Testbed};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of p4d with efa-check as its prolog, and `health` as its section.
fn cluster(nodes: usize, health: &str, slurm_conf: &str) -> Builder {
    let program = modules::program("efa-check").display().to_string();
    let call = |what: &str| {
        format!("#!/bin/sh\nexec {program} {what} --config {{dir}}/site/slurm-efa.toml\n")
    };
    let timed = format!(
        "#!/bin/sh\nstart=$(date +%s%N)\n{program} prolog --config {{dir}}/site/slurm-efa.toml\ncode=$?\n\
         echo $((($(date +%s%N) - start) / 1000000)) >>{{dir}}/took-$SLURMD_NODENAME\nexit $code\n"
    );
    let spec = || Spec::named("p4d.24xlarge").expect("a known node");
    (0..nodes)
        .fold(Testbed::builder(), |builder, _| {
            builder.node(NodeOptions::simulated(spec()))
        })
        .file("site/prolog", &timed)
        .file("site/watch", &call("watch"))
        .file(
            "site/slurm-efa.toml",
            &format!(
                "sysroot = \"{{dir}}/sysroots/%n\"\nstate_dir = \"{{dir}}/efa/%n\"\n[health]\n\
                 record = \"{{dir}}/record/%n.json\"\nslurm_conf = \"{{dir}}/slurm.conf\"\n{health}\n"
            ),
        )
        .prepare(|dir| {
            for script in ["prolog", "watch"] {
                let path = dir.join("site").join(script);
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        })
        // A requeued batch job waits until its old credential has expired,
        // which takes two minutes by default.
        .slurm_conf_extra(&format!(
            "AuthInfo=socket={{dir}}/munge/socket,cred_expire=5\n\
             SchedulerParameters=nohold_on_prolog_fail,batch_sched_delay=0,sched_interval=1,bf_interval=1\n\
             {slurm_conf}"
        ))
}

const PROLOG: &str = "Prolog={dir}/site/prolog";

fn start(builder: Builder) -> Testbed {
    builder.start().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs efa-check as root on a node, with what slurmd gives a health check.
fn check(tb: &Testbed, node: &str, command: &str) -> cdylib_tests::testbed::Output {
    let program = modules::program("efa-check");
    let config = tb.dir().join("site/slurm-efa.toml");
    let argv = [
        program.as_os_str(),
        command.as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ];
    tb.command("root", &argv)
        .env("SLURMD_NODENAME", node)
        .output()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Breaks the node's last adapter and returns what puts it back.
fn break_adapter(tb: &Testbed, node: &str) -> impl Fn() + use<> {
    let link = device(tb, node, "rdmap160s27");
    let aside = tb.dir().join(format!("aside-{node}"));
    fs::rename(&link, &aside).expect("the adapter was there");
    move || fs::rename(&aside, &link).expect("the adapter was aside")
}

fn device(tb: &Testbed, node: &str, name: &str) -> PathBuf {
    tb.sysroot(node).join("sys/class/infiniband").join(name)
}

fn fifo(path: &Path) {
    fs::remove_file(path).expect("a file to replace");
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Waits until a node's state is as wanted; returns its reason.
fn wait_node(tb: &Testbed, node: &str, what: &str, wanted: fn(&str, bool) -> bool) -> String {
    let seen = tb.wait_until(what, LIMIT, || {
        let state = tb.node_state(node)?;
        Ok(if wanted(&state.reason, state.is_drained()) {
            Progress::Done(state.reason)
        } else {
            Progress::Waiting(format!("{state:?}"))
        })
    });
    seen.unwrap_or_else(|error| panic!("{error}"))
}

fn drained_by_us(tb: &Testbed, node: &str) -> String {
    wait_node(tb, node, "our drain", |reason, drained| {
        drained && reason.starts_with("EFA: ")
    })
}

/// Waits for the end of every process of ours that talks to Slurm.
fn wait_for_speakers(tb: &Testbed) {
    // The pattern does not match itself in this shell's own arguments.
    let script = "while grep -qs 'slurm-speake[r]' /proc/[0-9]*/cmdline; do sleep 0.05; done";
    let done = tb.run("root", &["/bin/sh", "-c", script], &[]);
    assert!(done.unwrap_or_else(|error| panic!("{error}")).success());
}

/// A batch job's end and where it ran.
fn run_job(tb: &Testbed) -> String {
    let script = "#!/bin/bash\necho $SLURMD_NODENAME\n";
    let job = tb
        .sbatch("alice", script, &["-N1"])
        .unwrap_or_else(|e| panic!("{e}"));
    let state = tb.wait_job(job).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(state, JobState::Completed);
    tb.job_output(job).unwrap_or_else(|error| panic!("{error}"))
}

fn prolog_took(tb: &Testbed, node: &str) -> Vec<u64> {
    let text = fs::read_to_string(tb.dir().join(format!("took-{node}"))).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_sick_node_is_drained_with_our_reason_and_its_batch_job_runs_elsewhere() {
    let tb = start(cluster(2, "", PROLOG));
    assert_eq!(check(&tb, "n1", "record").code(), 0);
    let _repair = break_adapter(&tb, "n1");
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

#[test]
fn a_warning_does_not_stop_a_job_nor_drain_the_node() {
    let tb = start(cluster(1, "", PROLOG));
    let scope = tb.sysroot("n1").join("proc/sys/kernel/yama/ptrace_scope");
    fs::create_dir_all(scope.parent().expect("a folder")).expect("the folder");
    fs::write(scope, "1\n").expect("the file");
    assert_eq!(check(&tb, "n1", "node").code(), 1);
    assert_eq!(run_job(&tb), "n1\n");
    let state = tb
        .node_state("n1")
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(!state.is_drained(), "{state:?}");
}

#[test]
fn a_probe_that_hangs_costs_the_prolog_its_limit_and_drains_the_node() {
    let tb = start(cluster(2, "probe_limit = \"2s\"", PROLOG));
    fifo(&device(&tb, "n1", "rdmap32s27").join("ports/1/hw_counters/rx_drops"));
    assert_eq!(run_job(&tb), "n2\n");
    let reason = drained_by_us(&tb, "n1");
    assert!(
        reason.contains("rdmap32s27 (pci 0000:20:1b.0) does not answer"),
        "{reason}"
    );
    let took = prolog_took(&tb, "n1");
    assert!(took.len() == 1 && took[0] < 3500, "{took:?} ms");
}

#[test]
fn the_health_check_drains_a_sick_node_and_resumes_it_after_the_repair() {
    let watch = "HealthCheckProgram={dir}/site/watch\nHealthCheckInterval=1";
    let tb = start(cluster(2, "resume = true\nresume_after = 2", watch));
    assert_eq!(check(&tb, "n1", "record").code(), 0);
    let repair = break_adapter(&tb, "n1");
    let reason = drained_by_us(&tb, "n1");
    assert!(reason.contains("3/4 devices, rdmap160s27 gone"), "{reason}");
    assert_eq!(run_job(&tb), "n2\n");
    repair();
    wait_node(&tb, "n1", "the resume", |_, drained| !drained);
    assert!(
        !tb.node_state("n2")
            .unwrap_or_else(|e| panic!("{e}"))
            .is_drained()
    );
}

#[test]
fn what_an_administrator_drained_is_neither_renamed_nor_resumed() {
    let tb = start(cluster(1, "resume = true\nresume_after = 1", ""));
    assert_eq!(check(&tb, "n1", "record").code(), 0);
    tb.scontrol(&[
        "update",
        "NodeName=n1",
        "State=DRAIN",
        "Reason=disk is full",
    ])
    .unwrap_or_else(|error| panic!("{error}"));
    let repair = break_adapter(&tb, "n1");
    assert_eq!(check(&tb, "n1", "watch").code(), 2);
    wait_for_speakers(&tb);
    let untouched = |tb: &Testbed| {
        let state = tb
            .node_state("n1")
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(
            state.is_drained() && state.reason.starts_with("disk is full"),
            "{state:?}"
        );
    };
    untouched(&tb);
    repair();
    assert_eq!(check(&tb, "n1", "watch").code(), 0);
    wait_for_speakers(&tb);
    untouched(&tb);
}

#[test]
fn while_slurmctld_is_down_nothing_hangs_and_the_drain_follows_when_it_is_back() {
    let tb = start(cluster(1, "scontrol_limit = \"2s\"", ""));
    assert_eq!(check(&tb, "n1", "record").code(), 0);
    let _repair = break_adapter(&tb, "n1");
    let script = format!(
        "pid=$(cat {}/pid/slurmctld); kill -KILL $pid; while kill -0 $pid 2>/dev/null && \
         ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.05; done",
        tb.dir().display()
    );
    let killed = tb.run("root", &["/bin/sh", "-c", &script], &[]);
    assert!(killed.unwrap_or_else(|error| panic!("{error}")).success());
    for command in ["prolog", "watch", "prolog"] {
        let said = check(&tb, "n1", command);
        assert_eq!(said.code(), 2, "{said}");
        assert!(
            said.took < Duration::from_secs(3),
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
    let tb = start(cluster(2, "on_fatal = \"hyperpod-replace\"", PROLOG));
    assert_eq!(check(&tb, "n1", "record").code(), 0);
    let _repair = break_adapter(&tb, "n1");
    assert_eq!(run_job(&tb), "n2\n");
    let said = |reason: &str, _: bool| reason.split(" [").next() == Some("Action:Replace");
    wait_node(&tb, "n1", "HyperPod's words", said);
    wait_for_speakers(&tb);
    // Neither Slurm's own drain nor our next round takes them back.
    assert_eq!(check(&tb, "n1", "watch").code(), 2);
    wait_for_speakers(&tb);
    let state = tb
        .node_state("n1")
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        said(&state.reason, true) && state.state.contains("FAIL"),
        "{state:?}"
    );
}
