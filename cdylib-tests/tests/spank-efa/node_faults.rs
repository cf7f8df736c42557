//! Whatever is wrong with a job, the site's file, the node or the plugin
//! itself: it fails what asked for it, at most, and never the node.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cdylib_tests::efa_cluster::{
    self, Vars, assert_harmless_stderr, cluster, cluster_of, cluster_with,
};
use cdylib_tests::modules;
use cdylib_tests::panics::{self, Fate};
use cdylib_tests::simnode::Spec;
use cdylib_tests::testbed::{JobState, Testbed};

const MISFIT: &str =
    "efa: error: --efa-profile=p5 is for p5 instances, but n1 is a g5.8xlarge; use";

/// A step that must fail without having run, and what it said on stderr.
fn failing_step(tb: &Testbed, args: &[&str]) -> String {
    let args = [args, &["echo", "the task ran"]].concat();
    let output = tb.srun("alice", &args).unwrap();
    assert!(!output.success(), "{output}");
    assert_eq!(output.stdout, "", "{output}");
    assert_harmless_stderr(&output);
    output.stderr
}

/// A batch job that must fail without having run, and what it printed.
fn failing_batch(tb: &Testbed, args: &[&str]) -> String {
    let script = "#!/bin/bash\necho the task ran\n";
    let job = tb.sbatch("alice", script, args).unwrap();
    assert_eq!(tb.wait_job(job).unwrap(), JobState::Failed);
    assert_eq!(tb.job(job).unwrap().exit_code(), Some((1, 0)));
    let output = efa_cluster::without_report(&tb.job_output(job).unwrap());
    assert!(!output.contains("the task ran"), "{output}");
    assert_eq!(tb.job(job).unwrap().get("Restarts"), Some("0"), "{output}");
    output
}

/// No node is drained, and each runs the next step and the next batch job.
fn assert_nodes_serve(tb: &Testbed) {
    for node in tb.nodes() {
        let state = tb.node_state(node).unwrap();
        assert!(!state.is_drained(), "{node}: {state:?}");
        let next = tb.srun("bob", &["-w", node, "echo", "served"]).unwrap();
        assert_eq!(next.stdout, "served\n", "{next}");
        let script = "#!/bin/bash\necho served\n";
        let job = tb.sbatch("bob", script, &["-w", node]).unwrap();
        assert_eq!(tb.wait_job(job).unwrap(), JobState::Completed);
        assert_eq!(
            efa_cluster::without_report(&tb.job_output(job).unwrap()),
            "served\n"
        );
    }
}

// ------------------------------------------------------------ the job's fault

#[test]
fn a_profile_on_the_wrong_node_fails_the_job_with_a_sentence_and_drains_nothing() {
    for requirement in ["required", "optional"] {
        let tb = cluster_with(requirement, "", &["g5.8xlarge"])
            .start()
            .unwrap();
        let said = failing_step(&tb, &["--efa-profile=p5"]);
        assert!(said.contains(MISFIT), "{requirement}: {said}");
        assert_nodes_serve(&tb);
        let said = failing_batch(&tb, &["--efa-profile=p5"]);
        assert!(said.contains(MISFIT), "{requirement}: {said}");
        assert_nodes_serve(&tb);
    }
}

#[test]
fn a_misfit_of_one_step_leaves_the_job_around_it_and_its_other_steps_alone() {
    let tb = cluster("", &["p5.48xlarge", "g5.8xlarge"]).start().unwrap();
    let script = "#!/bin/bash\n\
                  srun -N1 -w n2 --efa-profile=p5 echo step on n2 ran\n\
                  echo code $?\n\
                  srun -N1 -w n1 --efa-profile=p5 echo step on n1 ran\n";
    let output = efa_cluster::batch(&tb, &["-N2"], script);
    assert!(!output.contains("step on n2 ran"), "{output}");
    assert!(output.contains("but n2 is a g5.8xlarge"), "{output}");
    assert!(output.contains("code 1\n"), "{output}");
    assert!(output.contains("step on n1 ran"), "{output}");
    assert_nodes_serve(&tb);
}

