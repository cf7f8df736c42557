//! `make demo`: a job with `--efa-profile` on simulated instances under a real
//! Slurm, as its user sees it.
//!
//! Every sentence that is printed about a command is checked on what the
//! command really did; the first that does not hold ends the demo with 1.

mod gpus;
mod hugepages;
mod scenes;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use cdylib_tests::modules;
use cdylib_tests::simnode::{Spec, Stack};
use cdylib_tests::testbed::{Error, NodeOptions, Testbed};

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
    scenes::a_batch_job(&stage)?;
    scenes::why(&stage)?;
    scenes::an_old_stack(&stage)?;
    scenes::the_names(&stage)?;
    scenes::refusals(&stage)?;
    scenes::a_wrong_node(&stage)?;
    if root {
        hugepages::pages_and_traffic(&stage)?;
    }
    drop(testbed);
    if root {
        gpus::shared_gpus()?;
    }
    conclude(root, &left_behind)
}

fn boot(root: bool) -> Result<Testbed, Error> {
    let plugin = modules::plugin();
    let mut builder = Testbed::builder()
        .plugstack("required {dir}/spank_efa.so config={dir}/slurm-efa.toml")
        .file("slurm-efa.toml", "sysroot = \"{dir}/sysroots/%n\"\n")
        // A copy, since the demo's users may not be let into the checkout.
        .prepare(move |dir| std::fs::copy(plugin, dir.join("spank_efa.so")).map(drop));
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
        "\nWhat follows a $ is run as shown, by {}. In the output, long lines are folded and /… \
         stands\nfor {}, which holds it all.",
        Stage::new(testbed).user(),
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
         the list\nof names, refusals at submission, a wrong node that fails only its own job, and (as root)\n\
         hugepages, what EFA moved, shares of a GPU, and a MIG layout that comes back after a failure."
    );
    if !root {
        println!(
            "Left out without root: a root slurmd, several users, cgroups, hugepages, shared GPUs; sudo \
             make demo"
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
