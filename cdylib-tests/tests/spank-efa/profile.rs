//! What a job sees of its profile, on a real Slurm with simulated nodes.

use cdylib_tests::efa_cluster::{self, Vars, batch, cluster, cluster_of, lines_with, step};
use cdylib_tests::simnode::{Spec, Stack};

/// Prints what a task can see of the plugin, on one line.
const REPORT: &str = "echo $SLURMD_NODENAME $SLURM_EFA_PROFILE $SLURM_EFA_INSTANCE_TYPE \
                      $SLURM_EFA_DEVICES ${NCCL_SHM_USE_CUDA_MEMCPY-unset}";

const BOOTSTRAP: &str = "NCCL_SOCKET_IFNAME=^docker,lo,veth";

/// The variables of libfabric, NCCL and aws-ofi-nccl, as `NAME=value`.
fn tuning(vars: &Vars) -> Vec<String> {
    let mut tuning = vars.efa();
    tuning.retain(|variable| !variable.starts_with("SLURM_EFA_"));
    tuning
}

/// What the plugin tells every task: profile, type, devices.
fn told(vars: &Vars) -> [Option<&str>; 3] {
    ["PROFILE", "INSTANCE_TYPE", "DEVICES"].map(|name| vars.get(&format!("SLURM_EFA_{name}")))
}

#[test]
fn a_modern_p5_gets_exactly_one_setting_and_the_report() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let without = Vars::of(&step(&tb, &[], &["env"]).stdout);
    let with = Vars::of(&step(&tb, &[], &["--efa-profile=p5", "env"]).stdout);
    for unwanted in [
        "NCCL_PROTO",
        "NCCL_ALGO",
        "FI_EFA_FORK_SAFE",
        "NCCL_BUFFSIZE",
    ] {
        assert_eq!(with.get(unwanted), None);
    }
    let job_specific = |variable: &String| {
        let name = variable.split('=').next().unwrap();
        without.get(name).is_none()
    };
    let mut added = with.beyond(&without);
    added.retain(job_specific);
    assert_eq!(
        added,
        [
            BOOTSTRAP,
            "SLURM_EFA_DEVICES=32",
            "SLURM_EFA_INSTANCE_TYPE=p5.48xlarge",
            "SLURM_EFA_PROFILE=p5",
            &format!("SLURM_EFA_SET={BOOTSTRAP}"),
        ]
    );
    assert!(without.matching(|name| with.get(name).is_none()).is_empty());
}

#[test]
fn an_old_stack_p4d_gets_what_that_stack_needs_and_is_told_why() {
    let tb = cluster("", &["p4d_old_stack"]).start().unwrap();
    let seen = step(&tb, &[], &["--efa-profile=p4d", "--efa-explain", "env"]);
    assert_eq!(
        tuning(&Vars::of(&seen.stdout)),
        [
            "FI_EFA_FORK_SAFE=1",
            "FI_EFA_USE_DEVICE_RDMA=1",
            "FI_PROVIDER=efa",
            "NCCL_BUFFSIZE=8388608",
            "NCCL_P2P_NET_CHUNKSIZE=524288",
            "NCCL_PROTO=simple",
            BOOTSTRAP,
        ]
    );
    for words in [
        ["set FI_EFA_FORK_SAFE=1:", "kernel is 5.10.167"],
        ["set FI_EFA_USE_DEVICE_RDMA=1:", "libfabric is 1.17.0"],
        ["set FI_PROVIDER=efa:", "aws-ofi-nccl is 1.5.0"],
        ["set NCCL_BUFFSIZE=8388608:", "aws-ofi-nccl is 1.5.0"],
        [
            "set NCCL_P2P_NET_CHUNKSIZE=524288:",
            "aws-ofi-nccl is 1.5.0",
        ],
        ["set NCCL_PROTO=simple:", "aws-ofi-nccl is 1.5.0"],
        ["libfabric 1.17.0", "efa_installed_packages"],
    ] {
        assert_eq!(
            lines_with(&seen.stderr, &words).len(),
            1,
            "{words:?}: {seen}"
        );
    }
}

