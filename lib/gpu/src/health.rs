//! Whether a node's GPUs are fit for the next job.

use serde::Serialize;

use crate::inventory::{Gpu, Machine};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// To be mended at the next occasion.
    Warning,
    /// No job should start here.
    Fatal,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// Which check found it.
    pub check: &'static str,
    /// What happened and what to do, for a person.
    pub text: String,
}

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
pub fn judge(machine: &Machine, before: &Before) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |grade, check, text: String| found.push(Finding { grade, check, text });
    let now: Vec<&str> = machine.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    for uuid in before.uuids.iter().flatten() {
        if !now.contains(&uuid.as_str()) {
            say(
                Grade::Fatal,
                "uuid",
                format!("the GPU {uuid} was here and is not any more; reboot or replace the node"),
            );
        }
    }
    if let Some(configured) = before
        .configured
        .filter(|count| *count > machine.gpus.len())
    {
        say(
            Grade::Fatal,
            "count",
            format!(
                "gres.conf gives this node {configured} GPUs, NVML finds {}; look for Xid in the \
                 kernel's log",
                machine.gpus.len()
            ),
        );
    }
    for gpu in &machine.gpus {
        judge_gpu(gpu, &mut say);
    }
    // GPUs of one board that need a fabric manager have none without all.
    for (uuid, xid) in &before.xids {
        let Some((_, meaning)) = FATAL_XIDS.iter().find(|(number, _)| number == xid) else {
            continue;
        };
        say(
            Grade::Fatal,
            "xid",
            format!(
                "{uuid}: Xid {xid} since boot: {meaning}; reboot the node, or reset the GPU and run \
                 `gres-helper forget-xids {uuid}`"
            ),
        );
    }
    found
}

fn judge_gpu(gpu: &Gpu, say: &mut impl FnMut(Grade, &'static str, String)) {
    let label = gpu.label();
    if gpu.lost {
        say(
            Grade::Fatal,
            "lost",
            format!(
                "{label} has fallen off the bus; reboot the node, replace it if that does not help"
            ),
        );
        return;
    }
    if gpu.uuid.is_empty() {
        let reason = gpu
            .trouble
            .first()
            .map_or("no reason given", String::as_str);
        say(
            Grade::Fatal,
            "answer",
            format!("{label} does not answer: {reason}; reset it or reboot the node"),
        );
        return;
    }
    let health = &gpu.health;
    if health.remap_failed == Some(true) {
        say(
            Grade::Fatal,
            "remap-failed",
            format!("{label}: a memory row could not be remapped; replace the GPU"),
        );
    }
    match health.recovery {
        // NVML_GPU_RECOVERY_ACTION_DRAIN_P2P
        Some(3) => say(
            Grade::Warning,
            "recovery",
            format!("{label}: the driver asks to drain peer-to-peer traffic"),
        ),
        Some(action @ 1..) => {
            let what = match action {
                1 => "a reset of the GPU",
                2 => "a reboot of the node",
                4 => "draining and a reset of the GPU",
                _ => "a recovery that is not known here",
            };
            say(
                Grade::Fatal,
                "recovery",
                format!("{label}: the driver asks for {what}"),
            );
        }
        Some(0) | None => {}
    }
    if matches!(health.fabric, Some(1 | 2)) {
        say(
            Grade::Fatal,
            "fabric",
            format!("{label}: its NVLink fabric is not up; look at nvidia-fabricmanager's log"),
        );
    }
    if health.remap_pending == Some(true) {
        say(
            Grade::Warning,
            "remap-pending",
            format!("{label}: memory rows wait for a reset to be remapped; drain and reset it"),
        );
    }
    if health.retired_pending == Some(true) {
        say(
            Grade::Warning,
            "retired-pending",
            format!("{label}: memory pages wait for a reset to be retired; drain and reset it"),
        );
    }
    if let Some(count @ 1..) = health.ecc_uncorrected {
        say(
            Grade::Warning,
            "ecc",
            format!("{label}: {count} uncorrected memory errors since the driver was loaded"),
        );
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

    fn grades(machine: &Machine, before: &Before) -> Vec<(Grade, &'static str)> {
        judge(machine, before)
            .iter()
            .map(|it| (it.grade, it.check))
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
        assert_eq!(grades(&machine(|_| {}), &before), []);
    }

    #[test]
    fn each_sign_is_found_and_graded() {
        use Grade::{Fatal, Warning};
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
            assert_eq!(grades(&machine, &none), [expected]);
        }
        let before = Before {
            uuids: Some(vec!["GPU-2".to_owned()]),
            configured: Some(2),
            xids: vec![("GPU-1".to_owned(), 79)],
        };
        let expected = [(Fatal, "uuid"), (Fatal, "count"), (Fatal, "xid")];
        assert_eq!(grades(&machine(|_| {}), &before), expected);
    }
}
