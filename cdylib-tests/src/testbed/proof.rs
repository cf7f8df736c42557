//! The proof that a testbed works in some root: one function, so that every
//! release is held to the same.

use std::path::Path;

use super::{Error, JobState, Release, Testbed};

/// Boots two nodes in `root` (the machine's own if `None`) and checks that
/// steps, batch jobs, users and cgroups are as they should be.
///
/// # Errors
/// The testbed's own error, or the first expectation that was not met.
pub fn boots_and_runs_jobs(root: Option<&Path>) -> Result<Release, Error> {
    let mut builder = Testbed::builder().nodes(2);
    if let Some(root) = root {
        builder = builder.root(root);
    }
    let tb = builder.start()?;
    let expect = |what: &str, met: bool, seen: &str| {
        if met {
            Ok(())
        } else {
            Err(Error::Boot {
                what: format!("Slurm {} runs, but not: {what}; seen: {seen}", tb.release()),
                logs: tb.log_tails(),
            })
        }
    };

    let step = tb.srun("alice", &["-N2", "printenv", "SLURMD_NODENAME"])?;
    let mut names: Vec<&str> = step.stdout.lines().collect();
    names.sort_unstable();
    expect(
        "a step over two nodes runs on n1 and n2",
        step.success() && names == ["n1", "n2"],
        &step.to_string(),
    )?;

    let wide = tb.srun("bob", &["-N1", "-n1", "-c192", "id", "-un"])?;
    expect(
        "bob gets all 192 CPUs of a node and is bob there",
        wide.success() && wide.stdout == "bob\n",
        &wide.to_string(),
    )?;

    let cgroup = tb.srun("alice", &["-w", "n1", "cat", "/proc/self/cgroup"])?;
    expect(
        "a step is in a cgroup of its job",
        !tb.has_cgroups() || cgroup.stdout.contains("freezer:/slurm_n1/uid_20001/job_"),
        &cgroup.to_string(),
    )?;

    let script =
        "#!/bin/bash\n#SBATCH --nodes=2\necho batch $USER\nsrun printenv SLURMD_NODENAME\n";
    let job = tb.sbatch::<&str>("alice", script, &[])?;
    let state = tb.wait_job(job)?;
    let output = tb.job_output(job)?;
    expect(
        "a batch job with a step completes",
        state == JobState::Completed
            && output.contains("batch alice")
            && output.contains("n1\n")
            && output.contains("n2\n"),
        &format!("{state:?}: {output}"),
    )?;

    let failing = tb.sbatch::<&str>("alice", "#!/bin/bash\nexit 7\n", &[])?;
    let state = tb.wait_job(failing)?;
    let code = tb.job(failing)?.exit_code();
    expect(
        "a failing batch job is FAILED with its exit code",
        state == JobState::Failed && code == Some((7, 0)),
        &format!("{state:?} {code:?}"),
    )?;

    tb.restart_slurmd("n2")?;
    tb.wait_idle()?;
    let again = tb.srun("carol", &["-w", "n2", "true"])?;
    expect(
        "a restarted slurmd runs steps",
        again.success(),
        &again.to_string(),
    )?;
    Ok(tb.release())
}
