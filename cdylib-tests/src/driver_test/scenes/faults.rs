//! Devices that fail: each row of the table in docs/driver-test.md.

use std::time::Duration;

use crate::driver_test::node::{ALL, FOUR, Node, Stage, Wanted};
use crate::machines::Verdict;
use crate::machines::scene::expect;

/// Where a look that meets nothing slow has long ended.
const QUICK: Duration = Duration::from_secs(2);
/// `probe_limit` and twice the patience with a reader that was killed.
const WITH_A_HANG: Duration = Duration::from_secs(6);

/// The counters of the device that fails.
const COUNTERS: &str = "/sys/class/infiniband/efa_2/ports/1/hw_counters";
const FAILS: usize = 2;
/// What efa-check says of one that does not answer: the others are not usable either.
const DEAD: &str = "libfabric fails on the whole node: efa_2 (pci 0000:03:00.0) does not answer";

/// A node of four, and what libfabric, sysfs and efa-check say of a device whose
/// commands nobody answers within the second that it allows.
fn unanswered(node: &mut Node) -> Verdict {
    node.efa_check("node", 2, DEAD, WITH_A_HANG)?;
    // From then on the driver refuses at once, and for good.
    let said = node.efa_check("node", 2, DEAD, QUICK)?;
    expect(
        said.text.contains("No such device"),
        "the driver's refusal",
        &said,
    )?;
    no_reader_is_left(node)?;
    let state = node
        .guest
        .run("cat /sys/class/infiniband/efa_2/ports/1/state")?;
    expect(state.contains("ACTIVE"), "a port that looks well", state)?;
    let info = node.guest.output("fi_info -p efa")?;
    expect(
        info.code != 0 && !info.text.contains("domain"),
        "libfabric without any device",
        &info,
    )?;
    node.efa_check("explain counters", 0, "libfabric", QUICK)?;
    Ok(())
}

fn no_reader_is_left(node: &mut Node) -> Verdict {
    let readers = "! grep -l counter-reade[r] /proc/[0-9]*/cmdline";
    node.guest.wait("the last reader's end", readers)
}

/// The device answers again, and the driver takes it.
fn rebind(node: &mut Node) -> Verdict {
    node.rebind(FAILS)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

pub fn dead_admin_queue(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "dead-admin on")?;
    unanswered(node)?;
    node.tell(FAILS, "dead-admin off")?;
    // It stays dead to the driver until it is bound again.
    node.efa_check("node", 2, DEAD, QUICK)?;
    rebind(node)
}

/// While efa-check is at the counters of a slow device, the queue dies.
pub fn dies_during_a_look(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(0, "slow 300")?;
    node.guest
        .run("(efa-check node; echo \"exit code $?\") >/tmp/look 2>&1 &")?;
    node.guest.wait(
        "a reader at the first device",
        "grep -l counter-reade[r] /proc/[0-9]*/cmdline",
    )?;
    node.tell(FAILS, "dead-admin on")?;
    node.guest.wait("its end", "grep 'exit code' /tmp/look")?;
    let look = node.guest.run("cat /tmp/look")?;
    expect(
        look.contains(DEAD) && look.contains("exit code 2"),
        "the device that died",
        &look,
    )?;
    no_reader_is_left(node)
}

pub fn no_interrupts(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "muted on")?;
    unanswered(node)?;
    node.tell(FAILS, "muted off")?;
    rebind(node)
}

pub fn off_the_bus(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "gone on")?;
    unanswered(node)?;
    let vendor = node
        .guest
        .run("od -An -tx1 -N2 /sys/class/infiniband/efa_2/device/config")?;
    expect(vendor.trim() == "ff ff", "all ones", vendor)?;
    node.tell(FAILS, "gone off")?;
    rebind(node)
}

/// Slow is not dead: four devices, each of which takes 1.2 s for its counters.
pub fn slow(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    for device in 0..4 {
        node.tell(device, "slow 300")?;
    }
    node.efa_check("node", 0, "4 of 4 EFA devices", WITH_A_HANG)?;
    no_reader_is_left(node)
}

