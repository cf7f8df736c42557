//! A real Slurm on guests, the first of which is its controller as well.

use super::guest::{Guest, Said};
use crate::machines::Verdict;

/// Starts it. The guests' names and addresses are those of `files/etc/hosts`.
///
/// # Errors
/// A daemon ends at once.
pub fn start(guests: &mut [&mut Guest]) -> Verdict {
    if let [alone] = guests {
        alone.run(
            "ip address add 10.9.0.1/32 dev lo\n\
             sed -i 's/^NodeName=n\\[1-2\\]/NodeName=n1/' /etc/slurm/slurm.conf",
        )?;
    }
    for (guest, daemons) in guests.iter_mut().zip(["slurmctld && slurmd", "slurmd"]) {
        guest.run(&format!(
            "mkdir -p /run/munge /var/spool/slurmctld /var/spool/slurmd; \
             chown munge: /run/munge /var/lib/munge /var/log/munge; \
             setpriv --reuid=munge --regid=munge --clear-groups munged && {daemons}"
        ))?;
    }
    Ok(())
}

/// Resumes so many nodes, and waits until they accept jobs.
///
/// # Errors
/// They do not.
pub fn wait_idle(controller: &mut Guest, nodes: usize) -> Verdict {
    controller.run(
        "for node in $(scontrol show hostnames $(sinfo -h -o %N)); do \
         scontrol update nodename=$node state=resume 2>/dev/null; done; true",
    )?;
    controller.wait(
        "all nodes to be idle",
        &format!("sinfo -h -o '%T %n %E'; [ \"$(sinfo -h -t idle -o %D)\" = {nodes} ]"),
    )
}

/// Runs a command of Slurm's as alice.
pub const AS_ALICE: &str = "cd /tmp && setpriv --reuid=alice --regid=alice --init-groups";

/// Runs a job of one step on the first node. What it prints is the command's output,
/// and what the plugin says.
///
/// # Errors
/// It does not end.
pub fn srun(guest: &mut Guest, command: &str) -> Verdict<Said> {
    guest.output(&format!(
        "{AS_ALICE} timeout 100 srun -w n1 -N1 --efa-profile=auto {command}"
    ))
}

/// A hook waits 0.5 s at most for what reads counters, and an emulated machine on busy
/// CPUs may be slower. Then the job says that it knows nothing, and another one is run.
///
/// # Errors
/// No job of five was read in time, or one fails.
pub fn read_in_time(mut job: impl FnMut() -> Verdict<Said>) -> Verdict<Said> {
    let mut last = String::new();
    for _ in 0..5 {
        let said = job()?;
        if !said.text.contains("did not answer") && !said.text.contains("not known") {
            return Ok(said);
        }
        last = said.text;
    }
    Err(format!("no job of five was read in time\n{last}").into())
}

/// Waits until the epilogs of all jobs have run.
///
/// # Errors
/// They do not end.
pub fn wait_gone(controller: &mut Guest) -> Verdict {
    controller.wait("the jobs' end", "squeue -h; [ -z \"$(squeue -h)\" ]")
}
