//! A job's prolog.

use std::time::Duration;

use gpu::inventory::{Gpu, Machine};
use gpu::mps;
use gpu::nvml_worker::Agent;
use gpu::settings::Settings;
use gpu::shares;
use gpu::shares::{Record, Tier};
use host::BootId;
use host::Deadline;
use host::Uid;
use host::state_dir::StateDir;
use jobs::registry::Registry;
use jobs::sweep::{self, Census, EPILOG_TIME, Remains, View};
use slurm::JobKey;
use slurm::conf::gres_conf;

use super::look::Outcome;
use super::seen::{keep_seen, seen};
use super::tier::LOCK_LIMIT;
use super::tier::wanted_tier;
use crate::slurm_files::{running_gres_conf, slurm, spool_dir};

/// For jobs that do not answer whether they exist.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The prolog of a job.
#[must_use]
pub fn prolog(settings: &Settings, key: &JobKey, uid: Uid, positions: Option<&str>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut agent = Agent::new(settings.library.clone(), settings.gres.nvml_limit);
    let mut state = outcome.note(settings.state());
    let machine = outcome.look(settings, state.as_ref(), &mut agent);
    let (Some(state), Some(machine)) = (state.as_mut(), machine) else {
        return outcome;
    };
    if outcome.is_fatal() {
        return outcome;
    }
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let Some(_lock) = outcome.note(lock.map_err(|error| error.to_string())) else {
        return outcome;
    };
    let mut seen = seen(state);
    if seen.uuids.is_empty() {
        seen.uuids = machine.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        keep_seen(state, &seen);
    }
    let swept = sweep(settings, state, &mut agent, key);
    // What was undone changed compute modes, which are kept to be put back.
    let machine = match outcome.note(swept) {
        Some(true) => match agent.machine() {
            Ok(machine) => machine,
            Err(error) => {
                outcome.complaints.push(error.to_string());
                return outcome;
            }
        },
        Some(false) | None => machine,
    };
    let gpus = job_gpus(settings, &machine, positions);
    if !gpus.is_empty() {
        let recorded = record(settings, state, &mut agent, key, uid, &machine, &gpus);
        outcome.note(recorded);
        outcome.note(tell_registry(settings, key, &gpus));
    }
    outcome
}

/// The job's GPUs, by their places in Slurm's list, which is gres.conf's
/// order; where that cannot be read or names none (AutoDetect), PCI order.
fn job_gpus<'m>(
    settings: &Settings,
    machine: &'m Machine,
    positions: Option<&str>,
) -> Vec<&'m Gpu> {
    let conf = running_gres_conf(settings).unwrap_or_default();
    let mut listed: Vec<Option<&Gpu>> = conf
        .lines
        .iter()
        .filter(|line| line.name == "gpu")
        .map(|line| machine.by_minor(gres_conf::minor(line.files.first()?)?))
        .collect();
    if listed.is_empty() {
        listed = machine.gpus.iter().map(Some).collect();
    }
    let mut gpus: Vec<&Gpu> = positions
        .unwrap_or_default()
        .split(',')
        .filter_map(|place| *listed.get(place.trim().parse::<usize>().ok()?)?)
        .collect();
    gpus.dedup_by_key(|gpu| &gpu.uuid);
    gpus
}

/// For logins during the job, which get its variables. A GPU in MIG mode is not
/// what the job has, but a part of it that only Slurm knows.
fn tell_registry(settings: &Settings, key: &JobKey, gpus: &[&Gpu]) -> Result<(), String> {
    let whole = gpus.iter().filter(|gpu| !gpu.in_mig_mode());
    let uuids: Vec<String> = whole.map(|gpu| gpu.uuid.clone()).collect();
    if uuids.is_empty() {
        return Ok(());
    }
    StateDir::open_existing(&settings.state_dir)
        .and_then(|state| match state {
            Some(state) => Registry::open_existing(&state),
            None => Ok(None),
        })
        .and_then(|registry| match registry {
            Some(mut registry) => registry.note_gpus(key, uuids),
            None => Ok(()),
        })
        .map_err(|error| error.to_string())
}

fn record(
    settings: &Settings,
    state: &mut StateDir,
    agent: &mut Agent,
    key: &JobKey,
    uid: Uid,
    machine: &Machine,
    gpus: &[&Gpu],
) -> Result<(), String> {
    let start = shares::recorded_start(&settings.state_dir, key);
    let mut record = Record::of(key, start.as_ref(), uid)?;
    record.gpus = gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let sizes = gpus
        .iter()
        .filter_map(|gpu| settings.shards_of(gpu.memory?));
    // Of unlike GPUs the smallest shard: a share is never more than there is.
    record.shard_mib = sizes.map(|(size, _)| size).min();
    if gpus.iter().all(|gpu| gpu.in_mig_mode()) {
        (record.wants, record.tier) = (Tier::Mig, Tier::Mig);
    } else {
        record.wants = wanted_tier(settings, machine);
        match record.wants {
            Tier::Mps => match mps::join(settings, state, agent, gpus, key.job, uid) {
                Ok(()) => record.tier = Tier::Mps,
                Err(reason) => record.refused = Some(format!("no MPS: {reason}")),
            },
            // In force only when the plugin has set it and read it back.
            Tier::Cgroup if !machine.can_limit => {
                record.refused =
                    Some("no cgroup limit: the driver cannot (r615 and later do)".to_owned());
            }
            _ => {}
        }
    }
    shares::put(state, key, &record)
}

/// Removes what jobs left whose epilogs never ran; whether a GPU may have changed
/// by that.
fn sweep(
    settings: &Settings,
    gres: &mut StateDir,
    agent: &mut Agent,
    key: &JobKey,
) -> Result<bool, String> {
    let state = StateDir::open_existing(&settings.state_dir).map_err(said)?;
    let state = state.ok_or("the state directory was removed")?;
    let mut registry = Registry::open_existing(&state).map_err(said)?;
    let census = Census {
        boot: BootId::current().map_err(said)?,
        node: Some(key.node.clone()),
        spool: Some(spool_dir(settings, &slurm(), &key.node)),
        deadline: Deadline::after(ASK_LIMIT),
        epilog_time: EPILOG_TIME,
        starting: Some(key.clone()),
    };
    let mut shares = Shares {
        settings,
        gres,
        agent,
        starts: key,
        any: false,
    };
    let swept = sweep::sweep(registry.as_mut(), &state, &census, &mut [&mut shares]);
    match swept.failed.into_iter().next() {
        Some(reason) => Err(reason),
        None => Ok(shares.any),
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The GPU shares as a part of the one sweep, under the lock of the caller.
struct Shares<'a> {
    settings: &'a Settings,
    gres: &'a mut StateDir,
    agent: &'a mut Agent,
    /// The job whose prolog this is.
    starts: &'a JobKey,
    any: bool,
}

impl Remains for Shares<'_> {
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String> {
        for record in shares::gone(self.gres, view)? {
            self.any = true;
            mps::leave(self.settings, self.gres, self.agent, record.job)?;
            shares::remove(self.gres, &record.key())?;
        }
        // A daemon's job without a record: its epilog was killed halfway.
        let (records, problems) = shares::all(self.gres, &self.starts.node)?;
        if !problems.is_empty() {
            return Ok(());
        }
        for daemon in mps::all(self.gres)? {
            for (job, _) in daemon.jobs {
                if job != self.starts.job && records.iter().all(|record| record.job != job) {
                    self.any = true;
                    mps::leave(self.settings, self.gres, self.agent, job)?;
                }
            }
        }
        Ok(())
    }
}
