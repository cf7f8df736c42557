//! The machine as NVML sees it.

use std::collections::BTreeMap;

use gpu::inventory::{Machine, Profile};
use gpu::nvml_worker::Agent;
use gpu::settings::Settings;
use gres_helper::generate;

pub fn agent(settings: &Settings) -> Agent {
    Agent::new(settings.library.clone(), settings.gres.nvml_limit)
}

/// The machine, and what gres.conf should say of it.
pub fn wanted(settings: &Settings) -> Result<(Machine, generate::Wanted), String> {
    let mut agent = agent(settings);
    let machine = agent.machine().map_err(|error| error.to_string())?;
    let mut profiles: BTreeMap<String, Vec<Profile>> = BTreeMap::new();
    for gpu in machine.gpus.iter().filter(|gpu| gpu.in_mig_mode()) {
        let found = agent
            .profiles(&gpu.uuid)
            .map_err(|error| error.to_string())?;
        profiles.insert(gpu.uuid.clone(), found);
    }
    let wanted = generate::wanted(&machine, &profiles, settings)?;
    Ok((machine, wanted))
}
