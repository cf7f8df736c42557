//! What each command does beside judging.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use cdylib_tests::simnode::Spec;
use serde_json::Value;

use crate::{Node, eventually, fifo, said};

/// A scontrol that writes down how it was called, and shows what `shown` holds.
fn scontrol(node: &Node, script: &str) {
    let (path, unfinished) = (node.path("scontrol"), node.path("scontrol.new"));
    let dir = node.dir.path().display();
    let text = format!("#!/bin/sh\ncd {dir}\n{script}\n");
    fs::write(&unfinished, text).unwrap();
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
    // Whole, for who runs it just now.
    fs::rename(&unfinished, &path).unwrap();
}

const NOTES: &str = "case $1 in show) cat shown ;; \
    *) printf '%s|' \"$@\" >called.new; env | sort >environment; mv called.new called ;; esac";

fn sick(health: &str) -> Node {
    let mut node = Node::named("p4d.24xlarge");
    node.configure(&format!(
        "scontrol = \"{}\"\n{health}",
        node.path("scontrol").display()
    ));
    scontrol(&node, NOTES);
    fs::write(node.path("shown"), "NodeName=n1 State=IDLE Owner=N/A\n").unwrap();
    assert_eq!(node.run(&["baseline"]).code, 0);
    node.sim.remove_device(3).unwrap();
    node
}

fn called(node: &Node) -> String {
    eventually("a call of scontrol", || {
        fs::read_to_string(node.path("called")).ok()
    })
}

#[test]
fn a_site_that_only_observes_gets_its_findings_and_no_drain() {
    let node = sick("on_fatal = \"log\"\nresume = true\nresume_after = 1");
    let prolog = node.run(&["prolog"]);
    assert_eq!(prolog.code, 0, "{prolog:?}");
    assert!(prolog.err.contains("device-count: 3/4"), "{prolog:?}");
    assert_eq!(node.run(&["healthcheck"]).code, 2);
    // A process that asks Slurm runs still, or has left its lock.
    assert!(!is_running(&node, "slurm-speaker"));
    assert!(!node.path("state/efa-check-slurm.lock").exists());
}

