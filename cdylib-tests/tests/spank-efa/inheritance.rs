//! Whose job a profile is for: steps, nested jobs, allocations, arrays,
//! components of heterogeneous jobs, and jobs that did not ask.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cdylib_tests::efa_cluster::{self, Vars, batch, cluster, plugstack_line, step};
use cdylib_tests::modules;
use cdylib_tests::testbed::{LIMIT, Progress, Testbed};

/// A task's words: where it ran, under which profile, what was set for it.
const SAY: &str = "echo $SLURMD_NODENAME ${SLURM_EFA_PROFILE-none} ${NCCL_SOCKET_IFNAME-unset} \
                   ${NCCL_SHM_USE_CUDA_MEMCPY-unset}";
const ON_P5: &str = "n1 p5 ^docker,lo,veth unset";
const ON_G5: &str = "n2 g5 ^docker,lo,veth 1";
const NONE_ON_N1: &str = "n1 none unset unset";
const NONE_ON_N2: &str = "n2 none unset unset";

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A file in alice's home.
fn in_home(tb: &Testbed, name: &str) -> String {
    let path = tb.user("alice").unwrap().home.join(name);
    let text = fs::read_to_string(&path);
    efa_cluster::without_report(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn p5_and_g5() -> Testbed {
    cluster("", &["p5.48xlarge", "g5.8xlarge"]).start().unwrap()
}

// ------------------------------------------------- batch jobs, steps, salloc

#[test]
fn steps_in_a_batch_job_inherit_its_profile_and_may_choose_another() {
    let tb = p5_and_g5();
    let script = format!(
        "say='{SAY}'\nsh -c \"$say\"\nsrun sh -c \"$say\"\nsrun --efa-profile=auto sh -c \"$say\"\n\
         srun --efa-profile=none sh -c \"$say\"\nsrun sh -c \"$say\"\n"
    );
    let printed = batch(&tb, &["-w", "n1", "--efa-profile=p5"], &script);
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [ON_P5, ON_P5, ON_P5, NONE_ON_N1, ON_P5]
    );
    let printed = batch(&tb, &["-w", "n1"], &script);
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [NONE_ON_N1, NONE_ON_N1, ON_P5, NONE_ON_N1, NONE_ON_N1]
    );
}

#[test]
fn a_nested_sbatch_inherits_and_may_choose_another_or_none() {
    let tb = p5_and_g5();
    let script = format!(
        "nest() {{ printf '%s\\n' '#!/bin/bash' '{SAY}' 'srun sh -c \"{}\"' | sbatch -Q --wait \"$@\"; }}\n\
         nest -w n1 -o same\n\
         nest -w n2 -o other --efa-profile=g5\n\
         nest -w n1 -o off --efa-profile=none\n",
        SAY.replace('$', "\\$")
    );
    batch(&tb, &["-w", "n1", "--efa-profile=p5"], &script);
    assert_eq!(sorted(&in_home(&tb, "same")), [ON_P5, ON_P5]);
    assert_eq!(sorted(&in_home(&tb, "other")), [ON_G5, ON_G5]);
    assert_eq!(sorted(&in_home(&tb, "off")), [NONE_ON_N1, NONE_ON_N1]);
}

#[test]
fn none_on_a_step_takes_back_what_we_set_and_leaves_what_is_the_users() {
    let tb = cluster("", &["p4d_old_stack"]).start().unwrap();
    let script = "export FI_PROVIDER=tcp\nsrun --efa-profile=none env\n";
    let env = [("NCCL_PROTO", "LL"), ("NCCL_DEBUG", "INFO")];
    let script = format!("env > outer\n{script}");
    let (_, inner) = efa_cluster::batch_with(&tb, &env, &["--efa-profile=p4d"], &script);
    let outer = Vars::of(&in_home(&tb, "outer"));
    assert_eq!(outer.get("NCCL_BUFFSIZE"), Some("8388608"));
    assert_eq!(outer.get("FI_PROVIDER"), Some("efa"));
    // Brought by the user, at submission or in the script.
    assert_eq!(
        Vars::of(&inner).efa(),
        ["FI_PROVIDER=tcp", "NCCL_DEBUG=INFO", "NCCL_PROTO=LL"]
    );
}

