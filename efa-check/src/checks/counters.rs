//! What the devices count.

use super::date::utc;
use super::facts::{CheckOutcome, Facts, devices, found, some};
use crate::counters::{PACKETS, UNRESPONSIVE};
use crate::observe::Seen;
use crate::probe_worker::Probe;

pub(super) fn counters(facts: &Facts<'_>) -> CheckOutcome {
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    let dead = some(devices.iter().filter_map(|device| match &device.probe {
        Probe::Stuck { .. } => {
            let what = "does not answer: a read hangs".to_owned();
            Some((device, what + &rebound(facts, device)))
        }
        Probe::Dead { reason } => {
            let what = format!("does not answer: {reason}");
            Some((device, what + &rebound(facts, device)))
        }
        _ => None,
    }));
    let bad = some(devices.iter().filter_map(|device| match &device.probe {
        Probe::Failed { reason } => Some((device, format!("cannot be read: {reason}"))),
        _ => None,
    }));
    // The other devices are not usable either, so this must not sound like a partial loss.
    let dead = dead.map(|dead| format!("libfabric fails on the whole node: {dead}"));
    let bad = bad.map(|bad| format!("counters of {bad}"));
    let found: Vec<String> = [dead, bad].into_iter().flatten().collect();
    if !found.is_empty() {
        return CheckOutcome::Found(found.join("; "));
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

/// That a device was rebound before, if it was.
fn rebound(facts: &Facts<'_>, device: &Seen) -> String {
    let known = facts.rounds.devices.get(&device.name);
    let rebound = known.and_then(|known| known.rebound);
    rebound.map_or_else(String::new, |rebound| {
        format!(", though it was rebound at {}", utc(rebound.unix))
    })
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
