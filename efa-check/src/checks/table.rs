//! Every check, as data.

use findings::Severity;

use super::facts::{CheckOutcome, Facts};
use super::{counters, devices, limits, software};

/// One check.
#[derive(Debug)]
pub struct Check {
    /// Its name, as in `disable` and `hold`.
    pub id: &'static str,
    /// What is known when it finds nothing.
    pub proves: &'static str,
    /// How bad a finding is: fatal or a warning.
    pub severity: Severity,
    /// What it costs.
    pub cost: &'static str,
    /// Why it is a check at all.
    pub source: &'static str,
    /// What to do about a finding.
    pub remedy: &'static str,
    judge: fn(&Facts<'_>) -> CheckOutcome,
}

const NMA: &str = "eks-node-monitoring-agent: thresholds";
const NMA_CHECKS: &str = "eks-node-monitoring-agent: checks";

/// Every check, the most telling first: a drain reason begins with it.
pub const CHECKS: &[Check] = &[
    Check {
        id: "device-count",
        proves: "as many EFA devices as the configuration, the record or the type says",
        severity: Severity::Fatal,
        cost: "5 small files for each RDMA device",
        source: "one adapter that is gone stalls every collective of the job",
        remedy: "Compare with `lspci -d 1d0f:` and `dmesg`. A device that left the bus comes back \
                 only with a reboot or another instance. If N devices are right, because fewer are \
                 attached than the type can have, run `efa-check baseline --expect N` on the node while \
                 it is healthy, or set `expected_devices`. More devices than expected are a warning.",
        judge: devices::device_count,
    },
    Check {
        id: "counters",
        proves: "every device answers its driver: its counters can be read, in time",
        severity: Severity::Fatal,
        cost: "11 counters for each device, in a process of its own (all 34 outside the prolog)",
        source: "EFA driver: a read of a port counter is an admin command to the device",
        remedy: "One device that does not answer takes EFA from the whole node: libfabric opens every \
                 device when it starts, and fails if one of them fails. The other devices are well, and no \
                 job can use them. Look for \"Admin queue is closed\" or timeouts of efa in `dmesg`. On an idle \
                 node `efa-check rebind DEVICE` brings such a device back. If it dies again, replace the \
                 instance.",
        judge: counters::counters,
    },
    Check {
        id: "admin-queue",
        proves: "no admin command has gone unanswered since the last round",
        severity: Severity::Fatal,
        cost: "none: no_completion_cmds is among the counters",
        source: "EFA driver: no_completion_cmds",
        remedy: "The device or its firmware stopped answering for a while. Look at `dmesg`; if it \
                 happens again, replace the instance.",
        judge: counters::admin_queue,
    },
    Check {
        id: "modules",
        proves: "efa, ib_uverbs and ib_core are loaded",
        severity: Severity::Fatal,
        cost: "3 stat(2)",
        source: NMA_CHECKS,
        remedy: "`modprobe efa`. If that fails after a kernel update, run the EFA installer again \
                 or `dkms autoinstall`.",
        judge: software::modules,
    },
    Check {
        id: "uverbs",
        proves: "users can open /dev/infiniband/uverbsN of every device",
        severity: Severity::Fatal,
        cost: "a directory and a stat(2) for each device",
        source: "rdma-core's udev rules make it read-write for everybody",
        remedy: "`udevadm trigger`; look for a rule of the site that sets another mode.",
        judge: devices::uverbs,
    },
    Check {
        id: "gpudirect",
        proves: "accelerators and EFA share memory: by the driver's peer memory (device/p2p), or by dma-buf",
        severity: Severity::Fatal,
        cost: "none: read with the device; where p2p is empty, the versions of the software",
        source: "aws-ofi-nccl refuses to run without GPUDirect on these types; its pull requests 848, 1245",
        remedy: "Empty: load the GPU driver before efa, or reload efa (`rmmod efa; modprobe efa`) on \
                 an idle node; the efa driver must be built with GPUDirect support. An empty file is no \
                 loss where GPUDirect goes by dma-buf: libfabric 1.20, kernel 5.12, NVIDIA's open kernel \
                 module, and aws-ofi-nccl 1.19.2 (1.16 with PCI device id 0xefa3 and later), or newer. \
                 Absent: unknown, and no reason to drain. The kernel's own efa driver never has the file and \
                 does GPUDirect by dma-buf; there prolog and health check leave this check out, and `disable \
                 = [\"gpudirect\"]` makes `efa-check node` do the same.",
        judge: devices::gpudirect,
    },
    Check {
        id: "stack",
        proves: "libfabric, and aws-ofi-nccl on nodes with NVIDIA GPUs, are installed",
        severity: Severity::Warning,
        cost: "up to 16 stat(2), in a prolog only for jobs with a profile",
        source: "NCCL falls back to sockets without them, silently",
        remedy: "Run the EFA installer. Where all jobs bring their own in an image, set \
                 `stack = \"container\"`. Fatal where `default_profile` gives every job a profile.",
        judge: software::stack,
    },
    Check {
        id: "rx-drops",
        proves: "no device drops more received packets than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters",
        source: NMA,
        remedy: "May be the receiver's: too few receive buffers, a busy host. Watch the rate.",
        judge: |facts| counters::rate("rx-drops", facts),
    },
    Check {
        id: "rdma-errors",
        proves: "no device has more failed RDMA reads or writes than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters",
        source: NMA,
        remedy: "May be the remote's: a job that died leaves its peers with such errors.",
        judge: |facts| counters::rate("rdma-errors", facts),
    },
    Check {
        id: "unresponsive-remote",
        proves: "no device meets more silent remotes than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "Look at the other nodes of the job: the silent one is not this one.",
        judge: |facts| counters::rate("unresponsive-remote", facts),
    },
    Check {
        id: "impaired-remote",
        proves: "no device meets more impaired connections than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "As for unresponsive-remote.",
        judge: |facts| counters::rate("impaired-remote", facts),
    },
    Check {
        id: "retransmissions",
        proves: "no device sends more again than the buckets allow",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "A congested or lossy path. If it stays with one node, replace that node.",
        judge: |facts| counters::rate("retransmissions", facts),
    },
    Check {
        id: "security-group",
        proves: "not: packets leave, remotes are silent, and nothing was ever received",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: "EFA needs a security group that allows all traffic to and from itself",
        remedy: "Allow all traffic of the security group to and from its own id; 0.0.0.0/0 is not \
                 enough. All nodes must be in one availability zone and VPC.",
        judge: counters::security_group,
    },
    Check {
        id: "loopback",
        proves: "packets of each device came back to it when the node was last idle",
        severity: Severity::Warning,
        cost: "none: the result that `healthcheck` keeps, where `pingpong_every` is set",
        source: "fi_pingpong(1), libfabric's own test",
        remedy: "`efa-check pingpong` on the idle node says more. If it fails for one device only, \
                 replace the instance; if for all, look at the security group and the EFA software.",
        judge: devices::loopback,
    },
    Check {
        id: "memlock",
        proves: "slurmd's limit of locked memory is large enough to register buffers",
        severity: Severity::Warning,
        cost: "1 file (outside prolog and health check: one for each process)",
        source: NMA_CHECKS,
        remedy: "`LimitMEMLOCK=infinity` in slurmd's unit, and \
                 `PropagateResourceLimitsExcept=MEMLOCK` in slurm.conf.",
        judge: limits::memlock,
    },
    Check {
        id: "ptrace-scope",
        proves: "processes of a job may read each other's memory (libfabric's CMA)",
        severity: Severity::Warning,
        cost: "1 file",
        source: NMA_CHECKS,
        remedy: "`sysctl kernel.yama.ptrace_scope=0`; the EFA installer sets it.",
        judge: limits::ptrace_scope,
    },
    Check {
        id: "hugepages",
        proves: "the kernel holds the hugepages that the ledger and the site want",
        severity: Severity::Warning,
        cost: "the ledger's file and a few of the kernel's, where a job has pages; 1 where `hugepages` is set",
        source: "libfabric takes its packet pools from hugepages, and silently does without",
        remedy: "Pages of the ledger: something else changed `nr_hugepages`; `sysctl -w vm.nr_hugepages=` \
                 in a unit or another prolog takes pages from jobs. Pages of the site: reserve them \
                 at boot; a fragmented node cannot give them later.",
        judge: limits::hugepages,
    },
];

/// The check of this name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

impl Check {
    /// What this check makes of a node.
    #[must_use]
    pub fn judge(&self, facts: &Facts<'_>) -> CheckOutcome {
        (self.judge)(facts)
    }
}

/// The table for the manual.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "| check | finds nothing: what that proves | severity | cost | source |\n|---|---|---|---|---|\n",
    );
    for check in CHECKS {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            check.id,
            check.proves,
            check.severity.word(),
            check.cost,
            check.source
        ));
    }
    text
}
