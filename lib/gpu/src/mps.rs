//! MPS: one control daemon for each GPU and user.
//!
//! The daemon's directories belong to root and are named by GPU and user, so
//! that no user can have made them before. Limits are set on the server's
//! side; the GPU is in EXCLUSIVE_PROCESS mode as long as a daemon serves it.
//! The daemon ends, and the mode is put back, when the last job of its user on
//! that GPU has left. Everything here happens under [`crate::shares::LOCK`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::Uid;
use host::exec::{Call, ExecError, Said};
use host::printable;
use host::state_dir::{StateDir, Store};
use host::state_layout::gres::{self, MPS, MPS_FOLDERS, MPS_PREFIX};
use serde::{Deserialize, Serialize};
use slurm::JobId;

use crate::inventory::{Ask, ComputeMode, Gpu};
use crate::nvml_worker::Agent;
use crate::settings::Settings;

/// How long the control program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A daemon that serves a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// The GPU's UUID.
    pub gpu: String,
    /// Whose jobs it serves.
    pub uid: Uid,
    /// These jobs, with their shares in MiB where they are known.
    pub jobs: Vec<(JobId, Option<u64>)>,
    /// The mode that the GPU was in.
    pub mode_before: ComputeMode,
}

fn file(gpu: &str) -> String {
    format!("{MPS_PREFIX}{gpu}.json")
}

/// Whether a UUID can be part of a file's name.
fn is_plain(gpu: &str) -> bool {
    !gpu.is_empty()
        && gpu.len() <= 64
        && gpu.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The daemon of a GPU, if there is one.
///
/// # Errors
/// Its record cannot be read.
pub fn get(state: &StateDir, gpu: &str) -> Result<Option<Daemon>, String> {
    if !is_plain(gpu) {
        return Err(format!("{} is no UUID", printable(gpu, 80)));
    }
    match state.read(&file(gpu)).map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| format!("{}: {error}", file(gpu))),
    }
}

fn put(state: &mut StateDir, daemon: &Daemon) -> Result<(), String> {
    let bytes = serde_json::to_vec(daemon).map_err(|error| error.to_string())?;
    state
        .write(&file(&daemon.gpu), &bytes)
        .map_err(|error| error.to_string())
}

/// All daemons.
///
/// # Errors
/// The directory cannot be listed, or a record cannot be read.
pub fn all(state: &StateDir) -> Result<Vec<Daemon>, String> {
    let names = state.names().map_err(|error| error.to_string())?;
    names
        .iter()
        .filter_map(|name| name.strip_prefix(MPS_PREFIX)?.strip_suffix(".json"))
        .filter_map(|gpu| get(state, gpu).transpose())
        .collect()
}

/// The directories of a daemon: pipe and log.
#[must_use]
pub fn directories(settings: &Settings, gpu: &str, uid: Uid) -> (PathBuf, PathBuf) {
    let base = settings
        .state_dir
        .join(gres::FOLDER)
        .join(MPS)
        .join(folder(gpu, uid));
    let [pipe, log] = MPS_FOLDERS.map(|name| base.join(name));
    (pipe, log)
}

/// The name of a daemon's folder.
fn folder(gpu: &str, uid: Uid) -> String {
    format!("{gpu}-{uid}")
}

/// A daemon's folder, if it is there and root's alone.
fn existing(state: &StateDir, daemon: &Daemon) -> Option<StateDir> {
    let all = state.existing_folder(MPS).ok()??;
    all.existing_folder(&folder(&daemon.gpu, daemon.uid)).ok()?
}

