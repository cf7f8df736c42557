//! `fence`: a job is held to its share before its first task.

use std::collections::BTreeMap;

use gpu::inventory::{Ask, Gpu};
use gpu::mps;
use gpu::nvml_worker::Agent;
use gpu::settings::Settings;
use gpu::shares;
use gpu::shares::Tier;
use host::Deadline;
use host::Pid;
use host::printable;
use slurm::JobKey;
use slurm::job_cgroup;

use super::tier::LOCK_LIMIT;
use super::tier::wanted_tier;

/// Holds a job to its share, before its first task; called by the plugin as
/// root, with a process that is in the job's cgroup.
///
/// # Errors
/// The share is not fenced, and why.
pub fn fence(settings: &Settings, key: &JobKey, pid: Pid) -> Result<(), String> {
    let mut state = settings.state()?;
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let _lock = lock.map_err(|error| error.to_string())?;
    let mut record = shares::get(&state, key)?.ok_or_else(|| {
        format!(
            "nothing is known of job {}: its prolog did not run",
            key.job
        )
    })?;
    let share = record
        .share_mib()
        .ok_or("the job's share is not known in MiB")?;
    let mut agent = Agent::new(settings.library.clone(), settings.gres.nvml_limit);
    let machine = agent.machine().map_err(|error| error.to_string())?;
    let by_uuid: BTreeMap<&str, &Gpu> = machine
        .gpus
        .iter()
        .map(|gpu| (gpu.uuid.as_str(), gpu))
        .collect();
    let gpus: Vec<&Gpu> = record
        .gpus
        .iter()
        .filter_map(|uuid| by_uuid.get(uuid.as_str()).copied())
        .collect();
    if gpus.is_empty() || gpus.len() != record.gpus.len() {
        return Err("the job's GPUs are not known".to_owned());
    }
    match record.tier {
        Tier::Mps => {
            for gpu in &gpus {
                mps::limit(settings, &mut state, gpu, key.job, share)?;
            }
            record.fenced = true;
            return shares::put(&mut state, key, &record);
        }
        Tier::Mig => return Ok(()),
        Tier::CountOnly | Tier::Watchdog | Tier::Cgroup => {}
    }
    if wanted_tier(settings, &machine) != Tier::Cgroup {
        let reason = record.refused.clone();
        return Err(reason.unwrap_or_else(|| "no tier that limits is configured".to_owned()));
    }
    let directory = job_cgroup::job_directory(pid).ok_or_else(|| {
        format!("the job's cgroup is not found: process {pid} is in none of Slurm's")
    })?;
    for gpu in &gpus {
        agent
            .order(&Ask::Limit(gpu.uuid.clone(), directory.clone(), share))
            .map_err(|error| printable(&error.to_string(), 300))?;
    }
    record.tier = Tier::Cgroup;
    record.fenced = true;
    shares::put(&mut state, key, &record)
}
