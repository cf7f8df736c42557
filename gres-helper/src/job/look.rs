//! A look at the GPUs' health, and what a prolog or epilog found.

use findings::{Finding, Findings, Severity};
use gpu::health;
use gpu::health::Before;
use gpu::inventory::Machine;
use gpu::nvml_worker::{Agent, AgentError};
use gpu::settings::Settings;
use host::state_dir::StateDir;
use slurm::conf::gres_conf;

use super::seen::seen;
use crate::slurm_files::running_gres_conf;

/// A look at health, with what is remembered.
///
/// # Errors
/// NVML could not be asked.
pub fn look(
    settings: &Settings,
    state: Option<&StateDir>,
    agent: &mut Agent,
) -> Result<(Machine, Findings), AgentError> {
    let machine = agent.machine()?;
    let seen = state.map(seen).unwrap_or_default();
    let before = Before {
        uuids: Some(seen.uuids).filter(|uuids| !uuids.is_empty()),
        configured: running_gres_conf(settings).map(|conf| {
            let gpus = conf.lines.iter().filter(|line| line.name == "gpu");
            let minors: std::collections::BTreeSet<_> = gpus
                .filter_map(|line| gres_conf::minor(line.files.first()?))
                .collect();
            minors.len()
        }),
        xids: seen.xids,
    };
    let findings = health::judge(&machine, &before);
    Ok((machine, findings))
}

/// What a prolog or epilog found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What speaks against the GPUs.
    pub findings: Findings,
    /// What else went wrong; never a reason to drain.
    pub complaints: Vec<String>,
}

impl Outcome {
    /// Whether no job should start here.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.findings.worst() == Severity::Fatal
    }

    pub(super) fn note<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.complaints.push(reason)).ok()
    }

    pub(super) fn look(
        &mut self,
        settings: &Settings,
        state: Option<&StateDir>,
        agent: &mut Agent,
    ) -> Option<Machine> {
        match look(settings, state, agent) {
            Ok((machine, findings)) => {
                self.findings = findings;
                Some(machine)
            }
            Err(error @ AgentError::Hangs { .. }) => {
                self.findings.0.push(Finding {
                    id: "answer",
                    severity: Severity::Fatal,
                    subject: None,
                    sentence: error.to_string(),
                    remedy: None,
                });
                None
            }
            Err(error) => {
                self.complaints.push(error.to_string());
                None
            }
        }
    }
}
