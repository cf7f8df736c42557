//! Devices that come after a job: efa-check's prolog of a real Slurm.

use std::time::Duration;

use crate::driver_test::node::{FOUR, Node, Stage, Wanted};
use crate::driver_test::slurm;
use crate::machines::Verdict;
use crate::machines::scene::expect;

const CONFIGURATION: &str = "/etc/slurm-efa/slurm-efa.toml";
const QUICK: Duration = Duration::from_secs(3);

/// Plays with efa-check's prolog and this line of `[health]`.
fn with_prolog(node: &mut Node, health: &str, play: impl FnOnce(&mut Node) -> Verdict) -> Verdict {
    node.slurm()?;
    node.guest.run(&format!(
        "cp {CONFIGURATION} /tmp/configuration && echo '{health}' >>{CONFIGURATION} && \
         mv /etc/slurm-efa/efa-check-prolog /etc/slurm-efa/prolog.d/"
    ))?;
    let played = play(node);
    node.guest.run(&format!(
        "mv /tmp/configuration {CONFIGURATION}; scancel -u alice; \
         mv /etc/slurm-efa/prolog.d/efa-check-prolog /etc/slurm-efa/"
    ))?;
    played
}

/// Submits a job that waits for its turn.
fn submit(node: &mut Node) -> Verdict {
    let submit = format!(
        "rm -f /tmp/out; {} sbatch --efa-profile=auto -o /tmp/out --wrap 'echo it ran'",
        slurm::AS_ALICE
    );
    node.guest.run(&submit).map(drop)
}

/// It has run on all four devices, and Slurm has the node in service.
fn has_run(node: &mut Node) -> Verdict {
    node.guest
        .wait("the job", "cat /tmp/out; grep 'it ran' /tmp/out")?;
    slurm::wait_gone(&mut node.guest)?;
    let said = node.guest.run("cat /tmp/out; sinfo -h -o '%T %E'")?;
    expect(
        said.contains("(4 devices)") && said.contains("idle none"),
        "a job on four devices of a node in service",
        said,
    )
}

/// While a machine has just booted, the prolog waits for a device whose probe was
/// deferred. No node is drained.
pub fn prolog_waits(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.efa_check("healthcheck", 0, "", QUICK)?;
    with_prolog(node, "wait_boot = \"1h\"", |node| {
        let pci = node.defer_probe(2)?;
        submit(node)?;
        node.guest.wait(
            "the prolog",
            "grep -l efa-check-prolo[g] /proc/[0-9]*/cmdline",
        )?;
        node.tell(2, "stuck-reset off")?;
        node.guest
            .run(&format!("echo {pci} >/sys/bus/pci/drivers/efa/bind"))?;
        has_run(node)
    })
}

/// Later, a missing device drains the node; once it is plugged in, the health check
/// resumes the node, and the job runs.
pub fn health_check_resumes(stage: &mut Stage) -> Verdict {
    let node = stage.node(Wanted {
        devices: 3,
        spare: 1,
        ..FOUR
    })?;
    with_prolog(
        node,
        "wait_boot = \"0s\"\nresume = true\nresume_after = 1",
        |node| {
            submit(node)?;
            node.guest.wait(
                "the drain",
                "sinfo -h -o '%T %E'; sinfo -h -o '%T %E' | grep 'drain.*EFA: 3/4 devices'",
            )?;
            node.plug(3)?;
            node.efa_check("healthcheck", 0, "", QUICK)?;
            has_run(node)
        },
    )
}