#[test]
fn another_profile_on_a_step_replaces_the_first_and_keeps_nothing_of_it() {
    let site = "[profile.outer]\nenv = { A_OUTER = \"1\", B_BOTH = \"outer\" }\n\
                [profile.inner]\nenv = { B_BOTH = \"inner\" }\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    let script = "srun --efa-profile=inner sh -c 'echo ${A_OUTER-unset} ${B_BOTH-unset}'";
    let printed = batch(&tb, &["--efa-profile=outer"], script);
    assert_eq!(printed, "unset inner\n");
}

#[test]
fn steps_in_an_allocation_inherit_and_none_switches_it_off() {
    let tb = p5_and_g5();
    let inside = format!("srun sh -c '{SAY}'; srun --efa-profile=none sh -c '{SAY}'");
    let argv = [
        "salloc",
        "-Q",
        "-w",
        "n1",
        "--efa-profile=p5",
        "sh",
        "-c",
        &inside,
    ];
    let output = tb.run("alice", &argv, &[]).unwrap();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines, [ON_P5, NONE_ON_N1], "{output}");

    let argv = [
        "salloc",
        "-Q",
        "-N2",
        "--efa-profile=auto",
        "srun",
        "sh",
        "-c",
        SAY,
    ];
    let output = tb.run("alice", &argv, &[]).unwrap();
    assert_eq!(sorted(&output.stdout), [ON_P5, ON_G5], "{output}");
}

#[test]
fn every_task_of_a_job_array_has_the_profile() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let script = format!("#!/bin/bash\n{SAY}\nsrun sh -c '{SAY}'\n");
    tb.command(
        "alice",
        &["sbatch", "--wait", "--array=0-3", "-o", "out-%a"],
    )
    .arg("--efa-profile=p5")
    .stdin(script)
    .success()
    .unwrap_or_else(|error| panic!("{error}"));
    for task in 0..4 {
        let printed = in_home(&tb, &format!("out-{task}"));
        assert_eq!(sorted(&printed), [ON_P5, ON_P5], "task {task}");
    }
}

// ------------------------------------------------------------- heterogeneous

#[test]
fn of_a_heterogeneous_batch_job_only_the_component_that_asked_has_a_profile() {
    let tb = p5_and_g5();
    let both = format!("{SAY}\nsrun --het-group=0,1 sh -c '{SAY}'");
    let colon = ["-w", "n1", "--efa-profile=p5", ":", "-w", "n2"];
    let printed = batch(&tb, &colon, &both);
    assert_eq!(sorted(&printed), [ON_P5, ON_P5, NONE_ON_N2]);

    let lines = format!("#SBATCH -w n1 --efa-profile=p5\n#SBATCH hetjob\n#SBATCH -w n2\n{both}");
    let printed = batch(&tb, &[], &lines);
    assert_eq!(sorted(&printed), [ON_P5, ON_P5, NONE_ON_N2]);
}

#[test]
fn a_later_component_of_a_batch_job_is_told_to_ask_on_its_srun() {
    let tb = p5_and_g5();
    let script = format!(
        "{SAY}\nsrun --het-group=0,1 sh -c '{SAY}'\n\
         srun --het-group=1 --efa-profile=g5 sh -c '{SAY}'\n"
    );
    let args = ["-w", "n1", ":", "-w", "n2", "--efa-profile=g5"];
    let (sbatch, printed) = efa_cluster::batch_with(&tb, &[], &args, &script);
    let words = [
        "warning:",
        "component 1",
        "srun --het-group=1 --efa-profile=g5",
    ];
    assert_eq!(
        efa_cluster::lines_with(&sbatch.stderr, &words).len(),
        1,
        "{sbatch}"
    );
    assert_eq!(
        sorted(&printed),
        [NONE_ON_N1, NONE_ON_N1, ON_G5, NONE_ON_N2]
    );
}

#[test]
fn each_component_of_an_allocation_has_its_own_profile() {
    let tb = p5_and_g5();
    let (p5, g5) = ("--efa-profile=p5", "--efa-profile=g5");
    for (first, second, expected) in [
        (Some(p5), None, [ON_P5, NONE_ON_N2]),
        (None, Some(g5), [NONE_ON_N1, ON_G5]),
        (Some(p5), Some(g5), [ON_P5, ON_G5]),
    ] {
        let argv: Vec<&str> = ["salloc", "-Q", "-w", "n1"]
            .into_iter()
            .chain(first)
            .chain([":", "-w", "n2"])
            .chain(second)
            .chain(["srun", "--het-group=0,1", "sh", "-c", SAY])
            .collect();
        let output = tb.run("alice", &argv, &[]).unwrap();
        assert_eq!(sorted(&output.stdout), expected, "{argv:?}: {output}");
    }
}

