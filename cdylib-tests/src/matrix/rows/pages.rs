//! Hugepages, locked memory, and what is told at the end of a job.

use super::super::context::{Context, Verdict};
use crate::kernel_pages;
use crate::testbed::JobState;

pub(crate) fn reserved_and_given_back(c: &Context) -> Verdict {
    let _alone = kernel_pages::alone()?;
    let before = kernel_pages::counts()?;
    let script = "#!/bin/bash\necho MIB=$SLURM_EFA_HUGEPAGES_MIB\n\
                  cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n";
    let (state, output) = c.batch(script, &["-wn1", "--efa-hugepages=8M"])?;
    let pages = kernel_pages::mebibytes()? / 2;
    expect!(state == JobState::Completed, "{state:?}: {output}");
    expect!(output.contains("MIB=8\n"), "the job was not told: {output}");
    c.tb.wait_idle()?;
    let after = kernel_pages::counts()?;
    expect!(after == before, "{before:?} became {after:?}");
    let during: u64 = output.lines().last().unwrap_or_default().parse()?;
    let free = kernel_pages::mebibytes()? / 2;
    expect!(
        during == free + 4,
        "{during} pages, not {free} + 4; {pages}"
    );
    let step = c.srun(&["-wn1", "--efa-hugepages=4M", "env"])?;
    expect!(
        step.stdout.contains("SLURM_EFA_HUGEPAGES_MIB=4\n"),
        "a step of srun was not told: {step}"
    );
    c.tb.wait_idle()?;
    let after = kernel_pages::counts()?;
    expect!(after == before, "{before:?} became {after:?}");
    c.refused(
        &c.srun(&["--efa-hugepages=5G;rm", "true"])?,
        &["is not a size"],
    )
}

pub(crate) fn of_het_components(c: &Context) -> Verdict {
    const SAY: &str = "echo $SLURMD_NODENAME:${SLURM_EFA_HUGEPAGES_MIB-none}";
    let _alone = kernel_pages::alone()?;
    let before = kernel_pages::counts()?;
    let (four, none) = ("--efa-hugepages=4M", "--efa-hugepages=none");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let script = format!(
        "#!/bin/bash\n#SBATCH -wn1 {four}\n#SBATCH hetjob\n#SBATCH -wn2 {none}\n\
         srun --het-group=0,1 sh -c '{SAY}' 2>&1\n"
    );
    let (_, output) = c.batch(&script, &[])?;
    let wanted = ["n1:4", "n2:none"];
    expect!(sorted(&output) == wanted, "{script}{output}");
    for (first, second, wanted) in [
        (four, none, wanted),
        (none, four, ["n1:none", "n2:4"]),
        (four, four, ["n1:4", "n2:4"]),
    ] {
        let step = [
            "-Q", "-wn1", first, "sh", "-c", SAY, ":", "-wn2", second, "sh", "-c", SAY,
        ];
        let step = c.srun(&step)?;
        expect!(sorted(&step.stdout) == wanted, "{first}, {second}: {step}");
    }
    c.tb.wait_idle()?;
    let after = kernel_pages::counts()?;
    expect!(after == before, "{before:?} became {after:?}");
    Ok(())
}

pub(crate) fn too_many_fail_only_the_job(c: &Context) -> Verdict {
    // Less than this site's maximum, more than any machine has.
    let (state, output) = c.batch(
        "#!/bin/bash\necho it ran\n",
        &["-wn1", "--efa-hugepages=512T"],
    )?;
    expect!(state == JobState::Failed, "{state:?}: {output}");
    expect!(
        output.contains("of memory that this node has") && !output.contains("it ran"),
        "{output}"
    );
    c.all_nodes_serve()
}

pub(crate) fn locked_memory(c: &Context) -> Verdict {
    let limit = |options: &str| -> Result<String, Box<dyn std::error::Error>> {
        // The submitting shell's own limit, which Slurm hands to the tasks.
        let line = format!("ulimit -S -l 64; srun -wn1 {options} sh -c 'ulimit -S -l'");
        Ok(c.tb.run("alice", &["bash", "-c", &line], &[])?.stdout)
    };
    let line = "ulimit -l unlimited 2>&-; ulimit -H -l";
    let most = c.tb.run("root", &["sh", "-c", line], &[])?.stdout;
    let (without, with) = (limit("")?, limit("--efa-profile=p5")?);
    expect!(without == "64\n", "without a profile it is {without}");
    expect!(with == most, "with a profile it is {with}, not {most}");
    Ok(())
}

pub(crate) fn told_at_the_end(c: &Context) -> Verdict {
    let script = "#!/bin/bash\nsrun true\n";
    let (state, output) = c.batch(script, &["-wn1", "--efa-profile=p5"])?;
    expect!(state == JobState::Completed, "{state:?}: {output}");
    for what in ["efa: step ", "efa: job "] {
        let said = output.lines().filter(|line| {
            line.starts_with(what) && line.contains(" on n1 (32 devices): sent 0 B")
        });
        expect!(said.count() == 1, "no {what:?} in: {output}");
    }
    c.tb.wait_idle()?;
    let log =
        c.tb.run("root", &["cat", "/var/log/slurm-efa/jobs.jsonl"], &[])?;
    expect!(
        log.stdout
            .lines()
            .filter(|line| line.contains("\"step\""))
            .count()
            >= 1
            && log.stdout.lines().any(|line| !line.contains("\"step\"")),
        "the node's log: {log}"
    );
    let step = c.srun(&["-wn1", "--efa-profile=p5", "true"])?;
    expect!(
        step.stderr.contains("efa: step "),
        "srun was not told: {step}"
    );
    Ok(())
}
