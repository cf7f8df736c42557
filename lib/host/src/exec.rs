//! Runs a program for a limited time and keeps what it says, up to a bound.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Bytes of output that are kept of each stream; the rest is read and dropped.
const LARGEST: usize = 64 * 1024;

/// How often a kernel without pidfds is asked for a child's end.
const POLL: Duration = Duration::from_millis(10);

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// How it ended; `None` when it was killed for being late.
    pub status: Option<ExitStatus>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Whether it ended well.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs `command` for at most `limit`.
///
/// # Errors
/// It could not be started.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Said> {
    let deadline = Instant::now() + limit;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = child.stdout.take().map(|pipe| (pipe, Vec::new()));
    let mut err = child.stderr.take().map(|pipe| (pipe, Vec::new()));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let mut polled = Vec::new();
        let (mut at_out, mut at_err) = (None, None);
        if let Some((pipe, _)) = &out {
            at_out = Some(polled.len());
            polled.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        if let Some((pipe, _)) = &err {
            at_err = Some(polled.len());
            polled.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        if !wait(&mut polled, deadline) {
            break;
        }
        let ready = |at: Option<usize>| at.is_some_and(|at| !polled[at].revents().is_empty());
        let (out_ready, err_ready) = (ready(at_out), ready(at_err));
        drop(polled);
        if out_ready {
            take(&mut out, &mut stdout);
        }
        if err_ready {
            take(&mut err, &mut stderr);
        }
    }
    if let Some((_, bytes)) = out {
        stdout = bytes;
    }
    if let Some((_, bytes)) = err {
        stderr = bytes;
    }
    let status = end(&mut child, deadline);
    Ok(Said {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Reads once; a stream at its end hands over what was kept.
fn take<P: Read>(stream: &mut Option<(P, Vec<u8>)>, all: &mut Vec<u8>) {
    let Some((pipe, kept)) = stream else {
        return;
    };
    let mut bytes = [0; 4096];
    let ended = match pipe.read(&mut bytes) {
        Ok(0) => true,
        Ok(n) => {
            let room = LARGEST.saturating_sub(kept.len());
            kept.extend(&bytes[..n.min(room)]);
            false
        }
        Err(error) => error.kind() != io::ErrorKind::Interrupted,
    };
    if ended {
        *all = std::mem::take(kept);
        *stream = None;
    }
}

/// Waits for one of `polled`; false when time is up.
fn wait(polled: &mut [PollFd<'_>], deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match poll(polled, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// Waits for the end of a child; one that is late is killed, and not waited
/// for if even that does not end it.
pub fn end(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let status = ended_by(child, deadline);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.try_wait();
    }
    status
}

/// Waits for the end of a child; `None` if it has not ended by then.
pub fn ended_by(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        match &pidfd {
            Some(pidfd) => {
                wait(
                    &mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)],
                    deadline,
                );
            }
            None => std::thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Said {
        run(Command::new("/bin/sh").args(["-c", script]), limit).unwrap()
    }

    #[test]
    fn both_streams_and_the_end_are_told_apart() {
        let said = sh("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert_eq!(
            (said.stdout.as_str(), said.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert_eq!(said.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_program_that_never_ends_costs_the_limit_and_what_it_said_is_kept() {
        let start = Instant::now();
        let said = sh("echo begun; exec sleep 60", Duration::from_millis(500));
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(said.status.is_none() && !said.success());
        assert_eq!(said.stdout, "begun\n");
    }

    #[test]
    fn a_program_that_closes_its_output_and_goes_on_costs_the_limit_too() {
        let said = sh("exec sleep 60 >/dev/null 2>&1", Duration::from_millis(300));
        assert!(said.status.is_none());
    }

    #[test]
    fn a_flood_is_read_and_only_its_start_kept() {
        let said = sh("head -c 1000000 /dev/zero", Duration::from_secs(20));
        assert!(said.success());
        assert_eq!(said.stdout.len(), LARGEST);
    }
}