#[test]
fn each_component_of_an_srun_has_its_own_profile() {
    let tb = p5_and_g5();
    let (p5, g5) = ("--efa-profile=p5", "--efa-profile=g5");
    for (first, second, expected) in [
        (Some(p5), None, [ON_P5, NONE_ON_N2]),
        (None, Some(g5), [NONE_ON_N1, ON_G5]),
        (Some(p5), Some(g5), [ON_P5, ON_G5]),
    ] {
        let argv: Vec<&str> = ["-w", "n1"]
            .into_iter()
            .chain(first)
            .chain(["sh", "-c", SAY, ":", "-w", "n2"])
            .chain(second)
            .chain(["sh", "-c", SAY])
            .collect();
        let seen = step(&tb, &[], &argv);
        assert_eq!(sorted(&seen.stdout), expected, "{argv:?}: {seen}");
    }
}

#[test]
fn components_of_an_srun_that_ask_for_the_same_profile_all_have_it() {
    let tb = p5_and_g5();
    let auto = "--efa-profile=auto";
    let argv = [
        "-w", "n1", auto, "sh", "-c", SAY, ":", "-w", "n2", auto, "sh", "-c", SAY,
    ];
    let seen = step(&tb, &[], &argv);
    assert_eq!(sorted(&seen.stdout), [ON_P5, ON_G5], "{seen}");
}

#[test]
fn a_profile_that_does_not_fit_a_later_component_fails_it_although_it_equals_the_first() {
    let tb = p5_and_g5();
    let p5 = "--efa-profile=p5";
    let argv = [
        "srun", "-w", "n1", p5, "sh", "-c", SAY, ":", "-w", "n2", p5, "sh", "-c", SAY,
    ];
    let output = tb.run("alice", &argv, &[]).unwrap();
    assert!(!output.success(), "{output}");
    assert!(!output.stdout.contains("n2"), "{output}");
    let words = ["efa: error:", "p5", "g5.8xlarge"];
    assert_eq!(
        efa_cluster::lines_with(&output.stderr, &words).len(),
        1,
        "{output}"
    );
}

/// What `inside` prints under salloc with these options.
fn salloc(tb: &Testbed, env: &[(&str, &str)], options: &[&str], inside: &[&str]) -> String {
    let argv = [&["salloc", "-Q"], options, inside].concat();
    let output = tb.run("alice", &argv, env).unwrap();
    assert!(output.success(), "{argv:?}: {output}");
    output.stdout
}

const SRUN_BOTH: [&str; 5] = ["srun", "--het-group=0,1", "sh", "-c", SAY];

#[test]
fn components_of_an_allocation_that_ask_for_the_same_profile_all_have_it() {
    let tb = p5_and_g5();
    let auto = "--efa-profile=auto";
    let options = ["-w", "n1", auto, ":", "-w", "n2", auto];
    let said = salloc(&tb, &[], &options, &SRUN_BOTH);
    assert_eq!(sorted(&said), [ON_P5, ON_G5]);
}

#[test]
fn a_profile_of_a_step_holds_for_all_the_components_that_it_runs_in() {
    let tb = p5_and_g5();
    let auto = "--efa-profile=auto";
    let inside = ["srun", "--het-group=0,1", auto, "sh", "-c", SAY];
    let nothing = ["-w", "n1", ":", "-w", "n2"];
    let first = ["-w", "n1", "--efa-profile=p5", ":", "-w", "n2"];
    for options in [&nothing[..], &first] {
        let said = salloc(&tb, &[], options, &inside);
        assert_eq!(sorted(&said), [ON_P5, ON_G5], "{options:?}");
    }
    let script = format!("srun --het-group=0,1 {auto} sh -c '{SAY}'");
    assert_eq!(sorted(&batch(&tb, &nothing, &script)), [ON_P5, ON_G5]);
}

#[test]
fn srun_efa_profile_holds_for_every_component_of_a_step() {
    let tb = p5_and_g5();
    let env = [("SRUN_EFA_PROFILE", "auto")];
    let nothing = ["-w", "n1", ":", "-w", "n2"];
    let first = ["-w", "n1", "--efa-profile=p5", ":", "-w", "n2"];
    for options in [&nothing[..], &first] {
        let said = salloc(&tb, &env, options, &SRUN_BOTH);
        assert_eq!(sorted(&said), [ON_P5, ON_G5], "{options:?}");
    }
    let argv = [
        "-w", "n1", "sh", "-c", SAY, ":", "-w", "n2", "sh", "-c", SAY,
    ];
    let seen = step(&tb, &env, &argv);
    assert_eq!(sorted(&seen.stdout), [ON_P5, ON_G5], "{seen}");
}

