//! Whether a node's GPUs are fit for the next job.

use findings::{Finding, Findings, Severity};

use crate::inventory::{Gpu, Machine};

/// XID errors that speak against the GPU or its board, and not against a
/// program that ran on it. Source: NVIDIA XID Errors documentation, "common
/// causes" and recommended actions.
const FATAL_XIDS: &[(u64, &str)] = &[
    (48, "double bit ECC error"),
    (64, "a memory row could not be remapped"),
    (79, "the GPU has fallen off the bus"),
    (95, "uncontained memory error"),
    (119, "GSP does not answer"),
    (120, "GSP error"),
    (140, "unrecovered ECC error"),
];

/// What else is known beside the machine as it is now.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// The UUIDs that this boot's first look found.
    pub uuids: Option<Vec<String>>,
    /// GPUs that gres.conf names for this node.
    pub configured: Option<usize>,
    /// XID errors since boot: UUID and number.
    pub xids: Vec<(String, u64)>,
}

/// Judges a machine.
#[must_use]
pub fn judge(machine: &Machine, before: &Before) -> Findings {
    let mut found = Vec::new();
    let now: Vec<&str> = machine.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    for uuid in before.uuids.iter().flatten() {
        if !now.contains(&uuid.as_str()) {
            found.push(Finding {
                id: "uuid",
                severity: Severity::Fatal,
                subject: Some(uuid.clone()),
                sentence: format!("the GPU {uuid} was here and is not any more"),
                remedy: Some("reboot or replace the node".to_owned()),
            });
        }
    }
    if let Some(configured) = before
        .configured
        .filter(|count| *count > machine.gpus.len())
    {
        found.push(Finding {
            id: "count",
            severity: Severity::Fatal,
            subject: None,
            sentence: format!(
                "gres.conf gives this node {configured} GPUs, NVML finds {}",
                machine.gpus.len()
            ),
            remedy: Some("look for Xid in the kernel's log".to_owned()),
        });
    }
    for gpu in &machine.gpus {
        judge_gpu(gpu, &mut found);
    }
    // GPUs of one board that need a fabric manager have none without all.
    for (uuid, xid) in &before.xids {
        let Some((_, meaning)) = FATAL_XIDS.iter().find(|(number, _)| number == xid) else {
            continue;
        };
        found.push(Finding {
            id: "xid",
            severity: Severity::Fatal,
            subject: Some(uuid.clone()),
            sentence: format!("{uuid}: Xid {xid} since boot: {meaning}"),
            remedy: Some(format!(
                "reboot the node, or reset the GPU and run `gres-helper forget-xids {uuid}`"
            )),
        });
    }
    Findings(found)
}

