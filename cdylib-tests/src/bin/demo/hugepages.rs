//! The scene of a job that has hugepages and that moves something.

use cdylib_tests::kernel_pages;
use cdylib_tests::simnode::SimNode;
use cdylib_tests::testbed::{JobId, LIMIT, Progress};

use crate::stage::{Outcome, Stage, expect};

const PAGES: &str = "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Bytes that each device of the simulated node moves each way.
const TRAFFIC: u64 = 3 << 30;

pub fn pages_and_traffic(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "Hugepages while the job runs, and what EFA moved",
        "The pages are the kernel's own: real ones of this machine. Before:",
    );
    let _alone = kernel_pages::alone()?;
    let count = || -> Result<u64, Box<dyn std::error::Error>> {
        Ok(stage.run(PAGES)?.stdout.trim().parse()?)
    };
    let before = count()?;
    let script = "#!/bin/bash\n\
         #SBATCH --constraint=p5\n\
         #SBATCH --efa-profile=p5 --efa-hugepages=64M\n\
         echo \"hugepages for this job: $SLURM_EFA_HUGEPAGES_MIB MiB; locked memory: $(ulimit -l)\"\n\
         until [ -e moved ]; do sleep 0.1; done   # stands for the training\n";
    stage.write("pages.sh", script)?;
    stage.run("cat pages.sh")?;
    let submitted = stage.run("sbatch --nodelist=n1 pages.sh")?.stdout;
    let id = submitted.trim().strip_prefix("Submitted batch job ");
    let job = JobId(
        id.ok_or("the job above should have been submitted")?
            .parse()?,
    );
    stage.testbed.wait_until("the job", LIMIT, || {
        let printed = stage.testbed.job_output(job).unwrap_or_default();
        Ok(match printed.contains("hugepages for this job: 64 MiB") {
            true => Progress::Done(()),
            false => Progress::Waiting(printed),
        })
    })?;
    stage.say("While it runs:");
    expect(count()? == before + 32, "32 more pages of 2 MiB")?;
    let node = SimNode::open(&stage.testbed.sysroot("n1"))?;
    for device in node.devices() {
        node.add_traffic(device, TRAFFIC)?;
    }
    stage.say("Now the simulated node moves 3 GiB each way over each of its 32 devices, and the job ends.");
    stage.run("touch moved")?;
    stage.testbed.wait_job(job)?;
    let seen = stage.run(&format!("cat slurm-{job}.out"))?.stdout;
    expect(
        seen.contains("sent 96.0 GiB, received 96.0 GiB") && seen.contains("% RDMA read"),
        "what moved, and how",
    )?;
    stage.testbed.wait_idle()?;
    stage.say("After it:");
    expect(count()? == before, "as many pages as before")
}