#[test]
fn a_component_of_a_step_that_asks_for_nothing_has_what_its_job_asked_for() {
    let tb = p5_and_g5();
    let auto = "--efa-profile=auto";
    for (options, expected) in [
        (
            &["-w", "n1", "--efa-profile=p5", ":", "-w", "n2"][..],
            ON_P5,
        ),
        (
            &["-w", "n1", ":", "-w", "n2", "--efa-profile=g5"],
            NONE_ON_N1,
        ),
    ] {
        // The components of the step are not in the order of the job's.
        let inside = [
            "srun",
            "--het-group=1",
            auto,
            "sh",
            "-c",
            SAY,
            ":",
            "--het-group=0",
            "sh",
            "-c",
            SAY,
        ];
        let said = salloc(&tb, &[], options, &inside);
        assert_eq!(sorted(&said), [expected, ON_G5], "{options:?}");
    }
}

#[test]
fn each_component_of_a_step_in_an_ordinary_job_has_its_own_profile() {
    let tb = p5_and_g5();
    let (p5, g5) = (Some("--efa-profile=p5"), Some("--efa-profile=g5"));
    let auto = Some("--efa-profile=auto");
    for (around, first, second, expected) in [
        (None, p5, None, [ON_P5, NONE_ON_N2]),
        (None, None, g5, [NONE_ON_N1, ON_G5]),
        (None, p5, g5, [ON_P5, ON_G5]),
        (None, auto, auto, [ON_P5, ON_G5]),
        (auto, None, None, [ON_P5, ON_G5]),
        (auto, Some("--efa-profile=none"), None, [NONE_ON_N1, ON_G5]),
    ] {
        let options: Vec<&str> = ["-N2"].into_iter().chain(around).collect();
        let inside: Vec<&str> = ["srun", "-w", "n1"]
            .into_iter()
            .chain(first)
            .chain(["sh", "-c", SAY, ":", "-w", "n2"])
            .chain(second)
            .chain(["sh", "-c", SAY])
            .collect();
        let said = salloc(&tb, &[], &options, &inside);
        assert_eq!(sorted(&said), expected, "{options:?} {inside:?}");
    }
}

#[test]
fn a_later_component_of_a_batch_job_is_warned_of_its_own_profile() {
    let tb = p5_and_g5();
    let lines = |first: &str, second: &str| {
        format!("#SBATCH -w n1 {first}\n#SBATCH hetjob\n#SBATCH -w n2 {second}\ntrue")
    };
    let (p5, g5, auto) = ("--efa-profile=p5", "--efa-profile=g5", "--efa-profile=auto");
    for (args, script, named) in [
        (
            &["-w", "n1", auto, ":", "-w", "n2", auto][..],
            "true",
            Some(auto),
        ),
        (&["-w", "n1", auto, ":", "-w", "n2"], "true", None),
        (&[], &lines(auto, auto), Some(auto)),
        (&[], &lines(p5, g5), Some(g5)),
        (&[], &lines(p5, ""), None),
        (&[], &lines(p5, "--efa-profile=none"), None),
    ] {
        let (sbatch, _) = efa_cluster::batch_with(&tb, &[], args, script);
        let warnings = efa_cluster::lines_with(&sbatch.stderr, &["warning:", "component 1"]);
        assert_eq!(warnings.len(), usize::from(named.is_some()), "{sbatch}");
        let hint = named.map(|named| format!("srun --het-group=1 {named}"));
        assert!(
            sbatch.stderr.contains(&hint.unwrap_or_default()),
            "{sbatch}"
        );
    }
}

// -------------------------------------------------------------------- export

