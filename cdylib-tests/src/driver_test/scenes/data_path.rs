//! Packets: libfabric over the driver, with data that is verified.

use std::time::Duration;

use crate::driver_test::guest::{Guest, Said};
use crate::driver_test::node::{FOUR, Pair, Stage};
use crate::machines::Verdict;
use crate::machines::scene::expect;

/// What fi_pingpong is called with; `$1` is the size.
const SRD: &str = "-m tagged -e rdm";
const UD: &str = "-e dgram";
/// The device's end of the same.
const SRD_END: &str = "rdm";
const UD_END: &str = "dgrm";

/// Starts the end that waits, and returns when it listens.
fn server(kind: &str, device: &str, size: u32) -> String {
    format!(
        "export FI_EFA_ENABLE_SHM_TRANSFER=0\n\
         timeout 60 fi_pingpong -c -p efa {kind} -I 10 -S {size} -d {device} >/tmp/server 2>&1 &\n\
         until grep -q ':B9E8 [0-9A-F:]* 0A' /proc/net/tcp; do\n\
         jobs -r | grep -q . || {{ cat /tmp/server; exit 1; }}; sleep 0.05; done\n"
    )
}

/// The other end.
fn client(kind: &str, device: &str, size: u32, server: &str) -> String {
    format!(
        "FI_EFA_ENABLE_SHM_TRANSFER=0 \
         timeout 60 fi_pingpong -c -p efa {kind} -I 10 -S {size} -d {device} {server}"
    )
}

/// From a guest's first device to its second.
fn pingpong(guest: &mut Guest, kind: &str, end: &str, size: u32) -> Verdict<Said> {
    let server = server(kind, &format!("efa_0-{end}"), size);
    let client = client(kind, &format!("efa_1-{end}"), size, "127.0.0.1");
    guest.output(&format!(
        "{server}{client}; code=$?; [ $code = 0 ] || kill $!; wait; cat /tmp/server; exit $code"
    ))
}

pub fn srd(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    for size in [64, 4096, 65_536, 1 << 20] {
        let before = node.fabric.counted(0..2, "tx_bytes")?;
        let said = pingpong(&mut node.guest, SRD, SRD_END, size)?;
        expect(said.code == 0, "verified data", &said)?;
        let sent = node.fabric.counted(0..2, "tx_bytes")? - before;
        // Each end sends ten, and what libfabric says besides.
        let payload = 20 * u64::from(size);
        expect(sent >= payload, "the devices' own count", sent)?;
    }
    as_the_devices_count(&mut node.guest, node.fabric.counted(0..1, "tx_bytes")?)
}

pub fn ud(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    let said = pingpong(&mut node.guest, UD, UD_END, 1024)?;
    expect(said.code == 0, "verified data", said)?;
    as_the_devices_count(&mut node.guest, node.fabric.counted(0..1, "tx_bytes")?)
}

/// Both ends sleep until the device interrupts: a completion queue's event. libfabric
/// has that (`FI_WAIT_FD`) since 2.2, which is newer than the guests'.
pub fn completion_events(stage: &mut Stage) -> Verdict {
    const END: &str = "timeout 60 ibv_ud_pingpong -e -g 0 -s 1024 -n 20";
    let node = stage.node(FOUR)?;
    let interrupts = "awk '/efa-comp/ { for (i = 2; i < 4; i++) sum += $i } END { print sum + 0 }' \
                      /proc/interrupts";
    let before: u64 = node.guest.run(interrupts)?.trim().parse()?;
    let said = node.guest.output(&format!(
        "{END} -d efa_0 >/tmp/server 2>&1 &\n\
         until grep -q ':4853 [0-9A-F:]* 0A' /proc/net/tcp*; do \
         jobs -r | grep -q . || {{ cat /tmp/server; exit 1; }}; sleep 0.05; done\n\
         {END} -d efa_1 127.0.0.1; code=$?; wait; cat /tmp/server; exit $code"
    ))?;
    expect(said.code == 0, "an end of both", &said)?;
    let after: u64 = node.guest.run(interrupts)?.trim().parse()?;
    expect(
        after >= before + 20,
        "an interrupt for each",
        after - before,
    )
}

/// The driver reads what the device counts.
fn as_the_devices_count(guest: &mut Guest, sent: u64) -> Verdict {
    let read = guest.run("cat /sys/class/infiniband/efa_0/ports/1/hw_counters/tx_bytes")?;
    expect(read.trim() == sent.to_string(), &sent.to_string(), read)
}

pub fn loopback(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    let said = node.efa_check("pingpong", 0, "efa_3: fine", Duration::from_secs(60))?;
    expect(said.text.matches("fine").count() == 4, "all four", said)
}

/// What a security group that does not admit itself looks like: all is well but that
/// nothing arrives.
pub fn closed(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(0, "closed on")?;
    // Without its own protocol above the device's, libfabric hands the error on.
    let said = pingpong(&mut node.guest, "-e rdm", SRD_END, 4096)?;
    expect(
        said.code != 0 && said.text.contains("Unresponsive remote"),
        "the device's error in libfabric's words",
        said,
    )?;
    let said = node.efa_check(
        "pingpong --device efa_1",
        2,
        "FAILED",
        Duration::from_secs(45),
    )?;
    expect(
        said.text.contains("nresponsive remote"),
        "libfabric's own reason",
        said,
    )?;
    node.efa_check("node", 0, "4 of 4 EFA devices", Duration::from_secs(3))?;
    node.tell(0, "closed off")?;
    node.efa_check(
        "pingpong --device efa_1",
        0,
        "fine",
        Duration::from_secs(40),
    )?;
    Ok(())
}

pub fn two_nodes(stage: &mut Stage) -> Verdict {
    let Pair { guests, fabric, .. } = stage.pair()?;
    let [first, second] = guests;
    for (kind, end, size) in [(SRD, SRD_END, 1 << 20), (UD, UD_END, 1024)] {
        let before = fabric.counted(Pair::DEVICES[1].clone(), "tx_bytes")?;
        let device = format!("efa_2-{end}");
        first.run(&server(kind, &device, size))?;
        let said = second.output(&client(kind, &device, size, "10.9.0.1"))?;
        let other = first.run("cat /tmp/server")?;
        expect(said.code == 0, "verified data", format!("{said}\n{other}"))?;
        let sent = fabric.counted(Pair::DEVICES[1].clone(), "tx_bytes")? - before;
        expect(
            sent >= 10 * u64::from(size),
            "the second node's count",
            sent,
        )?;
    }
    Ok(())
}