#[test]
fn the_modern_p5_is_told_why_nearly_nothing_was_set() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let seen = step(&tb, &[], &["--efa-profile=p5", "--efa-explain", "true"]);
    for words in [
        ["efa: n1: profile p5 (--efa-profile=p5)", "32 EFA devices"],
        ["efa: n1: found", "aws-ofi-nccl 1.16.2"],
        ["efa: n1: set NCCL_SOCKET_IFNAME=^docker,lo,veth:", ""],
        ["efa: n1: left alone NCCL_PROTO:", "aws-ofi-nccl is 1.16.2"],
        [
            "efa: n1: left alone NCCL_BUFFSIZE:",
            "aws-ofi-nccl is 1.16.2",
        ],
        ["efa: n1: left alone FI_EFA_FORK_SAFE:", "kernel is 6.8.0"],
    ] {
        assert_eq!(
            lines_with(&seen.stderr, &words).len(),
            1,
            "{words:?}: {seen}"
        );
    }
}

#[test]
fn every_family_gets_its_own_settings_and_counts_only_efa_devices() {
    let rows: [(&str, &str, &str, &[&str]); 6] = [
        ("p4d.24xlarge", "p4d", "4", &[BOOTSTRAP]),
        ("p5.48xlarge", "p5", "32", &[BOOTSTRAP]),
        ("p5en.48xlarge", "p5en", "16", &[BOOTSTRAP]),
        // Ten RDMA devices, of which two are NVLink controllers.
        ("p6-b200.48xlarge", "p6-b200", "8", &[BOOTSTRAP]),
        (
            "trn1.32xlarge",
            "trn1",
            "8",
            &["FI_EFA_USE_DEVICE_RDMA=1", "FI_PROVIDER=efa"],
        ),
        (
            "g5.8xlarge",
            "g5",
            "1",
            &["NCCL_SHM_USE_CUDA_MEMCPY=1", BOOTSTRAP],
        ),
    ];
    let tb = cluster("", &rows.map(|row| row.0)).start().unwrap();
    for (node, (instance, family, devices, expected)) in tb.nodes().iter().zip(rows) {
        let option = format!("--efa-profile={family}");
        let seen = Vars::of(&step(&tb, &[], &["-w", node, &option, "env"]).stdout);
        assert_eq!(tuning(&seen), expected, "{instance}");
        assert_eq!(told(&seen), [Some(family), Some(instance), Some(devices)]);
    }
}

#[test]
fn under_auto_each_node_of_one_step_gets_its_own_profile() {
    let tb = cluster("", &["p5.48xlarge", "g5.8xlarge"]).start().unwrap();
    let seen = step(&tb, &[], &["-N2", "--efa-profile=auto", "sh", "-c", REPORT]);
    let mut lines: Vec<&str> = seen.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["n1 p5 p5.48xlarge 32 unset", "n2 g5 g5.8xlarge 1 1"]
    );
}

#[test]
fn a_full_type_is_a_profile_with_and_without_hyperpods_prefix() {
    let nodes = ["p5.48xlarge", "ml.p5.48xlarge"];
    let tb = cluster("", &nodes).start().unwrap();
    for node in ["n1", "n2"] {
        for name in ["p5.48xlarge", "ml.p5.48xlarge", "p5", "auto"] {
            let option = format!("--efa-profile={name}");
            let seen = Vars::of(&step(&tb, &[], &["-w", node, &option, "env"]).stdout);
            let profile = match name {
                "p5" | "auto" => "p5",
                _ => "p5.48xlarge",
            };
            let expected = [Some(profile), Some("p5.48xlarge"), Some("32")];
            assert_eq!(told(&seen), expected, "{name} on {node}");
        }
    }
}

const SITE: &str = r#"
[profile.big]
base = "p5"
env = { NCCL_DEBUG = "INFO", SITE_NOTE = "two words" }
unset = ["NCCL_SOCKET_IFNAME", "OLD_HABIT"]
devices = 32

