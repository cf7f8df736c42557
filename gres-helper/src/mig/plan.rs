//! What must change for the GPUs to be what a file says.

use gpu::inventory::{Gpu, Machine, MigPlacement, Profile};
use gpu::nvml_worker::Agent;

use super::apply::present;
use super::layout::{Cell, Layout, Slot, shape};
use super::spec::Rule;

/// What is to be done with one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its UUID.
    pub gpu: String,
    /// How messages call it.
    pub label: String,
    /// What it is.
    pub before: Layout,
    /// What it shall be.
    pub after: Layout,
}

/// A plan for all GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The mode of these must change first: UUID, label, whether on.
    pub modes: Vec<(String, String, bool)>,
    /// Layouts that change.
    pub steps: Vec<Step>,
}

/// One device of a configuration: the profile's name, and the compute slices
/// if it is only a part (`1c.3g.40gb`).
fn device(name: &str) -> (Option<u32>, &str) {
    match name.split_once("c.") {
        Some((slices, profile)) if slices.bytes().all(|b| b.is_ascii_digit()) => {
            (slices.parse().ok(), profile)
        }
        _ => (None, name),
    }
}

/// The layout of a GPU that a rule asks for.
fn resolve(rule: &Rule, profiles: &[Profile], label: &str) -> Result<Layout, String> {
    let mut wanted: Vec<(&Profile, Vec<u32>)> = Vec::new();
    for (name, count) in &rule.mig_devices {
        let (part, profile_name) = device(name);
        let profile = profiles.iter().find(|profile| profile.name == profile_name);
        let profile = profile.ok_or_else(|| {
            let offered: Vec<&str> = profiles
                .iter()
                .map(|profile| profile.name.as_str())
                .collect();
            format!(
                "{label} has no profile `{}`; it offers {}",
                host::printable(name, 40),
                offered.join(", ")
            )
        })?;
        if *count > 64 {
            return Err(format!(
                "{label}: {count} of `{}` are too many",
                profile.name
            ));
        }
        let slices = part.unwrap_or(profile.slices);
        if slices == 0 || slices > profile.slices {
            return Err(format!(
                "{label}: `{}` cannot be",
                host::printable(name, 40)
            ));
        }
        let each = profile.slices / slices;
        let mut left = *count;
        while left > 0 {
            let here = left.min(each);
            wanted.push((profile, vec![slices; here as usize]));
            left -= here;
        }
    }
    for (profile, _) in &wanted {
        let count = wanted
            .iter()
            .filter(|(other, _)| other.id == profile.id)
            .count();
        if count > profile.most as usize {
            return Err(format!(
                "{label} has room for {} of `{}`",
                profile.most, profile.name
            ));
        }
    }
    // The largest first: they have the fewest places.
    wanted.sort_by_key(|(profile, _)| {
        let size = profile.places.first().map_or(0, |place| place.size);
        (
            std::cmp::Reverse(size),
            std::cmp::Reverse(profile.slices),
            profile.id,
        )
    });
    let mut places = Vec::new();
    if !arrange(&wanted, &mut places, &mut 100_000) {
        return Err(format!(
            "{label}: these devices do not fit beside each other"
        ));
    }
    let mut slots: Layout = wanted
        .iter()
        .zip(places)
        .map(|((profile, cells), place)| Slot {
            place,
            profile: profile.id,
            compute: cells
                .iter()
                .map(|slices| Cell {
                    slices: *slices,
                    place: None,
                })
                .collect(),
        })
        .collect();
    slots.sort();
    Ok(slots)
}

/// Finds a place for each, trying at most `tries` times.
fn arrange(
    wanted: &[(&Profile, Vec<u32>)],
    places: &mut Vec<MigPlacement>,
    tries: &mut u32,
) -> bool {
    let Some((profile, _)) = wanted.get(places.len()) else {
        return true;
    };
    // Small ones from the end leave the start to those that must begin there.
    for place in &profile.places {
        let Some(left) = tries.checked_sub(1) else {
            return false;
        };
        *tries = left;
        let free = places.iter().all(|other| {
            place.start + place.size <= other.start || other.start + other.size <= place.start
        });
        if free {
            places.push(*place);
            if arrange(wanted, places, tries) {
                return true;
            }
            places.pop();
        }
    }
    false
}

/// Plans a configuration for a machine. GPUs that no rule is about stay.
///
/// # Errors
/// It cannot be done here; for a person. Nothing was changed.
pub fn plan(agent: &mut Agent, machine: &Machine, rules: &[Rule]) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for gpu in &machine.gpus {
        // As in mig-parted, the last rule about a GPU wins.
        let Some(rule) = rules
            .iter()
            .rev()
            .find(|rule| rule.is_about(gpu.index, gpu.device_id))
        else {
            continue;
        };
        let Some(mode) = gpu.mig else {
            if rule.mig_enabled {
                return Err(format!("{} ({}) has no MIG", gpu.label(), gpu.name));
            }
            continue;
        };
        if mode.current != rule.mig_enabled {
            plan.modes
                .push((gpu.uuid.clone(), gpu.label(), rule.mig_enabled));
            continue;
        }
        if !mode.current {
            continue;
        }
        let profiles = agent
            .profiles(&gpu.uuid)
            .map_err(|error| error.to_string())?;
        // Asked anew: a look at the whole machine leaves out what it cannot see,
        // and this is what would be put back.
        let before = present(agent, gpu)?;
        let after = resolve(rule, &profiles, &gpu.label())?;
        if shape(&before) == shape(&after) {
            continue;
        }
        plan.steps.push(Step {
            gpu: gpu.uuid.clone(),
            label: gpu.label(),
            before,
            after,
        });
    }
    Ok(plan)
}

/// Why the GPUs of a plan must be left alone now.
#[must_use]
pub fn busy(machine: &Machine, plan: &Plan) -> Option<String> {
    let gpus = plan
        .steps
        .iter()
        .map(|step| &step.gpu)
        .chain(plan.modes.iter().map(|mode| &mode.0));
    let busy: Vec<&Gpu> = gpus
        .filter_map(|uuid| machine.gpus.iter().find(|gpu| gpu.uuid == *uuid))
        .filter(|gpu| !gpu.processes.is_empty())
        .collect();
    let gpu = busy.first()?;
    let pids: Vec<String> = gpu
        .processes
        .iter()
        .take(5)
        .map(|process| process.pid.to_string())
        .collect();
    Some(format!(
        "{} is in use by process {}; end it first",
        gpu.label(),
        pids.join(", ")
    ))
}
