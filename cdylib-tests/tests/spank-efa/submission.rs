//! What happens before anything is queued: refusals, warnings, the list, and
//! which of several places to ask wins.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use cdylib_tests::efa_cluster::{
    self, Vars, assert_harmless_stderr, cluster, cluster_of, cluster_with, step,
};
use cdylib_tests::simnode::Spec;
use cdylib_tests::testbed::{JobId, Output, Testbed};

const SCRIPT: &str = "#!/bin/bash\nenv\n";

/// The id that the next job will get: Slurm counts up, and never takes back.
fn next_job(tb: &Testbed) -> JobId {
    let id = tb
        .sbatch("bob", "#!/bin/bash\n", &["--hold"])
        .unwrap_or_else(|error| panic!("{error}"));
    tb.scancel(id).unwrap();
    JobId(id.0 + 1)
}

/// Runs `submit` and checks that no job came of it.
fn queues_nothing<T>(tb: &Testbed, submit: impl FnOnce() -> T) -> T {
    let next = next_job(tb);
    let outcome = submit();
    assert_eq!(tb.queue_len().unwrap(), 0, "something was queued");
    assert_eq!(next_job(tb).0, next.0 + 1, "a job id was used up");
    outcome
}

/// The clients, each with a job: sbatch's is its standard input.
const CLIENTS: [(&str, &[&str]); 3] = [
    ("sbatch", &[]),
    ("srun", &["/usr/bin/env"]),
    ("salloc", &["srun", "/usr/bin/env"]),
];

/// sbatch, srun and salloc with the same options, as alice. No job may come of it.
fn through_every_client(
    tb: &Testbed,
    env: &[(&str, &str)],
    options: &[impl AsRef<OsStr>],
    check: impl Fn(&str, &Output),
) {
    queues_nothing(tb, || {
        for option in options {
            for (client, job) in CLIENTS {
                let command = tb.command("alice", &[client]).arg(option).args(job);
                let command = env
                    .iter()
                    .fold(command, |command, (name, value)| command.env(name, value));
                check(client, &command.stdin(SCRIPT).output().unwrap());
            }
        }
    });
}

fn assert_refused(client: &str, output: &Output, words: &[&str]) {
    assert!(!output.success(), "{client}: {output}");
    let prefix = format!("{client}: error: ");
    let said = output
        .stderr
        .lines()
        .any(|line| line.starts_with(&prefix) && words.iter().all(|word| line.contains(word)));
    assert!(said, "{client}, {words:?}: {output}");
    assert_eq!(output.stdout, "", "{client}");
    assert_harmless_stderr(output);
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_and_nothing_is_queued() {
    let site = "[profile.vision-team]\nbase = \"p5\"\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    for (asked, nearest) in [
        ("p5x", "p5"),
        ("P5", "p5"),
        ("p5.48xlarg", "p5.48xlarge"),
        ("p6-b20", "p6-b200"),
        ("vision-taem", "vision-team"),
    ] {
        let option = format!("--efa-profile={asked}");
        through_every_client(&tb, &[], &[option], |client, output| {
            let words = [
                &format!("no profile \"{asked}\"")[..],
                &format!("did you mean \"{nearest}\"?"),
                "`srun --efa-profile=list`",
            ];
            assert_refused(client, output, &words);
        });
    }
}

#[test]
fn an_unknown_name_on_an_sbatch_line_or_in_the_environment_is_refused_too() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let script = "#!/bin/bash\n#SBATCH --efa-profile=p55\nenv\n";
    let line = queues_nothing(&tb, || tb.try_sbatch::<&str>("alice", script, &[]).unwrap());
    assert_refused("sbatch", &line, &["no profile \"p55\"", "did you mean"]);
    for (client, job) in CLIENTS {
        let variable = format!("{}_EFA_PROFILE", client.to_uppercase());
        let command = tb
            .command("alice", &[client])
            .args(job)
            .env(variable, "p55");
        let output = queues_nothing(&tb, || command.stdin(SCRIPT).output().unwrap());
        assert_refused(client, &output, &["no profile \"p55\"", "did you mean"]);
    }
}

