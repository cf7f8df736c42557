//! The sections of the demo.

use crate::stage::{Outcome, Stage, expect, expect_lines, expect_unset};
use cdylib_tests::health;
use cdylib_tests::logins::{Logins, Site};
use cdylib_tests::testbed::JobState;

/// What other recipes export and a modern stack is better without.
const POINTLESS: [&str; 4] = [
    "NCCL_PROTO",
    "NCCL_ALGO",
    "NCCL_BUFFSIZE",
    "FI_EFA_FORK_SAFE",
];

/// Prints the part of a task's environment that is of interest.
const SHOW_ENV: &str = r#"env | grep -E "^(SLURM_EFA_|NCCL_|FI_)" | sort"#;

pub fn a_batch_job(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "A batch job on two p5.48xlarge",
        "One #SBATCH line; no export lines.",
    );
    let script = format!(
        "#!/bin/bash\n\
         #SBATCH --nodes=2 --constraint=p5\n\
         #SBATCH --efa-profile=p5\n\
         srun --label bash -c '{SHOW_ENV}' | sort\n"
    );
    stage.write("job.sh", &script)?;
    let shown = stage.run("cat job.sh")?;
    expect(shown.stdout == script, "the script")?;
    let job = stage.submit("sbatch job.sh")?;
    let seen = stage.run(&format!("cat slurm-{job}.out"))?.stdout;
    expect(
        stage.testbed.job(job)?.state() == JobState::Completed,
        "a job that completed",
    )?;
    for task in ["0", "1"] {
        expect_lines(
            &seen,
            &[
                &format!("{task}: SLURM_EFA_PROFILE=p5"),
                &format!("{task}: SLURM_EFA_INSTANCE_TYPE=p5.48xlarge"),
                &format!("{task}: SLURM_EFA_DEVICES=32"),
                &format!("{task}: NCCL_SOCKET_IFNAME=^docker,lo,veth"),
            ],
        )?;
    }
    expect_unset(&seen, &POINTLESS)?;
    stage.say(
        "The steps inside the job inherited its profile, on both nodes. NCCL_PROTO, NCCL_ALGO,\n\
         NCCL_BUFFSIZE and FI_EFA_FORK_SAFE, which old recipes export, are not set: this stack has\n\
         no need of them, as the next section shows. SLURM_EFA_SET and SLURM_EFA_REQUESTS are how a\n\
         nested step tells our values from yours, and its own request from another's.",
    );
    Ok(())
}

pub fn why(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "Why: --efa-explain",
        "What was found on the node, with the evidence, and a reason for every variable. A value of\n\
         your own is never overwritten.",
    );
    let seen = stage
        .run("NCCL_SOCKET_IFNAME=ens32 srun --constraint=p5 --efa-profile=auto --efa-explain printenv NCCL_SOCKET_IFNAME")?
        .stdout;
    expect_lines(&seen, &["ens32"])?;
    expect(
        seen.contains("left alone NCCL_SOCKET_IFNAME=ens32: it is the job's own"),
        "the user's own NCCL_SOCKET_IFNAME, and that it was left alone",
    )?;
    for variable in ["NCCL_PROTO", "NCCL_BUFFSIZE", "FI_EFA_FORK_SAFE"] {
        let line = format!("left alone {variable}: not needed: ");
        expect(
            seen.contains(&line),
            &format!("that {variable} is not needed"),
        )?;
    }
    for version in [
        "aws-ofi-nccl 1.16.2",
        "NCCL 2.27.3",
        "libfabric 2.1.0",
        "EFA driver 2.17.2",
    ] {
        expect(seen.contains(version), version)?;
    }
    Ok(())
}

