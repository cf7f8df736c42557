//! The behaviours that every release must show.

use std::error::Error;
use std::fs;

use super::context::{Context, NODES, Row, Verdict, cluster, xtask};
use crate::efa_cluster::{self, Vars};
use crate::testbed::{JobId, JobState, LIMIT, Output, Progress, Testbed};
use crate::{gres, health, modules, panics};

/// The rows. A new one is one line.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "the plugin loads",
        check: loads,
    },
    Row {
        name: "no option, nothing set",
        check: nothing_asked,
    },
    Row {
        name: "profile on a modern p5",
        check: modern_p5,
    },
    Row {
        name: "profile on an old p4d",
        check: old_p4d,
    },
    Row {
        name: "the user's value stays",
        check: users_value,
    },
    Row {
        name: "auto over two types",
        check: auto_over_two_types,
    },
    Row {
        name: "unknown name refused",
        check: unknown_name,
    },
    Row {
        name: "harmful variable refused",
        check: harmful_variable,
    },
    Row {
        name: "command line beats #SBATCH",
        check: command_line_wins,
    },
    Row {
        name: "batch with --export=NONE",
        check: export_none,
    },
    Row {
        name: "step with --efa-profile=none",
        check: none_on_a_step,
    },
    Row {
        name: "het component 1 untouched",
        check: het_component,
    },
    Row {
        name: "het components of one profile",
        check: het_components_alike,
    },
    Row {
        name: "het step in an ordinary job",
        check: het_step_in_ordinary_job,
    },
    Row {
        name: "het components' hugepages",
        check: pages::of_het_components,
    },
    Row {
        name: "srun's misfit, no drain",
        check: misfit_of_srun,
    },
    Row {
        name: "sbatch's misfit, no drain",
        check: misfit_of_sbatch,
    },
    Row {
        name: "a panic in any hook survived",
        check: panics_survived,
    },
    Row {
        name: "sick node drained, job elsewhere",
        check: sick_node,
    },
    Row {
        name: "health check drains and resumes",
        check: health_check,
    },
    Row {
        name: "HyperPod's own words",
        check: hyperpods_words,
    },
    Row {
        name: "another's drain reason stays",
        check: anothers_reason,
    },
    Row {
        name: "a login needs a job",
        check: login_needs_a_job,
    },
    Row {
        name: "a login ends with the job",
        check: login_ends_with_the_job,
    },
    Row {
        name: "a GPU share in each task",
        check: gpu_shares,
    },
    Row {
        name: "bindings are the release's",
        check: bindings,
    },
    // Hugepages, locked memory, accounting.
    Row {
        name: "hugepages come and go",
        check: pages::reserved_and_given_back,
    },
    Row {
        name: "too many pages, no drain",
        check: pages::too_many_fail_only_the_job,
    },
    Row {
        name: "memlock lifted by a profile",
        check: pages::locked_memory,
    },
    Row {
        name: "what EFA moved is told",
        check: pages::told_at_the_end,
    },
    // Generated trees of files; `SLURM_EFA_CASES` says how many.
    Row {
        name: "slurm.conf as slurmctld reads it",
        check: differential::slurm_conf,
    },
    Row {
        name: "plugstack.conf as srun reads it",
        check: differential::plugstack,
    },
    Row {
        name: "gres.conf as slurmd reads it",
        check: differential::gres_conf,
    },
    Row {
        name: "gres.conf as slurmctld counts it",
        check: differential::gres_counts,
    },
];

/// Fails a row with a sentence unless the condition holds.
macro_rules! expect {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(format!($($sentence)+).into());
        }
    };
}

mod differential;
mod pages;

impl Context {
    fn srun(&self, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
        Ok(self.tb.srun("alice", arguments)?)
    }

    /// The environment of a step.
    fn step_env(&self, arguments: &[&str]) -> Result<Vars, Box<dyn Error>> {
        let output = self.srun(&[arguments, &["env"]].concat())?;
        expect!(output.success(), "srun {arguments:?}: {output}");
        Ok(Vars::of(&output.stdout))
    }

