//! The layouts before the last apply, which a rollback goes back to.

use std::collections::BTreeMap;

use gpu::inventory::Machine;
use gpu::nvml_worker::Agent;
use host::state_dir::{StateDir, Store};
use host::state_layout::gres::MIG_BEFORE;
use serde::{Deserialize, Serialize};

use super::apply::present;
use super::layout::Layout;
use super::plan::{Plan, Step};

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
