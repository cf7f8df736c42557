//! The process that talks to Slurm, so that a prolog does not.
//!
//! It is a child of prolog or watch that leads a session of its own, holds none
//! of their files and ends by itself after `drain_limit`. slurmd kills what is
//! left of a prolog's process group, so the prolog goes on only when the child
//! has said that it has left it.

use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cli::called::EFA_CHECK;
use host::Deadline;
use host::state_dir::{StateDir, Store};
use host::syslog;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slurm::NodeName;
use slurm::scontrol::Scontrol;

use crate::own_program;
use crate::rounds::{self, Rounds};
use crate::settings::Settings;
use crate::site::Site;
use crate::slurm::{Wish, decide};

/// The hidden first argument of the child.
pub const SPEAKER: &str = "slurm-speaker";

/// The one that talks holds this lock; one more may wait behind the other.
const TALKING: &str = "efa-check-slurm.lock";
const WAITING: &str = "efa-check-slurm-next.lock";

/// How long the child may take to leave our process group.
const LEAVE: Duration = Duration::from_secs(2);

/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Starts the process that makes a wish come true, and returns at once.
///
/// # Errors
/// It could not be started.
pub fn send(wish: &Wish, config: &Path, node: &NodeName) -> io::Result<()> {
    let mut command = Command::new(own_program());
    command.arg(SPEAKER).arg(config).arg(node.as_str());
    match wish {
        Wish::Resume => command.arg("resume"),
        Wish::Drain {
            reason,
            after_prolog,
            ..
        } => command
            .arg(if *after_prolog { "prolog" } else { "watch" })
            .arg(reason),
    };
    detach(command)
}

/// Starts one of our own children that shall outlive this process, and returns
/// when it has left our process group; see [`leave`].
///
/// # Errors
/// It could not be started.
pub fn detach(mut command: Command) -> io::Result<()> {
    command.env_clear();
    if let Some(conf) = slurm_conf() {
        command.env("SLURM_CONF", conf);
    }
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut pipe) = child.stdout.take() {
        let mut ready = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        let limit = Timespec::try_from(LEAVE).ok();
        if matches!(poll(&mut ready, limit.as_ref()), Ok(1..)) {
            // One byte, or its end: it has left, or is dead.
            let _ = pipe.read(&mut [0]);
        }
    }
    // It outlives us: init will wait for it.
    Ok(())
}

/// The `SLURM_CONF` that slurmd gives to its prolog. A job's variables reach a
/// prolog only with `SPANK_` in front, so no user can have set it.
#[must_use]
pub fn slurm_conf() -> Option<OsString> {
    std::env::var_os("SLURM_CONF").filter(|path| Path::new(path).is_absolute())
}

/// The child: `slurm-speaker CONFIG NODE resume|prolog|watch [REASON]`.
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

/// The other side of [`detach`].
pub fn leave() {
    // Fails only for the leader of a group, which nobody makes us.
    let _ = rustix::process::setsid();
    let mut out = io::stdout();
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
    // slurmd waits for the end of a prolog's output.
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn speak(config: &Path, node: &str, how: &str, reason: Option<String>) -> Result<(), String> {
    let node: NodeName = node.parse().map_err(|error| format!("{error}"))?;
    let site = Site::load(
        Some(config),
        Some(node.clone()),
        crate::site::Named::Perhaps,
    )?;
    let wish = match reason {
        None => Wish::Resume,
        Some(reason) => Wish::Drain {
            reason,
            on_fatal: site.settings.on_fatal,
            after_prolog: how == "prolog",
        },
    };
    let settings = &site.settings;
    let deadline = Deadline::after(settings.drain_limit);
    let mut state = StateDir::open(&site.state_dir).map_err(|error| error.to_string())?;
    let none = Deadline::after(Duration::ZERO);
    let Ok(waiting) = state.lock(WAITING, none) else {
        // Whoever waits will say the same, or newer.
        return Ok(());
    };
    let _talking = match &wish {
        // A drain that is under way comes first.
        Wish::Resume => state.lock(TALKING, none),
        Wish::Drain { .. } => state.lock(TALKING, deadline),
    }
    .map_err(|error| error.to_string())?;
    drop(waiting);
    let scontrol = scontrol(settings)?;
    until_done(&scontrol, &node, &wish, deadline)?;
    if wish == Wish::Resume {
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

/// Tries until it is done or time is up. After a failed prolog Slurm may drain
/// the node after us, and keeps the first reason; if it was quicker, ours
/// replaces its words.
fn until_done(
    scontrol: &Scontrol,
    node: &NodeName,
    wish: &Wish,
    deadline: Deadline,
) -> Result<(), String> {
    let start = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        let done = scontrol.show(node).and_then(|shown| {
            let update = decide(&shown, wish);
            match update {
                Some(update) => scontrol.update(node, &update),
                None => Ok(()),
            }
        });
        let Err(reason) = done else {
            return Ok(());
        };
        if pause >= deadline.left() {
            return Err(format!(
                "node {node} is left as it is, after {} s of trying: {reason}",
                start.elapsed().as_secs()
            ));
        }
        // slurmctld does not announce itself to a client.
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Slurm no longer holds this node drained by us.
fn settle(state: &mut StateDir) {
    let Ok(_lock) = state.lock(rounds::LOCK, Deadline::after(Duration::from_secs(2))) else {
        return;
    };
    let now = crate::site::now(&host::Sysroot::real());
    let Ok(Some(bytes)) = state.read(rounds::FILE) else {
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
        let _ = state.write(rounds::FILE, &bytes);
    }
}

/// One line to the system's log.
pub fn log(text: &str) {
    syslog::warn(EFA_CHECK.name, text);
}
