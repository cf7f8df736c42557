//! The part of QEMU's command line that every machine has.

use std::path::Path;
use std::process::Command;

/// What a machine's clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Time.
    Host,
    /// Instructions, 8 ns for each, and time only while the machine waits: what else
    /// the host does adds nothing to what the machine measures.
    Instructions,
}

/// What a machine without KVM starts with, besides its memory and devices.
pub fn boot(qemu: &mut Command, cpus: u32, kernel: &Path, initrd: &Path, command_line: &str) {
    qemu.args(["-cpu", "max"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-smp", &cpus.to_string()])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(command_line);
}

/// How its instructions are run.
pub fn clock(qemu: &mut Command, clock: Clock) {
    match clock {
        Clock::Host => qemu.args(["-accel", "tcg,thread=multi"]),
        Clock::Instructions => {
            qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=3,sleep=on"])
        }
    };
}

/// NUMA nodes of so many MiB each, which share the CPUs; `backend` is QEMU's type
/// of their memory.
pub fn numa(qemu: &mut Command, cpus: u32, memory: &[u32], backend: &str) {
    qemu.args(["-m", &format!("{}M", memory.iter().sum::<u32>())]);
    for (node, size) in memory.iter().enumerate() {
        let (first, last) = (cpus as usize * node, cpus as usize * (node + 1));
        let nodes = memory.len();
        qemu.arg("-object")
            .arg(format!("{backend},id=memory{node},size={size}M"))
            .arg("-numa")
            .arg(format!(
                "node,nodeid={node},memdev=memory{node},cpus={}-{}",
                first / nodes,
                (last / nodes).saturating_sub(1)
            ));
    }
}
