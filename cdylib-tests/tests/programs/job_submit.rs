//! The example for job_submit/lua, in a real slurmctld.

use cdylib_tests::efa_cluster::cluster;
use cdylib_tests::testbed::{Builder, Testbed};

const EXAMPLE: &str = include_str!("../../../packaging/examples/job_submit.lua");
const SCRIPT: &str = "#!/bin/bash\ntrue\n";

/// slurmctld calls the example.
fn calls_example(builder: Builder) -> Testbed {
    builder
        .slurm_conf_extra("JobSubmitPlugins=lua\nGresTypes=gpu")
        .file("job_submit.lua", EXAMPLE)
        .start()
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn slurmctld_refuses_a_variable_that_aborts_libfabric_from_a_client_without_the_plugin() {
    // The clients have no plugin.
    let tb = calls_example(Testbed::builder().user("alice").nodes(2));
    let submit = |variable: &str| {
        let command = tb.command("alice", &["sbatch"]).env(variable, "1");
        command.stdin(SCRIPT).output().unwrap()
    };
    let refused = submit("FI_EFA_MTU_SIZE");
    assert!(!refused.success(), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("FI_EFA_MTU_SIZE makes libfabric abort"),
        "{refused:?}"
    );
    let accepted = submit("FI_EFA_USE_HUGE_PAGE");
    assert!(accepted.success(), "{accepted:?}");
    assert!(
        !tb.log("slurmctld").contains("job_submit.lua: "),
        "{}",
        tb.log("slurmctld")
    );
    // srun and salloc bring no environment.
    assert!(tb.srun("alice", &["-N2", "true"]).unwrap().success());
}

#[test]
fn slurmctld_advises_a_profile_unless_the_job_has_one() {
    let tb = calls_example(cluster("", &["p5.48xlarge", "p5.48xlarge"]));
    let advised = |options: &[&str]| {
        // No node has a GPU, so the job is refused after the advice.
        let options = [&["-N2", "--gres=gpu:1"], options].concat();
        let output = tb.try_sbatch("alice", SCRIPT, &options).unwrap();
        output.stderr.contains("consider --efa-profile=auto")
    };
    assert!(advised(&[]));
    assert!(!advised(&["--efa-profile=p5"]));
}