#[test]
fn the_profile_holds_whatever_export_says() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    for export in [
        "--export=NONE",
        "--export=WANTED",
        "--export=ALL",
        "--export=WANTED=2",
    ] {
        let wanted = match export {
            "--export=NONE" => "unset",
            "--export=WANTED=2" => "2",
            _ => "1",
        };
        let say = format!("{SAY} ${{WANTED-unset}} ${{OTHER-unset}}");
        let other = if export == "--export=ALL" {
            "1"
        } else {
            "unset"
        };
        let expected = format!("{ON_P5} {wanted} {other}");
        let env = [("WANTED", "1"), ("OTHER", "1")];

        let args = [export, "--efa-profile=p5", "/bin/sh", "-c", &say];
        let seen = step(&tb, &env, &args);
        assert_eq!(seen.stdout.trim_end(), expected, "srun {export}");

        let args = [export, "--efa-profile=p5"];
        let script = format!("{say}\n/usr/bin/srun /bin/sh -c '{say}'\n");
        let (_, printed) = efa_cluster::batch_with(&tb, &env, &args, &script);
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines, [&expected, &expected], "sbatch {export}");
    }
}

// ---------------------------------------------------------- nothing asked for

/// Variables whose values are another job's in every job: ids, a pid, ports.
const JOBS_OWN: [&str; 6] = [
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_TASK_PID",
    "SLURM_SRUN_COMM_PORT",
    "SLURM_STEP_LAUNCHER_PORT",
];

/// An environment in its own order, with the values of [`JOBS_OWN`] left out.
fn environment(bytes: &str) -> Vec<String> {
    bytes
        .split_terminator('\0')
        .map(|variable| match variable.split_once('=') {
            Some((name, _)) if JOBS_OWN.contains(&name) => name.to_owned(),
            _ => variable.to_owned(),
        })
        .collect()
}

/// The environments that one user meets who never heard of the plugin.
fn everyday_environments(tb: &Testbed) -> Vec<(&'static str, Vec<String>)> {
    const SHOW: &str = "/bin/cat /proc/self/environ";
    let own = [
        ("FI_PROVIDER", "tcp"),
        ("FI_EFA_MTU_SIZE", ""),
        ("ODD", "a\nb\t\u{7f}"),
    ];
    let show: Vec<&str> = SHOW.split(' ').collect();
    let mut seen = vec![("srun", step(tb, &own, &show).stdout)];
    let none = [&["--export=NONE"], &show[..]].concat();
    seen.push(("srun --export=NONE", step(tb, &own, &none).stdout));
    let salloc = [&["salloc", "-Q", "srun"], &show[..]].concat();
    seen.push((
        "salloc srun",
        tb.run("alice", &salloc, &own).unwrap().stdout,
    ));
    let salloc = [&["salloc", "-Q"], &show[..]].concat();
    seen.push(("salloc", tb.run("alice", &salloc, &own).unwrap().stdout));
    let script = format!("{SHOW} > script\n/usr/bin/srun {SHOW} > step\n");
    for (name, args) in [
        ("sbatch", &[][..]),
        ("sbatch --array", &["--array=7"]),
        ("sbatch --export=NONE", &["--export=NONE"]),
    ] {
        efa_cluster::batch_with(tb, &own, args, &script);
        seen.push((name, in_home(tb, "script")));
        seen.push((name, in_home(tb, "step")));
    }
    seen.into_iter()
        .map(|(name, bytes)| (name, environment(&bytes)))
        .collect()
}

fn set_plugstack(tb: &Testbed, line: &str) {
    let line = line.replace("{dir}", tb.dir().to_str().unwrap());
    fs::write(tb.dir().join("plugstack.conf"), line + "\n").unwrap();
}

#[test]
fn a_job_that_asks_for_nothing_has_the_environment_it_has_without_the_plugin() {
    let site = "[profile.site]\nenv = { NCCL_DEBUG = \"INFO\" }\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    let with = everyday_environments(&tb);
    // Every client and every step reads the file anew.
    set_plugstack(&tb, "");
    let without = everyday_environments(&tb);
    for ((name, with), (_, without)) in with.iter().zip(&without) {
        assert!(with.len() > 20, "{name}: {with:#?}");
        assert_eq!(with, without, "{name}");
    }
    assert_eq!(with.len(), without.len());
}

/// The paths in strace's report.
fn paths(report: &str) -> BTreeSet<String> {
    report
        .lines()
        .filter_map(|line| line.split('"').nth(1))
        .map(without_numbers)
        .collect()
}

/// The text with every number as `#`: ids and pids vary from job to job.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

const STRACE: [&str; 7] = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file"];

/// Every path that the client touches for a job.
fn touched_by_client(tb: &Testbed, client: &[&str]) -> BTreeSet<String> {
    let report = tb.dir().join("client.strace");
    tb.command("root", &STRACE)
        .arg("-o")
        .arg(&report)
        .args(client)
        .stdin("#!/bin/bash\n")
        .success()
        .unwrap_or_else(|error| panic!("{error}"));
    paths(&fs::read_to_string(report).unwrap())
}

