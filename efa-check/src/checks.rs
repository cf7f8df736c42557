//! Every check, as data, and how each judges what was seen. Nothing here reads
//! anything or knows the time.

use efa::instance_types;
use efa::instance_types::{Accelerator, GpuDirect, Spec};
pub use findings::Severity;
use host::printable;

use crate::counters::{PACKETS, UNRESPONSIVE};
use crate::expect::{Expectation, Known, Source};
use crate::observe::{HugePool, Observation, Seen, Uverbs, WantedBy};
use crate::probe::Probe;
use crate::rounds::{Changes, Rounds};
use crate::settings::{Settings, StackPlace};

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

/// What a check makes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Nothing is wrong.
    Fine,
    /// It has no meaning on this node.
    NotApplicable,
    /// Something is wrong, in words.
    Found(String),
    /// The same, and of another severity than the table's.
    FoundAs(Severity, String),
    /// It cannot be told, and why.
    Unknown(String),
    /// This node has nothing to check it by, in this round or a later one.
    Uncheckable(String),
}

/// Everything that a check may use.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What was seen.
    pub seen: &'a Observation,
    /// What shall be there.
    pub expected: &'a Expectation,
    /// What the site decided.
    pub settings: &'a Settings,
    /// What was seen since boot, this round included.
    pub rounds: &'a Rounds,
    /// What is new.
    pub changes: &'a Changes,
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
                 attached than the type can have, run `efa-check record --expect N` on the node while \
                 it is healthy, or set `expected_devices`. More devices than expected are a warning.",
        judge: device_count,
    },
    Check {
        id: "counters",
        proves: "every device answers its driver: its counters can be read, in time",
        severity: Severity::Fatal,
        cost: "11 counters for each device, in a process of its own (all 34 outside the prolog)",
        source: "EFA driver: a read of a port counter is an admin command to the device",
        remedy: "Look for \"Admin queue is closed\" or timeouts of efa in `dmesg`. Reboot or replace \
                 the instance.",
        judge: counters,
    },
    Check {
        id: "admin-queue",
        proves: "no admin command has gone unanswered since the last round",
        severity: Severity::Fatal,
        cost: "none: no_completion_cmds is among the counters",
        source: "EFA driver: no_completion_cmds",
        remedy: "The device or its firmware stopped answering for a while. Look at `dmesg`; if it \
                 happens again, replace the instance.",
        judge: admin_queue,
    },
    Check {
        id: "modules",
        proves: "efa, ib_uverbs and ib_core are loaded",
        severity: Severity::Fatal,
        cost: "3 stat(2)",
        source: NMA_CHECKS,
        remedy: "`modprobe efa`. If that fails after a kernel update, run the EFA installer again \
                 or `dkms autoinstall`.",
        judge: modules,
    },
    Check {
        id: "uverbs",
        proves: "users can open /dev/infiniband/uverbsN of every device",
        severity: Severity::Fatal,
        cost: "a directory and a stat(2) for each device",
        source: "rdma-core's udev rules make it read-write for everybody",
        remedy: "`udevadm trigger`; look for a rule of the site that sets another mode.",
        judge: uverbs,
    },
    Check {
        id: "gpudirect",
        proves: "the driver found the accelerators' peer memory on every device (device/p2p)",
        severity: Severity::Fatal,
        cost: "none: read with the device",
        source: "aws-ofi-nccl refuses to run without it on these types",
        remedy: "Empty: load the GPU driver before efa, or reload efa (`rmmod efa; modprobe efa`) on \
                 an idle node; the efa driver must be built with GPUDirect support. Absent: unknown, \
                 and no reason to drain. The kernel's own efa driver never has the file and does \
                 GPUDirect by dma-buf; there prolog and watch leave this check out, and `disable = \
                 [\"gpudirect\"]` makes `efa-check node` do the same.",
        judge: gpudirect,
    },
    Check {
        id: "stack",
        proves: "libfabric, and aws-ofi-nccl on nodes with NVIDIA GPUs, are installed",
        severity: Severity::Warning,
        cost: "up to 16 stat(2), in a prolog only for jobs with a profile",
        source: "NCCL falls back to sockets without them, silently",
        remedy: "Run the EFA installer. Where all jobs bring their own in an image, set \
                 `stack = \"container\"`. Fatal where `default_profile` gives every job a profile.",
        judge: stack,
    },
    Check {
        id: "rx-drops",
        proves: "no device drops more received packets than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters",
        source: NMA,
        remedy: "May be the receiver's: too few receive buffers, a busy host. Watch the rate.",
        judge: |facts| rate("rx-drops", facts),
    },
    Check {
        id: "rdma-errors",
        proves: "no device has more failed RDMA reads or writes than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters",
        source: NMA,
        remedy: "May be the remote's: a job that died leaves its peers with such errors.",
        judge: |facts| rate("rdma-errors", facts),
    },
    Check {
        id: "unresponsive-remote",
        proves: "no device meets more silent remotes than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "Look at the other nodes of the job: the silent one is not this one.",
        judge: |facts| rate("unresponsive-remote", facts),
    },
    Check {
        id: "impaired-remote",
        proves: "no device meets more impaired connections than the bucket allows",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "As for unresponsive-remote.",
        judge: |facts| rate("impaired-remote", facts),
    },
    Check {
        id: "retransmissions",
        proves: "no device sends more again than the buckets allow",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: NMA,
        remedy: "A congested or lossy path. If it stays with one node, replace that node.",
        judge: |facts| rate("retransmissions", facts),
    },
    Check {
        id: "security-group",
        proves: "not: packets leave, remotes are silent, and nothing was ever received",
        severity: Severity::Warning,
        cost: "none: among the counters (driver 2.17 and later)",
        source: "EFA needs a security group that allows all traffic to and from itself",
        remedy: "Allow all traffic of the security group to and from its own id; 0.0.0.0/0 is not \
                 enough. All nodes must be in one availability zone and VPC.",
        judge: security_group,
    },
    Check {
        id: "loopback",
        proves: "packets of each device came back to it when the node was last idle",
        severity: Severity::Warning,
        cost: "none: the result that `watch` keeps, where `pingpong_every` is set",
        source: "fi_pingpong(1), libfabric's own test",
        remedy: "`efa-check pingpong` on the idle node says more. If it fails for one device only, \
                 replace the instance; if for all, look at the security group and the EFA software.",
        judge: loopback,
    },
    Check {
        id: "memlock",
        proves: "slurmd's limit of locked memory is large enough to register buffers",
        severity: Severity::Warning,
        cost: "1 file (outside prolog and watch: one for each process)",
        source: NMA_CHECKS,
        remedy: "`LimitMEMLOCK=infinity` in slurmd's unit, and \
                 `PropagateResourceLimitsExcept=MEMLOCK` in slurm.conf.",
        judge: memlock,
    },
    Check {
        id: "ptrace-scope",
        proves: "processes of a job may read each other's memory (libfabric's CMA)",
        severity: Severity::Warning,
        cost: "1 file",
        source: NMA_CHECKS,
        remedy: "`sysctl kernel.yama.ptrace_scope=0`; the EFA installer sets it.",
        judge: ptrace_scope,
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
        judge: hugepages,
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

fn spec(facts: &Facts<'_>) -> Option<&'static Spec> {
    instance_types::lookup(facts.seen.instance.as_ref().ok()?)
}

/// Devices of the node, or why they are not known. A node without any is
/// judged by `device-count` alone.
fn devices<'a>(facts: &Facts<'a>) -> Result<&'a [Seen], CheckOutcome> {
    match &facts.seen.devices {
        Ok(devices) if devices.is_empty() => Err(CheckOutcome::NotApplicable),
        Ok(devices) => Ok(devices),
        // That is device-count's finding.
        Err(_) => Err(CheckOutcome::NotApplicable),
    }
}

