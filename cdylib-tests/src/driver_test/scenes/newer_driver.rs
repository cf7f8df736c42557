//! The driver of a newer kernel, which counts retransmissions and remotes, too.

use std::time::Duration;

use crate::driver_test::guest::{Hardware, Kernel};
use crate::driver_test::node::{FOUR, Node, Stage, Wanted};
use crate::driver_test::slurm;
use crate::machines::Verdict;
use crate::machines::scene::expect;

const NEWER: Wanted = Wanted {
    hardware: Hardware {
        kernel: Kernel::Backports,
        ..FOUR.hardware
    },
    ..FOUR
};

const QUICK: Duration = Duration::from_secs(3);
/// The device that fails.
const FAILS: usize = 2;

pub fn counters(stage: &mut Stage) -> Verdict {
    let node = stage.node(NEWER)?;
    let shown = node
        .guest
        .run("ls /sys/class/infiniband/efa_0/ports/1/hw_counters | grep -cvx lifespan")?;
    expect(shown.trim() == "22", "22 counters", shown)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    let metrics = node
        .guest
        .run("efa-check node --metrics /tmp/metrics >/dev/null; cat /tmp/metrics")?;
    expect(
        metrics.contains(
            "efa_unresponsive_remote_events_total{device=\"efa_0\",pci=\"0000:01:00.0\"} 0",
        ),
        "the counters of the network among the metrics",
        metrics,
    )
}

/// What rises above AWS's thresholds between two rounds is a warning, and names the
/// counter's device.
pub fn thresholds(stage: &mut Stage) -> Verdict {
    for (counter, check) in [
        ("retrans_pkts", "retransmissions"),
        ("unresponsive_remote_events", "unresponsive-remote"),
        ("impaired_remote_conn_events", "impaired-remote"),
    ] {
        let node = stage.node(NEWER)?;
        node.tell(FAILS, &format!("set {counter} 0"))?;
        node.efa_check("healthcheck", 0, "", QUICK)?;
        node.tell(FAILS, &format!("set {counter} 5000000"))?;
        node.guest.wait(
            "the value",
            &format!("grep -x 5000000 /sys/class/infiniband/efa_2/ports/1/hw_counters/{counter}"),
        )?;
        let said = node.efa_check("node", 1, check, QUICK)?;
        expect(said.text.contains("efa_2"), "the device's name", said)?;
        node.tell(FAILS, &format!("set {counter} 0"))?;
    }
    Ok(())
}

pub fn dead_admin_queue(stage: &mut Stage) -> Verdict {
    let node = stage.node(NEWER)?;
    node.tell(FAILS, "dead-admin on")?;
    let dead = "libfabric fails on the whole node: efa_2 (pci 0000:03:00.0) does not answer";
    node.efa_check("node", 2, dead, Duration::from_secs(6))?;
    node.tell(FAILS, "dead-admin off")?;
    node.efa_check(
        "rebind --force efa_2",
        0,
        "answers again",
        Duration::from_secs(8),
    )?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

/// A job whose packets are lost says how many were sent again, as the devices counted.
pub fn loss(stage: &mut Stage) -> Verdict {
    let node = stage.node(NEWER)?;
    node.slurm()?;
    node.tell(0, "loss 20")?;
    let line = job(node, "verified", "retrans_pkts")?;
    node.tell(0, "loss 0")?;
    let Line { said, counted } = line;
    expect(
        counted > 0 && said.contains(&format!("{counted} retransmissions")),
        &format!("{counted} retransmissions"),
        said,
    )
}

/// What a security group that does not admit itself looks like to a job.
pub fn closed(stage: &mut Stage) -> Verdict {
    let node = stage.node(NEWER)?;
    node.slurm()?;
    node.tell(0, "closed on")?;
    let line = job(node, "nresponsive remote", "unresponsive_remote_events")?;
    node.tell(0, "closed off")?;
    let Line { said, counted } = line;
    expect(
        counted > 0 && said.contains(&format!("{counted} unresponsive or impaired remote")),
        &format!("{counted} unresponsive remotes"),
        said,
    )
}

/// What a job said, and what the devices counted meanwhile.
struct Line {
    said: String,
    counted: u64,
}

/// A job that sends from the first device to the second, and says this.
fn job(node: &mut Node, word: &str, counter: &str) -> Verdict<Line> {
    let mut counted = 0;
    let said = slurm::read_in_time(|| {
        let before = node.fabric.counted(0..4, counter)?;
        let said = slurm::srun(&mut node.guest, "/usr/libexec/loopback")?;
        counted = node.fabric.counted(0..4, counter)? - before;
        expect(said.text.contains(word), word, &said)?;
        Ok(said)
    })?;
    Ok(Line {
        said: said.text,
        counted,
    })
}
