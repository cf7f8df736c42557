//! The process that talks to Slurm for prolog and health check; see
//! [`slurm::drain_worker`].

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use cli::called::EFA_CHECK;
use cli::syslog;
use findings::Domain;
use host::Deadline;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use slurm::NodeName;
use slurm::drain_policy::{DrainAs, Failed, NodeAction};
use slurm::drain_worker::{Worker, detach, leave, slurm_conf};
use slurm::scontrol::Scontrol;

use crate::history::Rounds;
use crate::own_program;
use crate::settings::{OnFatal, Settings};
use crate::site::Site;

/// The hidden first argument of the child.
pub const SPEAKER: &str = "slurm-speaker";

/// The one that talks holds a lock; one more may wait for it.
const WORKER: Worker = Worker {
    prefix: Domain::Efa.prefix(),
    talking: health::SLURM_LOCK,
    waiting: health::SLURM_NEXT_LOCK,
};

/// What the site's `on_fatal` means to Slurm; `None`: the site only observes.
#[must_use]
pub fn drain_as(on_fatal: OnFatal) -> Option<DrainAs> {
    match on_fatal {
        OnFatal::Drain => Some(DrainAs::Drain),
        OnFatal::HyperpodReplace => Some(DrainAs::HyperpodReplace),
        OnFatal::HyperpodReboot => Some(DrainAs::HyperpodReboot),
        OnFatal::Log => None,
    }
}

/// Starts the process that asks Slurm for this, and returns at once.
///
/// # Errors
/// It could not be started.
pub fn send(action: &NodeAction, config: &Path, node: &NodeName) -> io::Result<()> {
    let mut command = Command::new(own_program());
    command.arg(SPEAKER).arg(config).arg(node.as_str());
    match action {
        NodeAction::Resume => command.arg("resume"),
        NodeAction::Drain { reason, after, .. } => command
            .arg(if after.is_some() {
                "prolog"
            } else {
                "healthcheck"
            })
            .arg(reason),
    };
    detach(command)
}

/// The child: `slurm-speaker CONFIG NODE resume|prolog|healthcheck [REASON]`.
#[must_use]
pub fn speaker_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    leave();
    let mut text = || args.next().and_then(|arg| arg.into_string().ok());
    let (Some(config), Some(node), Some(how)) = (text(), text(), text()) else {
        return ExitCode::from(crate::EX_USAGE);
    };
    match speak(Path::new(&config), &node, &how, text()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            log(&reason);
            ExitCode::FAILURE
        }
    }
}

fn speak(config: &Path, node: &str, how: &str, reason: Option<String>) -> Result<(), String> {
    let node: NodeName = node.parse().map_err(|error| format!("{error}"))?;
    let site = Site::load(
        Some(config),
        Some(node.clone()),
        crate::site::Named::Perhaps,
    )?;
    // The site may have gone over to observing meanwhile.
    let Some(drain_as) = drain_as(site.settings.on_fatal) else {
        return Ok(());
    };
    let action = match reason {
        None => NodeAction::Resume,
        Some(reason) => NodeAction::Drain {
            reason,
            drain_as,
            after: (how == "prolog").then_some(Failed::Prolog),
        },
    };
    let settings = &site.settings;
    let deadline = Deadline::after(settings.drain_limit);
    let mut state = StateDir::open(&site.state_dir).map_err(|error| error.to_string())?;
    let scontrol = || scontrol(settings);
    let talking = WORKER.carry_out(&state, scontrol, &node, &action, deadline)?;
    if talking.is_some() && action == NodeAction::Resume {
        settle(&mut state);
    }
    Ok(())
}

/// The site's scontrol, with the site's slurm.conf or that of our parent.
///
/// # Errors
/// As [`Scontrol::find`].
pub fn scontrol(settings: &Settings) -> Result<Scontrol, String> {
    Scontrol::find(
        "health",
        settings.scontrol.as_deref(),
        settings
            .slurm_conf
            .clone()
            .map(OsString::from)
            .or_else(slurm_conf),
        settings.scontrol_limit,
    )
}

/// Slurm no longer holds this node drained by us.
fn settle(state: &mut StateDir) {
    let Ok(_lock) = state.lock(health::ROUNDS_LOCK, Deadline::after(Duration::from_secs(2))) else {
        return;
    };
    let now = crate::site::now(&host::Sysroot::real());
    let Ok(Some(bytes)) = state.read(health::ROUNDS) else {
        return;
    };
    // Whoever wrote it knew the boot id; here only one field is changed.
    let mut rounds: Rounds = match serde_json::from_slice(&bytes) {
        Ok(rounds) => rounds,
        Err(_) => Rounds::first(&now),
    };
    rounds.drained = false;
    if let Ok(bytes) = rounds.bytes() {
        // If it fails, the next healthy round asks Slurm once more.
        let _ = state.write(health::ROUNDS, &bytes);
    }
}

/// One line to the system's log.
pub fn log(text: &str) {
    syslog::warn(EFA_CHECK.name, text);
}
