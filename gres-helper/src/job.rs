//! `prolog`, `epilog` and `fence`: what is done for a job.
//!
//! Failure direction: only a GPU that is not fit for any job is a failure of
//! the prolog or epilog, since that drains the node. What this job's share
//! lacks is written into its record, and the plugin tells its user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use findings::{Finding, Findings, Severity};
use host::BootId;
use host::Deadline;
use host::printable;
use host::process::{Life, Pid};
use host::state_dir::{StateDir, Store};
use host::state_layout::gres::SEEN;
use jobs::registry::Registry;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use slurm::conf::{Disk, GresConf, gres_conf};
use slurm::installation;
use slurm::job_cgroup;
use slurm::job_cgroup::Place;
use slurm::{Installation, JobKey, NodeName};

use crate::verify;
use gpu::health;
use gpu::health::Before;
use gpu::inventory::{Ask, Gpu, Machine};
use gpu::mps;
use gpu::nvml_worker::{Agent, AgentError};
use gpu::settings::{Settings, Wanted};
use gpu::shares;
use gpu::shares::{Record, Tier};

/// How long the lock is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// XID errors that are kept.
const MOST_XIDS: usize = 256;

/// What `spool_dir` of `[gres]` is unless the site sets it: Slurm's default.
const USUAL_SPOOL: &str = "/var/spool/slurmd";

/// What this boot saw of its GPUs.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Seen {
    boot: Option<BootId>,
    uuids: Vec<String>,
    /// XID errors: UUID and number.
    #[serde(default)]
    pub xids: Vec<(String, u64)>,
}

/// What this boot saw; nothing where the file is another boot's or torn.
#[must_use]
pub fn seen(state: &StateDir) -> Seen {
    let bytes = state.read(SEEN).ok().flatten().unwrap_or_default();
    let seen: Seen = serde_json::from_slice(&bytes).unwrap_or_default();
    match BootId::current() {
        Ok(boot) if seen.boot.as_ref() == Some(&boot) => seen,
        boot => Seen {
            boot: boot.ok(),
            ..Seen::default()
        },
    }
}

/// Keeps what was seen; the lock is the caller's.
fn keep_seen(state: &mut StateDir, seen: &Seen) {
    if let Ok(bytes) = serde_json::to_vec(seen) {
        // Without it, the next look is a first one.
        let _ = state.write(SEEN, &bytes);
    }
}

/// Takes note of XID errors.
///
/// # Errors
/// The lock is held for too long.
pub fn note_xids(state: &mut StateDir, xids: &[(String, u64)]) -> Result<(), String> {
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let _lock = lock.map_err(|error| error.to_string())?;
    let mut seen = seen(state);
    for xid in xids {
        if seen.xids.len() < MOST_XIDS && !seen.xids.contains(xid) {
            seen.xids.push(xid.clone());
        }
    }
    keep_seen(state, &seen);
    Ok(())
}

/// Forgets XID errors, of one GPU or of all: whoever reset it knows best.
///
/// # Errors
/// They cannot be read or written, or the lock is held for too long.
pub fn forget_xids(settings: &Settings, gpu: Option<&str>) -> Result<(), String> {
    let mut state = settings.state()?;
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let _lock = lock.map_err(|error| error.to_string())?;
    let mut seen = seen(&state);
    let before = seen.xids.len();
    seen.xids
        .retain(|(uuid, _)| gpu.is_some_and(|gpu| gpu != uuid));
    if let (Some(gpu), true) = (gpu, seen.xids.len() == before) {
        return Err(format!("no XID errors of {} are noted", printable(gpu, 80)));
    }
    let bytes = serde_json::to_vec(&seen).map_err(|error| error.to_string())?;
    state.write(SEEN, &bytes).map_err(|error| error.to_string())
}

/// The running gres.conf, if it can be read.
#[must_use]
pub fn running_gres_conf(settings: &Settings) -> Option<GresConf> {
    let path = verify::gres_conf_path(settings.gres_conf.as_deref(), settings);
    GresConf::read(&Disk, &path, settings.node.as_ref()?).ok()
}

/// The Slurm of this machine. `watch` may start before slurmd has its files, so
/// it is asked for whenever something is looked up.
#[must_use]
pub fn slurm() -> Installation {
    Installation::discover(installation::slurm_conf_of_environment().as_deref())
}