[profile.bigger]
base = "big"
env = { NCCL_DEBUG = "WARN" }
devices = 33

[profile.g5]
env = { NCCL_DEBUG = "VERSION" }
"#;

#[test]
fn a_site_profile_sets_unsets_and_demands_devices_beyond_its_base() {
    let tb = cluster(SITE, &["p5.48xlarge"]).start().unwrap();
    let env = [("OLD_HABIT", "1")];
    let seen = Vars::of(&step(&tb, &env, &["--efa-profile=big", "env"]).stdout);
    assert_eq!(tuning(&seen), ["NCCL_DEBUG=INFO"]);
    assert_eq!(seen.get("SITE_NOTE"), Some("two words"));
    assert_eq!(seen.get("OLD_HABIT"), None);
    assert_eq!(told(&seen), [Some("big"), Some("p5.48xlarge"), Some("32")]);

    let refused = tb.srun("alice", &["--efa-profile=bigger", "env"]).unwrap();
    assert!(!refused.success(), "{refused}");
    assert_eq!(refused.stdout, "");
    let words = ["efa: error:", "needs 33 EFA device", "n1 has 32"];
    assert_eq!(lines_with(&refused.stderr, &words).len(), 1, "{refused}");
}

#[test]
fn a_site_may_change_a_built_in_profile_and_auto_follows() {
    let tb = cluster(SITE, &["g5.8xlarge"]).start().unwrap();
    for option in ["--efa-profile=g5", "--efa-profile=auto"] {
        let seen = Vars::of(&step(&tb, &[], &[option, "env"]).stdout);
        assert_eq!(
            tuning(&seen),
            [
                "NCCL_DEBUG=VERSION",
                "NCCL_SHM_USE_CUDA_MEMCPY=1",
                BOOTSTRAP
            ],
            "{option}"
        );
        assert_eq!(seen.get("SLURM_EFA_PROFILE"), Some("g5"), "{option}");
    }
}

#[test]
fn a_value_of_the_users_own_is_never_overwritten_and_explained() {
    let tb = cluster(SITE, &["p4d_old_stack", "p5.48xlarge"])
        .start()
        .unwrap();
    let own = [
        ("NCCL_SOCKET_IFNAME", "ens6"),
        ("NCCL_PROTO", "LL128"),
        ("FI_PROVIDER", ""),
    ];
    let args = ["-w", "n1", "--efa-profile=p4d", "--efa-explain", "env"];
    let seen = step(&tb, &own, &args);
    let vars = Vars::of(&seen.stdout);
    for (name, value) in own {
        assert_eq!(vars.get(name), Some(value), "{name}");
        let words = [&format!("left alone {name}={value}: it is the job's own")[..]];
        assert_eq!(lines_with(&seen.stderr, &words).len(), 1, "{name}: {seen}");
        let set = vars.get("SLURM_EFA_SET").unwrap();
        assert!(!set.contains(&format!("{name}=")), "{set}");
    }
    let site = ["-w", "n2", "--efa-profile=big", "env"];
    let seen = Vars::of(&step(&tb, &[("NCCL_DEBUG", "TRACE")], &site).stdout);
    assert_eq!(seen.get("NCCL_DEBUG"), Some("TRACE"));
}

#[test]
fn a_value_given_by_export_is_the_users_own_too() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let args = [
        "--efa-profile=p5",
        "--export=ALL,NCCL_SOCKET_IFNAME=ens6",
        "env",
    ];
    let seen = Vars::of(&step(&tb, &[], &args).stdout);
    assert_eq!(tuning(&seen), ["NCCL_SOCKET_IFNAME=ens6"]);
}

