//! Each device: its number, its place in /dev, its peer memory, its own packets.

use efa::dma_buf::DmaBuf;
use efa::instance_types::{GpuDirect, Spec};
use findings::Severity;
use host::printable;

use super::date::utc;
use super::facts::{CheckOutcome, Facts, devices, found, some, spec};
use crate::baseline::{Known, Source};
use crate::observe::{Seen, Uverbs};
use crate::settings::StackPlace;

pub(super) fn device_count(facts: &Facts<'_>) -> CheckOutcome {
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
            "{have} devices, and {type_}; run `efa-check baseline` while the node is healthy, \
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
    // Where it is known which device is missing, the number is not right.
    if !gone.is_empty() {
        return CheckOutcome::Found(text);
    }
    match facts.expected.source {
        Source::Configuration | Source::Recorded(_) => CheckOutcome::Found(text),
        Source::Type => {
            text.push_str(&format!(
                "; {want} is the most for the type and nothing is recorded: if {have} is right, \
                 run `efa-check baseline --expect {have}`{}",
                note(facts)
            ));
            CheckOutcome::Found(text)
        }
        Source::Unreadable => {
            let note = facts.expected.note.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "; {want} is the most for the type, and {note}: if {have} is right, run `efa-check \
                 baseline --expect {have}`"
            ));
            CheckOutcome::Unknown(text)
        }
    }
}

/// An expectation that was too low: from a record of a broken node, for example.
fn too_many(have: usize, want: u32, facts: &Facts<'_>) -> String {
    match facts.expected.source {
        Source::Configuration => format!(
            "{have} devices, and `expected_devices` says {want}: correct it if {have} is right"
        ),
        Source::Recorded(_) => format!(
            "{have} devices, and {want} are recorded: run `efa-check baseline` if {have} is right"
        ),
        Source::Type | Source::Unreadable => format!(
            "{have} devices, and {want} is the most that is known of the type: run `efa-check \
             baseline` if {have} is right"
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
                text.push_str(&utc(since));
            }
            if let Some(pci) = &known.pci {
                text.push_str(&format!(" (pci {})", printable(pci, 20)));
            }
            text
        })
        .collect()
}

pub(super) fn uverbs(facts: &Facts<'_>) -> CheckOutcome {
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

pub(super) fn gpudirect(facts: &Facts<'_>) -> CheckOutcome {
    let required = |spec: &&Spec| spec.gpudirect == GpuDirect::Required;
    let Some(spec) = spec(facts).filter(required) else {
        return CheckOutcome::NotApplicable;
    };
    let devices = match devices(facts) {
        Ok(devices) => devices,
        Err(outcome) => return outcome,
    };
    let empty = devices
        .iter()
        .filter(|device| device.has_p2p == Some(false));
    let lost = empty.filter_map(|device| {
        let dma_buf = match dma_buf(facts, spec, device) {
            DmaBuf::Used => return None,
            DmaBuf::NotUsed(reason) => format!("no dma-buf ({reason})"),
            DmaBuf::Unknown(reason) => format!("dma-buf unknown ({reason})"),
        };
        Some((
            device,
            format!("has no GPUDirect: device/p2p is empty, {dma_buf}"),
        ))
    });
    if let Some(text) = some(lost) {
        // The versions that decide are those of the jobs' images.
        return if facts.settings.stack == StackPlace::Container {
            CheckOutcome::Unknown(text)
        } else {
            CheckOutcome::Found(text)
        };
    }
    let absent = devices.iter().filter(|device| device.has_p2p.is_none());
    let absent = some(absent.map(|device| (device, "has no readable device/p2p".to_owned())));
    match absent {
        None => CheckOutcome::Fine,
        Some(_) if facts.seen.kernels_driver => CheckOutcome::Uncheckable(
            "the kernel's own efa driver has no p2p file; GPUDirect goes by dma-buf there and \
             cannot be checked this way"
                .to_owned(),
        ),
        Some(text) => CheckOutcome::Unknown(format!("{text}, so GPUDirect cannot be checked")),
    }
}

/// Whether GPUDirect goes by dma-buf on this device.
fn dma_buf(facts: &Facts<'_>, spec: &Spec, device: &Seen) -> DmaBuf {
    let of_image = || DmaBuf::Unknown("jobs bring their own libfabric and aws-ofi-nccl".into());
    match &facts.seen.dma_buf {
        Some(software) if facts.settings.stack == StackPlace::Host => {
            software.dma_buf(spec.accelerator, device.device_id)
        }
        _ => of_image(),
    }
}

pub(super) fn loopback(facts: &Facts<'_>) -> CheckOutcome {
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