#[test]
fn a_refusal_has_slurms_exit_code_for_wrong_use() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let refused = |env: &[(&str, &str)]| {
        tb.run("alice", &["srun", "--efa-profile=p55", "true"], env)
            .unwrap()
            .code()
    };
    assert_eq!(refused(&[]), 1);
    assert_eq!(refused(&[("SLURM_EXIT_ERROR", "42")]), 42);
    assert_eq!(refused(&[("SLURM_EXIT_ERROR", "0")]), 1);
}

/// Names and values of environment variables.
type Env = &'static [(&'static str, &'static str)];

/// Variables that make libfabric abort, with a profile for whose nodes they do.
const FATAL: [(&str, Env, &str); 9] = [
    ("auto", &[("FI_EFA_MTU_SIZE", "")], "FI_EFA_MTU_SIZE"),
    ("p5", &[("FI_EFA_MTU_SIZE", "")], "FI_EFA_MTU_SIZE"),
    ("p5", &[("FI_EFA_MTU_SIZE", "8900")], "FI_EFA_MTU_SIZE"),
    ("p5", &[("FI_EFA_TX_IOV_LIMIT", "4")], "FI_EFA_TX_IOV_LIMIT"),
    ("p5", &[("FI_EFA_RX_IOV_LIMIT", "4")], "FI_EFA_RX_IOV_LIMIT"),
    ("p5", &[("FI_EFA_IFACE", "")], "FI_EFA_IFACE"),
    (
        "g5",
        &[("FI_EFA_USE_DEVICE_RDMA", "1")],
        "FI_EFA_USE_DEVICE_RDMA",
    ),
    (
        "c5n",
        &[("FI_EFA_USE_DEVICE_RDMA", "true")],
        "FI_EFA_USE_DEVICE_RDMA",
    ),
    (
        "p5",
        &[("FI_EFA_USE_HUGE_PAGE", "1"), ("FI_EFA_FORK_SAFE", "1")],
        "FI_EFA_USE_HUGE_PAGE",
    ),
];

#[test]
fn every_variable_that_aborts_libfabric_is_refused_with_reason_and_fix() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    for (profile, env, variable) in FATAL {
        let option = format!("--efa-profile={profile}");
        through_every_client(&tb, env, &[option], |client, output| {
            let words = [
                &format!("{variable}=")[..],
                "abort()",
                &format!("unset {variable}"),
                "Nothing was submitted",
            ];
            assert_refused(client, output, &words);
        });
    }
}

#[test]
fn harmless_values_and_jobs_without_a_profile_are_not_refused() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let p5 = "--efa-profile=p5";
    for (env, option) in [
        (("FI_EFA_IFACE", "rdmap79s0"), p5),
        (("FI_EFA_USE_DEVICE_RDMA", "1"), p5),
        (("FI_EFA_USE_HUGE_PAGE", "1"), p5),
        (("FI_EFA_MTU_SIZE", ""), "--efa-profile=none"),
        (("FI_EFA_MTU_SIZE", "8900"), "--label"),
    ] {
        let seen = step(&tb, &[env], &[option, "printenv", env.0]);
        assert!(seen.stdout.contains(env.1), "{env:?}: {seen}");
    }
}

/// A simulated node of any type, with one device.
fn small_node(instance: &str) -> Spec {
    let mut spec = Spec::named("g5.8xlarge").unwrap();
    spec.product_name = instance.to_owned();
    spec
}

#[test]
fn device_rdma_is_refused_only_for_profiles_of_types_without_rdma_read() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let submit = |profile: &str| {
        let option = format!("--efa-profile={profile}");
        tb.command("alice", &["sbatch", "--parsable", "--hold", &option])
            .env("FI_EFA_USE_DEVICE_RDMA", "1")
            .stdin(SCRIPT)
            .output()
            .unwrap()
    };
    for profile in [
        "hpc6a",
        "hpc6id",
        "hpc7a",
        "hpc7g",
        "hpc8a",
        "g6",
        "p5.4xlarge",
        "g7e.8xlarge",
    ] {
        let output = submit(profile);
        assert!(output.success(), "{profile}: {output}");
        tb.scancel(JobId(output.stdout.trim().parse().unwrap()))
            .unwrap();
    }
    for profile in ["c5n", "p3dn", "g4dn", "g5"] {
        let output = queues_nothing(&tb, || submit(profile));
        assert_refused(
            "sbatch",
            &output,
            &["FI_EFA_USE_DEVICE_RDMA=1", "RDMA read"],
        );
    }
}