/// Where the sockets of the node's steps lie: the site's own place, else what
/// slurm.conf says. Where nobody knows, a place without any, so that no job
/// counts as gone.
#[must_use]
pub fn spool_dir(settings: &Settings, slurm: &Installation, node: &NodeName) -> PathBuf {
    if settings.spool_dir != Path::new(USUAL_SPOOL) {
        return settings.spool_dir.clone();
    }
    let spool = slurm.spool_dir(node);
    spool.unwrap_or_else(|_| PathBuf::from("/nonexistent"))
}

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

    fn note<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.complaints.push(reason)).ok()
    }

    fn look(
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

/// The prolog of a job.
#[must_use]
pub fn prolog(settings: &Settings, key: &JobKey, uid: u32, positions: Option<&str>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut agent = Agent::new(settings.library.clone(), settings.nvml_limit);
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
    uid: u32,
    machine: &Machine,
    gpus: &[&Gpu],
) -> Result<(), String> {
    let boot = BootId::current().map_err(|error| error.to_string())?;
    let start = jobs::registry::Start::now(boot).map_err(|error| error.to_string())?;
    let mut record = Record::new(key, start, uid);
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

/// What the site wants on this machine.
#[must_use]
pub fn wanted_tier(settings: &Settings, machine: &Machine) -> Tier {
    match settings.tier {
        Wanted::Auto if machine.can_limit => Tier::Cgroup,
        Wanted::Auto | Wanted::Watchdog => Tier::Watchdog,
        Wanted::Count => Tier::CountOnly,
        Wanted::Mps => Tier::Mps,
        Wanted::Cgroup => Tier::Cgroup,
    }
}

/// Undoes what jobs left whose epilogs never ran; whether there was anything.
fn sweep(
    settings: &Settings,
    state: &mut StateDir,
    agent: &mut Agent,
    but: &JobKey,
) -> Result<bool, String> {
    let mut any = false;
    let (records, _) = shares::all(state, &but.node)?;
    for job in shares::gone(
        &records,
        &spool_dir(settings, &slurm(), &but.node),
        &but.node,
    ) {
        let key = JobKey {
            job,
            node: but.node.clone(),
        };
        any = true;
        mps::leave(settings, state, agent, job)?;
        shares::remove(state, &key)?;
    }
    // A daemon's job without a record: its epilog was killed halfway.
    let (records, problems) = shares::all(state, &but.node)?;
    if problems.is_empty() {
        for daemon in mps::all(state)? {
            for (job, _) in daemon.jobs {
                if job != but.job && records.iter().all(|record| record.job != job) {
                    any = true;
                    mps::leave(settings, state, agent, job)?;
                }
            }
        }
    }
    Ok(any)
}

/// The epilog of a job.
#[must_use]
pub fn epilog(settings: &Settings, key: &JobKey, uid: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let mut agent = Agent::new(settings.library.clone(), settings.nvml_limit);
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
    uid: u32,
) -> Result<(), String> {
    let mine = shares::get(state, key).ok().flatten();
    let sluid = mine.and_then(|record| record.sluid);
    let alone = is_alone(settings, state, key, uid);
    for process in machine.gpus.iter().flat_map(|gpu| &gpu.processes) {
        let Ok(Some(life)) = Life::of(Pid(process.pid)) else {
            continue;
        };
        let leftover = match job_cgroup::of_process(life) {
            Some(Place::Job(job)) => job == key.job,
            Some(Place::Sluid(name)) => Some(&name) == sluid.as_ref(),
            None => alone && owner(process.pid) == Some(uid) && uid != 0,
        };
        if leftover {
            let _ = life.signal(Signal::KILL);
        }
    }
    Ok(())
}

/// Whether no other job of this user is, or may be, on this node.
fn is_alone(settings: &Settings, state: &StateDir, key: &JobKey, uid: u32) -> bool {
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
pub fn owner(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}"))
        .ok()
        .map(|status| status.uid())
}

/// Holds a job to its share, before its first task; called by the plugin as
/// root, with a process that is in the job's cgroup.
///
/// # Errors
/// The share is not fenced, and why.
pub fn fence(settings: &Settings, key: &JobKey, pid: u32) -> Result<(), String> {
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
    let mut agent = Agent::new(settings.library.clone(), settings.nvml_limit);
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
    let directory = job_cgroup::job_directory(Pid(pid)).ok_or_else(|| {
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