#[test]
fn fewer_devices_than_the_profile_needs_fail_the_job_and_not_the_node() {
    let p4d = Spec::named("p4d.24xlarge").unwrap();
    let nodes = [p4d.clone().with_devices(0), p4d.with_devices(3)];
    let tb = cluster_of("[profile.whole]\nbase = \"p4d\"\ndevices = 4\n", nodes)
        .start()
        .unwrap();
    let none = "efa: error: --efa-profile=p4d needs 1 EFA device(s), but n1 has 0";
    let few = "efa: error: --efa-profile=whole needs 4 EFA device(s), but n2 has 3";
    for (node, profile, sentence) in [("n1", "p4d", none), ("n2", "whole", few)] {
        let args = ["-w", node, &format!("--efa-profile={profile}")];
        let said = failing_step(&tb, &args);
        assert!(said.contains(sentence), "{said}");
        let said = failing_batch(&tb, &args);
        assert!(said.contains(sentence), "{said}");
    }
    let enough = tb
        .srun("alice", &["-wn2", "--efa-profile=p4d", "env"])
        .unwrap();
    let devices = Vars::of(&enough.stdout);
    assert_eq!(devices.get("SLURM_EFA_DEVICES"), Some("3"), "{enough}");
    assert_nodes_serve(&tb);
}

// ----------------------------------------------------------- the plugin's own

#[test]
fn a_panic_in_any_hook_leaves_clients_daemons_nodes_and_the_next_job_alive() {
    let (good, injected) = (modules::plugin(), modules::injected());
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    for forced in panics::HOOKS {
        panics::survived(&tb, forced, &good, &injected)
            .unwrap_or_else(|error| panic!("{}: {error}", forced.hook));
    }
    let log = tb.log("slurmd n1");
    assert!(
        log.contains("init: internal error, please report it: injected panic in init at"),
        "slurmd itself was not hit: {log}"
    );
    assert_nodes_serve(&tb);
}

#[test]
fn a_panic_in_an_optional_plugin_refuses_at_most_its_own_option() {
    let (good, injected) = (modules::plugin(), modules::injected());
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let line = efa_cluster::plugstack_line("optional", &injected);
    for forced in panics::HOOKS {
        let hook = forced.hook;
        panics::install(&tb, &format!("{line} panic={hook}")).unwrap();
        let wanted = match hook {
            "option" => Fate::Refused,
            _ => Fate::Runs,
        };
        for (fate, said) in [panics::step(&tb), panics::batch(&tb)].map(Result::unwrap) {
            assert_eq!(fate, wanted, "{hook}: {said}");
        }
        assert!(!tb.node_state("n1").unwrap().is_drained(), "{hook}");
    }
    panics::install(&tb, &efa_cluster::plugstack_line("optional", &good)).unwrap();
    assert_nodes_serve(&tb);
}

// ------------------------------------------------------- the site's own fault

/// Something wrong with the configuration.
struct Broken {
    what: &'static str,
    /// Lines behind the one that names the sysroot.
    text: &'static str,
    /// What is done to the file once it is written.
    then: fn(&Path),
    /// What a job that asks is told, behind the file's path.
    told: &'static str,
}

const BOB: u32 = 20_002;