#[test]
fn device_rdma_runs_on_nodes_with_rdma_read_whether_they_have_gpudirect_or_not() {
    let types = ["hpc7a.96xlarge", "p5.4xlarge", "g5.8xlarge"];
    let tb = cluster_of("", types.map(small_node)).start().unwrap();
    let run = |node: &str| {
        let args = ["srun", "-w", node, "--efa-profile=auto", "env"];
        tb.run("alice", &args, &[("FI_EFA_USE_DEVICE_RDMA", "1")])
            .unwrap()
    };
    for node in ["n1", "n2"] {
        let output = run(node);
        assert!(output.success(), "{node}: {output}");
        let vars = Vars::of(&output.stdout);
        assert_eq!(vars.get("FI_EFA_USE_DEVICE_RDMA"), Some("1"), "{node}");
    }
    let g5 = run("n3");
    assert!(!g5.success(), "{g5}");
    let words = ["n3", "FI_EFA_USE_DEVICE_RDMA=1", "RDMA read"];
    assert!(
        !efa_cluster::lines_with(&g5.stderr, &words).is_empty(),
        "{g5}"
    );
}

#[test]
fn what_export_keeps_from_the_job_is_not_held_against_it() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let env = [("FI_EFA_MTU_SIZE", ""), ("WANTED", "1")];
    for export in [
        "--export=NONE",
        "--export=WANTED",
        "--export=WANTED,OTHER=2",
    ] {
        let seen = step(&tb, &env, &[export, "--efa-profile=p5", "/usr/bin/env"]);
        let vars = Vars::of(&seen.stdout);
        assert_eq!(vars.get("FI_EFA_MTU_SIZE"), None, "{export}");
        assert_eq!(vars.get("SLURM_EFA_PROFILE"), Some("p5"), "{export}");

        let args = [export, "--efa-profile=p5"];
        let (_, printed) = efa_cluster::batch_with(&tb, &env, &args, "/usr/bin/env");
        let vars = Vars::of(&printed);
        assert_eq!(vars.get("FI_EFA_MTU_SIZE"), None, "{export}");
        assert_eq!(vars.get("SLURM_EFA_PROFILE"), Some("p5"), "{export}");
    }
    // The other way round: what only --export brings is the job's as well.
    for export in [
        "--export=ALL,FI_EFA_MTU_SIZE=",
        "--export=FI_EFA_MTU_SIZE=8900",
    ] {
        let args = [export, "--efa-profile=p5", "/usr/bin/env"];
        let srun = queues_nothing(&tb, || tb.srun("alice", &args).unwrap());
        assert_refused("srun", &srun, &["FI_EFA_MTU_SIZE="]);
        let sbatch = queues_nothing(&tb, || tb.try_sbatch("alice", SCRIPT, &args[..2]).unwrap());
        assert_refused("sbatch", &sbatch, &["FI_EFA_MTU_SIZE="]);
    }
}

#[test]
fn a_site_may_turn_refusal_into_a_warning() {
    let tb = cluster("harmful = \"warn\"\n", &["p5.48xlarge"])
        .start()
        .unwrap();
    let env = [("FI_EFA_MTU_SIZE", "")];
    let seen = step(&tb, &env, &["--efa-profile=p5", "env"]);
    let vars = Vars::of(&seen.stdout);
    assert_eq!(vars.get("FI_EFA_MTU_SIZE"), Some(""));
    assert_eq!(vars.get("SLURM_EFA_PROFILE"), Some("p5"));
    let words = ["srun: error: warning: FI_EFA_MTU_SIZE=", "abort()"];
    assert_eq!(
        efa_cluster::lines_with(&seen.stderr, &words).len(),
        1,
        "{seen}"
    );

    let (sbatch, _) = efa_cluster::batch_with(&tb, &env, &["--efa-profile=p5"], "true");
    let words = ["sbatch: error: warning: FI_EFA_MTU_SIZE=", "abort()"];
    assert_eq!(
        efa_cluster::lines_with(&sbatch.stderr, &words).len(),
        1,
        "{sbatch}"
    );
}

