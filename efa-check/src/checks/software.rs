//! The driver's modules and the software of EFA.

use efa::instance_types::Accelerator;
use findings::Severity;

use super::facts::{CheckOutcome, Facts, has_efa, spec};
use crate::settings::StackPlace;

pub(super) fn modules(facts: &Facts<'_>) -> CheckOutcome {
    if !has_efa(facts) {
        return CheckOutcome::NotApplicable;
    }
    let missing = &facts.seen.modules_missing;
    if missing.is_empty() {
        return CheckOutcome::Fine;
    }
    CheckOutcome::Found(format!("kernel module {} not loaded", missing.join(", ")))
}

pub(super) fn stack(facts: &Facts<'_>) -> CheckOutcome {
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
