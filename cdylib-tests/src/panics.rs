//! A panic forced in each hook of the plugin, and what has to become of it.
//!
//! Used by the tests on the machine's own Slurm and by the matrix, so that
//! every release is held to the same.

use std::error::Error;
use std::fs;
use std::path::Path;

use crate::efa_cluster::{self, Vars};
use crate::testbed::{JobState, Testbed};

/// What a panic does to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Runs,
    /// It is not accepted; nothing is queued.
    Refused,
    /// It starts and fails without its tasks having run.
    Fails,
}

/// A hook that the injected build can panic in.
#[derive(Debug, Clone, Copy)]
pub struct Forced {
    /// The word behind `panic=`.
    pub hook: &'static str,
    /// What becomes of a job that asks for a profile, as
    /// `spank::Hook::verdict_on_panic` documents it for a `required` plugin.
    pub fate: Fate,
}

/// Every hook of the plugin, in the order in which a job meets them.
pub const HOOKS: [Forced; 8] = [
    Forced {
        hook: "init",
        fate: Fate::Runs,
    },
    Forced {
        hook: "option",
        fate: Fate::Refused,
    },
    Forced {
        hook: "init_post_opt",
        fate: Fate::Refused,
    },
    Forced {
        hook: "init_post_opt_remote",
        fate: Fate::Runs,
    },
    Forced {
        hook: "user_init",
        fate: Fate::Runs,
    },
    Forced {
        hook: "task_init_privileged",
        fate: Fate::Fails,
    },
    Forced {
        hook: "task_init",
        fate: Fate::Fails,
    },
    Forced {
        hook: "task_exit",
        fate: Fate::Runs,
    },
];

/// Replaces plugstack.conf, as an administrator does, and restarts slurmd on
/// every node. `{dir}` is the testbed's directory.
///
/// # Errors
/// When the file cannot be written or a slurmd does not come back.
pub fn install(tb: &Testbed, plugstack: &str) -> Result<(), Box<dyn Error>> {
    let text = plugstack.replace("{dir}", &tb.dir().to_string_lossy());
    fs::write(tb.dir().join("plugstack.conf"), text + "\n")?;
    for node in tb.nodes() {
        tb.restart_slurmd(node)?;
    }
    tb.wait_idle()?;
    Ok(())
}

/// Forces the panic in a `required` plugin under srun and sbatch, then checks
/// that everything lives: no node drained, and with the plugin `good` the next
/// step and batch job have their profile. The testbed's first node is a p5.
///
/// # Errors
/// What was not as it should be.
pub fn survived(
    tb: &Testbed,
    forced: Forced,
    good: &Path,
    injected: &Path,
) -> Result<(), Box<dyn Error>> {
    let Forced { hook, fate } = forced;
    let line = efa_cluster::plugstack_line("required", injected);
    install(tb, &format!("{line} panic={hook}"))?;
    let (step, step_said) = step(tb)?;
    let (batch, batch_said) = batch(tb)?;
    for (kind, seen, said) in [("srun", step, &step_said), ("sbatch", batch, &batch_said)] {
        if seen != fate {
            return Err(format!(
                "a panic in {hook}: a job of {kind} should have {fate:?}, it has {seen:?}: {said}"
            )
            .into());
        }
    }
    let logs: String = tb
        .nodes()
        .iter()
        .map(|n| tb.log(&format!("slurmd {n}")))
        .collect();
    if ![&step_said, &batch_said, &logs]
        .iter()
        .any(|text| text.contains(&format!("injected panic in {hook} at ")))
    {
        return Err(format!("a panic in {hook} was logged nowhere: {step_said}").into());
    }
    if matches!(fate, Fate::Refused) && tb.queue_len()? != 0 {
        return Err(format!("a panic in {hook} left a job in the queue").into());
    }
    tb.wait_idle()?;

    install(tb, &efa_cluster::plugstack_line("required", good))?;
    let (step, said) = self::step(tb)?;
    let profile = Vars::of(&said).get("SLURM_EFA_PROFILE").map(str::to_owned);
    if step != Fate::Runs || profile.as_deref() != Some("p5") {
        return Err(format!("after a panic in {hook} the next step is not served: {said}").into());
    }
    let (batch, said) = self::batch(tb)?;
    if batch != Fate::Runs {
        return Err(format!("after a panic in {hook} the next batch job fails: {said}").into());
    }
    Ok(())
}

/// Runs a step that asks for a profile; what became of it, and all it said.
///
/// # Errors
/// When srun hangs.
pub fn step(tb: &Testbed) -> Result<(Fate, String), Box<dyn Error>> {
    let before = last_job(tb)?;
    let output = tb.srun("alice", &["-wn1", "--efa-profile=p5", "env"])?;
    let fate = match (output.success(), output.stdout.is_empty()) {
        (true, false) => Fate::Runs,
        (false, true) if last_job(tb)? == before => Fate::Refused,
        (false, true) => Fate::Fails,
        _ => return Err(format!("neither run nor failed: {output}").into()),
    };
    Ok((fate, output.to_string()))
}

/// Submits a batch job that asks for a profile and waits for its end.
///
/// # Errors
/// When sbatch hangs, or the job never ends.
pub fn batch(tb: &Testbed) -> Result<(Fate, String), Box<dyn Error>> {
    let submitted = tb.try_sbatch(
        "alice",
        "#!/bin/bash\necho the script ran\n",
        &["-wn1", "--efa-profile=p5", "--parsable"],
    )?;
    let Some(id) = submitted
        .stdout
        .trim()
        .parse()
        .ok()
        .map(crate::testbed::JobId)
    else {
        return match submitted.success() {
            false => Ok((Fate::Refused, submitted.to_string())),
            true => Err(format!("sbatch names no job: {submitted}").into()),
        };
    };
    let state = tb.wait_job(id)?;
    let output = tb.job_output(id).unwrap_or_default();
    let said = format!("{state:?}; its output: {output}");
    match (state, output.contains("the script ran")) {
        (JobState::Completed, true) => Ok((Fate::Runs, said)),
        (JobState::Failed, false) => Ok((Fate::Fails, said)),
        _ => Err(format!("neither run nor failed: {said}").into()),
    }
}

/// The highest job id so far, 0 before the first.
fn last_job(tb: &Testbed) -> Result<u32, Box<dyn Error>> {
    let jobs = tb.scontrol(&["show", "job", "-o"])?.stdout;
    let id = |line: &str| line.strip_prefix("JobId=")?.split(' ').next()?.parse().ok();
    Ok(jobs.lines().filter_map(id).max().unwrap_or(0))
}
