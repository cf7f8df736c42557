//! One process in `/proc`, distinguished from a later one with its number.
//!
//! A process names itself as it likes, with any bytes, so numbers are read
//! from behind the name, as bytes, with a limit.

use std::fs::File;
use std::io::{self, Read};

use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::ids::Pid;

/// Most bytes read of a file in `/proc`.
const MOST: u64 = 64 * 1024;

/// A process for as long as it runs: the kernel uses its number again, but never
/// with the same start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: Pid,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

/// `/proc/PID/stat` without what `/proc/PID/status` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Parent.
    pub parent: Pid,
    /// Terminal.
    pub tty: Option<u32>,
    /// CPU time in ticks.
    pub cpu: u64,
    /// Start in ticks.
    pub start: u64,
    /// What it does: `R` runs, `D` waits and cannot be killed, `Z` has ended.
    pub state: u8,
}

impl Stat {
    /// It has ended and waits for its parent.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads the text of `/proc/PID/stat`; `None`: it is odd.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name, in parentheses, may contain parentheses and blanks.
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // proc(5) counts from 1: the state is field 3.
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let tty: i32 = fields.nth(2)?.parse().ok()?;
    let user: u64 = fields.nth(6)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start = fields.nth(6)?.parse().ok()?;
    Some(Stat {
        parent: Pid(parent),
        tty: u32::try_from(tty).ok().filter(|tty| *tty != 0),
        cpu: user.saturating_add(system),
        start,
        state,
    })
}

/// A file of a process; `None` if there is no such process any more.
///
/// # Errors
/// The system refused for another reason.
pub fn read(pid: Pid, name: &str) -> io::Result<Option<Vec<u8>>> {
    let gone = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound
            || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
    };
    let mut bytes = Vec::with_capacity(1024);
    let result = File::open(format!("/proc/{}/{name}", pid.0))
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    match result {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `/proc/PID/stat`; `None` if there is no such process any more.
///
/// # Errors
/// It could not be read.
pub fn stat(pid: Pid) -> io::Result<Option<Stat>> {
    let Some(text) = read(pid, "stat")? else {
        return Ok(None);
    };
    let stat = parse_stat(&text).ok_or_else(|| io::Error::other("/proc/PID/stat is odd"))?;
    Ok(Some(stat))
}

impl ProcessIdentity {
    /// The process that has this number now, if any has.
    ///
    /// # Errors
    /// It could not be found out.
    pub fn of(pid: Pid) -> io::Result<Option<Self>> {
        let Some(stat) = stat(pid)? else {
            return Ok(None);
        };
        Ok((!stat.has_ended()).then_some(Self {
            pid,
            start: stat.start,
        }))
    }

    /// Whether it still runs. What cannot be found out counts as alive.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid).map_or(true, |now| now == Some(self))
    }

    /// Sends a signal to exactly this process; fine if it has ended.
    ///
    /// # Errors
    /// The signal was not sent.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid.0)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return Ok(());
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        // Now the descriptor holds one process, and its start shows which: that
        // of a number that was used again in between is another.
        if Self::of(self.pid)? != Some(self) {
            return Ok(());
        }
        match pidfd_send_signal(&fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "S 41 42 42 34816 42 4194560 1 0 0 0 7 5 0 0 20 0 1 0 123456 1 1 184";

    #[test]
    fn a_process_may_call_itself_anything_and_is_still_read() {
        for name in ["sshd", "a) S 1 1 1 (b", "", "\u{1b}]0;x", ")"] {
            let text = format!("42 ({name}) {STAT}\n");
            let stat = parse_stat(text.as_bytes()).unwrap();
            assert_eq!((stat.parent, stat.start, stat.cpu), (Pid(41), 123_456, 12));
            assert_eq!(stat.tty, Some(34_816));
        }
        let bytes = [b"42 (\xff\xfe) ".as_slice(), STAT.as_bytes()].concat();
        assert!(parse_stat(&bytes).is_some());
    }

    #[test]
    fn a_signal_for_an_earlier_life_of_a_number_reaches_nobody() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let identity = ProcessIdentity::of(Pid(child.id())).unwrap().unwrap();
        let earlier = ProcessIdentity {
            start: identity.start - 1,
            ..identity
        };
        earlier.signal(Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        identity.signal(Signal::KILL).unwrap();
        assert!(!child.wait().unwrap().success());
        identity.signal(Signal::KILL).unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_stat(&bytes);
        }
    }
}
