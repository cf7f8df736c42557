//! Devices that are well: how many, where, and how they come and go.

use std::time::Duration;

use crate::driver_test::guest::Hardware;
use crate::driver_test::node::{ALL, FOUR, Node, ONE, Stage, Wanted};
use crate::machines::Verdict;
use crate::machines::scene::expect;

pub fn one(stage: &mut Stage) -> Verdict {
    healthy(stage.node(ONE)?, ONE)
}

pub fn four(stage: &mut Stage) -> Verdict {
    healthy(stage.node(FOUR)?, FOUR)
}

pub fn all(stage: &mut Stage) -> Verdict {
    healthy(stage.node(ALL)?, ALL)
}

fn healthy(node: &mut Node, wanted: Wanted) -> Verdict {
    let Wanted {
        devices, hardware, ..
    } = wanted;
    node.devices(devices)?;
    let sentence = format!("{}: {devices} of {devices} EFA devices", hardware.product);
    node.efa_check("node", 0, &sentence, Duration::from_secs(3))?;
    let listed = node
        .guest
        .run("fi_info -p efa -t FI_EP_DGRAM | grep -c domain")?;
    expect(
        listed.trim() == devices.to_string(),
        "libfabric's devices",
        listed,
    )
}

pub fn numa(stage: &mut Stage) -> Verdict {
    let wanted = Wanted {
        hardware: Hardware {
            name: "numa",
            memory: &[384, 384],
            ..FOUR.hardware
        },
        ..FOUR
    };
    let node = stage.node(wanted)?;
    healthy(node, wanted)?;
    // QEMU has them on buses 0x41, 0x51, … and on node 0, 1, …
    let places = node.guest.run(
        "for device in /sys/class/infiniband/*/device; do \
         pci=$(basename $(readlink -f $device)); \
         echo $(( (0x${pci:5:2} / 16) % 2 )) $(cat $device/numa_node); done | sort | uniq -c",
    )?;
    let places: Vec<&str> = places.split_whitespace().collect();
    expect(
        places == ["2", "0", "0", "2", "1", "1"],
        "two devices at each node",
        places.join(" "),
    )
}

/// efa-check names the device that is gone, and forgets it when it is back.
pub fn rescan(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    let quick = Duration::from_secs(2);
    node.efa_check("healthcheck", 0, "", quick)?;
    let pci = node
        .guest
        .run("basename $(readlink -f /sys/class/infiniband/efa_2/device)")?;
    let pci = pci.trim();
    node.guest
        .run(&format!("echo 1 >/sys/bus/pci/devices/{pci}/remove"))?;
    node.efa_check("node", 2, "3/4 devices, efa_2 gone since", quick)?;
    node.efa_check("node", 2, &format!("(pci {pci})"), quick)?;
    node.guest.run("echo 1 >/sys/bus/pci/rescan")?;
    node.efa_check("node", 0, "4 of 4 EFA devices", quick)?;
    Ok(())
}

/// A node that boots with three of its four devices gets the last one.
pub fn hot_plug(stage: &mut Stage) -> Verdict {
    let node = stage.node(Wanted {
        hardware: Hardware {
            name: "plug",
            ..FOUR.hardware
        },
        devices: 3,
        spare: 1,
        ..FOUR
    })?;
    let quick = Duration::from_secs(2);
    node.efa_check("node", 2, "3/4 devices", quick)?;
    node.guest.plug(3, node.fabric.socket(3))?;
    node.guest.wait(
        "the device",
        "[ -e /sys/class/infiniband/efa_3/ports/1/hw_counters ]",
    )?;
    node.efa_check("node", 0, "4 of 4 EFA devices", quick)?;
    Ok(())
}