/// Whether this node is about EFA at all.
fn has_efa(facts: &Facts<'_>) -> bool {
    facts.expected.count.is_some_and(|count| count > 0)
        || facts.seen.devices.as_ref().is_ok_and(|d| !d.is_empty())
}

fn device_count(facts: &Facts<'_>) -> CheckOutcome {
    let seen = facts.seen;
    let devices = match &seen.devices {
        Ok(devices) => devices,
        Err(reason) => {
            return CheckOutcome::Unknown(format!("the devices cannot be listed: {reason}"));
        }
    };
    let have = devices.len();
    let Some(want) = facts.expected.count else {
        let type_ = match &seen.instance {
            Ok(instance) => format!("nothing says how many devices a {instance} shall have"),
            Err(reason) => reason.clone(),
        };
        return CheckOutcome::Unknown(format!(
            "{have} devices, and {type_}; run `efa-check record` while the node is healthy, \
             or set `expected_devices`{}",
            note(facts)
        ));
    };
    if have > want as usize {
        return CheckOutcome::FoundAs(Severity::Warning, too_many(have, want, facts));
    }
    if have == want as usize {
        return CheckOutcome::Fine;
    }
    let mut text = format!("{have}/{want} devices");
    let gone = gone(facts, devices);
    for device in gone.iter().take(2) {
        text.push_str(", ");
        text.push_str(device);
    }
    if gone.len() > 2 {
        text.push_str(&format!(" and {} more", gone.len() - 2));
    }
    if let Some((name, reason)) = seen.skipped.first() {
        text.push_str(&format!(", {} unreadable ({reason})", printable(name, 40)));
    }
    if facts.expected.source == Source::Type {
        text.push_str(&format!(
            "; {want} is the most for the type and nothing is recorded: if {have} is right, \
             run `efa-check record --expect {have}`{}",
            note(facts)
        ));
    }
    CheckOutcome::Found(text)
}