/// Serves a job: starts a daemon for its GPU and user, or joins theirs.
///
/// # Errors
/// Why there is no MPS for this job; the GPU is as it was.
pub fn join(
    settings: &Settings,
    state: &mut StateDir,
    agent: &mut Agent,
    gpus: &[&Gpu],
    job: JobId,
    uid: Uid,
) -> Result<(), String> {
    let gpu = match gpus {
        [gpu] => *gpu,
        [] => return Err("the job's GPU is not known".to_owned()),
        _ => {
            return Err(
                "jobs with several GPUs get no MPS: NCCL between MPS clients is not supported"
                    .to_owned(),
            );
        }
    };
    if gpu.in_mig_mode() {
        return Err("its GPU is divided by MIG already".to_owned());
    }
    if let Some(mut daemon) = get(state, &gpu.uuid)? {
        if daemon.uid != uid {
            return Err(format!(
                "another user's jobs are on {}: an MPS server serves one user at a time",
                gpu.label()
            ));
        }
        if daemon.jobs.iter().all(|(other, _)| *other != job) {
            daemon.jobs.push((job, None));
            put(state, &daemon)?;
        }
        // One that died takes nobody; its jobs' programs have failed already.
        return match say(settings, &daemon, "get_server_list") {
            Ok(_) => Ok(()),
            Err(_) => start(settings, state, agent, &daemon),
        };
    }
    let daemon = Daemon {
        gpu: gpu.uuid.clone(),
        uid,
        jobs: vec![(job, None)],
        mode_before: gpu.compute_mode.unwrap_or(ComputeMode::Default),
    };
    // Written first: whoever finds it after a crash undoes all of it.
    put(state, &daemon)?;
    let started = start(settings, state, agent, &daemon);
    if started.is_err() {
        end(settings, state, agent, &daemon)?;
    }
    started
}

fn start(
    settings: &Settings,
    state: &StateDir,
    agent: &mut Agent,
    daemon: &Daemon,
) -> Result<(), String> {
    let base = state
        .folder(MPS)
        .and_then(|dir| dir.folder(&folder(&daemon.gpu, daemon.uid)))
        .map_err(|error| error.to_string())?;
    for name in MPS_FOLDERS {
        base.folder(name).map_err(|error| error.to_string())?;
    }
    agent
        .order(&Ask::SetComputeMode(
            daemon.gpu.clone(),
            ComputeMode::ExclusiveProcess,
        ))
        .map_err(|error| error.to_string())?;
    let program = settings.gres.mps_control.display();
    let said = control(settings, daemon)
        // A daemon that kept our streams would keep slurmd waiting.
        .and_then(|call| call.arg("-d").without_output().run(LIMIT))
        .map_err(|error| error.to_string())?;
    match said.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{program} -d: {status}")),
        None => Err(format!("{program} -d did not end in time")),
    }
}

/// Takes note of a job's share, and sets the limits of its daemon: the
/// smallest share of all its jobs, since a limit is the server's.
///
/// # Errors
/// The daemon does not take them.
pub fn limit(
    settings: &Settings,
    state: &mut StateDir,
    gpu: &Gpu,
    job: JobId,
    share_mib: u64,
) -> Result<(), String> {
    let Some(mut daemon) = get(state, &gpu.uuid)? else {
        return Err(format!("no MPS daemon serves {}", gpu.label()));
    };
    for (other, share) in &mut daemon.jobs {
        if *other == job {
            *share = Some(share_mib);
        }
    }
    put(state, &daemon)?;
    let smallest = daemon
        .jobs
        .iter()
        .filter_map(|(_, share)| *share)
        .min()
        .unwrap_or(share_mib);
    let total = gpu.memory.map_or(smallest, |memory| memory.total).max(1);
    let percent = (smallest * 100).div_ceil(total).clamp(1, 100);
    // The daemon sees one GPU, so that is its number 0.
    let wanted = [
        format!("set_default_device_pinned_mem_limit 0 {smallest}M"),
        format!("set_default_active_thread_percentage {percent}"),
    ];
    for command in &wanted {
        say(settings, &daemon, command)?;
    }
    read_back(
        settings,
        &daemon,
        "get_default_active_thread_percentage",
        percent,
    )?;
    // Defaults are for servers that start from now on; one that serves a job of
    // this user already has its own.
    let servers = say(settings, &daemon, "get_server_list")?;
    for server in servers.split_whitespace() {
        if !server.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "the MPS daemon lists a server `{}`",
                printable(server, 60)
            ));
        }
        for command in [
            format!("set_device_pinned_mem_limit {server} 0 {smallest}M"),
            format!("set_active_thread_percentage {server} {percent}"),
        ] {
            say(settings, &daemon, &command)?;
        }
        let question = format!("get_active_thread_percentage {server}");
        read_back(settings, &daemon, &question, percent)?;
    }
    Ok(())
}

