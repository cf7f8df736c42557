//! MIG: plan → snapshot → apply → verify, and back to the snapshot whenever
//! any of it fails.
//!
//! A change of the mode (which may need a reset) and a change of the layout
//! are separate steps. A layout is changed only on a GPU without processes.

pub mod spec;

use std::collections::BTreeMap;

use host::state_dir::{StateDir, Store};
use host::state_layout::gres::MIG_BEFORE;
use serde::{Deserialize, Serialize};

use gpu::inventory::{Answer, Ask, Gpu, Instance, Machine, Place, Profile};
use gpu::nvml_worker::{Agent, AgentError};
use spec::Rule;

/// A GPU instance that shall be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Its place.
    pub place: Place,
    /// Its profile's id.
    pub profile: u32,
    /// Its compute instances; without a place they are made in order.
    pub compute: Vec<Cell>,
}

/// A compute instance that shall be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Its compute slices.
    pub slices: u32,
    /// Where in the GPU instance.
    pub place: Option<Place>,
}

/// A GPU's layout, in order of place.
pub type Layout = Vec<Slot>;

/// The layout that a GPU has, places and all.
#[must_use]
pub fn layout(instances: &[Instance]) -> Layout {
    let mut slots: Layout = instances
        .iter()
        .map(|instance| Slot {
            place: instance.place,
            profile: instance.profile,
            compute: instance
                .compute
                .iter()
                .map(|compute| Cell {
                    slices: compute.place.size,
                    place: Some(compute.place),
                })
                .collect(),
        })
        .collect();
    slots.sort();
    slots
}

/// A layout without places: what a configuration file can ask for.
fn shape(layout: &[Slot]) -> Vec<(u32, Vec<u32>)> {
    let mut shape: Vec<(u32, Vec<u32>)> = layout
        .iter()
        .map(|slot| {
            let mut cells: Vec<u32> = slot.compute.iter().map(|cell| cell.slices).collect();
            cells.sort_unstable();
            (slot.profile, cells)
        })
        .collect();
    shape.sort();
    shape
}

/// Whether a GPU is what was asked for: exactly, where places were given.
fn is(now: &[Slot], wanted: &[Slot]) -> bool {
    let placed = wanted
        .iter()
        .all(|slot| slot.compute.iter().all(|cell| cell.place.is_some()));
    if placed {
        return now == wanted;
    }
    shape(now) == shape(wanted)
        && now
            .iter()
            .map(|slot| (slot.place, slot.profile))
            .eq(wanted.iter().map(|slot| (slot.place, slot.profile)))
}

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
fn arrange(wanted: &[(&Profile, Vec<u32>)], places: &mut Vec<Place>, tries: &mut u32) -> bool {
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

/// How an apply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The new layout is there, verified.
    New,
    /// It failed; the old layout is there, verified.
    Old {
        /// What failed.
        reason: String,
    },
    /// It failed, and so did the way back.
    Between {
        /// What failed first.
        reason: String,
        /// What failed on the way back.
        back: String,
    },
}

/// Times that the way back is tried.
const TRIES: usize = 3;

/// Applies the layouts of a plan: all of them, or none.
#[must_use]
pub fn apply(agent: &mut Agent, plan: &Plan) -> Applied {
    for (count, step) in (1..).zip(&plan.steps) {
        let Err(reason) = bring(agent, &step.gpu, &step.after) else {
            continue;
        };
        let reason = format!("{}: {reason}", step.label);
        let mut back = Ok(());
        for touched in plan.steps.iter().take(count).rev() {
            for _ in 0..TRIES {
                back = bring(agent, &touched.gpu, &touched.before)
                    .map_err(|error| format!("{}: {error}", touched.label));
                if back.is_ok() {
                    break;
                }
            }
            if back.is_err() {
                break;
            }
        }
        return match back {
            Ok(()) => Applied::Old { reason },
            Err(back) => Applied::Between { reason, back },
        };
    }
    Applied::New
}

/// Makes a GPU's layout this one, and looks whether it is.
///
/// # Errors
/// It may be anything now.
pub fn bring(agent: &mut Agent, gpu: &str, wanted: &Layout) -> Result<(), AgentError> {
    let now = agent.instances(gpu)?;
    if is(&layout(&now), wanted) {
        return Ok(());
    }
    for instance in &now {
        for compute in &instance.compute {
            agent.order(&Ask::DestroyCompute(
                gpu.to_owned(),
                instance.id,
                compute.id,
            ))?;
        }
        agent.order(&Ask::Destroy(gpu.to_owned(), instance.id))?;
    }
    for slot in wanted {
        let id = match agent.ask(&Ask::Create(gpu.to_owned(), slot.profile, slot.place))? {
            Answer::Made(id) => id,
            _ => {
                return Err(AgentError::Died(
                    "did not say which instance it made".to_owned(),
                ));
            }
        };
        for cell in &slot.compute {
            agent.order(&Ask::CreateCompute(
                gpu.to_owned(),
                id,
                cell.slices,
                cell.place,
            ))?;
        }
    }
    if is(&layout(&agent.instances(gpu)?), wanted) {
        Ok(())
    } else {
        Err(AgentError::Failed(
            "the layout is not what was asked for".to_owned(),
        ))
    }
}