    /// Runs a batch job to its end: its state and all it printed.
    fn batch(
        &self,
        script: &str,
        arguments: &[&str],
    ) -> Result<(JobState, String), Box<dyn Error>> {
        let job = self.tb.sbatch("alice", script, arguments)?;
        let state = self.tb.wait_job(job)?;
        Ok((state, self.tb.job_output(job)?))
    }

    /// The environment that a batch script prints.
    fn batch_env(&self, script: &str, arguments: &[&str]) -> Result<Vars, Box<dyn Error>> {
        let (state, output) = self.batch(script, arguments)?;
        expect!(
            state == JobState::Completed,
            "sbatch {arguments:?}: {state:?}, {output}"
        );
        Ok(Vars::of(&output))
    }

    /// Nothing is drained, and every node runs the next job.
    fn all_nodes_serve(&self) -> Verdict {
        for node in self.tb.nodes() {
            let state = self.tb.node_state(node)?;
            expect!(!state.is_drained(), "{node} is drained: {state:?}");
            let next = self.srun(&["-w", node, "true"])?;
            expect!(next.success(), "the next job on {node}: {next}");
        }
        Ok(())
    }

    fn refused(&self, output: &Output, words: &[&str]) -> Verdict {
        expect!(!output.success(), "not refused: {output}");
        for word in words {
            expect!(output.stderr.contains(word), "{word:?} is not in: {output}");
        }
        let queued = self.tb.queue_len()?;
        expect!(queued == 0, "refused, but queued: {output}");
        Ok(())
    }
}

/// Checks variables for equality, `None` for absence.
fn expect_vars(vars: &Vars, wanted: &[(&str, Option<&str>)]) -> Verdict {
    for (name, value) in wanted {
        let seen = vars.get(name);
        expect!(
            seen == *value,
            "{name} is {seen:?}, not {value:?}; all: {:?}",
            vars.efa()
        );
    }
    Ok(())
}

fn loads(c: &Context) -> Verdict {
    for node in c.tb.nodes() {
        let log = c.tb.log(&format!("slurmd {node}"));
        let bad = log.lines().find(|line| {
            line.contains("ncompatible") || (line.contains("error") && line.contains("spank"))
        });
        expect!(bad.is_none(), "slurmd of {node} said: {bad:?}");
    }
    for client in ["srun", "sbatch", "salloc"] {
        let help = c.tb.run("alice", &[client, "--help"], &[])?;
        expect!(
            help.stdout.contains("--efa-profile="),
            "{client} --help: {help}"
        );
    }
    let list = c.srun(&["--efa-profile=list"])?;
    expect!(
        list.success() && list.stdout.contains("p5.48xlarge"),
        "{list}"
    );
    Ok(())
}

fn nothing_asked(c: &Context) -> Verdict {
    for vars in [c.step_env(&[])?, c.batch_env("#!/bin/bash\nenv\n", &[])?] {
        expect!(vars.efa().is_empty(), "{:?}", vars.efa());
    }
    Ok(())
}

fn modern_p5(c: &Context) -> Verdict {
    let step = c.srun(&["-wn1", "--efa-profile=p5", "--efa-explain", "env"])?;
    let wanted = [
        ("SLURM_EFA_PROFILE", Some("p5")),
        ("SLURM_EFA_INSTANCE_TYPE", Some("p5.48xlarge")),
        ("SLURM_EFA_DEVICES", Some("32")),
        ("NCCL_PROTO", None),
        ("NCCL_ALGO", None),
        ("NCCL_BUFFSIZE", None),
        ("FI_EFA_FORK_SAFE", None),
    ];
    expect_vars(&Vars::of(&step.stdout), &wanted)?;
    expect!(
        step.stderr.contains("efa: n1: profile p5"),
        "not explained: {step}"
    );
    expect_vars(
        &c.batch_env("#!/bin/bash\n#SBATCH --efa-profile=p5\nenv\n", &["-wn1"])?,
        &wanted,
    )
}

fn old_p4d(c: &Context) -> Verdict {
    let step = c.srun(&["-wn2", "--efa-profile=p4d", "--efa-explain=all", "env"])?;
    expect_vars(
        &Vars::of(&step.stdout),
        &[
            ("SLURM_EFA_DEVICES", Some("4")),
            ("FI_PROVIDER", Some("efa")),
            ("FI_EFA_USE_DEVICE_RDMA", Some("1")),
            ("FI_EFA_FORK_SAFE", Some("1")),
            ("NCCL_PROTO", Some("simple")),
            ("NCCL_BUFFSIZE", Some("8388608")),
        ],
    )?;
    expect!(
        step.stderr.contains("efa: n2: set NCCL_PROTO=simple"),
        "not explained: {step}"
    );
    Ok(())
}