#[test]
fn a_report_in_json_has_version_node_time_findings() {
    let node = sick("");
    let said = node.run(&["node", "--json"]);
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(report["version"], 1);
    assert_eq!(report["node"], "n1");
    assert_eq!(report["severity"], "fatal");
    let time = report["time"].as_str().unwrap();
    let day = host::date::rfc3339(host::date::now());
    assert!(time.len() == day.len() && time.ends_with('Z'), "{time}");
    let found = &report["findings"][0];
    assert_eq!(found["id"], "device-count");
    assert_eq!(found["severity"], "fatal");
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("3/4 devices"), "{sentence}");
    let remedy = found["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("Compare with `lspci"), "{remedy}");
}

#[test]
fn a_report_in_json_has_the_keys_of_the_last_release_too() {
    let node = sick("");
    let said = node.run(&["node", "--json"]);
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(report["status"], report["severity"]);
    let (old, new) = (&report["checks"], &report["findings"]);
    let count = new.as_array().unwrap().len();
    assert!(count > 1 && old.as_array().unwrap().len() == count);
    for at in 0..count {
        assert_eq!(old[at]["check"], new[at]["id"]);
        assert_eq!(old[at]["status"], new[at]["severity"]);
        assert_eq!(old[at]["message"], new[at]["sentence"]);
    }
}

#[test]
fn a_fatal_prolog_drains_with_a_reason_that_says_it() {
    let node = sick("");
    let said = node.run(&["prolog"]);
    assert_eq!(said.code, 2);
    let called = called(&node);
    assert!(
        called.starts_with(
            "update|NodeName=n1|State=DRAIN|Reason=EFA: 3/4 devices, rdmap160s27 gone"
        ),
        "{called}"
    );
}

#[test]
fn scontrol_sees_nothing_of_the_environment_but_slurm_conf() {
    let node = sick("");
    let mut command = node.command(&["prolog"]);
    command
        .env("SLURM_CONF", "/etc/some/slurm.conf")
        .env("LD_PRELOAD", "/tmp/evil.so")
        .env("SPANK_X", "1");
    assert_eq!(said(&mut command).code, 2);
    called(&node);
    let text = fs::read_to_string(node.path("environment")).unwrap();
    let own = |line: &&str| {
        !["PWD=", "OLDPWD=", "_=", "SHLVL="]
            .iter()
            .any(|own| line.starts_with(own))
    };
    let names: Vec<&str> = text.lines().filter(own).collect();
    assert_eq!(
        names,
        [
            "LC_ALL=C",
            "PATH=/usr/bin:/bin",
            "SLURM_CONF=/etc/some/slurm.conf"
        ]
    );
}

#[test]
fn a_scontrol_that_hangs_or_fails_does_not_hold_the_prolog_and_is_tried_again() {
    for broken in ["exec sleep 300", "echo slurm_load_node error >&2; exit 1"] {
        let node = sick("scontrol_limit = \"3s\"");
        scontrol(&node, broken);
        let start = Instant::now();
        assert_eq!(node.run(&["prolog"]).code, 2);
        // Far less than the ten minutes for which it is tried.
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );
        assert!(!node.path("called").exists());
        // slurmctld is back.
        scontrol(&node, NOTES);
        assert!(called(&node).contains("State=DRAIN"));
    }
}

#[test]
fn the_prolog_leaves_nobody_behind_who_holds_its_output_or_its_group() {
    use std::os::unix::process::CommandExt;
    let node = sick("");
    let closed = "while [ ! -e open ]; do sleep 0.05; done";
    scontrol(&node, &format!("{closed}; {NOTES}"));
    let mut command = node.command(&["prolog"]);
    let mut child = command
        .process_group(0)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let group = child.id();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    // What slurmd does when a prolog has ended.
    let killed = std::process::Command::new("sh")
        .args(["-c", &format!("kill -KILL -{group} 2>/dev/null || true")])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    // Both pipes end now, while the child that talks to Slurm still waits.
    let output = child.wait_with_output().unwrap();
    assert!(!node.path("called").exists(), "{output:?}");
    fs::write(node.path("open"), "").unwrap();
    assert!(called(&node).contains("State=DRAIN"));
}

#[test]
fn hyperpod_is_asked_in_its_own_words() {
    for (how, words) in [
        ("hyperpod-replace", "State=FAIL|Reason=Action:Replace|"),
        ("hyperpod-reboot", "State=FAIL|Reason=Action:Reboot|"),
    ] {
        let node = sick(&format!("on_fatal = \"{how}\""));
        node.run(&["prolog"]);
        assert!(called(&node).ends_with(words));
    }
}

#[test]
fn a_health_check_drains_and_after_enough_healthy_rounds_resumes_only_what_is_ours() {
    for (reason, expected) in [
        ("EFA: 3/4 devices", Some("update|NodeName=n1|State=RESUME|")),
        ("disk is full", None),
    ] {
        let node = sick("resume = true\nresume_after = 3");
        assert_eq!(node.run(&["healthcheck"]).code, 2);
        assert!(called(&node).contains("State=DRAIN"));
        fs::remove_file(node.path("called")).unwrap();
        let line =
            format!("NodeName=n1 State=IDLE+DRAIN Reason={reason} [root@2026-11-22T09:12:00]\n");
        fs::write(node.path("shown"), line).unwrap();
        node.configure(&format!(
            "scontrol = \"{}\"\nresume = true\nresume_after = 3\nexpected_devices = 3",
            node.path("scontrol").display()
        ));
        let settled = || {
            let text = fs::read_to_string(node.path("state/efa-check.json")).unwrap();
            text.contains("\"drained\":false").then_some(())
        };
        for _ in 0..2 {
            assert_eq!(node.run(&["healthcheck"]).code, 0);
            assert!(settled().is_none());
        }
        assert_eq!(node.run(&["healthcheck"]).code, 0);
        eventually("the end of the drain", settled);
        let called = fs::read_to_string(node.path("called")).ok();
        assert_eq!(called.as_deref(), expected);
        // Slurm is not asked again in every round.
        scontrol(&node, "touch asked");
        assert_eq!(node.run(&["healthcheck"]).code, 0);
        assert!(!node.path("asked").exists());
    }
}

#[test]
fn without_resume_a_healed_node_stays_drained() {
    let node = sick("");
    node.configure("resume_after = 1\nexpected_devices = 3\nscontrol = \"/nonexistent\"");
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    let state = fs::read_to_string(node.path("state/efa-check.json")).unwrap();
    assert!(state.contains("\"drained\":true"));
}

#[test]
fn only_a_warning_that_the_site_names_holds_a_job_and_only_one_with_a_profile() {
    let option = "SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile";
    let node = Node::named("g5.8xlarge");
    node.sim
        .write("proc/sys/kernel/yama/ptrace_scope", "1\n")
        .unwrap();
    let exits = |health: &str, profile: Option<&str>| {
        node.configure(&format!("scontrol = \"/nonexistent\"\n{health}"));
        let mut command = node.command(&["prolog"]);
        command.envs(profile.map(|profile| (option, profile)));
        said(&mut command).code
    };
    assert_eq!(exits("", Some("p5")), 0);
    let hold = "hold = [\"ptrace-scope\"]";
    assert_eq!(exits(hold, Some("p5")), 2);
    assert_eq!(exits(hold, None), 0);
    assert_eq!(exits(hold, Some("none")), 0);
    assert_eq!(exits("disable = [\"ptrace-scope\"]", Some("p5")), 0);
}

/// A process of the node, as slurmd starts one for each step.
fn process(node: &Node, pid: u32, uid: u32, cmdline: &str) {
    let write = |file: &str, text: &str| {
        let place = format!("proc/{pid}/{file}");
        node.sim.write(&place, text).unwrap();
    };
    write("comm", "slurmstepd\n");
    write("status", &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"));
    write("cmdline", cmdline);
}

/// The exit code of a prolog of a job with a profile, where packets were dropped
/// between a health check and it.
fn prolog_after_drops(jobs: impl Fn(&Node)) -> i32 {
    let node = Node::named("g5.8xlarge");
    node.configure("scontrol = \"/nonexistent\"\nhold = [\"rx-drops\"]");
    jobs(&node);
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    node.add(0, "rx_drops", 1_000);
    let mut prolog = node.command(&["prolog"]);
    prolog.env("SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile", "g5");
    said(&mut prolog).code
}

#[test]
fn what_a_job_can_cause_holds_no_other_job() {
    assert_eq!(prolog_after_drops(|_| {}), 2);
    let step = "slurmstepd: [18.batch]\0";
    assert_eq!(prolog_after_drops(|node| process(node, 77, 0, step)), 0);
    // It belongs to no job, and a user's process to none that Slurm knows.
    let infinity = "/usr/sbin/slurmstepd\0infinity\0";
    assert_eq!(prolog_after_drops(|node| process(node, 77, 0, infinity)), 2);
    assert_eq!(prolog_after_drops(|node| process(node, 77, 1000, step)), 2);
}

#[test]
fn a_job_that_came_after_the_last_health_check_may_have_caused_what_is_found() {
    let code = prolog_after_drops(|node| {
        assert_eq!(node.run(&["healthcheck"]).code, 0);
    });
    assert_eq!(code, 2);
    let node = Node::named("g5.8xlarge");
    node.configure("scontrol = \"/nonexistent\"\nhold = [\"rx-drops\"]");
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    assert_eq!(node.run(&["prolog"]).code, 0);
    node.add(0, "rx_drops", 1_000);
    let mut prolog = node.command(&["prolog"]);
    prolog.env("SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile", "g5");
    assert_eq!(said(&mut prolog).code, 0);
}

#[test]
fn a_hold_that_any_job_can_cause_is_pointed_out() {
    let node = Node::named("g5.8xlarge");
    node.configure("hold = [\"rx-drops\"]");
    let said = node.run(&["node"]);
    assert!(said.err.contains("any job can cause rx-drops"), "{said:?}");
}

#[test]
fn no_profile_that_a_user_makes_up_helps_on_a_sick_node_or_hurts_on_a_healthy_one() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let option = "SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile";
    let long = "x".repeat(100_000);
    let (healthy, ill) = (Node::named("g5.8xlarge"), sick(""));
    for profile in [
        b"none".as_slice(),
        b"",
        b"\xff\xfe",
        b"../../x",
        long.as_bytes(),
    ] {
        for (node, expected) in [(&healthy, 0), (&ill, 2)] {
            let mut command = node.command(&["prolog"]);
            command.env(option, OsStr::from_bytes(profile));
            assert_eq!(said(&mut command).code, expected, "{profile:?}");
        }
    }
}

#[test]
fn whatever_is_wrong_with_the_site_or_the_call_a_prolog_does_not_drain_the_node() {
    let node = Node::named("g5.8xlarge");
    fs::write(node.config(), "[health]\nprobe_limit = 7\n").unwrap();
    let said_ = node.run(&["prolog"]);
    assert_eq!(said_.code, 0);
    assert!(said_.err.contains("slurm-efa.toml:2: "), "{said_:?}");
    assert_eq!(node.run(&["node"]).code, 78);
    fs::write(node.config(), "x = 1").unwrap();
    assert_eq!(node.run(&["prolog"]).code, 0);
    fs::remove_file(node.config()).unwrap();
    assert_eq!(node.run(&["prolog"]).code, 0);
    assert_eq!(node.run(&["prolog", "--no-such-option"]).code, 0);
    assert_eq!(node.run(&["node", "--no-such-option"]).code, 64);
    assert_eq!(node.run(&["no-such-command"]).code, 64);
    assert_eq!(node.run(&["explain", "no-such-check"]).code, 64);
    // A state that cannot be written costs the comparison, not the verdict.
    node.configure("");
    fs::write(node.path("state"), "in the way").unwrap();
    let said_ = node.run(&["prolog"]);
    assert_eq!(said_.code, 0);
    assert!(
        said_.err.contains("the next round will know nothing"),
        "{said_:?}"
    );
}

#[test]
fn a_link_named_after_a_command_is_that_command() {
    let node = Node::named("g5.8xlarge");
    for name in ["prolog", "healthcheck"] {
        let link = node.path(&format!("efa-check-{name}"));
        symlink(env!("CARGO_BIN_EXE_efa-check"), &link).unwrap();
        let mut command = std::process::Command::new(&link);
        command.arg("--config").arg(node.config()).env_clear();
        assert_eq!(said(&mut command).code, 0);
        assert!(node.path("state/efa-check.json").exists());
        fs::remove_dir_all(node.path("state")).unwrap();
    }
}

#[test]
fn a_command_by_its_name_of_the_last_release_does_the_same_and_names_todays() {
    let node = Node::named("g5.8xlarge");
    for (old, new) in [("record", "baseline"), ("watch", "healthcheck")] {
        let called = |command: &str| {
            let mut command = node.command(&[command]);
            said(command.env_remove("SLURMD_NODENAME").arg("--node-name=n1"))
        };
        let today = called(new);
        let before = called(old);
        assert_eq!((before.code, today.code), (0, 0), "{before:?}");
        let warning = format!(
            "efa-check: `{old}` is the old name of `{new}`, which the next release will refuse; \
             write `efa-check {new}`\n"
        );
        assert_eq!(before.err, format!("{warning}{}", today.err));
        let help = node.run(&["--help"]).out;
        let has = |name: &str| help.lines().any(|it| it.trim().starts_with(name));
        assert!(has(new) && !has(old), "{help}");
    }
}

#[test]
fn slurmd_is_not_told_of_a_commands_old_name_at_each_round() {
    let node = Node::named("g5.8xlarge");
    let link = node.path("efa-check-watch");
    symlink(env!("CARGO_BIN_EXE_efa-check"), &link).unwrap();
    let mut linked = std::process::Command::new(&link);
    linked.arg("--config").arg(node.config()).env_clear();
    linked.env("SLURMD_NODENAME", "n1");
    for mut command in [linked, node.command(&["watch"])] {
        let said = said(&mut command);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert!(node.path("state/efa-check.json").exists());
        fs::remove_dir_all(node.path("state")).unwrap();
    }
}

#[test]
fn a_numbered_link_or_one_with_an_extension_is_the_command_of_its_name() {
    let node = sick("");
    for name in [
        "50-efa-check-prolog",
        "10_efa-check-prolog",
        "efa-check-prolog.sh",
    ] {
        let link = node.path(name);
        symlink(env!("CARGO_BIN_EXE_efa-check"), &link).unwrap();
        let mut command = std::process::Command::new(&link);
        command.arg("--config").arg(node.config()).env_clear();
        command.env("SLURMD_NODENAME", "n1");
        let said = said(&mut command);
        assert_eq!(said.code, 2, "{name}: {said:?}");
        assert!(said.err.contains("device-count"), "{name}: {said:?}");
        assert!(called(&node).contains("State=DRAIN"), "{name}");
    }
}

/// A script whose first line names efa-check and a configuration.
fn script(path: &std::path::Path, config: &std::path::Path) {
    let program = env!("CARGO_BIN_EXE_efa-check");
    let text = format!("#!{program} --config={}\n# Anything.\n", config.display());
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_script_that_names_efa_check_in_its_first_line_is_the_command_of_its_name() {
    let node = sick("");
    let path = node.path("50-efa-check-prolog.sh");
    script(&path, &node.config());
    let mut command = std::process::Command::new(&path);
    let said = said(command.env_clear().env("SLURMD_NODENAME", "n1"));
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("device-count"), "{said:?}");
    assert!(called(&node).contains("State=DRAIN"));
}

#[test]
fn a_script_without_a_commands_name_fails_no_prolog() {
    let node = sick("");
    let path = node.path("50-check-efa");
    script(&path, &node.config());
    for variables in BY_SLURMD {
        let mut command = std::process::Command::new(&path);
        let said = said(command.env_clear().envs(variables.iter().copied()));
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("efa-check-prolog"), "{said:?}");
    }
}

/// What slurmd gives a prolog: with and without the context, which a script of
/// the site's may have dropped.
const BY_SLURMD: [&[(&str, &str)]; 2] = [
    &[("SLURM_SCRIPT_CONTEXT", "prolog_slurmd")],
    &[("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "7")],
];

#[test]
fn wrong_use_by_slurmd_fails_no_prolog() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("50-check-efa");
    symlink(env!("CARGO_BIN_EXE_efa-check"), &link).unwrap();
    for variables in BY_SLURMD {
        let mut command = std::process::Command::new(&link);
        let called = said(command.env_clear().envs(variables.iter().copied()));
        assert_eq!(called.code, 0, "{called:?}");
        assert_eq!(called.err.lines().count(), 1, "{called:?}");
        for words in [
            "50-check-efa was called without a command",
            "efa-check-prolog",
        ] {
            assert!(called.err.contains(words), "{called:?}");
        }
    }
    for wrong in [
        &["no-such-command"][..],
        &["node", "--no-such-option"],
        &["explain", "no-such-check"],
        &["node", "--config", "/nonexistent.toml"],
    ] {
        let mut command = std::process::Command::new(&link);
        command.args(wrong).env_clear();
        assert!(said(&mut command).code >= 64, "{wrong:?}, by a person");
        let called = said(command.envs(BY_SLURMD[0].iter().copied()));
        assert_eq!(called.code, 0, "{wrong:?}: {called:?}");
    }
}

#[test]
fn the_health_checks_link_among_the_prologs_fails_none_for_a_warning() {
    let node = Node::named("g5.8xlarge");
    let scope = "proc/sys/kernel/yama/ptrace_scope";
    node.sim.write(scope, "1\n").unwrap();
    let link = node.path("60-efa-check-healthcheck");
    symlink(env!("CARGO_BIN_EXE_efa-check"), &link).unwrap();
    let mut command = std::process::Command::new(&link);
    command.arg("--config").arg(node.config()).env_clear();
    assert_eq!(said(&mut command).code, 1);
    command.env("SLURM_SCRIPT_CONTEXT", "prolog_slurmd");
    assert_eq!(said(&mut command).code, 0);
}

#[test]
fn a_node_that_just_booted_waits_for_late_devices_and_no_other_does() {
    let mut node = Node::named("g5.8xlarge");
    node.configure("wait_boot = \"1h\"\nscontrol = \"/nonexistent\"");
    node.sim.remove_device(0).unwrap();
    node.sim.write("proc/uptime", "5000.00 1.00\n").unwrap();
    assert_eq!(node.run(&["prolog"]).code, 2);
    node.configure("wait_boot = \"2s\"\nscontrol = \"/nonexistent\"");
    node.sim.write("proc/uptime", "1.50 1.00\n").unwrap();
    let start = Instant::now();
    assert_eq!(node.run(&["prolog"]).code, 2);
    assert!(start.elapsed() >= Duration::from_secs(2));
    // It comes while the prolog waits.
    node.configure("wait_boot = \"30s\"\nscontrol = \"/nonexistent\"");
    let waiting = node.command(&["prolog"]).spawn().unwrap();
    let other = Node::named("g5.8xlarge");
    let place = node.sim.path("sys");
    fs::remove_dir_all(&place).unwrap();
    fs::rename(other.sim.path("sys"), &place).unwrap();
    let dev = node.sim.path("dev");
    fs::remove_dir_all(&dev).unwrap();
    fs::rename(other.sim.path("dev"), &dev).unwrap();
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_health_check_does_not_drain_for_devices_that_may_be_late() {
    let node = sick("");
    node.sim.write("proc/uptime", "1.50 1.00\n").unwrap();
    assert_eq!(node.run(&["healthcheck"]).code, 2);
    node.sim.write("proc/uptime", "100.50 1.00\n").unwrap();
    let before = node.path("called").exists();
    assert_eq!(node.run(&["healthcheck"]).code, 2);
    assert!(!before && called(&node).contains("State=DRAIN"));
}

#[test]
fn a_hung_probe_costs_the_prolog_at_most_its_limit() {
    let mut node = Node::named("p5.48xlarge");
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    node.hang(0, "rx_drops");
    node.hang(31, "no_completion_cmds");
    let start = Instant::now();
    let said = node.run(&["prolog"]);
    assert!(
        // Such a read never ends.
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(said.code, 2);
    for device in [0, 31] {
        assert!(
            said.err.contains(node.sim.devices()[device].as_str()),
            "{said:?}"
        );
    }
}

#[test]
fn a_late_read_whose_process_can_be_ended_is_no_finding_about_the_device() {
    let node = Node::named("p5.48xlarge");
    node.configure("probe_limit = \"1s\"");
    fifo(&node.counter(7, "rx_drops"));
    assert_eq!(node.findings(), ["counters: unknown"]);
    let said = node.run(&["prolog"]);
    assert_eq!(said.code, 0, "{said:?}");
    let reason = "no answer within 1000 ms, but no read hangs in the kernel";
    assert!(said.err.contains(reason), "{said:?}");
}

#[test]
fn nothing_is_recorded_of_a_sick_node_unless_it_must_be() {
    let node = Node::named("g5.8xlarge");
    fs::write(node.counter(0, "rx_drops"), "x").unwrap();
    assert_eq!(node.run(&["baseline"]).code, 2);
    assert!(!node.path("record").exists());
    assert_eq!(node.run(&["baseline", "--force"]).code, 0);
    assert!(node.path("record/efa.json").exists());
}

/// The command that a message names in backquotes or, in a reason of Slurm's,
/// in quotes, as a person would type it.
fn type_what_is_advised(node: &Node, message: &str) -> crate::Said {
    let (_, rest) = message.rsplit_once("efa-check baseline").unwrap();
    let end = rest.find(['`', '\'']).unwrap();
    let words = format!("baseline{}", &rest[..end]);
    let words: Vec<&str> = words.split(' ').collect();
    let own = words.contains(&"--config");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_efa-check"));
    command
        .args(&words)
        .env_clear()
        .env("SLURMD_NODENAME", "n1");
    if !own {
        command.arg("--config").arg(node.config());
    }
    said(&mut command)
}