#[test]
fn explain_speaks_on_the_first_node_and_with_all_on_every_node() {
    let tb = cluster("", &["p5.48xlarge", "p5.48xlarge"])
        .start()
        .unwrap();
    let explained = |options: &[&str]| {
        let args: Vec<&str> = options.iter().copied().chain(["-N2", "true"]).collect();
        let seen = step(&tb, &[], &args);
        ["efa: n1: profile p5", "efa: n2: profile p5"]
            .map(|line| lines_with(&seen.stderr, &[line]).len())
    };
    assert_eq!(explained(&["--efa-profile=p5"]), [0, 0]);
    assert_eq!(explained(&["--efa-profile=p5", "--efa-explain"]), [1, 0]);
    assert_eq!(
        explained(&["--efa-profile=p5", "--efa-explain=all"]),
        [1, 1]
    );
    // Of the two nodes, n2 alone is the step's first.
    let args = ["--efa-profile=p5", "--efa-explain", "-w", "n2", "true"];
    let seen = step(&tb, &[], &args);
    let words = ["efa: n2: profile p5"];
    assert_eq!(lines_with(&seen.stderr, &words).len(), 1, "{seen}");
}

#[test]
fn in_a_batch_job_the_script_explains_itself_in_its_output() {
    let tb = cluster("", &["p5.48xlarge"]).start().unwrap();
    let printed = batch(&tb, &["--efa-profile=p5", "--efa-explain"], "echo done");
    let words = ["efa: n1: set NCCL_SOCKET_IFNAME"];
    assert_eq!(lines_with(&printed, &words).len(), 1, "{printed}");
}

#[test]
fn in_a_container_only_what_holds_for_every_version_is_set() {
    let tb = cluster("", &["p4d_old_stack", "trn1.32xlarge"])
        .start()
        .unwrap();
    for variable in [
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_image",
        "_SLURM_SPANK_OPTION_pyxis_container_image",
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_name",
        "SLURM_CONTAINER",
    ] {
        let image = [(variable, "nvcr.io#nvidia/pytorch:25.01-py3")];
        let args = ["-w", "n1", "--efa-profile=p4d", "--efa-explain", "env"];
        let seen = step(&tb, &image, &args);
        assert_eq!(tuning(&Vars::of(&seen.stdout)), [BOOTSTRAP], "{variable}");
        let words = ["n1: the step runs in a container (--container"];
        assert_eq!(lines_with(&seen.stderr, &words).len(), 1, "{seen}");
        assert!(
            !seen.stderr.contains("1.17.0"),
            "the host's version: {seen}"
        );
        // What Neuron asks for in every version stays.
        let args = ["-w", "n2", "--efa-profile=trn1", "env"];
        let seen = Vars::of(&step(&tb, &image, &args).stdout);
        let expected = ["FI_EFA_USE_DEVICE_RDMA=1", "FI_PROVIDER=efa"];
        assert_eq!(tuning(&seen), expected, "{variable}");
    }
}

#[test]
fn every_task_and_the_batch_script_can_see_what_happened() {
    let tb = cluster("", &["p5.48xlarge", "p5.48xlarge"])
        .start()
        .unwrap();
    let script = "echo batch $SLURM_EFA_PROFILE $SLURM_EFA_INSTANCE_TYPE $SLURM_EFA_DEVICES\n\
                  srun sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_EFA_PROFILE \
                  $SLURM_EFA_INSTANCE_TYPE $SLURM_EFA_DEVICES'";
    let args = ["-N2", "--ntasks-per-node=2", "--efa-profile=p5"];
    let printed = batch(&tb, &args, script);
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "0 n1 p5 p5.48xlarge 32",
            "1 n1 p5 p5.48xlarge 32",
            "2 n2 p5 p5.48xlarge 32",
            "3 n2 p5 p5.48xlarge 32",
            "batch p5 p5.48xlarge 32",
        ]
    );
}