fn users_value(c: &Context) -> Verdict {
    let step =
        c.tb.command("alice", &["srun", "-wn2", "--efa-profile=p4d", "env"])
            .env("NCCL_BUFFSIZE", "1")
            .output()?;
    expect_vars(&Vars::of(&step.stdout), &[("NCCL_BUFFSIZE", Some("1"))])
}

fn auto_over_two_types(c: &Context) -> Verdict {
    let script = "echo $SLURMD_NODENAME $SLURM_EFA_INSTANCE_TYPE";
    let step = c.srun(&["-wn1,n2", "--efa-profile=auto", "sh", "-c", script])?;
    for line in ["n1 p5.48xlarge\n", "n2 p4d.24xlarge\n"] {
        expect!(step.stdout.contains(line), "{line:?} is not in: {step}");
    }
    Ok(())
}

fn unknown_name(c: &Context) -> Verdict {
    let words = ["p55", "did you mean \"p5\""];
    c.refused(&c.srun(&["--efa-profile=p55", "true"])?, &words)?;
    let script = "#!/bin/bash\n#SBATCH --efa-profile=p55\n";
    c.refused(&c.tb.try_sbatch::<&str>("alice", script, &[])?, &words)
}

fn harmful_variable(c: &Context) -> Verdict {
    for client in [&["srun", "true"][..], &["sbatch", "--wrap=true"]] {
        let output =
            c.tb.command("alice", &client[..1])
                .arg("--efa-profile=p5")
                .args(&client[1..])
                .env("FI_EFA_MTU_SIZE", "")
                .output()?;
        c.refused(&output, &["unset FI_EFA_MTU_SIZE"])?;
    }
    Ok(())
}

fn command_line_wins(c: &Context) -> Verdict {
    let script = "#!/bin/bash\n#SBATCH --efa-profile=g5\nenv\n";
    let job =
        c.tb.command(
            "alice",
            &["sbatch", "-wn1", "--parsable", "--efa-profile=p5.48xlarge"],
        )
        .env("SBATCH_EFA_PROFILE", "p4d")
        .stdin(script)
        .success()?;
    let job = crate::testbed::JobId(job.stdout.trim().parse()?);
    c.tb.wait_job(job)?;
    let vars = Vars::of(&c.tb.job_output(job)?);
    expect_vars(&vars, &[("SLURM_EFA_PROFILE", Some("p5.48xlarge"))])
}

fn export_none(c: &Context) -> Verdict {
    // Without the user's PATH, too.
    let script = "#!/bin/bash\nenv\necho ---\nsrun /usr/bin/env\n";
    let (_, output) = c.batch(script, &["-wn1", "--export=NONE", "--efa-profile=p5"])?;
    let environments: Vec<Vars> = output.split("---\n").map(Vars::of).collect();
    expect!(environments.len() == 2, "{output}");
    for (environment, whose) in environments.iter().zip(["script", "step"]) {
        expect_vars(environment, &[("SLURM_EFA_PROFILE", Some("p5"))])
            .map_err(|error| format!("the {whose}'s {error}\n{output}"))?;
    }
    Ok(())
}

fn none_on_a_step(c: &Context) -> Verdict {
    let script = "#!/bin/bash\nsrun --efa-profile=none env\n";
    let vars = c.batch_env(script, &["-wn2", "--efa-profile=p4d"])?;
    expect!(
        vars.matching(|name| name.starts_with("NCCL_")).is_empty(),
        "{:?}",
        vars.efa()
    );
    expect_vars(&vars, &[("SLURM_EFA_PROFILE", None)])?;
    let script = "#!/bin/bash\nsrun env\n";
    let vars = c.batch_env(script, &["-wn2", "--efa-profile=p4d"])?;
    expect_vars(&vars, &[("SLURM_EFA_PROFILE", Some("p4d"))])
}