#[test]
fn a_site_profile_that_unsets_a_harmful_variable_cures_the_job() {
    let site = "[profile.cured]\nbase = \"p5\"\nunset = [\"FI_EFA_MTU_SIZE\"]\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    let env = [("FI_EFA_MTU_SIZE", "")];
    let seen = Vars::of(&step(&tb, &env, &["--efa-profile=cured", "env"]).stdout);
    assert_eq!(seen.get("FI_EFA_MTU_SIZE"), None);
    assert_eq!(seen.get("SLURM_EFA_PROFILE"), Some("cured"));
}

#[test]
fn list_prints_the_table_with_the_sites_profiles_and_submits_nothing() {
    let site = "[profile.vision-team]\nbase = \"p5\"\ndevices = 16\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    through_every_client(&tb, &[], &["--efa-profile=list"], |client, output| {
        assert!(output.success(), "{client}: {output}");
        assert_eq!(output.stderr, "", "{client}");
        for words in [
            &["auto"][..],
            &["none"],
            &["p5.48xlarge", "up to 32", "yes"],
            &["g5.8xlarge", "up to 1", "no"],
            &["p6-b200.48xlarge", "up to 8", "yes"],
            &[
                "vision-team",
                "at least 16",
                "slurm-efa.toml:2",
                "based on p5",
            ],
        ] {
            let found = efa_cluster::lines_with(&output.stdout, words);
            assert!(!found.is_empty(), "{client}, {words:?}: {output}");
        }
    });
    // Also where a program is missing, as with srun --mpi=list. That is what the
    // documents and messages advise: sbatch without a script waits for one.
    let alone = tb
        .run("alice", &["srun", "--efa-profile=list"], &[])
        .unwrap();
    assert!(
        alone.success() && alone.stdout.contains("vision-team"),
        "{alone}"
    );
    for (client, _) in CLIENTS {
        let help = tb.run("alice", &[client, "--help"], &[]).unwrap();
        assert!(help.stdout.contains("srun --efa-profile=list"), "{help}");
    }
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_sbatch_line() {
    let site = "[profile.line]\nbase = \"p5\"\n[profile.environment]\nbase = \"p5\"\n\
                [profile.command]\nbase = \"p5\"\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    let script = "#SBATCH --efa-profile=line\n\
                  echo $SLURM_EFA_PROFILE; srun sh -c 'echo $SLURM_EFA_PROFILE'";
    let run = |env: Option<&str>, args: &[&str]| {
        let env: Vec<_> = env
            .map(|value| ("SBATCH_EFA_PROFILE", value))
            .into_iter()
            .collect();
        efa_cluster::batch_with(&tb, &env, args, script).1
    };
    assert_eq!(run(None, &[]), "line\nline\n");
    let environment = Some("environment");
    assert_eq!(run(environment, &[]), "environment\nenvironment\n");
    let command = ["--efa-profile=command"];
    assert_eq!(run(environment, &command), "command\ncommand\n");
    assert_eq!(run(None, &command), "command\ncommand\n");
    assert_eq!(run(environment, &["--efa-profile=none"]), "\n\n");
}

#[test]
fn srun_and_salloc_take_their_own_variable_below_the_command_line() {
    let site = "[profile.environment]\nbase = \"p5\"\n[profile.command]\nbase = \"p5\"\n";
    let tb = cluster(site, &["p5.48xlarge"]).start().unwrap();
    let say = ["printenv", "SLURM_EFA_PROFILE"];
    let env = [("SRUN_EFA_PROFILE", "environment")];
    assert_eq!(step(&tb, &env, &say).stdout, "environment\n");
    let args = [&["--efa-profile=command"], &say[..]].concat();
    assert_eq!(step(&tb, &env, &args).stdout, "command\n");

    let salloc = |options: &[&str]| {
        let argv = [&["salloc"], options, &["srun"], &say].concat();
        let env = [("SALLOC_EFA_PROFILE", "environment")];
        let output = tb.run("alice", &argv, &env).unwrap();
        assert!(output.success(), "{output}");
        output.stdout
    };
    assert_eq!(salloc(&[]), "environment\n");
    assert_eq!(salloc(&["--efa-profile=command"]), "command\n");
    // Each client has its own variable.
    let foreign = [
        ("SBATCH_EFA_PROFILE", "environment"),
        ("SALLOC_EFA_PROFILE", "p5"),
    ];
    let seen = Vars::of(&step(&tb, &foreign, &["env"]).stdout);
    assert_eq!(seen.get("SLURM_EFA_PROFILE"), None);
}

