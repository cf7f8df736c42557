//! What the devices count.

use super::facts::{CheckOutcome, Facts, devices, found, some};
use crate::counters::{PACKETS, UNRESPONSIVE};
use crate::probe_worker::Probe;

pub(super) fn counters(facts: &Facts<'_>) -> CheckOutcome {
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

pub(super) fn admin_queue(facts: &Facts<'_>) -> CheckOutcome {
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

pub(super) fn rate(id: &str, facts: &Facts<'_>) -> CheckOutcome {
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

pub(super) fn security_group(facts: &Facts<'_>) -> CheckOutcome {
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