/// What the tasks of heterogeneous jobs and steps say, without what EFA moved.
fn lines(text: &str) -> Vec<&str> {
    let said = text.lines().filter(|line| !line.starts_with("efa: "));
    let mut lines: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

const REPORT: &str = "echo $SLURMD_NODENAME:$SLURM_EFA_PROFILE:$NCCL_SOCKET_IFNAME";
const P5_ON_N1: &str = "n1:p5:^docker,lo,veth";

fn het_component(c: &Context) -> Verdict {
    let wanted = [P5_ON_N1, "n2::"];
    let step = [
        "-wn1",
        "--efa-profile=p5",
        "sh",
        "-c",
        REPORT,
        ":",
        "-wn2",
        "sh",
        "-c",
        REPORT,
    ];
    let step = c.srun(&step)?;
    expect!(lines(&step.stdout) == wanted, "srun: {step}");
    let script = format!("#!/bin/bash\nsrun --het-group=0,1 sh -c '{REPORT}'\n");
    let (_, output) = c.batch(&script, &["-wn1", "--efa-profile=p5", ":", "-wn2"])?;
    expect!(lines(&output) == wanted, "sbatch: {output}");
    Ok(())
}

/// A component's own option counts where it equals that of the one before, and
/// what Slurm replays does not.
fn het_components_alike(c: &Context) -> Verdict {
    const AUTO: &str = "--efa-profile=auto";
    let on_n2 = "n2:p4d:^docker,lo,veth";
    let both = [P5_ON_N1, on_n2];
    let inside = ["srun", "--het-group=0,1", "sh", "-c", REPORT];
    let asking = ["srun", "--het-group=0,1", AUTO, "sh", "-c", REPORT];
    for (salloc, srun, wanted) in [
        (&["-wn1", AUTO, ":", "-wn2", AUTO][..], &inside[..], both),
        (&["-wn1", AUTO, ":", "-wn2"], &inside, [P5_ON_N1, "n2::"]),
        (&["-wn1", ":", "-wn2", AUTO], &inside, ["n1::", on_n2]),
        (&["-wn1", ":", "-wn2"], &asking, both),
    ] {
        let argv = [&["salloc", "-Q"], salloc, srun].concat();
        let output = c.tb.run("alice", &argv, &[])?;
        expect!(lines(&output.stdout) == wanted, "{argv:?}: {output}");
    }
    let step = [
        "-wn1", AUTO, "sh", "-c", REPORT, ":", "-wn2", AUTO, "sh", "-c", REPORT,
    ];
    let step = c.srun(&step)?;
    expect!(lines(&step.stdout) == both, "srun: {step}");
    for (second, warned) in [(AUTO, true), ("", false)] {
        let script = format!(
            "#!/bin/bash\n#SBATCH -wn1 {AUTO}\n#SBATCH hetjob\n#SBATCH -wn2 {second}\n\
             srun --het-group=0,1 {AUTO} sh -c '{REPORT}'\n"
        );
        let sbatch = c.tb.command("alice", &["sbatch", "--wait", "-o", "out"]);
        let sbatch = sbatch.stdin(script.clone()).output()?;
        let hint = format!("srun --het-group=1 {AUTO}");
        expect!(sbatch.stderr.contains(&hint) == warned, "{script}{sbatch}");
        let (_, output) = c.batch(&script, &[])?;
        expect!(lines(&output) == both, "{script}{output}");
    }
    Ok(())
}

/// All components have the same job id there.
fn het_step_in_ordinary_job(c: &Context) -> Verdict {
    let later = "n2:p4d:^docker,lo,veth";
    let (auto, none) = ("--efa-profile=auto", "--efa-profile=none");
    for (first, wanted) in [(auto, [P5_ON_N1, later]), (none, ["n1::", later])] {
        let argv = [
            "salloc", "-Q", "-wn1,n2", "srun", "-wn1", first, "sh", "-c", REPORT, ":", "-wn2",
            auto, "sh", "-c", REPORT,
        ];
        let output = c.tb.run("alice", &argv, &[])?;
        expect!(lines(&output.stdout) == wanted, "{argv:?}: {output}");
    }
    Ok(())
}

fn misfit_of_srun(c: &Context) -> Verdict {
    let step = c.srun(&["-wn3", "--efa-profile=p5", "echo", "the task ran"])?;
    expect!(!step.success() && step.stdout.is_empty(), "{step}");
    let sentence = "efa: error: --efa-profile=p5 is for p5 instances, but n3 is a g5.8xlarge";
    expect!(
        step.stderr.contains(sentence),
        "{sentence:?} is not in: {step}"
    );
    c.all_nodes_serve()
}

fn misfit_of_sbatch(c: &Context) -> Verdict {
    let (state, output) = c.batch(
        "#!/bin/bash\necho the task ran\n",
        &["-wn3", "--efa-profile=p5"],
    )?;
    expect!(state == JobState::Failed, "{state:?}: {output}");
    let sentence = "efa: error: --efa-profile=p5 is for p5 instances, but n3 is a g5.8xlarge";
    expect!(
        output.contains(sentence),
        "{sentence:?} is not in: {output}"
    );
    expect!(!output.contains("the task ran"), "{output}");
    c.all_nodes_serve()
}

fn panics_survived(c: &Context) -> Verdict {
    let tb = cluster(&c.release, &NODES[..1], &c.plugin)
        .bind(&c.injected)
        .bind(modules::reader_beside(&c.injected))
        .start()?;
    for forced in panics::HOOKS {
        panics::survived(&tb, forced, &c.plugin, &c.injected)?;
    }
    Ok(())
}

/// A cluster of p4d that efa-check, as it is shipped, looks after; what their
/// healthy nodes have is recorded.
fn guarded(
    c: &Context,
    nodes: usize,
    health: &str,
    slurm_conf: &str,
) -> Result<Testbed, Box<dyn Error>> {
    let program = modules::shipped_file("efa-check");
    let bare = efa_cluster::bare(&vec!["p4d.24xlarge"; nodes]).root(&c.release.root);
    let bare = bare.bind(&program);
    let tb = health::guarded(bare, &program, health, slurm_conf).start()?;
    for node in tb.nodes() {
        expect_exit(&tb, node, "baseline", 0)?;
    }
    Ok(tb)
}

fn expect_exit(tb: &Testbed, node: &str, command: &str, code: i32) -> Verdict {
    let program = modules::shipped_file("efa-check");
    let said = health::check(tb, &program, node, command)?;
    expect!(said.code() == code, "efa-check {command} on {node}: {said}");
    Ok(())
}

/// The next batch job runs on that node, to its good end.
fn job_runs_on(tb: &Testbed, node: &str) -> Verdict {
    let (state, place) = health::run_job(tb)?;
    expect!(
        state == JobState::Completed && place.trim() == node,
        "the job is {state:?} on {place}"
    );
    Ok(())
}

const ADAPTER: &str = "rdmap160s27";

fn sick_node(c: &Context) -> Verdict {
    let tb = guarded(c, 2, "", health::PROLOG)?;
    health::break_adapter(&tb, "n1", ADAPTER)?;
    job_runs_on(&tb, "n2")?;
    let reason = health::drained_by_us(&tb, "n1")?;
    let wanted = "EFA: 3/4 devices, rdmap160s27 gone (pci 0000:a0:1b.0)";
    expect!(reason.starts_with(wanted), "the reason is {reason}");
    let took = health::prolog_took(&tb, "n1");
    expect!(took.len() == 1, "n1 did not get the job first: {took:?}");
    // Slurm's own words come by another way and do not replace it.
    health::wait_for_speakers(&tb)?;
    job_runs_on(&tb, "n2")?;
    let still = health::drained_by_us(&tb, "n1")?;
    expect!(still.starts_with(wanted), "the reason became {still}");
    Ok(())
}

fn health_check(c: &Context) -> Verdict {
    let health = "resume = true\nresume_after = 2";
    let tb = guarded(c, 2, health, health::HEALTHCHECK)?;
    let broken = health::break_adapter(&tb, "n1", ADAPTER)?;
    health::drained_by_us(&tb, "n1")?;
    job_runs_on(&tb, "n2")?;
    broken.repair()?;
    health::wait_node(&tb, "n1", "the resume", |_, drained| !drained)?;
    let other = tb.node_state("n2")?;
    expect!(!other.is_drained(), "n2 is drained: {other:?}");
    Ok(())
}

fn hyperpods_words(c: &Context) -> Verdict {
    let said = |reason: &str, _: bool| reason.split(" [").next() == Some("Action:Replace");
    let tb = guarded(c, 2, "on_fatal = \"hyperpod-replace\"", health::PROLOG)?;
    health::break_adapter(&tb, "n1", ADAPTER)?;
    job_runs_on(&tb, "n2")?;
    health::wait_node(&tb, "n1", "HyperPod's words", said)?;
    health::wait_for_speakers(&tb)?;
    // Neither Slurm's own drain nor our next round takes them back.
    expect_exit(&tb, "n1", "healthcheck", 2)?;
    health::wait_for_speakers(&tb)?;
    let state = tb.node_state("n1")?;
    expect!(
        said(&state.reason, true) && state.state.contains("FAIL"),
        "{state:?}"
    );
    Ok(())
}

fn anothers_reason(c: &Context) -> Verdict {
    let tb = guarded(c, 1, "resume = true\nresume_after = 1", "")?;
    let drain = [
        "update",
        "NodeName=n1",
        "State=DRAIN",
        "Reason=disk is full",
    ];
    tb.scontrol(&drain)?;
    let broken = health::break_adapter(&tb, "n1", ADAPTER)?;
    for code in [2, 0] {
        expect_exit(&tb, "n1", "healthcheck", code)?;
        health::wait_for_speakers(&tb)?;
        let state = tb.node_state("n1")?;
        expect!(
            state.is_drained() && state.reason.starts_with("disk is full"),
            "{state:?}"
        );
        if code == 2 {
            broken.repair()?;
        }
    }
    Ok(())
}

/// gres/shard came with 22.05; before, the plugin only must not be in the way.
fn gpu_shares(c: &Context) -> Verdict {
    let site = gres::Site {
        helper: modules::shipped_file("gres-helper"),
        plugin: modules::shipped_file("spank_gres.so"),
        root: Some(c.release.root.clone()),
    };
    if !c.tb.release().at_least(22, 5) {
        let tb = cluster(&c.release, &NODES[..1], &site.plugin).start()?;
        let seen = tb.srun("alice", &["true"])?;
        expect!(seen.success(), "{seen}");
        return Ok(());
    }
    let toml = "tier = \"cgroup\"\nrequire_fence = true\n";
    let tb = gres::cluster_of(site, "H100x4", toml, &[]).start()?;
    let show = "echo $SLURM_SHARDS_ON_NODE $SLURM_GPU_SHARE_MIB";
    for (user, shards) in [("alice", 3), ("bob", 2), ("carol", 1)] {
        let gres = format!("--gres=shard:{shards}");
        let seen = tb.srun(user, &[&gres, "-n2", "bash", "-c", show])?;
        let wanted = format!("{shards} {}\n", shards * 10_240).repeat(2);
        expect!(seen.stdout == wanted, "{seen}\n{}", tb.log("slurmd n1"));
    }
    let said = gres::helper(&tb, &["verify"]);
    expect!(said.code() == 0, "{said}");
    let limits = gres::nvml(&tb).read()?.gpus[0].limits.len();
    expect!(limits == 3, "{limits} cgroups were limited, not 3");
    expect!(!tb.node_state("n1")?.is_drained(), "n1 is drained");
    Ok(())
}

/// The bindings in the tree against that release's own header.
fn bindings(c: &Context) -> Verdict {
    let headers = c.release.root.join("usr/include");
    let output = xtask(&["bindings", "--check", "--headers"])
        .arg(&headers)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    expect!(output.status.success(), "{}: {said}", headers.display());
    Ok(())
}

/// A login by su, as root, to alice's account; the roots have no sshd.
const LOGIN: [&str; 6] = [
    "su",
    "-s",
    "/bin/sh",
    "alice",
    "-c",
    "echo in; exec sleep 4711",
];

impl Context {
    /// Puts the PAM module into su's stack, once.
    fn install_logins(&self) -> Verdict {
        let dir = self.tb.dir();
        let here = dir.display();
        if dir.join("pam.d").exists() {
            return Ok(());
        }
        let config = format!(
            "[logout]\ngrace = \"0\"\nnode_name = \"n1\"\nspool_dir = \"{here}/spool/n1\"\n"
        );
        fs::write(dir.join("logout.toml"), config)?;
        let module = modules::shipped_file("pam_slurm_logout.so");
        let module = format!("{} config={here}/logout.toml", module.display());
        let stack = format!(
            "auth sufficient pam_rootok.so\naccount required {module}\n\
             session required pam_loginuid.so\nsession required {module}\n"
        );
        fs::create_dir(dir.join("pam.d"))?;
        fs::write(dir.join("pam.d/su"), stack)?;
        let mount = ["mount", "--bind", &format!("{here}/pam.d"), "/etc/pam.d"];
        self.tb.command("root", &mount).success()?;
        Ok(())
    }
}

/// A job of alice's on n1 whose script runs; it ends with this value.
struct Held<'c> {
    tb: &'c Testbed,
    job: JobId,
}