pub fn refused(stage: &mut Stage) -> Verdict {
    const GET_STATS_NO_RESOURCE: &str = "refuse 13 1";
    let node = stage.node(FOUR)?;
    node.tell(FAILS, GET_STATS_NO_RESOURCE)?;
    node.efa_check("node", 2, "counters of efa_2", QUICK)?;
    let said = node.efa_check("node", 2, "cannot be read", QUICK)?;
    expect(
        said.text.contains("Cannot allocate memory"),
        "the driver's reason",
        &said,
    )?;
    node.tell(FAILS, "refuse off")?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

/// The driver has no handler for it: nothing is to be seen but a line of its log.
pub fn fatal_event(stage: &mut Stage) -> Verdict {
    const FATAL: &str = "event 1 0";
    let node = stage.node(FOUR)?;
    node.tell(FAILS, FATAL)?;
    node.guest
        .wait("the driver's line", "dmesg | grep -i handler")?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

/// The driver gives up, and does not try again by itself.
pub fn not_ready(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.efa_check("healthcheck", 0, "", QUICK)?;
    node.tell(FAILS, "not-ready on")?;
    let bind = node.unbind_for_good(FAILS)?;
    node.efa_check("node", 2, "3/4 devices, efa_2 gone since", QUICK)?;
    node.tell(FAILS, "not-ready off")?;
    node.efa_check("node", 2, "3/4 devices", QUICK)?;
    node.guest.run(&bind)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

/// A reset that does not end defers the probe; the device comes when any other
/// driver binds.
pub fn late_device(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.defer_probe(FAILS)?;
    node.efa_check("node", 2, "3/4 devices", QUICK)?;
    node.tell(FAILS, "stuck-reset off")?;
    node.rebind(0)?;
    node.guest.wait(
        "the late device",
        "[ \"$(ls /sys/class/infiniband | wc -l)\" = 4 ]",
    )?;
    node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    Ok(())
}

pub fn removed_while_read(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "dead-admin on")?;
    node.guest
        .run(&format!("cat {COUNTERS}/rx_drops >/dev/null 2>&1 &"))?;
    node.guest.wait(
        "a reader in the kernel",
        "grep -l '^State:.D' /proc/[0-9]*/status",
    )?;
    let removal = node.guest.output(
        "echo 1 >$(readlink -f /sys/class/infiniband/efa_2/device)/remove; \
         ls /sys/class/infiniband",
    )?;
    expect(
        removal.code == 0 && !removal.text.contains("efa_2"),
        "a removal that ends",
        &removal,
    )?;
    node.efa_check("node", 2, "3/4 devices", QUICK)?;
    Ok(())
}

/// The largest number, and one that goes backwards, alarm nobody.
pub fn lies(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    for value in ["18446744073709551615", "5", "4"] {
        node.tell(FAILS, &format!("set rx_drops {value}"))?;
        node.guest
            .wait("the value", &format!("grep -x {value} {COUNTERS}/rx_drops"))?;
        node.efa_check("healthcheck", 0, "", QUICK)?;
        node.efa_check("node", 0, "4 of 4 EFA devices", QUICK)?;
    }
    Ok(())
}

/// To QEMU and the driver, it is as a device that fell off the bus.
pub fn process_ends(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "hang-up")?;
    unanswered(node)?;
    // QEMU does not connect again.
    stage.clear();
    Ok(())
}

pub fn one_dead_of_32(stage: &mut Stage) -> Verdict {
    let node = stage.node(ALL)?;
    node.tell(FAILS, "dead-admin on")?;
    let said = node.efa_check("node", 2, DEAD, WITH_A_HANG)?;
    expect(
        !said.text.contains("31 of 32") && !said.text.contains("31/32"),
        "no number that sounds as if 31 were usable",
        &said,
    )?;
    let info = node.guest.output("fi_info -p efa")?;
    expect(
        info.code != 0 && !info.text.contains("domain"),
        "libfabric without any device",
        &info,
    )?;
    node.efa_check("explain counters", 0, "libfabric", QUICK)?;
    Ok(())
}

/// A node whose devices leave the driver its own limit.
const THIRTY_SECONDS: Wanted = Wanted {
    limit: Duration::ZERO,
    ..FOUR
};
const HANGS: &str = "efa_2 (pci 0000:03:00.0) does not answer: a read hangs";

/// A reader hangs in the kernel for 30 s, where no signal reaches it. efa-check does
/// not wait for it.
pub fn thirty_seconds(stage: &mut Stage) -> Verdict {
    let node = stage.node(THIRTY_SECONDS)?;
    node.tell(FAILS, "dead-admin on")?;
    node.efa_check("node", 2, HANGS, WITH_A_HANG)?;
    readers(node, 1)?;
    no_reader_is_left(node)?;
    node.efa_check("node", 2, DEAD, QUICK)?;
    node.tell(FAILS, "dead-admin off")?;
    rebind(node)
}

/// While one hangs.
pub fn no_second_reader(stage: &mut Stage) -> Verdict {
    let node = stage.node(THIRTY_SECONDS)?;
    node.tell(FAILS, "dead-admin on")?;
    for _ in 0..2 {
        node.efa_check("node", 2, HANGS, WITH_A_HANG)?;
    }
    readers(node, 1)
}

/// So many readers hang in the kernel.
fn readers(node: &mut Node, count: usize) -> Verdict {
    let hang = node.guest.run(
        "for process in $(grep -l 'counter-reade[r]' /proc/[0-9]*/cmdline); do \
         grep '^State:.D' ${process%cmdline}status; done",
    )?;
    let what = format!("{count} readers that hang");
    expect(hang.lines().count() == count, &what, hang)
}
