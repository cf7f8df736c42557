//! Layouts are changed and verified; if that fails, the old ones come back.

use gpu::inventory::{Answer, Ask, Gpu};
use gpu::nvml_worker::{Agent, AgentError};

use super::layout::{Layout, is, layout};
use super::plan::Plan;

/// Times that the way back is tried.
const TRIES: usize = 3;

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
pub(super) fn present(agent: &mut Agent, gpu: &Gpu) -> Result<Layout, String> {
    agent
        .instances(&gpu.uuid)
        .map(|instances| layout(&instances))
        .map_err(|error| format!("{}: {error}", gpu.label()))
}
