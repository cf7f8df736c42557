//! `make demo`: a job with `--efa-profile` on simulated instances under a real
//! Slurm, as its user sees it.
//!
//! Every sentence that is printed about a command is checked on what the
//! command really did; the first that does not hold ends the demo with 1.

mod gpus;
mod hugepages;
mod preflight;
mod scenes;
mod stage;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cdylib_tests::simnode::{Spec, Stack};
use cdylib_tests::testbed::{Error, NodeOptions, Testbed};
use cdylib_tests::{efa_cluster, health, modules};

use stage::{Outcome, Stage};

/// The cluster: the feature that a job asks for, and what the node is.
const NODES: [(&str, &str); 4] = [
    ("p5", "p5.48xlarge"),
    ("p5", "p5.48xlarge"),
    ("p4d", "p4d_old_stack"),
    ("g5", "g5.8xlarge"),
];

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\ndemo: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Outcome {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let testbed = boot(root)?;
    let left_behind = traces(&testbed);
    let stage = Stage::new(&testbed);
    introduce(&testbed, root);
    preflight::a_cluster_that_does_not_exist_yet(&stage)?;
    scenes::a_batch_job(&stage)?;
    scenes::why(&stage)?;
    scenes::an_old_stack(&stage)?;
    scenes::the_names(&stage)?;
    scenes::refusals(&stage)?;
    scenes::a_wrong_node(&stage)?;
    scenes::a_broken_adapter(&stage)?;
    if root {
        hugepages::pages_and_traffic(&stage)?;
        scenes::a_login(&stage)?;
    }
    drop(testbed);
    if root {
        gpus::shared_gpus()?;
    }
    conclude(root, &left_behind)
}

fn boot(root: bool) -> Result<Testbed, Error> {
    let (plugin, program) = (modules::plugin(), modules::program("efa-check"));
    let preflight = modules::program("slurm-efa");
    let program_of_jobs = modules::job_program_beside(&plugin);
    let mut builder = Testbed::builder()
        .plugstack("required {dir}/spank_efa.so config={dir}/slurm-efa.toml")
        // At 1, slurmctld never comes to its pings, and a resumed node waits for one.
        .slurm_conf_extra("HealthCheckProgram={dir}/healthcheck\nHealthCheckInterval=2")
        .file(
            "slurm-efa.toml",
            &health::config("resume = true\nresume_after = 1"),
        )
        .file(
            "healthcheck",
            "#!/bin/sh\nexec {dir}/efa-check healthcheck --config {dir}/slurm-efa.toml\n",
        )
        // Copies, since the demo's users may not be let into the checkout.
        .prepare(move |dir| {
            let reader = modules::reader_beside(&plugin);
            std::fs::copy(&reader, modules::reader_beside(&dir.join("spank_efa.so")))?;
            std::fs::copy(program_of_jobs, dir.join("slurm-efa-job"))?;
            std::fs::copy(plugin, dir.join("spank_efa.so"))?;
            std::fs::copy(program, dir.join("efa-check"))?;
            std::fs::copy(preflight, dir.join("slurm-efa"))?;
            std::fs::set_permissions(dir.join("healthcheck"), Permissions::from_mode(0o755))
        });
    builder =
        efa_cluster::with_job_program(builder, Path::new("{dir}/slurm-efa-job"), "slurm-efa.toml");
    for (feature, name) in NODES {
        builder = builder.node(NodeOptions {
            extra: format!("Feature={feature}"),
            simulated: Spec::named(name),
            ..NodeOptions::default()
        });
    }
    if !root {
        builder = builder.unprivileged();
    }
    builder.start()
}

fn introduce(testbed: &Testbed, root: bool) {
    println!(
        "A private Slurm {} runs now, with the plugin and four simulated nodes:\n",
        testbed.release()
    );
    for (node, (feature, name)) in testbed.nodes().iter().zip(NODES) {
        if let Some(spec) = Spec::named(name) {
            println!(
                "    {node}  {:<12}  {:<14}  {:<33}  --constraint={feature}",
                spec.product_name,
                devices(spec.efa.len()),
                software(&spec.stack)
            );
        }
    }
    println!(
        "\nWhat follows a $ is run as shown, by {}; what follows a #, by {}. In the output, long \
         lines\nare folded and /… stands for {}, which holds it all.",
        Stage::new(testbed).user(),
        Stage::new(testbed).admin(),
        testbed.dir().display()
    );
    if !root {
        println!(
            "\nYou are not root, so this Slurm runs under your own name: its slurmd is not root, \
             every\njob is yours, and no cgroups are used. What --efa-profile does is the same. To \
             see it as\non a cluster, with a root slurmd, users of their own and cgroups: sudo make \
             demo"
        );
    }
}

fn devices(count: usize) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} EFA device{s}")
}

fn software(stack: &Stack) -> String {
    let ofi = stack.ofi.as_ref().map_or("-", |(version, _)| version);
    let nccl = stack.nccl.as_deref().unwrap_or("-");
    format!("NCCL {nccl}, aws-ofi-nccl {ofi}")
}

/// What must be gone when the testbed is.
fn traces(testbed: &Testbed) -> Vec<PathBuf> {
    let init = testbed
        .init_pid()
        .map(|pid| PathBuf::from(format!("/proc/{pid}")));
    testbed
        .cgroup_dirs()
        .into_iter()
        .chain(init)
        .chain([testbed.dir().to_owned()])
        .collect()
}

fn conclude(root: bool, traces: &[PathBuf]) -> Outcome {
    let left: Vec<_> = traces.iter().filter(|path| path.exists()).collect();
    let kept = std::env::var_os("SLURM_EFA_KEEP").is_some_and(|value| value != "0");
    if !left.is_empty() && !kept {
        return Err(format!("not removed again: {left:?}").into());
    }
    println!(
        "\n\nShown and checked: the environment of a p5 job and why it is so, that of an old stack, \
         the list\nof names, refusals at submission, a wrong node that fails only its own job, and a node with a\n\
         broken adapter that gets no job until it is repaired."
    );
    if root {
        println!(
            "And hugepages, what EFA moved, a login that is refused without a job and ended after it, shares\n\
             of a GPU, and a MIG layout that comes back after a failure."
        );
    } else {
        println!(
            "Left out without root: a root slurmd, several users, cgroups, hugepages, logins, shared GPUs;\n\
             sudo make demo"
        );
    }
    println!(
        "{}",
        if kept {
            "SLURM_EFA_KEEP is set: that Slurm is stopped, its files were kept."
        } else {
            "That Slurm and all of its files are gone again."
        }
    );
    Ok(())
}
