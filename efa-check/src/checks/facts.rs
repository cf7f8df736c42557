//! What a check may use, and what it makes of it.

use efa::instance_types;
use efa::instance_types::Spec;
use findings::Severity;
use host::printable;

use crate::baseline::Expectation;
use crate::history::{Changes, Rounds};
use crate::observe::{Observation, Seen};
use crate::settings::Settings;

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
    /// It is unknown, and why.
    Unknown(String),
    /// This node has nothing to check it by, in this round or a later one.
    Uncheckable(String),
}

/// Everything that a check may use.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What was seen.
    pub seen: &'a Observation,
    /// What should be there.
    pub expected: &'a Expectation,
    /// What the site decided.
    pub settings: &'a Settings,
    /// What was seen since boot, this round included.
    pub rounds: &'a Rounds,
    /// What is new.
    pub changes: &'a Changes,
}

pub(super) fn spec(facts: &Facts<'_>) -> Option<&'static Spec> {
    instance_types::lookup(facts.seen.instance.as_ref().ok()?)
}

/// Devices of the node, or why they are not known. A node without any is
/// judged by `device-count` alone.
pub(super) fn devices<'a>(facts: &Facts<'a>) -> Result<&'a [Seen], CheckOutcome> {
    match &facts.seen.devices {
        Ok(devices) if devices.is_empty() => Err(CheckOutcome::NotApplicable),
        Ok(devices) => Ok(devices),
        // That is device-count's finding.
        Err(_) => Err(CheckOutcome::NotApplicable),
    }
}

/// Whether this node is about EFA at all.
pub(super) fn has_efa(facts: &Facts<'_>) -> bool {
    facts.expected.count.is_some_and(|count| count > 0)
        || facts.seen.devices.as_ref().is_ok_and(|d| !d.is_empty())
}

/// `rdmap16s27 (pci 0000:10:1b.0)`.
pub(super) fn named(device: &Seen) -> String {
    let name = printable(&device.name, 40);
    match &device.pci {
        Some(pci) => format!("{name} (pci {pci})"),
        None => name,
    }
}

/// At most two devices by name and what is wrong with each, the rest as a number.
pub(super) fn some<'a>(all: impl Iterator<Item = (&'a Seen, String)>) -> Option<String> {
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

pub(super) fn found(text: Option<String>) -> CheckOutcome {
    text.map_or(CheckOutcome::Fine, CheckOutcome::Found)
}