/// An expectation that was too low: from a record of a broken node, for example.
fn too_many(have: usize, want: u32, facts: &Facts<'_>) -> String {
    match facts.expected.source {
        Source::Configuration => format!(
            "{have} devices, and `expected_devices` says {want}: correct it if {have} is right"
        ),
        Source::Recorded(_) => format!(
            "{have} devices, and {want} are recorded: run `efa-check record` if {have} is right"
        ),
        Source::Type => format!(
            "{have} devices, and {want} is the most that is known of the type: run `efa-check \
             record` if {have} is right"
        ),
    }
}

fn note(facts: &Facts<'_>) -> String {
    let note = facts.expected.note.as_ref();
    note.map(|note| format!(" ({note})")).unwrap_or_default()
}

/// The devices that were there and are not, in words.
fn gone(facts: &Facts<'_>, devices: &[Seen]) -> Vec<String> {
    let remembered = facts.rounds.devices.iter().map(|(name, device)| {
        let known = Known {
            name: name.clone(),
            pci: device.pci.clone(),
        };
        (known, device.gone_since)
    });
    let mut missing: Vec<(Known, Option<u64>)> = remembered
        .filter(|(known, _)| !devices.iter().any(|seen| known.is(seen)))
        .collect();
    if let Source::Recorded(recorded) = &facts.expected.source {
        for known in recorded {
            let there = devices.iter().any(|seen| known.is(seen));
            let listed = missing.iter().any(|(other, _)| {
                other.pci == known.pci && other.pci.is_some() || other.name == known.name
            });
            if !there && !listed {
                missing.push((known.clone(), None));
            }
        }
    }
    missing.sort_by(|(a, _), (b, _)| efa::devices::natural_order(&a.name, &b.name));
    missing
        .into_iter()
        .map(|(known, since)| {
            let mut text = format!("{} gone", printable(&known.name, 40));
            if let Some(since) = since {
                text.push_str(" since ");
                text.push_str(&crate::report::utc(since));
            }
            if let Some(pci) = &known.pci {
                text.push_str(&format!(" (pci {})", printable(pci, 20)));
            }
            text
        })
        .collect()
}

/// `rdmap16s27 (pci 0000:10:1b.0)`.
fn named(device: &Seen) -> String {
    let name = printable(&device.name, 40);
    match &device.pci {
        Some(pci) => format!("{name} (pci {pci})"),
        None => name,
    }
}