#[test]
fn fewer_devices_than_the_type_can_have_are_recorded_only_when_confirmed() {
    let node = Node::new(&Spec::named("p5.48xlarge").unwrap().with_devices(31));
    let refused = node.run(&["baseline"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let reason = "nothing was recorded: 31 EFA devices are present, but a p5.48xlarge can have 32";
    assert!(refused.err.contains(reason), "{refused:?}");
    assert!(!node.path("record").exists());
    assert_eq!(node.run(&["baseline", "--force"]).code, 2);
    let recorded = type_what_is_advised(&node, &refused.err);
    assert_eq!(recorded.code, 0, "{recorded:?}");
    assert!(
        recorded
            .out
            .ends_with("efa.json: none -> 31 EFA devices of a p5.48xlarge\n"),
        "{recorded:?}"
    );
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn a_refused_record_leaves_the_last_one() {
    let mut node = Node::named("p5.48xlarge");
    assert_eq!(node.run(&["baseline"]).code, 0);
    let before = fs::read(node.path("record/efa.json")).unwrap();
    node.sim.remove_device(17).unwrap();
    let refused = node.run(&["baseline"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("32 are recorded"), "{refused:?}");
    assert_eq!(fs::read(node.path("record/efa.json")).unwrap(), before);
    assert_eq!(node.findings(), ["device-count: fatal"]);
    let recorded = type_what_is_advised(&node, &refused.err);
    assert!(
        recorded.out.contains(": 32 -> 31 EFA devices"),
        "{recorded:?}"
    );
}

#[test]
fn fewer_devices_than_were_confirmed_before_are_not_recorded_either() {
    let mut node = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(3));
    assert_eq!(node.run(&["baseline", "--expect", "3"]).code, 0);
    node.sim.remove_device(0).unwrap();
    let refused = node.run(&["baseline"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("but 3 are recorded"), "{refused:?}");
}

#[test]
fn a_confirmation_of_another_number_is_refused() {
    let node = Node::new(&Spec::named("p5.48xlarge").unwrap().with_devices(31));
    for expected in ["32", "30", "0"] {
        let refused = node.run(&["baseline", "--expect", expected]);
        assert_eq!(refused.code, 2, "{refused:?}");
        let reason = format!("31 EFA devices are present, and --expect names {expected}");
        assert!(refused.err.contains(&reason), "{refused:?}");
    }
    assert!(!node.path("record").exists());
    assert_eq!(node.run(&["baseline", "--expect", "many"]).code, 64);
}

#[test]
fn a_number_in_the_configuration_confirms_a_record() {
    let node = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(3));
    node.configure("expected_devices = 4");
    let refused = node.run(&["baseline"]);
    assert_eq!(refused.code, 2);
    let reason = "`expected_devices` in the configuration says 4";
    assert!(refused.err.contains(reason), "{refused:?}");
    assert!(refused.err.contains("set it to 3"), "{refused:?}");
    node.configure("expected_devices = { \"p4d.24xlarge\" = 3 }");
    assert_eq!(node.run(&["baseline"]).code, 0);
}

#[test]
fn more_devices_than_are_recorded_are_a_warning_until_they_are_recorded() {
    let node = Node::named("p5.48xlarge");
    assert_eq!(node.run(&["baseline"]).code, 0);
    let few = Node::new(&Spec::named("p5.48xlarge").unwrap().with_devices(31));
    assert_eq!(few.run(&["baseline", "--expect", "31"]).code, 0);
    let record = node.path("record/efa.json");
    fs::copy(few.path("record/efa.json"), &record).unwrap();
    let warned = node.run(&["node"]);
    assert_eq!(warned.code, 1, "{warned:?}");
    let reason = "32 devices, and 31 are recorded: run `efa-check baseline`";
    assert!(warned.out.contains(reason), "{warned:?}");
    assert_eq!(node.run(&["prolog"]).code, 0);
    let recorded = node.run(&["baseline"]);
    assert!(
        recorded.out.contains(": 31 -> 32 EFA devices"),
        "{recorded:?}"
    );
    assert_eq!(node.findings(), [""; 0]);
}

/// A p4d with three of four EFA devices, which a person confirmed.
fn confirmed_three() -> Node {
    let node = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(3));
    assert_eq!(node.run(&["baseline", "--expect", "3"]).code, 0);
    assert_eq!(node.findings(), [""; 0]);
    node
}

fn edit_record(node: &Node, edit: impl Fn(&str) -> String) {
    let record = node.path("record/efa.json");
    let text = fs::read_to_string(&record).unwrap();
    let edited = edit(&text);
    assert_ne!(text, edited);
    fs::write(&record, edited).unwrap();
}

#[test]
fn a_record_that_cannot_be_read_drains_nothing() {
    let torn = |text: &str| text[..text.len() / 2].to_owned();
    let newer = |text: &str| text.replace("\"version\": 2", "\"version\": 3, \"more\": 1");
    for (is_newer, why) in [
        (false, "is damaged"),
        (true, "was written by a newer release (version 3"),
    ] {
        let node = confirmed_three();
        edit_record(
            &node,
            |text| if is_newer { newer(text) } else { torn(text) },
        );
        let said = node.run(&["node"]);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.out.contains(why), "{said:?}");
        assert_eq!(node.run(&["prolog"]).code, 0);
        let refused = node.run(&["baseline"]);
        assert_eq!(refused.code, 2, "{refused:?}");
        let recorded = type_what_is_advised(&node, &refused.err);
        assert_eq!(recorded.code, 0, "{recorded:?}");
        assert_eq!(node.findings(), [""; 0]);
    }
}

#[test]
fn a_device_that_is_lost_since_boot_drains_whatever_the_record_says() {
    let mut node = confirmed_three();
    assert_eq!(node.run(&["prolog"]).code, 0);
    edit_record(&node, |text| text[..9].to_owned());
    node.sim.remove_device(0).unwrap();
    assert_eq!(node.findings(), ["device-count: fatal"]);
    assert_eq!(node.run(&["prolog"]).code, 2);
}

const ASSET_TAG: &str = "sys/devices/virtual/dmi/id/board_asset_tag";

#[test]
fn the_record_of_another_node_in_a_copied_image_is_not_used() {
    let node = confirmed_three();
    node.sim.write(ASSET_TAG, "i-0123456789abcdef0\n").unwrap();
    assert_eq!(node.run(&["baseline", "--expect", "3"]).code, 0);
    let record = node.path("record/efa.json");
    let copy = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(3));
    fs::create_dir(copy.path("record")).unwrap();
    fs::copy(&record, copy.path("record/efa.json")).unwrap();
    copy.sim.write(ASSET_TAG, "i-0fedcba9876543210\n").unwrap();
    let look = |name: &str| said(copy.command(&["node"]).env("SLURMD_NODENAME", name));
    let foreign = look("n2");
    assert_eq!(foreign.code, 2, "{foreign:?}");
    let why = "the record is of node n1 and not used";
    assert!(foreign.out.contains(why), "{foreign:?}");
    // A new instance under the old name, whose record lies on a shared folder.
    assert_eq!(look("n1").code, 0);
    // The same instance under another name.
    copy.sim.write(ASSET_TAG, "i-0123456789abcdef0\n").unwrap();
    assert_eq!(look("ip-10-0-0-1").code, 0);
}