const BROKEN: [Broken; 9] = [
    Broken {
        what: "a duplicate key",
        text: "harmful = \"warn\"\nharmful = \"warn\"\n",
        then: |_| {},
        told: ":3: duplicate key",
    },
    Broken {
        what: "a cycle of bases",
        text: "[profile.a]\nbase = \"b\"\n[profile.b]\nbase = \"a\"\n",
        then: |_| {},
        told: ":2: [profile.a]: base leads back to itself: a -> b -> a",
    },
    Broken {
        what: "a base that does not exist",
        text: "[profile.a]\nbase = \"p55\"\n",
        then: |_| {},
        told: ":2: [profile.a]: base \"p55\" does not exist",
    },
    Broken {
        what: "a wrong type",
        text: "harmful = 5\n",
        then: |_| {},
        told: ":2: `harmful`: invalid type: integer `5`",
    },
    Broken {
        what: "an unknown key",
        text: "colour = \"red\"\n",
        then: |_| {},
        told: ":2: unknown key `colour`",
    },
    Broken {
        what: "another user's file",
        text: "",
        then: |file| chown(file, Some(BOB), Some(BOB)).unwrap(),
        told: ": not read, because it belongs to uid 20002",
    },
    Broken {
        what: "a file that a group may write",
        text: "",
        then: |file| fs::set_permissions(file, fs::Permissions::from_mode(0o664)).unwrap(),
        told: ": not read, because ",
    },
    Broken {
        what: "another user's symbolic link",
        text: "",
        then: |file| {
            let real = file.with_extension("real");
            fs::rename(file, &real).unwrap();
            symlink(real, file).unwrap();
            lchown(file, Some(BOB), Some(BOB)).unwrap();
        },
        told: ": not read, because ",
    },
    Broken {
        what: "no file where one was named",
        text: "",
        then: |file| fs::remove_file(file).unwrap(),
        told: ": no such file",
    },
];

/// Writes the configuration anew, as root's own file.
fn configure(tb: &Testbed, text: &str) -> PathBuf {
    let file = tb.dir().join(efa_cluster::CONFIG);
    let _ = fs::remove_file(&file);
    let sysroots = efa_cluster::SYSROOTS.replace("{dir}", tb.dir().to_str().unwrap());
    fs::write(&file, sysroots + text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    file
}

/// The environment of a step that asks for nothing, without what differs from
/// job to job.
fn plain_environment(tb: &Testbed) -> Vec<String> {
    let output = tb.srun("alice", &["env"]).unwrap();
    assert!(output.success(), "{output}");
    // srun itself tells of a wait for the step before to leave the node.
    let of_the_wait = |line: &&str| line.starts_with("srun: job ");
    let said: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| !of_the_wait(line))
        .collect();
    assert_eq!(said, [""; 0], "{output}");
    let volatile = |name: &str| {
        name.contains("JOB") || name.contains("PORT") || name.contains("PID") || name == "_"
    };
    Vars::of(&output.stdout).matching(|name| !volatile(name))
}

#[test]
fn a_broken_configuration_hurts_only_jobs_that_ask_and_tells_them_file_line_and_reason() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let before = plain_environment(&tb);
    for Broken {
        what,
        text,
        then,
        told,
    } in BROKEN
    {
        let file = configure(&tb, text);
        then(&file);
        let sentence = format!("{}{told}", file.display());
        assert_eq!(plain_environment(&tb), before, "{what}");
        let said = failing_step(&tb, &["--efa-profile=p5"]);
        assert!(said.contains(&sentence), "{what}: {sentence}: {said}");
        let refused = tb
            .try_sbatch("alice", "#!/bin/bash\n", &["--efa-profile=p5"])
            .unwrap();
        assert!(!refused.success(), "{what}: {refused}");
        assert!(refused.stderr.contains(&sentence), "{what}: {refused}");
        // The failed step's job has left by then.
        tb.wait_idle().unwrap();
        assert_eq!(tb.queue_len().unwrap(), 0, "{what}");
        assert_nodes_serve(&tb);
    }
    configure(&tb, "");
    let mended = tb.srun("alice", &["--efa-profile=p5", "env"]).unwrap();
    let profile = Vars::of(&mended.stdout);
    assert_eq!(profile.get("SLURM_EFA_PROFILE"), Some("p5"), "{mended}");
}

#[test]
fn a_configuration_that_only_the_node_distrusts_fails_the_job_there_and_drains_nothing() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let file = configure(&tb, "");
    // alice's own srun may trust alice's file; root may not.
    let alice = tb.user("alice").unwrap().uid;
    chown(&file, Some(alice), Some(alice)).unwrap();
    let sentence = format!("{}: not read, because", file.display());
    let said = failing_step(&tb, &["--efa-profile=p5"]);
    assert!(said.contains("efa: error: "), "{said}");
    assert!(said.contains(&sentence), "{said}");
    let said = failing_batch(&tb, &["--efa-profile=p5"]);
    assert!(said.contains(&sentence), "{said}");
    assert_nodes_serve(&tb);
}