pub fn an_old_stack(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "The same on a p4d.24xlarge with a stack of early 2023",
        "The installed versions decide, not a fixed list: this stack needs what the other does not.",
    );
    let seen = stage
        .run(&format!(
            "srun --constraint=p4d --efa-profile=p4d --efa-explain bash -c '{SHOW_ENV}'"
        ))?
        .stdout;
    expect_lines(
        &seen,
        &[
            "SLURM_EFA_PROFILE=p4d",
            "SLURM_EFA_INSTANCE_TYPE=p4d.24xlarge",
            "SLURM_EFA_DEVICES=4",
            "FI_PROVIDER=efa",
            "FI_EFA_USE_DEVICE_RDMA=1",
        ],
    )?;
    expect(seen.contains("aws-ofi-nccl 1.5.0"), "aws-ofi-nccl 1.5.0")
}

pub fn the_names(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "Which names there are",
        "Families, full types (also as HyperPod writes them, ml.p5.48xlarge), auto, none, and the\n\
         site's own profiles.",
    );
    let queued = next_job(stage)?;
    let seen = stage.run("srun --efa-profile=list | head -n 14")?.stdout;
    for name in ["auto", "none", "p4d"] {
        expect(
            seen.lines()
                .any(|line| line.split_whitespace().next() == Some(name)),
            name,
        )?;
    }
    expect(next_job(stage)? == queued, "that nothing was submitted")
}

pub fn refusals(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "Refused at submission, before anything is queued",
        "A name that does not exist:",
    );
    let queued = next_job(stage)?;
    let seen = stage.run("sbatch --efa-profile=p55 job.sh")?;
    expect(!seen.success(), "a refusal")?;
    expect(
        seen.stdout.contains("there is no profile \"p55\"") && seen.stdout.contains("\"p5\""),
        "the nearest name, p5",
    )?;
    stage.say("A variable that makes libfabric call abort():");
    let seen = stage.run("FI_EFA_MTU_SIZE=8900 sbatch job.sh")?;
    expect(!seen.success(), "a refusal")?;
    expect(
        seen.stdout.contains("FI_EFA_MTU_SIZE=8900") && seen.stdout.contains("unset"),
        "the variable and what to do about it",
    )?;
    stage.say("Nothing was queued:");
    let queue = stage.run("squeue --noheader | wc -l")?.stdout;
    expect(queue.trim() == "0", "an empty queue")?;
    expect(next_job(stage)? == queued, "that no job id was used up")
}

pub fn a_wrong_node(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "A p5 profile on a g5.8xlarge",
        "The job fails with a sentence in its own output. The node stays in service.",
    );
    let job =
        stage.submit("sbatch --constraint=g5 --efa-profile=p5 --wrap 'echo this never runs'")?;
    let seen = stage.run(&format!("cat slurm-{job}.out"))?.stdout;
    expect(
        seen.contains("efa: error:") && seen.contains("p5") && seen.contains("g5.8xlarge"),
        "the reason, with both types",
    )?;
    expect(
        !seen.contains("this never runs"),
        "that the script did not run",
    )?;
    let state = stage
        .run(&format!(
            "scontrol --oneliner show job {job} | grep -oE '(JobState|ExitCode)=[^ ]+'"
        ))?
        .stdout;
    expect_lines(&state, &["JobState=FAILED"])?;
    stage.testbed.wait_idle()?;
    let nodes = stage.run("sinfo --Node --format='%N %t %E'")?.stdout;
    for node in stage.testbed.nodes() {
        expect_lines(&nodes, &[&format!("{node} idle none")])?;
    }
    stage.say("The next job runs there:");
    let next = stage
        .run("srun --constraint=g5 --efa-profile=auto printenv SLURM_EFA_INSTANCE_TYPE")?
        .stdout;
    expect_lines(&next, &["g5.8xlarge"])
}