impl<'c> Held<'c> {
    /// A job that slurmctld calls running may not have reached its node yet: a
    /// login then comes too early, and a cancellation crosses the launch.
    fn start(tb: &'c Testbed) -> Result<Self, Box<dyn Error>> {
        let script = "#!/bin/bash\necho it runs\nexec sleep 600\n";
        let job = tb.sbatch("alice", script, &["-wn1"])?;
        let held = Self { tb, job };
        tb.wait_until("the job's script to run", LIMIT, || {
            let printed = tb.job_output(job).unwrap_or_default();
            Ok(if printed.contains("it runs") {
                Progress::Done(())
            } else {
                Progress::Waiting(format!("{:?}", tb.job(job)?.state()))
            })
        })?;
        Ok(held)
    }

    fn end(&self) -> Verdict {
        self.tb.scancel(self.job)?;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A row that fails half-way must not take the rows after it with it.
        let _ = self.tb.scancel(self.job);
    }
}

fn login_needs_a_job(context: &Context) -> Verdict {
    context.install_logins()?;
    let refused = context.tb.command("root", &LOGIN).output()?;
    expect!(
        !refused.success() && refused.to_string().contains("Access to n1 is refused"),
        "without a job: {refused}"
    );
    let held = Held::start(&context.tb)?;
    let id = ["su", "-s", "/bin/sh", "alice", "-c", "echo $SLURM_JOB_ID"];
    let admitted = context.tb.command("root", &id).output()?;
    expect!(
        admitted.success() && admitted.stdout.trim() == held.job.to_string(),
        "with a job: {admitted}"
    );
    Ok(())
}