/// Names that no profile can have. Linux takes no single argument above 128 KiB.
fn hostile_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "",
        " ",
        "p5\nsbatch: done",
        "p5\r",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "../../../etc/passwd",
        "/etc/passwd",
        "p5;id",
        "%s%s%n",
        "$(id)",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    names.push(b"\xff\xfe\x9b2J".to_vec());
    names.push(vec![b'x'; 100 << 10]);
    names.push(b"\x1b[2J".repeat(25 << 10));
    names
}

#[test]
fn hostile_names_are_refused_by_every_client_and_never_echoed_raw() {
    for requirement in ["required", "optional"] {
        let tb = cluster_with(requirement, "", &["p5.48xlarge"])
            .start()
            .unwrap();
        let options: Vec<OsString> = hostile_names()
            .into_iter()
            .map(|name| OsString::from_vec([&b"--efa-profile="[..], &name].concat()))
            .collect();
        through_every_client(&tb, &[], &options, |client, output| {
            assert_refused(client, output, &["--efa-profile:", "not a profile name"]);
            assert!(output.stderr.len() < 2000, "{client}: {output}");
        });
    }
}

#[test]
fn a_name_of_ten_megabytes_on_an_sbatch_line_is_refused() {
    for requirement in ["required", "optional"] {
        let tb = cluster_with(requirement, "", &["p5.48xlarge"])
            .start()
            .unwrap();
        for unit in [&b"x"[..], b"\x1b[2J", b"\xff"] {
            let name = unit.repeat((10 << 20) / unit.len());
            let script = [
                &b"#!/bin/bash\n#SBATCH --efa-profile="[..],
                &name,
                b"\nenv\n",
            ]
            .concat();
            let output = queues_nothing(&tb, || {
                let command = tb.command("alice", &["sbatch"]);
                command.stdin(script).output().unwrap()
            });
            assert!(!output.success(), "{output}");
            assert!(output.stderr.len() < 2000, "{} bytes", output.stderr.len());
            assert_harmless_stderr(&output);
            assert!(output.stderr.contains("not a profile name"), "{output}");
        }
    }
}

#[test]
fn hostile_names_in_the_environment_are_refused_too() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    queues_nothing(&tb, || {
        for name in hostile_names() {
            for (client, variable) in [
                ("srun", "SRUN_EFA_PROFILE"),
                ("sbatch", "SBATCH_EFA_PROFILE"),
                (
                    "srun",
                    "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile",
                ),
            ] {
                let job: &[&str] = if client == "srun" { &["true"] } else { &[] };
                let command = tb
                    .command("alice", &[client])
                    .args(job)
                    .env(variable, OsString::from_vec(name.clone()));
                let output = command.stdin(SCRIPT).output().unwrap();
                assert_refused(client, &output, &["not a profile name"]);
            }
        }
    });
}

#[test]
fn a_wrong_value_of_explain_is_refused() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    for value in ["every", "\u{1b}[2J", "all\n"] {
        let option = format!("--efa-explain={value}");
        through_every_client(&tb, &[], &[option], |client, output| {
            assert_refused(client, output, &["--efa-explain:", "--efa-explain=all"]);
        });
    }
}

#[test]
fn slurmctld_never_hears_of_a_refused_job() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let before = tb.log("slurmctld");
    let output = tb
        .try_sbatch("alice", SCRIPT, &["--efa-profile=p55"])
        .unwrap();
    assert!(!output.success(), "{output}");
    assert_eq!(tb.log("slurmctld"), before);
    let spool = tb.dir().join("state");
    assert!(!has_job_directory(&spool), "{}", spool.display());
}

/// slurmctld keeps the scripts of queued jobs in `hash.N/job.ID`.
fn has_job_directory(state: &Path) -> bool {
    let entries = |dir: &Path| -> Vec<_> {
        std::fs::read_dir(dir)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default()
    };
    entries(state)
        .iter()
        .filter(|path| path.is_dir())
        .any(|hash| {
            entries(hash)
                .iter()
                .any(|path| path.to_string_lossy().contains("/job."))
        })
}
