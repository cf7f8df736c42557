//! The process that talks to Slurm, so that a prolog does not.
//!
//! It is a child of a prolog, an epilog or a health check that leads a session of
//! its own, holds none of their files and ends by itself after a limit. slurmd
//! kills what is left of a prolog's process group, so the prolog continues only when
//! the child has said that it has left it.

use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::Deadline;
use host::state_dir::{Lock, StateDir};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::NodeName;
use crate::drain_policy::{NodeAction, decide};
use crate::scontrol::Scontrol;

/// How long the child may take to leave our process group.
const LEAVE: Duration = Duration::from_secs(2);

/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// One program's drains.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// What each of its reasons begins with, and no other does.
    pub prefix: &'static str,
    /// The lock of the process that talks.
    pub talking: &'static str,
    /// The lock of the one process that may wait for that.
    pub waiting: &'static str,
}

impl Worker {
    /// Asks Slurm, and tries again until it answers or time is up. The lock of
    /// the process that talks, which the caller holds while it does what follows;
    /// `None`: another process does the same already.
    ///
    /// # Errors
    /// It could not be done; for a person.
    pub fn carry_out(
        &self,
        state: &StateDir,
        scontrol: impl FnOnce() -> Result<Scontrol, String>,
        node: &NodeName,
        action: &NodeAction,
        deadline: Deadline,
    ) -> Result<Option<Lock>, String> {
        let none = Deadline::after(Duration::ZERO);
        let Ok(waiting) = state.lock(self.waiting, none) else {
            // The process that waits will say the same, or newer.
            return Ok(None);
        };
        let talking = match action {
            // A drain that is under way comes first.
            NodeAction::Resume => state.lock(self.talking, none),
            NodeAction::Drain { .. } => state.lock(self.talking, deadline),
        }
        .map_err(|error| error.to_string())?;
        drop(waiting);
        let scontrol = scontrol()?;
        self.until_done(&scontrol, node, action, deadline)?;
        Ok(Some(talking))
    }

    /// Tries until it is done or time is up. After a failed prolog Slurm may drain
    /// the node after us, and keeps the first reason; if it was quicker, ours
    /// replaces its words.
    fn until_done(
        &self,
        scontrol: &Scontrol,
        node: &NodeName,
        action: &NodeAction,
        deadline: Deadline,
    ) -> Result<(), String> {
        let start = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            let done = scontrol.show(node).and_then(|shown| {
                let update = decide(&shown, action, self.prefix);
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
}

/// Starts a child that outlives this process, and returns when it has left our
/// process group; see [`leave`].
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