/// At most two devices by name and what is wrong with each, the rest as a number.
fn some<'a>(all: impl Iterator<Item = (&'a Seen, String)>) -> Option<String> {
    let all: Vec<_> = all.collect();
    let mut text = all
        .iter()
        .take(2)
        .map(|(device, what)| format!("{} {what}", named(device)))
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > 2 {
        text.push_str(&format!(" and {} more", all.len() - 2));
    }
    (!all.is_empty()).then_some(text)
}

fn found(text: Option<String>) -> CheckOutcome {
    text.map_or(CheckOutcome::Fine, CheckOutcome::Found)
}

fn counters(facts: &Facts<'_>) -> CheckOutcome {
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    let bad = some(devices.iter().filter_map(|device| match &device.probe {
        Probe::Failed { reason } => Some((device, format!("cannot be read: {reason}"))),
        Probe::Stuck { .. } => Some((device, "does not answer: a read hangs".to_owned())),
        Probe::Values(_) | Probe::Unknown { .. } => None,
    }));
    if let Some(bad) = bad {
        return CheckOutcome::Found(format!("counters of {bad}"));
    }
    let unknown = some(devices.iter().filter_map(|device| match &device.probe {
        Probe::Unknown { reason } => Some((device, format!("not read: {reason}"))),
        _ => None,
    }));
    match unknown {
        Some(text) => CheckOutcome::Unknown(format!("counters of {text}")),
        None => CheckOutcome::Fine,
    }
}

fn admin_queue(facts: &Facts<'_>) -> CheckOutcome {
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    found(some(facts.changes.unanswered.iter().filter_map(
        |(name, commands)| {
            let device = devices.iter().find(|device| device.name == *name)?;
            let what = format!("left {commands} admin commands unanswered (no_completion_cmds)");
            Some((device, what))
        },
    )))
}

fn modules(facts: &Facts<'_>) -> CheckOutcome {
    if !has_efa(facts) {
        return CheckOutcome::NotApplicable;
    }
    let missing = &facts.seen.modules_missing;
    if missing.is_empty() {
        return CheckOutcome::Fine;
    }
    CheckOutcome::Found(format!("kernel module {} not loaded", missing.join(", ")))
}

fn uverbs(facts: &Facts<'_>) -> CheckOutcome {
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    found(some(devices.iter().filter_map(|device| {
        let what = match &device.uverbs {
            Uverbs::Fine => return None,
            Uverbs::None => "has no uverbs device".to_owned(),
            Uverbs::Missing(place) => format!("lacks {}", printable(place, 60)),
            Uverbs::Closed(place, mode) => {
                format!(
                    "is closed to users: {} has mode {mode:04o}",
                    printable(place, 60)
                )
            }
            Uverbs::Unreadable(reason) => format!("cannot be opened: {reason}"),
        };
        Some((device, what))
    })))
}

fn gpudirect(facts: &Facts<'_>) -> CheckOutcome {
    if spec(facts).is_none_or(|spec| spec.gpudirect != GpuDirect::Required) {
        return CheckOutcome::NotApplicable;
    }
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    let those = |has_p2p: Option<bool>, what: &str| {
        some(
            devices
                .iter()
                .filter(|device| device.has_p2p == has_p2p)
                .map(|device| (device, what.to_owned())),
        )
    };
    if let Some(text) = those(Some(false), "has no GPUDirect: device/p2p is empty") {
        return CheckOutcome::Found(text);
    }
    match those(None, "has no readable device/p2p") {
        None => CheckOutcome::Fine,
        Some(_) if facts.seen.kernels_driver => CheckOutcome::Uncheckable(
            "the kernel's own efa driver has no p2p file; GPUDirect goes by dma-buf there and \
             cannot be checked this way"
                .to_owned(),
        ),
        Some(text) => CheckOutcome::Unknown(format!("{text}, so GPUDirect cannot be checked")),
    }
}