/// A GPU's layout now.
fn present(agent: &mut Agent, gpu: &Gpu) -> Result<Layout, String> {
    agent
        .instances(&gpu.uuid)
        .map(|instances| layout(&instances))
        .map_err(|error| format!("{}: {error}", gpu.label()))
}

/// The layouts before the last apply.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Snapshot {
    /// That apply has not ended, or ended between old and new: what is there
    /// now is nobody's layout.
    open: bool,
    /// By UUID.
    layouts: BTreeMap<String, Layout>,
}

fn snapshot(state: &StateDir) -> Result<Option<Snapshot>, String> {
    let bytes = state.read(MIG_BEFORE).map_err(|error| error.to_string())?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|error| format!("{MIG_BEFORE}: {error}"))
}

fn put(state: &mut StateDir, snapshot: &Snapshot) -> Result<(), String> {
    let bytes = serde_json::to_vec(snapshot).map_err(|error| error.to_string())?;
    state
        .write(MIG_BEFORE, &bytes)
        .map_err(|error| error.to_string())
}

/// Keeps the layouts before an apply. Those before one that did not end stay:
/// there is no other way back to them.
///
/// # Errors
/// They cannot be written; then nothing should be applied.
pub fn keep(state: &mut StateDir, plan: &Plan) -> Result<(), String> {
    let earlier = snapshot(state)?.filter(|it| it.open).unwrap_or_default();
    let mut layouts: BTreeMap<String, Layout> = plan
        .steps
        .iter()
        .map(|step| (step.gpu.clone(), step.before.clone()))
        .collect();
    layouts.extend(earlier.layouts);
    let open = true;
    put(state, &Snapshot { open, layouts })
}

/// Notes that what is there now is a layout again.
///
/// # Errors
/// It cannot be written: the next apply keeps the older layouts, too.
pub fn close(state: &mut StateDir) -> Result<(), String> {
    match snapshot(state)? {
        Some(snapshot) if snapshot.open => put(
            state,
            &Snapshot {
                open: false,
                ..snapshot
            },
        ),
        _ => Ok(()),
    }
}

/// The plan back to the layouts before the last apply.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn back(state: &StateDir, agent: &mut Agent, machine: &Machine) -> Result<Plan, String> {
    let snapshot = snapshot(state)?
        .ok_or("there is nothing to go back to: no layout was applied since boot")?;
    let mut plan = Plan::default();
    for (uuid, after) in snapshot.layouts {
        let gpu = machine.gpus.iter().find(|gpu| gpu.uuid == uuid);
        let gpu = gpu.ok_or_else(|| format!("the GPU {uuid} is not here any more"))?;
        let before = present(agent, gpu)?;
        if before != after {
            let label = gpu.label();
            plan.steps.push(Step {
                gpu: uuid,
                label,
                before,
                after,
            });
        }
    }
    Ok(plan)
}

/// A GPU's MIG devices by profile, as a configuration file writes them.
#[must_use]
pub fn devices(instances: &[Instance], profiles: &[Profile]) -> BTreeMap<String, u32> {
    let mut devices = BTreeMap::new();
    for instance in instances {
        let Some(profile) = profiles
            .iter()
            .find(|profile| profile.id == instance.profile)
        else {
            continue;
        };
        for compute in &instance.compute {
            let name = match compute.place.size {
                size if size == profile.slices => profile.name.clone(),
                size => format!("{size}c.{}", profile.name),
            };
            *devices.entry(name).or_insert(0) += 1;
        }
    }
    devices
}

/// A layout for a person: `3g.40gb@0 3g.40gb@4`.
#[must_use]
pub fn words(layout: &[Slot], profiles: &[Profile]) -> String {
    let slots: Vec<String> = layout
        .iter()
        .map(|slot| {
            let name = profiles.iter().find(|profile| profile.id == slot.profile);
            let name =
                name.map_or_else(|| slot.profile.to_string(), |profile| profile.name.clone());
            format!("{name}@{}", slot.place.start)
        })
        .collect();
    if slots.is_empty() {
        "nothing".to_owned()
    } else {
        slots.join(" ")
    }
}
