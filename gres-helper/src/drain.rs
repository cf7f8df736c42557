//! The process that talks to Slurm for a prolog or an epilog that fails; see
//! [`slurm::drain_worker`].

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use cli::called::GRES_HELPER;
use cli::syslog;
use findings::Domain;
use gpu::settings::Settings;
use host::Deadline;
use host::state_layout::gres;
use slurm::NodeName;
use slurm::drain_policy::{DrainAs, Failed, NodeAction};
use slurm::drain_worker::{Worker, detach, leave, slurm_conf};
use slurm::scontrol::Scontrol;

/// The hidden first argument of the child.
pub const SPEAKER: &str = "slurm-speaker";

/// The one that talks holds a lock; one more may wait for it.
const WORKER: Worker = Worker {
    prefix: Domain::Gpu.prefix(),
    talking: gres::SLURM_LOCK,
    waiting: gres::SLURM_NEXT_LOCK,
};

/// How long one call of scontrol may take.
const SCONTROL: Duration = Duration::from_secs(10);

/// How long all tries may take, while slurmctld is down.
const ALL_TRIES: Duration = Duration::from_secs(10 * 60);

/// Starts the process that gives the node its drain reason, and returns at once.
/// The prolog or epilog that fails afterwards drains the node in any case, so
/// what goes wrong here is only logged.
///
/// # Errors
/// It could not be started.
pub fn send(settings: &Settings, failed: Failed, reason: &str) -> Result<(), String> {
    let node = settings.named()?;
    let how = match failed {
        Failed::Prolog => "prolog",
        Failed::Epilog => "epilog",
    };
    // This very program, even if its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(SPEAKER)
        .arg(&settings.config)
        .args([node.as_str(), how, reason]);
    detach(command).map_err(|error| error.to_string())
}

/// The child: `slurm-speaker CONFIG NODE prolog|epilog REASON`.
#[must_use]
pub fn speaker_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    leave();
    let mut text = || args.next().and_then(|arg| arg.into_string().ok());
    let (Some(config), Some(node), Some(how), Some(reason)) = (text(), text(), text(), text())
    else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let after = match how.as_str() {
        "prolog" => Failed::Prolog,
        "epilog" => Failed::Epilog,
        _ => return ExitCode::from(crate::EX_USAGE),
    };
    match speak(Path::new(&config), &node, after, reason) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            syslog::warn(GRES_HELPER.name, &reason);
            ExitCode::FAILURE
        }
    }
}

fn speak(config: &Path, node: &str, after: Failed, reason: String) -> Result<(), String> {
    let node: NodeName = node.parse().map_err(|error| format!("{error}"))?;
    // The default file may be missing.
    let named = Some(config).filter(|path| *path != Path::new(config::DEFAULT_PATH));
    let settings = Settings::load(named, Some(node.clone()))?;
    let action = NodeAction::Drain {
        reason,
        drain_as: DrainAs::Drain,
        after: Some(after),
    };
    let state = settings.state()?;
    let deadline = Deadline::after(ALL_TRIES);
    let scontrol = || scontrol(&settings);
    // Nothing follows for which the lock would have to be held.
    let talking = WORKER.carry_out(&state, scontrol, &node, &action, deadline)?;
    drop(talking);
    Ok(())
}

/// The site's scontrol, with the slurm.conf of our parent.
///
/// # Errors
/// As [`Scontrol::find`].
pub fn scontrol(settings: &Settings) -> Result<Scontrol, String> {
    Scontrol::find(
        "gres",
        settings.gres.scontrol.as_deref(),
        slurm_conf(),
        SCONTROL,
    )
}