/// Fails unless the daemon answers with this percentage.
fn read_back(
    settings: &Settings,
    daemon: &Daemon,
    question: &str,
    percent: u64,
) -> Result<(), String> {
    let got = say(settings, daemon, question)?;
    let number: f64 = got.trim().parse().unwrap_or(0.0);
    if (number - f64::from(u8::try_from(percent).unwrap_or(100))).abs() < 0.5 {
        return Ok(());
    }
    Err(format!(
        "the MPS daemon took {percent} % but shows `{}`",
        printable(got.trim(), 60)
    ))
}

/// A job leaves: its daemon ends with its last job.
///
/// # Errors
/// Something could not be undone; the record stays for the next who tries.
pub fn leave(
    settings: &Settings,
    state: &mut StateDir,
    agent: &mut Agent,
    job: JobId,
) -> Result<(), String> {
    for mut daemon in all(state)? {
        let before = daemon.jobs.len();
        daemon.jobs.retain(|(other, _)| *other != job);
        if daemon.jobs.len() == before {
            continue;
        }
        if daemon.jobs.is_empty() {
            end(settings, state, agent, &daemon)?;
        } else {
            put(state, &daemon)?;
        }
    }
    Ok(())
}

/// Ends a daemon and puts the mode back.
fn end(
    settings: &Settings,
    state: &mut StateDir,
    agent: &mut Agent,
    daemon: &Daemon,
) -> Result<(), String> {
    // What is not ours is neither spoken to nor cleared.
    let base = existing(state, daemon);
    if base.is_some() {
        match ask(settings, daemon, "quit") {
            // It may live: nothing that leads to it goes.
            Ok(said) if said.status.is_none() => return Err(late("quit")),
            // It ends, or has ended already: then the program says so.
            Ok(_) => {}
            // Without the program no daemon of it was ever started.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(format!("MPS `quit`: {error}")),
        }
    }
    agent
        .order(&Ask::SetComputeMode(daemon.gpu.clone(), daemon.mode_before))
        .map_err(|error| {
            format!(
                "the compute mode of {} is not put back: {error}",
                daemon.gpu
            )
        })?;
    if let Some(base) = base {
        for name in MPS_FOLDERS {
            if let Ok(Some(folder)) = base.existing_folder(name) {
                clear(folder.path());
            }
        }
        clear(base.path());
    }
    state
        .remove(&file(&daemon.gpu))
        .map_err(|error| error.to_string())
}

/// Removes a directory of ours that only root could write, with the files in
/// it; what is left is found by the next daemon, which does not mind.
fn clear(dir: &Path) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.take(1000) {
        // Never below: `remove_file` neither follows a link nor takes a directory.
        let _ = std::fs::remove_file(entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

fn control(settings: &Settings, daemon: &Daemon) -> Result<Call, ExecError> {
    let (pipe, log) = directories(settings, &daemon.gpu, daemon.uid);
    let call = Call::to(&settings.gres.mps_control)?
        .env("CUDA_VISIBLE_DEVICES", &daemon.gpu)
        .env("CUDA_MPS_PIPE_DIRECTORY", pipe)
        .env("CUDA_MPS_LOG_DIRECTORY", log);
    Ok(call)
}

/// One command to a daemon, and what it answers.
fn say(settings: &Settings, daemon: &Daemon, words: &str) -> Result<String, String> {
    let said = ask(settings, daemon, words).map_err(|error| format!("MPS `{words}`: {error}"))?;
    match said.status {
        Some(status) if status.success() => Ok(said.stdout),
        Some(status) => Err(format!(
            "MPS `{words}`: {status} {}",
            printable(said.stdout.trim(), 120)
        )),
        None => Err(late(words)),
    }
}

fn late(words: &str) -> String {
    format!("MPS `{words}`: no answer within {} s", LIMIT.as_secs())
}

/// What the control program did that was given this command.
fn ask(settings: &Settings, daemon: &Daemon, words: &str) -> Result<Said, ExecError> {
    control(settings, daemon)?
        .input(format!("{words}\n"))
        .run(LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_that_is_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for gpu in ["", "../../etc/passwd", "GPU 1", "a/b"] {
            assert!(get(&state, gpu).is_err(), "{gpu:?}");
        }
        assert_eq!(get(&state, "GPU-0-1"), Ok(None));
    }
}