pub fn a_broken_adapter(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "An adapter breaks, and no job gets that node",
        "efa-check is this Slurm's HealthCheckProgram, every two seconds. What a healthy node\n\
         has, it was told once:",
    );
    let check = "--node-name n1 --config $PWD/slurm-efa.toml";
    let seen = stage.administer(&format!("./efa-check baseline {check}"))?;
    expect(
        seen.stdout.contains("32 EFA devices of a p5.48xlarge"),
        "32 recorded devices",
    )?;
    stage.say("One of the 32 adapters of n1 leaves the bus:");
    let link = "sysroots/n1/sys/class/infiniband/rdmap182s0";
    let moved = stage.administer(&format!("mv {link} adapter"))?;
    expect(moved.success(), "an adapter that was there")?;
    health::drained_by_us(stage.testbed, "n1")?;
    let reasons = stage.run("sinfo --list-reasons --format='%N %E'")?.stdout;
    expect(
        reasons.contains("n1 EFA: 31/32 devices, rdmap182s0 gone")
            && reasons.contains("(pci 0000:b6:00.0)"),
        "the reason, with the adapter and its place",
    )?;
    stage.say("The next job for a p5 runs on the other one:");
    let next = stage
        .run("srun --constraint=p5 --efa-profile=p5 printenv SLURMD_NODENAME")?
        .stdout;
    expect_lines(&next, &["n2"])?;
    stage.say(
        "The adapter is back; after one healthy round so is the node, as resume = true and\n\
         resume_after = 1 ask:",
    );
    let moved = stage.administer(&format!("mv adapter {link}"))?;
    expect(moved.success(), "the adapter in its place")?;
    let back = |_: &str, drained: bool| !drained;
    health::wait_node(stage.testbed, "n1", "the node's return", back)?;
    stage.testbed.wait_idle()?;
    let nodes = stage.run("sinfo --Node --nodes=n1 --format='%N %t %E'")?;
    expect_lines(&nodes.stdout, &["n1 idle none"])
}

/// The id that the next job will get.
fn next_job(stage: &Stage<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let config = stage.testbed.scontrol(&["show", "config"])?.stdout;
    let line = config.lines().find(|line| line.starts_with("NEXT_JOB_ID"));
    Ok(line.ok_or("scontrol shows no NEXT_JOB_ID")?.to_owned())
}

pub fn a_login(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "A login to a compute node",
        "A real sshd with pam_slurm_logout.so on n1, and slurm-logoutd with a grace of 2 s.",
    );
    let logins = Logins::start(stage.testbed, &Site::with("grace = \"2s\""))?;
    let _daemon = logins.daemon()?;
    let refused = logins.ssh("alice", &["true"]).output()?;
    stage.show("ssh n1", &refused);
    expect(!refused.success(), "a refusal")?;
    expect(
        refused
            .stderr
            .contains("Access to n1 is refused: you have no job"),
        "the reason for it, at the client",
    )?;
    stage.say("With a job on the node, the same user is let in, and sees which job it is:");
    let script = "#!/bin/bash\nsleep 600\n";
    let job = logins.job_with("alice", script, &["-wn1"])?;
    let who = logins
        .ssh("alice", &["echo", "job", "$SLURM_JOB_ID"])
        .output()?;
    stage.show("ssh n1 'echo job $SLURM_JOB_ID'", &who);
    expect_lines(&who.stdout, &[&format!("job {job}")])?;
    stage.say("A shell is left open, and a server in the background, as an editor starts one:");
    let leave = "setsid sleep 4712 </dev/null >/dev/null 2>&1 &";
    logins.ssh("alice", &[leave]).output()?;
    let shell = logins.ssh_with("alice", &["-tt"], &[]).spawn()?;
    logins.wait_process("alice", "-bash")?;
    let status = logins.command(&["status"]).output()?;
    stage.show("slurm-logout status", &status);
    expect(
        status.stdout.contains(&format!("job {job}; stays")),
        "sessions that stay",
    )?;
    stage.say(&format!(
        "The job ends (scancel {job}). This is what the open shell shows:"
    ));
    stage.testbed.scancel(job)?;
    let shell = shell.wait()?;
    stage.show("ssh n1", &shell);
    expect(
        shell
            .stdout
            .contains("your last job on n1 has ended, so this login ends in 2 s"),
        "the word before the end",
    )?;
    logins.wait("nothing of alice's to be left", || {
        Ok(logins.processes("alice")?.trim().is_empty())
    })?;
    stage.say(
        "The shell is gone, and so is the server in the background. Nothing of alice is left.",
    );
    Ok(())
}