/// Every path that slurmd and the steps of a job touch on the node.
fn touched_on_node(tb: &Testbed, options: &[&str]) -> BTreeSet<String> {
    let report = tb.dir().join("node.strace");
    let pid = fs::read_to_string(tb.dir().join("pid/slurmd-n1")).unwrap();
    let tracer = tb
        .command("root", &STRACE)
        .arg("-o")
        .arg(&report)
        .args(&["-p", pid.trim()])
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", pid.trim());
    tb.wait_until("strace to attach", LIMIT, || {
        let status = tb.run("root", &["grep", "TracerPid", &status], &[])?.stdout;
        Ok(if status.trim().ends_with("\t0") {
            Progress::Waiting(status)
        } else {
            Progress::Done(())
        })
    })
    .unwrap();
    step(tb, &[], &[options, &["true"]].concat());
    batch(tb, options, "srun true");
    tb.wait_idle().unwrap();
    // strace ends with the last process that it follows: the old slurmd.
    tb.restart_slurmd("n1").unwrap();
    tracer.wait().unwrap();
    paths(&fs::read_to_string(report).unwrap())
}

/// What prolog, epilog and extern step of any job touch: the job's record (by
/// names relative to its folder), and what tells them which job it is.
const NODE_STATE: [&str; 11] = [
    "run",
    "slurm-efa",
    "jobs",
    ".lock",
    "#@n#.json",
    "last-start",
    "latest",
    "#",
    "hugepages",
    "counters",
    "/proc/sys/kernel/random/boot_id",
];

/// Checks that `with` has the plugin and, beyond `without`, nothing but what
/// loading it takes, its configuration, and on a node the state of prolog,
/// epilog and extern step.
fn assert_only_configuration(
    tb: &Testbed,
    what: &str,
    with: &BTreeSet<String>,
    without: &BTreeSet<String>,
) {
    let plain = |path: &Path| without_numbers(&path.to_string_lossy());
    let config = tb.dir().join(efa_cluster::CONFIG);
    let plugin = plain(&efa_cluster::plugin_of(tb.dir()));
    assert!(with.contains(&plugin), "{what}: the plugin was not loaded");
    let state =
        |path: &str| what == "node" && (NODE_STATE.contains(&path) || path.starts_with(".tmp."));
    let beyond: Vec<&String> = with
        .difference(without)
        .filter(|path| **path != plugin)
        // Where the loader looks for the C libraries of any plugin.
        .filter(|path| !path.ends_with("/ld.so.cache") && !path.contains("/libgcc_s.so"))
        // The file, and the directories above it, which must be root's: each is
        // opened by its name, relative to the one before.
        .filter(|path| !config.iter().any(|own| plain(Path::new(own)) == **path))
        .filter(|path| !state(path))
        .collect();
    assert!(beyond.is_empty(), "{what}: {beyond:#?}");
}

#[test]
fn for_a_job_that_asks_for_nothing_no_file_is_touched_but_the_configuration() {
    assert!(
        Path::new("/usr/bin/strace").exists(),
        "this test needs strace: apt-get install strace"
    );
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let clients: [(&str, &[&str]); 3] = [
        ("srun", &["srun", "true"]),
        ("sbatch", &["sbatch", "-o", "/dev/null"]),
        ("salloc", &["salloc", "true"]),
    ];
    let observe = || {
        let clients = clients.map(|(_, client)| touched_by_client(&tb, client));
        (clients, touched_on_node(&tb, &[]))
    };
    let with = observe();
    set_plugstack(&tb, "");
    tb.restart_slurmd("n1").unwrap();
    let without = observe();
    for (index, (name, _)) in clients.into_iter().enumerate() {
        assert_only_configuration(&tb, name, &with.0[index], &without.0[index]);
    }
    assert_only_configuration(&tb, "node", &with.1, &without.1);
    // That it would be seen: a job with a profile does read the node.
    set_plugstack(&tb, &plugstack_line("required", &modules::plugin()));
    tb.restart_slurmd("n1").unwrap();
    let asked = touched_on_node(&tb, &["--efa-profile=p5"]);
    let reads_node = |path: &String| path.ends_with("/opt/amazon/efa_installed_packages");
    assert!(asked.iter().any(reads_node), "{asked:#?}");
}