fn stack(facts: &Facts<'_>) -> CheckOutcome {
    let Some(software) = facts.seen.stack else {
        return CheckOutcome::NotApplicable;
    };
    if facts.settings.stack == StackPlace::Container || !has_efa(facts) {
        return CheckOutcome::NotApplicable;
    }
    let nccl = spec(facts).is_some_and(|s| matches!(s.accelerator, Accelerator::Nvidia { .. }));
    let mut missing = Vec::new();
    if !software.libfabric {
        missing.push("libfabric (/opt/amazon/efa)");
    }
    if nccl && !software.plugin {
        missing.push("aws-ofi-nccl");
    }
    if missing.is_empty() {
        return CheckOutcome::Fine;
    }
    let text = format!("{} not installed", missing.join(" and "));
    if facts.settings.default_profile {
        CheckOutcome::FoundAs(Severity::Fatal, text)
    } else {
        CheckOutcome::Found(text)
    }
}

fn rate(id: &str, facts: &Facts<'_>) -> CheckOutcome {
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    found(some(facts.changes.excess.iter().filter_map(|excess| {
        let device = devices.iter().find(|d| d.name == excess.device)?;
        let what = format!(
            "{} rose by {} in {} s",
            excess.rate.counter,
            excess.rose,
            excess.within.as_secs()
        );
        (excess.rate.check == id).then_some((device, what))
    })))
}

fn security_group(facts: &Facts<'_>) -> CheckOutcome {
    /// Fewer packets may be an attempt or two.
    const ENOUGH: u64 = 100;
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    let sum = |counter| -> Option<u64> {
        let values = devices.iter().filter_map(|device| match &device.probe {
            Probe::Values(values) => values.get(counter).copied(),
            _ => None,
        });
        values.reduce(u64::saturating_add)
    };
    let [sent, received] = PACKETS.map(sum);
    match (sent, received, sum(UNRESPONSIVE)) {
        (Some(sent), Some(0), Some(1..)) if sent >= ENOUGH => CheckOutcome::Found(format!(
            "{sent} packets sent, none ever received, and remotes are silent: check that the \
             security group allows all traffic to and from itself"
        )),
        (Some(_), Some(_), Some(_)) => CheckOutcome::Fine,
        _ => CheckOutcome::NotApplicable,
    }
}

fn loopback(facts: &Facts<'_>) -> CheckOutcome {
    let result = facts.rounds.loopback.as_ref();
    let Some(result) = result.filter(|_| facts.settings.pingpong_every.is_some()) else {
        return CheckOutcome::NotApplicable;
    };
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    found(some(result.failed.iter().filter_map(|(name, reason)| {
        let device = devices.iter().find(|device| device.name == *name)?;
        Some((
            device,
            format!("failed fi_pingpong: {}", printable(reason, 120)),
        ))
    })))
}

fn memlock(facts: &Facts<'_>) -> CheckOutcome {
    match facts.seen.memlock {
        Some(bytes) if bytes < facts.settings.memlock && has_efa(facts) => {
            CheckOutcome::Found(format!("slurmd may lock only {bytes} bytes of memory"))
        }
        Some(_) => CheckOutcome::Fine,
        None => CheckOutcome::NotApplicable,
    }
}

fn ptrace_scope(facts: &Facts<'_>) -> CheckOutcome {
    match &facts.seen.ptrace_scope {
        None => CheckOutcome::NotApplicable,
        Some(_) if !has_efa(facts) => CheckOutcome::NotApplicable,
        Some(Ok(0)) => CheckOutcome::Fine,
        Some(Ok(scope)) => {
            CheckOutcome::Found(format!("kernel.yama.ptrace_scope is {scope}, not 0"))
        }
        Some(Err(reason)) => CheckOutcome::Unknown(reason.clone()),
    }
}

fn hugepages(facts: &Facts<'_>) -> CheckOutcome {
    let pools = match &facts.seen.hugepages {
        Ok(pools) if pools.is_empty() => return CheckOutcome::NotApplicable,
        Ok(pools) => pools,
        Err(reason) => return CheckOutcome::Unknown(reason.clone()),
    };
    let short: Vec<String> = pools
        .iter()
        .filter(|pool| pool.have < pool.want)
        .map(|pool| {
            let who = match pool.wanted_by {
                WantedBy::Site => "that the site wants",
                WantedBy::Ledger => "of the jobs and the administrator",
            };
            let HugePool {
                have, want, size, ..
            } = pool;
            format!("{have} of {want} hugepages of {size} {who}")
        })
        .collect();
    found((!short.is_empty()).then(|| short.join(", ")))
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