#[test]
fn slurmd_tells_the_administrator_of_a_broken_configuration_when_it_starts() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let file = configure(&tb, "harmful = 5\n");
    tb.restart_slurmd("n1").unwrap();
    let log = tb.log("slurmd n1");
    let place = format!("{}:2:", file.display());
    let told = efa_cluster::lines_with(&log, &["spank_efa", &place, "until this is mended"]);
    assert_eq!(told.len(), 1, "{log}");
    assert_nodes_serve(&tb);
}

// ------------------------------------------------------------ the node's fault

type Damage = (&'static str, fn(&Path));

/// Things that may lie where a small text file belongs.
const DAMAGES: [Damage; 7] = [
    ("an empty file", |path| fs::write(path, "").unwrap()),
    ("terminal escapes", |path| {
        fs::write(path, "\x1b[31m\x1b]0;title\x07p5.48xlarge\r\n").unwrap();
    }),
    ("bytes that are no text", |path| {
        fs::write(path, [0xff, 0xfe, 0, 0xc3]).unwrap();
    }),
    ("10 MB", |path| {
        fs::write(path, vec![b'p'; 10 << 20]).unwrap()
    }),
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a dead link", |path| {
        symlink("/nowhere/at/all", path).unwrap()
    }),
    ("a FIFO", |path| {
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }),
];

/// Puts the damage in the place of the file.
fn inflict(damage: fn(&Path), path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    damage(path);
}

#[test]
fn a_node_that_cannot_say_its_type_serves_by_what_it_has_and_says_so() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let product_name = tb
        .sysroot("n1")
        .join("sys/devices/virtual/dmi/id/product_name");
    for (what, damage) in DAMAGES {
        inflict(damage, &product_name);
        let auto = tb
            .srun("alice", &["--efa-profile=auto", "--efa-explain", "env"])
            .unwrap();
        let vars = Vars::of(&auto.stdout);
        assert_eq!(vars.get("SLURM_EFA_PROFILE"), Some("efa"), "{what}: {auto}");
        assert_eq!(vars.get("SLURM_EFA_DEVICES"), Some("32"), "{what}: {auto}");
        assert_eq!(vars.get("SLURM_EFA_INSTANCE_TYPE"), None, "{what}: {auto}");
        let explained = "instance type not known (";
        assert!(auto.stderr.contains(explained), "{what}: {auto}");
        assert_harmless_stderr(&auto);
        let p5 = tb.srun("alice", &["--efa-profile=p5", "env"]).unwrap();
        let warning = "efa: warning: n1: cannot tell whether this node is what --efa-profile=p5";
        assert!(p5.success() && p5.stderr.contains(warning), "{what}: {p5}");
        assert_harmless_stderr(&p5);
    }
    assert_nodes_serve(&tb);
}

#[test]
fn a_device_that_cannot_be_read_does_not_count_and_stops_nothing() {
    let tb = cluster("", &["p4d.24xlarge"]).start().unwrap();
    let class = tb.sysroot("n1").join("sys/class/infiniband");
    let first = fs::read_dir(&class).unwrap().next().unwrap().unwrap();
    let vendor = first.path().join("device/vendor");
    fs::write(class.join("not_a_device"), "garbage\n").unwrap();
    for (what, damage) in DAMAGES {
        inflict(damage, &vendor);
        let step = tb.srun("alice", &["--efa-profile=p4d", "env"]).unwrap();
        let devices = Vars::of(&step.stdout);
        assert_eq!(
            devices.get("SLURM_EFA_DEVICES"),
            Some("3"),
            "{what}: {step}"
        );
        assert_harmless_stderr(&step);
    }
    assert_nodes_serve(&tb);
}

#[test]
fn garbage_in_the_place_of_the_device_list_is_a_node_without_devices() {
    let tb = cluster("", &["p4d.24xlarge"]).start().unwrap();
    let class = tb.sysroot("n1").join("sys/class/infiniband");
    for (what, damage) in DAMAGES {
        inflict(damage, &class);
        let said = failing_step(&tb, &["--efa-profile=p4d"]);
        let sentence = "--efa-profile=p4d needs 1 EFA device(s), but n1 has 0";
        assert!(said.contains(sentence), "{what}: {said}");
        let auto = tb.srun("alice", &["--efa-profile=auto", "env"]).unwrap();
        let warning = "efa: warning: n1: a p4d.24xlarge without any EFA device";
        assert!(
            auto.success() && auto.stderr.contains(warning),
            "{what}: {auto}"
        );
    }
    assert_nodes_serve(&tb);
}