fn judge_gpu(gpu: &Gpu, found: &mut Vec<Finding>) {
    use Severity::{Fatal, Warning};
    let label = gpu.label();
    let mut say = |severity, id, sentence: String, remedy: Option<&str>| {
        found.push(Finding {
            id,
            severity,
            subject: Some(label.clone()),
            sentence,
            remedy: remedy.map(str::to_owned),
        });
    };
    if gpu.lost {
        let sentence = format!("{label} has fallen off the bus");
        let remedy = "reboot the node, replace it if that does not help";
        say(Fatal, "lost", sentence, Some(remedy));
        return;
    }
    if gpu.uuid.is_empty() {
        let reason = gpu
            .trouble
            .first()
            .map_or("no reason given", String::as_str);
        let sentence = format!("{label} does not answer: {reason}");
        say(
            Fatal,
            "answer",
            sentence,
            Some("reset it or reboot the node"),
        );
        return;
    }
    let health = &gpu.health;
    if health.remap_failed == Some(true) {
        let sentence = format!("{label}: a memory row could not be remapped");
        say(Fatal, "remap-failed", sentence, Some("replace the GPU"));
    }
    match health.recovery {
        // NVML_GPU_RECOVERY_ACTION_DRAIN_P2P
        Some(3) => {
            let sentence = format!("{label}: the driver asks to drain peer-to-peer traffic");
            say(Warning, "recovery", sentence, None);
        }
        Some(action @ 1..) => {
            let what = match action {
                1 => "a reset of the GPU",
                2 => "a reboot of the node",
                4 => "draining and a reset of the GPU",
                _ => "a recovery that is not known here",
            };
            let sentence = format!("{label}: the driver asks for {what}");
            say(Fatal, "recovery", sentence, None);
        }
        Some(0) | None => {}
    }
    if matches!(health.fabric, Some(1 | 2)) {
        let sentence = format!("{label}: its NVLink fabric is not up");
        let remedy = "look at nvidia-fabricmanager's log";
        say(Fatal, "fabric", sentence, Some(remedy));
    }
    if health.remap_pending == Some(true) {
        let sentence = format!("{label}: memory rows wait for a reset to be remapped");
        say(
            Warning,
            "remap-pending",
            sentence,
            Some("drain and reset it"),
        );
    }
    if health.retired_pending == Some(true) {
        let sentence = format!("{label}: memory pages wait for a reset to be retired");
        say(
            Warning,
            "retired-pending",
            sentence,
            Some("drain and reset it"),
        );
    }
    if let Some(count @ 1..) = health.ecc_uncorrected {
        let sentence =
            format!("{label}: {count} uncorrected memory errors since the driver was loaded");
        say(Warning, "ecc", sentence, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Health;

    fn machine(change: impl FnOnce(&mut Gpu)) -> Machine {
        let mut gpu = Gpu {
            uuid: "GPU-1".to_owned(),
            minor: Some(0),
            ..Gpu::default()
        };
        change(&mut gpu);
        Machine {
            driver: String::new(),
            can_limit: false,
            gpus: vec![gpu],
        }
    }

    fn severities(machine: &Machine, before: &Before) -> Vec<(Severity, &'static str)> {
        judge(machine, before)
            .0
            .iter()
            .map(|it| (it.severity, it.id))
            .collect()
    }

    #[test]
    fn a_healthy_gpu_is_found_nothing_wrong_with() {
        let before = Before {
            uuids: Some(vec!["GPU-1".to_owned()]),
            configured: Some(1),
            // An error of a program is not the GPU's.
            xids: vec![("GPU-1".to_owned(), 13), ("GPU-1".to_owned(), 43)],
        };
        assert_eq!(severities(&machine(|_| {}), &before), []);
    }

    #[test]
    fn each_sign_is_found_and_graded() {
        use Severity::{Fatal, Warning};
        let none = Before::default();
        let with = |health: Health| machine(|gpu| gpu.health = health);
        let health = Health::default;
        for (machine, expected) in [
            (machine(|gpu| gpu.lost = true), (Fatal, "lost")),
            (machine(|gpu| gpu.uuid.clear()), (Fatal, "answer")),
            (
                with(Health {
                    remap_failed: Some(true),
                    ..health()
                }),
                (Fatal, "remap-failed"),
            ),
            (
                with(Health {
                    recovery: Some(1),
                    ..health()
                }),
                (Fatal, "recovery"),
            ),
            (
                with(Health {
                    recovery: Some(3),
                    ..health()
                }),
                (Warning, "recovery"),
            ),
            (
                with(Health {
                    fabric: Some(2),
                    ..health()
                }),
                (Fatal, "fabric"),
            ),
            (
                with(Health {
                    remap_pending: Some(true),
                    ..health()
                }),
                (Warning, "remap-pending"),
            ),
            (
                with(Health {
                    retired_pending: Some(true),
                    ..health()
                }),
                (Warning, "retired-pending"),
            ),
            (
                with(Health {
                    ecc_uncorrected: Some(2),
                    ..health()
                }),
                (Warning, "ecc"),
            ),
        ] {
            assert_eq!(severities(&machine, &none), [expected]);
        }
        let before = Before {
            uuids: Some(vec!["GPU-2".to_owned()]),
            configured: Some(2),
            xids: vec![("GPU-1".to_owned(), 79)],
        };
        let expected = [(Fatal, "uuid"), (Fatal, "count"), (Fatal, "xid")];
        assert_eq!(severities(&machine(|_| {}), &before), expected);
    }
}
