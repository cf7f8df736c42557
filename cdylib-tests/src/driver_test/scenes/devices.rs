//! Devices that are well: how many, where, and how they come and go.

use std::time::Duration;

use crate::driver_test::guest::Hardware;
use crate::driver_test::node::{ALL, FOUR, Node, ONE, Stage, Wanted};
use crate::driver_test::slurm;
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
    )?;
    node.slurm()?;
    let said = slurm::srun(&mut node.guest, "/usr/libexec/loopback")?;
    expect(
        said.code == 0 && said.text.contains("verified") && said.text.contains("efa: "),
        "a job whose data arrived",
        said,
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
        devices: 3,
        spare: 1,
        ..FOUR
    })?;
    let quick = Duration::from_secs(2);
    node.efa_check("node", 2, "3/4 devices", quick)?;
    node.plug(3)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", quick)?;
    Ok(())
}

/// A node of four whose devices claim something strange is healthy, and a job on it
/// says so.
fn judged_well(node: &mut Node) -> Verdict {
    node.efa_check("node", 0, "4 of 4 EFA devices", Duration::from_secs(3))?;
    node.slurm()?;
    let said = slurm::read_in_time(|| slurm::srun(&mut node.guest, "true"))?;
    expect(
        said.code == 0 && said.text.contains("(4 devices): sent 0 B"),
        "a job on four devices",
        said,
    )
}

/// No GUID at all, and that of another device: neither is asked for.
pub fn guids(stage: &mut Stage) -> Verdict {
    const OF_THE_FIRST: u64 = 0x0efa_0000_0000_0000;
    let node = stage.node(FOUR)?;
    for guid in [0, OF_THE_FIRST] {
        node.tell(2, &format!("guid {guid}"))?;
        node.rebind(2)?;
        let shown = node
            .guest
            .run("tr -d : </sys/class/infiniband/efa_2/node_guid")?;
        let wanted = format!("{guid:016x}");
        expect(shown.trim() == wanted, &wanted, shown)?;
        judged_well(node)?;
    }
    Ok(())
}

/// The longest name that the kernel allows; and a device that gets one while it is
/// dead is named by it.
pub fn longest_name(stage: &mut Stage) -> Verdict {
    let longest = "x".repeat(63);
    let node = stage.node(FOUR)?;
    node.efa_check("healthcheck", 0, "", Duration::from_secs(3))?;
    node.guest
        .run(&format!("rdma dev set efa_2 name {longest}"))?;
    judged_well(node)?;
    node.tell(2, "dead-admin on")?;
    let said = node.efa_check("node", 2, "does not answer", Duration::from_secs(6))?;
    expect(
        said.text.contains(&longest[..32]) && said.text.contains("(pci 0000:03:00.0)"),
        "the name, as far as it fits, and the place",
        said,
    )?;
    node.guest
        .run(&format!("rdma dev set {longest} name efa_2"))?;
    Ok(())
}

/// RDMA in software is no EFA device, and is neither counted nor judged.
pub fn soft_roce(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.guest.run(
        "modprobe rdma_rxe && ip link add dummy type dummy && ip link set dummy up && \
         rdma link add rxe0 type rxe netdev dummy && [ -e /sys/class/infiniband/rxe0 ]",
    )?;
    let judged = judged_well(node);
    node.guest
        .run("rdma link delete rxe0; ip link delete dummy")?;
    judged
}