fn login_ends_with_the_job(context: &Context) -> Verdict {
    context.install_logins()?;
    let tb = &context.tb;
    let daemon = modules::shipped_file("slurm-logoutd");
    let config = tb.dir().join("logout.toml");
    let mut daemon = tb
        .command("root", &[daemon])
        .arg("--config")
        .arg(&config)
        .spawn()?;
    let held = Held::start(tb)?;
    let mut login = tb.command("root", &LOGIN).spawn()?;
    let status = modules::shipped_file("slurm-logout");
    let mut ended_early = false;
    let seen = tb.wait_until("the login to be seen by a daemon", LIMIT, || {
        let command = tb
            .command("root", &[&status])
            .args(&["status", "--json", "--config"]);
        let said = command.arg(&config).output()?;
        let both =
            said.stdout.contains("\"daemon\": true") && said.stdout.contains("\"user\": \"alice\"");
        ended_early = login.ended()? || daemon.ended()?;
        Ok(if both || ended_early {
            Progress::Done(said)
        } else {
            Progress::Waiting(said.to_string())
        })
    })?;
    if ended_early {
        return Err(format!(
            "the login or the daemon ended before the job\nthe login: {}\nthe daemon: {}\n{seen}\n{}",
            login.stop()?,
            daemon.stop()?,
            tb.log("slurmd n1")
        )
        .into());
    }
    held.end()?;
    tb.wait_until("the login to end", LIMIT, || {
        Ok(if login.ended()? {
            Progress::Done(())
        } else {
            Progress::Waiting(String::new())
        })
    })?;
    expect!(!daemon.ended()?, "the daemon ended");
    Ok(())
}