#[test]
fn garbage_in_the_place_of_the_stacks_files_is_a_stack_that_is_not_known() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let manifest = tb.sysroot("n1").join("opt/amazon/efa_installed_packages");
    for (what, damage) in DAMAGES {
        inflict(damage, &manifest);
        let step = tb
            .srun("alice", &["--efa-profile=p5", "--efa-explain", "env"])
            .unwrap();
        let profile = Vars::of(&step.stdout);
        assert_eq!(
            profile.get("SLURM_EFA_PROFILE"),
            Some("p5"),
            "{what}: {step}"
        );
        assert!(
            step.stderr.contains("EFA installer unknown"),
            "{what}: {step}"
        );
        assert_harmless_stderr(&step);
    }
    assert_nodes_serve(&tb);
}

// ------------------------------------------------------------- a hostile user

/// The plugin's own variables.
const OURS: [&str; 5] = [
    "SLURM_EFA_SET",
    "SLURM_EFA_REQUESTS",
    "SLURM_EFA_HUGEPAGES_REQUESTS",
    "SLURM_EFA_HUGEPAGES_MIB",
    "SLURM_EFA_PROFILE",
];

/// How Slurm delivers the plugin's options to inner clients and to steps.
const DELIVERY: [&str; 6] = [
    "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile",
    "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_explain",
    "SLURM_SPANK_EFA_PROFILE",
    "SLURM_SPANK_EFA_HUGEPAGES",
    "_SLURM_SPANK_OPTION_spank_efa_efa_profile",
    "_SLURM_SPANK_OPTION_spank_efa_efa_explain",
];

const HOSTILE: [&str; 4] = [
    "\x1b[31m\x1b]0;title\x07",
    "A=%1B%5B31m B=%zz =% HOME=/nowhere LD_PRELOAD=/evil.so",
    "p5\nefa: error: forged",
    "../../etc/shadow",
];

#[test]
fn forged_variables_of_ours_reach_no_terminal_and_hurt_no_node() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    for variable in OURS.iter().chain(&DELIVERY) {
        for value in HOSTILE {
            for option in ["--efa-profile=p5", "--efa-profile=none"] {
                let step = tb
                    .command("alice", &["srun", option, "--efa-explain=all"])
                    .args(&["printenv", "HOME"])
                    .env(variable, value)
                    .output()
                    .unwrap();
                let what = format!("{variable}={value:?} {option}: {step}");
                if step.success() {
                    assert!(step.stdout.contains("/home/alice\n"), "{what}");
                } else {
                    // Delivered as an option, it is refused like one.
                    assert!(DELIVERY.contains(variable), "{what}");
                    let refused = step.stderr.starts_with("srun: error: --efa-");
                    assert!(refused, "{what}");
                }
                assert_harmless_stderr(&step);
                let forged = step.stderr.lines().any(|line| line == "efa: error: forged");
                assert!(!forged, "{what}");
            }
        }
    }
    assert_nodes_serve(&tb);
}

#[test]
fn a_forged_request_that_only_the_batch_step_sees_fails_that_job_with_a_clean_sentence() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let forged = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile=\x1b[31mevil";
    let job = tb
        .sbatch(
            "alice",
            "#!/bin/bash\necho the task ran\n",
            &[format!("--export=ALL,{forged}")],
        )
        .unwrap();
    let state = tb.wait_job(job).unwrap();
    let output = efa_cluster::without_report(&tb.job_output(job).unwrap());
    assert_eq!(state, JobState::Failed, "{output}");
    assert!(!output.contains('\x1b'), "{output:?}");
    assert!(output.contains("is not a profile name"), "{output}");
    assert_nodes_serve(&tb);
}