#[test]
fn a_record_of_the_first_release_is_still_used() {
    let node = confirmed_three();
    edit_record(&node, |text| {
        let lines = text.lines().filter(|line| {
            let new = ["\"version\"", "\"node\"", "\"instance_id\""];
            !new.iter().any(|key| line.contains(key))
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn the_advice_for_confirming_a_number_is_not_given_where_devices_were_seen_to_go() {
    let mut node = Node::named("p5.48xlarge");
    assert_eq!(node.run(&["prolog"]).code, 0);
    for _ in 0..3 {
        node.sim.remove_device(0).unwrap();
    }
    let said = node.run(&["node"]);
    assert!(said.out.contains("29/32 devices, "), "{said:?}");
    assert!(said.out.contains(" and 1 more\n"), "{said:?}");
}

#[test]
fn more_devices_than_expected_keep_no_node_drained() {
    let node = Node::named("p4d.24xlarge");
    scontrol(&node, "touch asked; echo NodeName=n1 State=IDLE");
    node.configure(&format!(
        "scontrol = \"{}\"\nresume = true\nresume_after = 1\nexpected_devices = 3",
        node.path("scontrol").display()
    ));
    assert_eq!(node.run(&["healthcheck"]).code, 1);
    eventually("a question to Slurm about the resume", || {
        node.path("asked").exists().then_some(())
    });
}

#[test]
fn the_drain_reason_of_a_node_without_any_device_names_a_command_that_ends_the_drain() {
    let node = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(0));
    // Without a device nobody loads the driver.
    node.sim.remove("sys/module/efa").unwrap();
    node.configure(&format!(
        "scontrol = \"{}\"",
        node.path("scontrol").display()
    ));
    scontrol(&node, NOTES);
    fs::write(node.path("shown"), "NodeName=n1 State=IDLE Owner=N/A\n").unwrap();
    assert_eq!(node.run(&["prolog"]).code, 2);
    let recorded = type_what_is_advised(&node, &called(&node));
    assert_eq!(recorded.code, 0, "{recorded:?}");
    assert!(
        recorded.out.contains(": none -> 0 EFA devices"),
        "{recorded:?}"
    );
    assert_eq!(node.findings(), [""; 0]);
    assert_eq!(node.run(&["prolog"]).code, 0);
}

#[test]
fn a_persons_look_does_not_use_up_what_a_round_would_find() {
    let node = Node::named("g5.8xlarge");
    node.configure("scontrol = \"/nonexistent\"");
    node.run(&["healthcheck"]);
    node.add(0, "no_completion_cmds", 1);
    assert_eq!(node.findings(), ["admin-queue: fatal"]);
    assert_eq!(node.findings(), ["admin-queue: fatal"]);
    assert_eq!(node.run(&["prolog"]).code, 2);
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn the_state_of_another_boot_alarms_nobody() {
    let node = Node::named("g5.8xlarge");
    let boot = "proc/sys/kernel/random/boot_id";
    node.sim
        .write(boot, "11111111-1111-1111-1111-111111111111\n")
        .unwrap();
    node.run(&["healthcheck"]);
    node.add(0, "no_completion_cmds", 1);
    node.sim
        .write(boot, "22222222-2222-2222-2222-222222222222\n")
        .unwrap();
    assert_eq!(node.run(&["healthcheck"]).code, 0);
}

/// What `promtool check metrics` would object to, by the text format's
/// description and Prometheus' naming practices.
fn lint(text: &str) {
    assert!(text.ends_with('\n'));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (mut heads, mut series) = (
        std::collections::BTreeSet::new(),
        std::collections::BTreeSet::new(),
    );
    let (mut name, mut typed) = ("", false);
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (of, words) = help.split_once(' ').unwrap();
            assert!(is_name(of) && of.starts_with("efa_"), "{line}");
            assert!(words.ends_with('.') && !words.contains('\\'), "{line}");
            assert!(heads.insert(of), "{of} twice");
            (name, typed) = (of, false);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (of, kind) = kind.split_once(' ').unwrap();
            assert_eq!((of, typed), (name, false), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", of.ends_with("_total"), "{line}");
            // Base units, and no unit of another scale.
            for unit in [
                "_ms",
                "_milliseconds",
                "_kib",
                "_mib",
                "_percent",
                "_minutes",
            ] {
                assert!(!of.contains(unit), "{line}");
            }
            for (part, unit) in [("duration", "_seconds"), ("timestamp", "_seconds")] {
                assert!(!of.contains(part) || of.ends_with(unit), "{line}");
            }
            typed = true;
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(labelled), "{labelled} twice");
            let of = labelled.split('{').next().unwrap();
            assert!(of == name && typed, "{line} under {name}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let Some(labels) = labelled.strip_prefix(of).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            let labels = labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            for label in labels.split(',') {
                let (label, value) = label.split_once('=').unwrap();
                assert!(is_name(label), "{line}");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
    }
}

#[test]
fn metrics_are_a_whole_textfile_with_every_counter_of_every_device() {
    let node = Node::named("p4d.24xlarge");
    let file = node.path("efa.prom");
    node.add(2, "rx_drops", 77);
    let name = file.to_str().unwrap();
    assert_eq!(node.run(&["node", "--metrics", name]).code, 0);
    let text = fs::read_to_string(&file).unwrap();
    let device = &node.sim.devices()[2];
    assert!(
        text.contains(&format!(
            "efa_rx_drops_total{{device=\"{device}\",pci=\"0000:"
        )),
        "{text}"
    );
    assert!(text.contains("\"} 77\n"), "{text}");
    assert!(
        text.contains("efa_node_info{instance_type=\"p4d.24xlarge\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("efa_health_status 0\n") && text.contains("efa_devices 4\n"),
        "{text}"
    );
    let samples = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(samples("efa_") - samples("efa_check_"), 34 * 4 + 4 + 4);
    lint(&text);
    assert_eq!(
        node.run(&["node", "--metrics", "/nonexistent/efa.prom"])
            .code,
        73
    );
}

#[test]
fn a_health_check_without_arguments_writes_the_metrics_that_the_configuration_names() {
    let node = Node::named("p4d.24xlarge");
    let (named, other) = (node.path("named.prom"), node.path("other.prom"));
    node.configure(&format!("metrics = \"{}\"\n", named.display()));
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    let text = fs::read_to_string(&named).unwrap();
    assert!(text.contains("efa_devices 4\n"), "{text}");
    fs::remove_file(&named).unwrap();
    // The option counts where there is one.
    let option = other.to_str().unwrap();
    assert_eq!(node.run(&["healthcheck", "--metrics", option]).code, 0);
    assert!(other.exists() && !named.exists());
    node.configure("metrics = \"/nonexistent/efa.prom\"\n");
    assert_eq!(node.run(&["healthcheck"]).code, 73);
}

#[test]
fn every_check_can_be_listed_and_explained() {
    let node = Node::named("g5.8xlarge");
    let list = node.run(&["list"]).out;
    for line in list.lines() {
        let id = line.split(' ').next().unwrap();
        assert!(node.run(&["explain", id]).out.starts_with(id));
    }
    assert!(list.lines().count() > 10);
}

/// What a command prints as JSON.
fn document(node: &Node, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&node.run(arguments).out).unwrap()
}

fn assert_has_envelope(document: &serde_json::Value) {
    assert_eq!(document["version"], 1, "{document}");
    assert!(document["node"].is_string(), "{document}");
    let time = document["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{document}");
}

#[test]
fn the_list_of_checks_in_json_says_version_node_time() {
    let list = document(&Node::named("g5.8xlarge"), &["list", "--json"]);
    assert_has_envelope(&list);
    let checks = list["checks"].as_array().unwrap();
    assert!(checks.len() > 10 && checks.iter().all(|check| check["severity"].is_string()));
}

#[test]
fn the_manual_shows_the_table_that_the_program_prints() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/efa-check.md");
    let docs = fs::read_to_string(docs).unwrap();
    let table = Node::named("g5.8xlarge").run(&["list", "--markdown"]).out;
    assert!(
        docs.contains(&table),
        "put this into docs/efa-check.md:\n{table}"
    );
}

/// An fi_pingpong that fails for one device: the client decides, by the device.
fn fi_pingpong(node: &Node, bad: &str) -> std::path::PathBuf {
    let program = node.path("fi_pingpong");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *127.0.0.1) case \"$*\" in *{bad}-rdm*) echo no route >&2; exit 1;; esac; exit 0;; esac\nexit 0\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// A node whose last device fails the active test, with a Slurm that shows it
/// as `shown` says.
fn untested(shown: &str) -> Node {
    let node = Node::named("p4d.24xlarge");
    let program = fi_pingpong(&node, &node.sim.devices()[3]);
    node.configure(&format!(
        "scontrol = \"{}\"\nfi_pingpong = \"{}\"\npingpong_every = \"1m\"",
        node.path("scontrol").display(),
        program.display()
    ));
    scontrol(
        &node,
        &format!("date >>asked; echo 'NodeName=n1 {shown} Owner=N/A'"),
    );
    node
}

/// Whether a process that a command of this node left behind for `what` runs.
pub fn is_running(node: &Node, what: &str) -> bool {
    let config = node.config().display().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(what) && line.contains(&config)
    })
}

/// Waits for the end of the process that `healthcheck` leaves behind to test.
fn wait_for_tester(node: &Node) {
    eventually("the end of the loopback test", || {
        (!is_running(node, "loopback-tester")).then_some(())
    });
}

#[test]
fn a_health_check_tests_an_idle_node_now_and_then_and_the_next_round_tells_what_failed() {
    for state in ["State=IDLE", "State=IDLE+DRAIN"] {
        let node = untested(state);
        assert_eq!(node.run(&["healthcheck"]).code, 0);
        wait_for_tester(&node);
        let said = node.run(&["healthcheck"]);
        assert_eq!(said.code, 1, "{said:?}");
        let expected = format!("{} (pci ", node.sim.devices()[3]);
        assert!(said.out.contains(&expected), "{said:?}");
        assert!(
            said.out.contains("failed fi_pingpong: no route"),
            "{said:?}"
        );
        assert_eq!(node.findings(), ["loopback: warning"]);
        // Not in every round.
        let asked = fs::read(node.path("asked")).unwrap();
        assert_eq!(node.run(&["healthcheck"]).code, 1);
        wait_for_tester(&node);
        assert_eq!(fs::read(node.path("asked")).unwrap(), asked);
        // A warning like any other: it drains where the site says so.
        assert_eq!(node.run(&["prolog"]).code, 0);
    }
}

#[test]
fn a_node_with_a_job_is_not_tested_and_a_job_that_comes_meanwhile_voids_the_test() {
    for state in [
        "State=ALLOCATED",
        "State=MIXED",
        "State=IDLE+COMPLETING",
        "State=DRAINING",
    ] {
        let node = untested(state);
        assert_eq!(node.run(&["healthcheck"]).code, 0);
        wait_for_tester(&node);
        assert!(node.path("asked").exists());
        assert_eq!(node.run(&["healthcheck"]).code, 0, "{state}");
    }
    let node = untested("State=IDLE");
    let counted = "date >>asked; [ $(wc -l <asked) -lt 3 ] && state=IDLE || state=ALLOCATED; \
                   echo NodeName=n1 State=$state Owner=N/A";
    scontrol(&node, counted);
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    wait_for_tester(&node);
    assert_eq!(node.run(&["healthcheck"]).code, 0);
}

#[test]
fn pingpong_tests_each_device_and_names_the_one_that_fails() {
    let node = Node::new(&Spec::named("p4d.24xlarge").unwrap());
    let bad = node.sim.devices()[2].clone();
    let program = fi_pingpong(&node, &bad);
    node.configure(&format!("fi_pingpong = \"{}\"", program.display()));
    let said = node.run(&["pingpong"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.out.contains(&format!("3/4 {bad}: FAILED: no route")),
        "{said:?}"
    );
    assert_eq!(said.out.matches(": fine, ").count(), 3, "{said:?}");
    let one = node.sim.devices()[0].clone();
    assert_eq!(node.run(&["pingpong", "--device", &one]).code, 0);
    assert_eq!(node.run(&["pingpong", "--device", "none"]).code, 3);
}

/// As libfabric does on a fabric that admits nothing: the first client meets the server,
/// which ends with it, and the next ones meet nobody.
#[test]
fn pingpong_reports_the_error_of_the_client_that_met_the_server() {
    let node = Node::named("g5.8xlarge");
    let program = node.path("fi_pingpong");
    let met = node.path("met");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *127.0.0.1) if [ -e {0} ]; then echo 'failed to connect: Connection refused'; \
         else touch {0}; echo 'Unresponsive remote'; fi >&2; exit 1;; esac\nexec sleep 20\n",
        met.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    node.configure(&format!("fi_pingpong = \"{}\"", program.display()));
    let said = node.run(&["pingpong"]);
    assert!(said.out.contains("FAILED: Unresponsive remote"), "{said:?}");
}

/// An fi_pingpong whose two ends meet on the port that they are given.
const MEETING: &str = r#"#!/usr/bin/perl
use IO::Socket::INET;
my %o; while (@ARGV) { my $a = shift; $a =~ /^-/ ? ($o{$a} = shift) : ($o{to} = $a); }
if ($o{to}) {
    my $s = IO::Socket::INET->new(PeerAddr => $o{to}, PeerPort => $o{-P})
        or die "connect: $!\n";
    $s->sysread(my $answer, 3);
    die "ctrl: a stranger answered\n" unless $answer eq "efa";
} else {
    my $l = IO::Socket::INET->new(LocalPort => $o{-B}, Listen => 1) or die "bind: $!\n";
    $l->accept->syswrite("efa");
}
"#;

#[test]
fn a_local_user_on_the_port_of_the_loopback_test_blames_no_device() {
    let node = Node::named("g5.8xlarge");
    let program = node.path("fi_pingpong");
    fs::write(&program, MEETING).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let health = format!(
        "fi_pingpong = \"{}\"\npingpong_limit = \"20s\"",
        program.display()
    );
    node.configure(&health);
    // If another process has it already, so much the better.
    let _taken = std::net::TcpListener::bind("0.0.0.0:47592");
    let said = node.run(&["pingpong"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_loopback_test_that_another_user_may_have_disturbed_is_unknown() {
    let node = untested("State=IDLE");
    // Then the devices cannot be used in another network namespace.
    let mode = "sys/module/ib_core/parameters/netns_mode";
    node.sim.write(mode, "N\n").unwrap();
    let said = node.run(&["pingpong", "--device", &node.sim.devices()[3]]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.out.contains("UNKNOWN: no route; but another user"),
        "{said:?}"
    );
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    wait_for_tester(&node);
    assert_eq!(node.run(&["healthcheck"]).code, 0);
}

#[test]
fn a_fi_pingpong_that_others_may_change_is_not_run_and_no_device_is_blamed() {
    let node = untested("State=IDLE");
    let folder = node.path("bin");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("fi_pingpong");
    fs::rename(node.path("fi_pingpong"), &program).unwrap();
    std::os::unix::fs::symlink(&program, node.path("fi_pingpong")).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&folder, 0o755);
    for spoilt in [&program, &folder] {
        mode(spoilt, 0o777);
        let said = node.run(&["pingpong"]);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("not run, because others"), "{said:?}");
        assert_eq!(node.run(&["healthcheck"]).code, 0);
        wait_for_tester(&node);
        let said = node.run(&["healthcheck"]);
        assert_eq!(said.code, 0, "{said:?}");
        mode(spoilt, 0o755);
    }
    assert_eq!(node.run(&["pingpong"]).code, 2);
}

#[test]
fn a_warning_that_holds_jobs_is_not_health_and_resumes_nothing() {
    let node = Node::named("g5.8xlarge");
    let scope = "proc/sys/kernel/yama/ptrace_scope";
    node.sim.write(scope, "1\n").unwrap();
    scontrol(&node, "touch asked; echo NodeName=n1 State=IDLE");
    node.configure(&format!(
        "scontrol = \"{}\"\nresume = true\nresume_after = 1\nhold = [\"ptrace-scope\"]",
        node.path("scontrol").display()
    ));
    assert_eq!(node.run(&["healthcheck"]).code, 1);
    assert!(!node.path("asked").exists());
    node.sim.write(scope, "0\n").unwrap();
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    eventually("a question to Slurm", || {
        node.path("asked").exists().then_some(())
    });
}

/// What the prolog of a job with hugepages writes.
fn ledger(node: &Node, boot: &str, pages: u64) {
    let text = format!(
        "{{\"version\":1,\"boot\":\"{boot}\",\"pools\":[{{\"size\":\"2M\",\"numa\":0,\
         \"baseline\":0,\"held\":{pages},\"seen\":0}}]}}"
    );
    fs::create_dir_all(node.path("state/hugepages")).unwrap();
    fs::write(node.path("state/hugepages/baseline.json"), text).unwrap();
}

#[test]
fn hugepages_that_the_ledger_granted_and_the_kernel_does_not_have_are_a_warning() {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let node = Node::named("g5.8xlarge");
    // More than any machine has, so that this one's own pool does not matter.
    ledger(&node, boot.trim(), 1 << 40);
    assert_eq!(node.findings(), ["hugepages: warning"]);
    let said = node.run(&["node"]);
    assert!(
        said.out
            .contains(" of 1099511627776 hugepages of 2M of the jobs and the administrator"),
        "{said:?}"
    );
    assert_eq!(node.run(&["prolog"]).code, 0);
    ledger(&node, boot.trim(), 0);
    assert_eq!(node.findings(), [""; 0]);
    ledger(&node, "11111111-1111-1111-1111-111111111111", 1 << 40);
    assert_eq!(node.findings(), [""; 0], "of another boot");
}

#[test]
fn a_ledger_that_cannot_be_read_is_told_and_neither_drains_nor_keeps_a_node_drained() {
    let node = Node::named("g5.8xlarge");
    node.configure(&format!(
        "scontrol = \"{}\"\nresume = true\nresume_after = 1",
        node.path("scontrol").display()
    ));
    ledger(&node, "torn", 1);
    fs::write(
        node.path("state/hugepages/baseline.json"),
        "{\"version\":1,",
    )
    .unwrap();
    assert_eq!(node.findings(), ["hugepages: unknown"]);
    assert_eq!(node.run(&["prolog"]).code, 0);
    scontrol(&node, "touch asked; echo NodeName=n1 State=IDLE");
    assert_eq!(node.run(&["healthcheck"]).code, 3);
    eventually("a question to Slurm about the resume", || {
        node.path("asked").exists().then_some(())
    });
    // Whoever holds the ledger's lock is changing it: nothing waits for that, and
    // nothing is said of it.
    let lock = fs::File::open(node.path("state/hugepages.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(node.findings(), [""; 0]);
    drop(lock);
    assert_eq!(node.findings(), ["hugepages: unknown"]);
    fs::remove_file(node.path("state/hugepages/baseline.json")).unwrap();
    assert_eq!(node.findings(), [""; 0]);
}

/// A p6-b200 whose driver found no peer memory, with this aws-ofi-nccl, and with
/// this text about NVIDIA's kernel module.
fn without_peer_memory(plugin: &str, module: &str) -> Node {
    let mut spec = Spec::named("p6-b200.48xlarge").unwrap();
    spec.p2p = String::new();
    let folder = "opt/amazon/ofi-nccl/lib/x86_64-linux-gnu".to_owned();
    spec.stack.ofi = Some((plugin.to_owned(), folder));
    let node = Node::new(&spec);
    node.sim
        .write("proc/driver/nvidia/version", module)
        .unwrap();
    node
}

const OPEN_MODULE: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15\n";
const CLOSED_MODULE: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\n";

#[test]
fn an_empty_p2p_is_no_loss_where_gpudirect_goes_by_dma_buf() {
    assert_eq!(
        without_peer_memory("1.16.2", OPEN_MODULE).findings(),
        [""; 0]
    );
}

#[test]
fn an_empty_p2p_drains_where_dma_buf_is_ruled_out() {
    for (plugin, module, why) in [
        ("1.16.2", CLOSED_MODULE, "kernel module is not the open one"),
        ("1.14.0", OPEN_MODULE, "aws-ofi-nccl 1.14.0"),
    ] {
        let node = without_peer_memory(plugin, module);
        assert_eq!(node.findings(), ["gpudirect: fatal"]);
        let said = node.run(&["prolog"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
}

#[test]
fn an_empty_p2p_is_unknown_where_jobs_bring_their_own_plugin() {
    let node = without_peer_memory("1.14.0", OPEN_MODULE);
    node.configure("stack = \"container\"");
    assert_eq!(node.findings(), ["gpudirect: unknown"]);
    assert_eq!(node.run(&["prolog"]).code, 0);
}

#[test]
fn a_type_for_which_efa_is_an_option_is_not_drained_without_it() {
    let mut spec = Spec::named("g5.8xlarge").unwrap();
    spec.product_name = "c6in.32xlarge".into();
    spec.efa.clear();
    let node = Node::new(&spec);
    assert_eq!(node.findings(), ["device-count: unknown"]);
    assert_eq!(node.run(&["prolog"]).code, 0);
}

#[test]
fn a_type_that_can_have_no_efa_is_healthy_without_it() {
    let mut spec = Spec::named("g5.8xlarge").unwrap();
    spec.product_name = "g5.xlarge".into();
    spec.efa.clear();
    assert_eq!(Node::new(&spec).findings(), [""; 0]);
}

#[test]
fn one_dead_device_of_many_is_not_reported_as_a_partial_loss() {
    let node = Node::named("p5.48xlarge");
    let counter = node.counter(7, "rx_drops");
    fs::remove_file(&counter).unwrap();
    // A read fails with EIO, as a driver without its device lets it.
    symlink("/proc/self/mem", &counter).unwrap();
    let said = node.run(&["prolog"]);
    assert_eq!(said.code, 2, "{said:?}");
    let device = &node.sim.devices()[7];
    let start = format!("counters: libfabric fails on the whole node: {device} (pci ");
    assert!(said.err.contains(&start), "{said:?}");
    assert!(said.err.contains("does not answer: rx_drops: "), "{said:?}");
    let explained = node.run(&["explain", "counters"]);
    assert!(
        explained.out.contains("takes EFA from the whole node"),
        "{explained:?}"
    );
}