#[test]
fn a_sites_default_holds_for_jobs_that_ask_for_nothing_and_none_switches_it_off() {
    let tb = cluster("default_profile = \"auto\"\n", &["p5.48xlarge"])
        .start()
        .unwrap();
    let seen = step(&tb, &[], &["--efa-explain", "env"]);
    let vars = Vars::of(&seen.stdout);
    assert_eq!(tuning(&vars), [BOOTSTRAP]);
    assert_eq!(told(&vars), [Some("p5"), Some("p5.48xlarge"), Some("32")]);
    let words = ["profile p5", "default_profile = \"auto\""];
    assert_eq!(lines_with(&seen.stderr, &words).len(), 1, "{seen}");

    let printed = batch(
        &tb,
        &[],
        "echo $SLURM_EFA_PROFILE; srun printenv SLURM_EFA_PROFILE",
    );
    assert_eq!(printed, "p5\np5\n");

    let off = Vars::of(&step(&tb, &[], &["--efa-profile=none", "env"]).stdout);
    assert_eq!(off.efa(), Vec::<String>::new());
    let printed = batch(&tb, &["--efa-profile=none"], "env; srun env");
    // Only the request itself, for the steps inside.
    assert_eq!(Vars::of(&printed).efa(), ["SLURM_EFA_REQUESTS=none"]);
}

#[test]
fn a_default_that_does_not_fit_a_node_is_not_forced_on_jobs_that_asked_for_nothing() {
    let tb = cluster("default_profile = \"p5\"\n", &["g5.8xlarge"])
        .start()
        .unwrap();
    let seen = Vars::of(&step(&tb, &[], &["env"]).stdout);
    assert_eq!(seen.efa(), Vec::<String>::new());
}

#[test]
fn auto_on_a_node_without_efa_sets_nothing_and_says_so_where_it_costs() {
    let bare = |name: &str| Spec::named(name).unwrap().with_devices(0);
    let foreign = Spec {
        product_name: "PowerEdge R760".to_owned(),
        ..bare("g5.8xlarge")
    };
    let nodes = [bare("p5.48xlarge"), bare("g5.8xlarge"), foreign];
    let tb = cluster_of("", nodes).start().unwrap();
    for (node, instance, warnings) in [
        ("n1", Some("p5.48xlarge"), 1),
        ("n2", Some("g5.8xlarge"), 0),
        ("n3", None, 0),
    ] {
        let seen = step(&tb, &[], &["-w", node, "--efa-profile=auto", "env"]);
        let vars = Vars::of(&seen.stdout);
        assert_eq!(tuning(&vars), Vec::<String>::new(), "{node}");
        assert_eq!(told(&vars), [Some("none"), instance, Some("0")], "{node}");
        let words = ["efa: warning:", "without any EFA device"];
        assert_eq!(lines_with(&seen.stderr, &words).len(), warnings, "{seen}");
    }
    // Who names a profile wants its devices.
    let refused = tb
        .srun("alice", &["-w", "n1", "--efa-profile=p5", "true"])
        .unwrap();
    assert!(!refused.success(), "{refused}");
    assert!(refused.stderr.contains("n1 has 0"), "{refused}");
}

#[test]
fn a_type_that_the_table_does_not_know_gets_the_generic_profile() {
    let spec = Spec {
        product_name: "p99.48xlarge".to_owned(),
        stack: Stack::old(),
        ..Spec::named("p5.48xlarge").unwrap()
    };
    let tb = cluster_of("", [spec]).start().unwrap();
    let seen = Vars::of(&step(&tb, &[], &["--efa-profile=auto", "env"]).stdout);
    assert_eq!(told(&seen), [Some("efa"), Some("p99.48xlarge"), Some("32")]);
    // Version rules hold for any type; those about GPUs need to know it.
    assert_eq!(tuning(&seen), ["FI_EFA_FORK_SAFE=1", "FI_PROVIDER=efa"]);
}

#[test]
fn a_profile_is_the_same_through_a_module_line_that_is_optional() {
    let tb = efa_cluster::cluster_with("optional", "", &["p5.48xlarge"])
        .start()
        .unwrap();
    let seen = Vars::of(&step(&tb, &[], &["--efa-profile=p5", "env"]).stdout);
    assert_eq!(tuning(&seen), [BOOTSTRAP]);
}
