//! A job's epilog.

use std::time::Duration;

use gpu::inventory::Machine;
use gpu::mps;
use gpu::nvml_worker::Agent;
use gpu::settings::Settings;
use gpu::shares;
use host::Deadline;
use host::process::ProcessIdentity;
use host::state_dir::StateDir;
use host::{Pid, Uid};
use rustix::process::Signal;
use slurm::JobKey;
use slurm::job_cgroup;
use slurm::job_cgroup::Place;

use super::look::Outcome;
use super::tier::LOCK_LIMIT;
use crate::slurm_files::{slurm, spool_dir};

/// The epilog of a job.
#[must_use]
pub fn epilog(settings: &Settings, key: &JobKey, uid: Uid) -> Outcome {
    let mut outcome = Outcome::default();
    let mut agent = Agent::new(settings.library.clone(), settings.gres.nvml_limit);
    let mut state = outcome.note(settings.state());
    let machine = outcome.look(settings, state.as_ref(), &mut agent);
    let Some(state) = state.as_mut() else {
        return outcome;
    };
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let Some(_lock) = outcome.note(lock.map_err(|error| error.to_string())) else {
        return outcome;
    };
    if let Some(machine) = &machine {
        let ended = end_leftovers(settings, state, machine, key, uid);
        outcome.note(ended);
    }
    let left = mps::leave(settings, state, &mut agent, key.job);
    // The record goes last: as long as it is there, the next prolog tries again.
    if outcome.note(left).is_some() {
        let removed = shares::remove(state, key);
        outcome.note(removed);
    }
    outcome
}

/// Ends processes on GPUs that the job left behind: those in its cgroup, and
/// those of its user in no job's cgroup, if that user has no other job here.
fn end_leftovers(
    settings: &Settings,
    state: &StateDir,
    machine: &Machine,
    key: &JobKey,
    uid: Uid,
) -> Result<(), String> {
    let mine = shares::get(state, key).ok().flatten();
    let sluid = mine.and_then(|record| record.sluid);
    let alone = is_alone(settings, state, key, uid);
    for process in machine.gpus.iter().flat_map(|gpu| &gpu.processes) {
        let Ok(Some(identity)) = ProcessIdentity::of(process.pid) else {
            continue;
        };
        let leftover = match job_cgroup::of_process(identity) {
            Some(Place::Job(job)) => job == key.job,
            Some(Place::Sluid(name)) => Some(&name) == sluid.as_ref(),
            None => alone && owner(process.pid) == Some(uid) && !uid.is_root(),
        };
        if leftover {
            let _ = identity.signal(Signal::KILL);
        }
    }
    Ok(())
}

/// Whether no other job of this user is, or may be, on this node.
fn is_alone(settings: &Settings, state: &StateDir, key: &JobKey, uid: Uid) -> bool {
    let Ok((records, problems)) = shares::all(state, &key.node) else {
        return false;
    };
    let limits = slurm::stepd_sockets::Limits {
        each: Duration::from_secs(1),
        all: Deadline::after(Duration::from_secs(5)),
    };
    let spool = spool_dir(settings, &slurm(), &key.node);
    let Ok(live) = slurm::stepd_sockets::live_jobs(&spool, &key.node, limits) else {
        return false;
    };
    use slurm::stepd_sockets::JobState;
    let other = live.iter().any(|(job, state)| {
        let theirs = match state {
            JobState::Alive { uid: owner } | JobState::Ending { uid: owner } => *owner == uid,
            JobState::Unknown => true,
            JobState::Gone => false,
        };
        *job != key.job && theirs
    });
    problems.is_empty()
        && !other
        && records
            .iter()
            .all(|record| record.job == key.job || record.uid != uid)
}

/// A process' user.
#[must_use]
pub fn owner(pid: Pid) -> Option<Uid> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}"))
        .ok()
        .map(|status| Uid(status.uid()))
}
