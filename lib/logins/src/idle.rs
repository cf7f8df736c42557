//! Whether sessions are used: no terminal input, no traffic and no CPU over a
//! window is idle. All three are asked, so that sftp, `ssh -N` and servers
//! without a terminal count as used while they work, and a loop that prints
//! into a terminal counts as used as long as it costs CPU.
//!
//! Traffic is what sshd's process of the session read and wrote
//! (`/proc/PID/io`). Clients that only keep a connection alive send a few
//! hundred bytes a minute, so less than [`QUIET_BYTES`] a minute is silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::Pid;
use host::process::{ProcessIdentity, read};

use crate::clock::BootTime;
use crate::membership::{User, Whole, process_belongs};
use crate::process::{Process, Processes};
use crate::session::Session;
use crate::tty;

/// Traffic of a minute that is not use, in bytes.
pub const QUIET_BYTES: u64 = 2048;

/// CPU time of a minute that is not use, in clock ticks (usually 10 ms each).
pub const QUIET_TICKS: u64 = 6;

/// What a session had done when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    at: BootTime,
    bytes: u64,
    ticks: u64,
    input: i64,
}

/// When each session was used last.
#[derive(Debug, Default)]
pub struct Activity {
    sessions: BTreeMap<ProcessIdentity, (Sample, BootTime)>,
}

impl Activity {
    /// Takes a sample of a session; when it was used last. A session that is
    /// seen for the first time counts as used now.
    pub fn note(&mut self, leader: ProcessIdentity, sample: Sample) -> BootTime {
        let used = match self.sessions.get(&leader) {
            None => sample.at,
            Some((before, used)) if is_idle(*before, sample) => *used,
            Some(_) => sample.at,
        };
        self.sessions.insert(leader, (sample, used));
        used
    }

    /// When the last sample of a session was taken.
    #[must_use]
    pub fn looked(&self, leader: ProcessIdentity) -> Option<BootTime> {
        Some(self.sessions.get(&leader)?.0.at)
    }

    /// Forgets all others.
    pub fn keep(&mut self, leaders: &BTreeSet<ProcessIdentity>) {
        self.sessions.retain(|leader, _| leaders.contains(leader));
    }
}

/// Whether what happened between two samples is no use.
fn is_idle(before: Sample, now: Sample) -> bool {
    let seconds = before.at.until(now.at).as_secs().max(1);
    let quiet = |per_minute: u64| (per_minute * seconds).div_ceil(60);
    now.input <= before.input
        && now.bytes.saturating_sub(before.bytes) <= quiet(QUIET_BYTES)
        && now.ticks.saturating_sub(before.ticks) <= quiet(QUIET_TICKS)
}

/// Looks at the processes of a session.
#[must_use]
pub fn sample(all: &Processes, session: &Session, user: &User) -> Sample {
    let uid = session.uid;
    let descends = true;
    let members: BTreeMap<Pid, &Process> = all
        .tree(session.leader)
        .iter()
        .filter_map(|pid| all.get(*pid))
        .filter(|it| process_belongs(it, user, Whole::Session { session, descends }))
        .map(|it| (it.identity.pid, it))
        .collect();
    let of_user = || members.values();
    // sshd's own process of the session is the one that root's has begotten.
    let connection = of_user().filter(|it| !members.contains_key(&it.parent));
    let bytes = connection
        .filter_map(|it| parse_io(&read(it.identity.pid, "io").ok()??))
        .fold(0, u64::saturating_add);
    let terminals: BTreeSet<u32> = of_user().filter_map(|it| it.tty).collect();
    let input = terminals
        .iter()
        .filter_map(|tty| tty::last_input(*tty, uid))
        .max();
    Sample {
        at: BootTime::now(),
        bytes,
        ticks: of_user().fold(0, |sum, it| sum.saturating_add(it.cpu)),
        input: input.unwrap_or(0),
    }
}

/// Bytes read and written, from the text of `/proc/PID/io`.
#[must_use]
pub fn parse_io(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    field("rchar:")?.checked_add(field("wchar:")?)
}

/// How often sessions are looked at, for a window of this length.
#[must_use]
pub fn interval(window: Duration) -> Duration {
    (window / 4).clamp(Duration::from_millis(250), Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ProcessIdentity = ProcessIdentity {
        pid: Pid(1),
        start: 1,
    };

    fn at(minute: u64, bytes: u64, ticks: u64, input: i64) -> Sample {
        Sample {
            at: BootTime(minute * 60_000),
            bytes,
            ticks,
            input,
        }
    }

    #[test]
    fn input_traffic_or_cpu_each_alone_is_use_and_keeping_alive_is_none() {
        let start = at(0, 0, 0, 100);
        for (next, used) in [
            (at(1, 600, 2, 100), 0),
            (at(1, 0, 0, 101), 1),
            (at(1, 50_000, 0, 100), 1),
            (at(1, 0, 100, 100), 1),
        ] {
            let mut activity = Activity::default();
            activity.note(ONE, start);
            assert_eq!(
                activity.note(ONE, next),
                BootTime(used * 60_000),
                "{next:?}"
            );
        }
    }

    #[test]
    fn silence_adds_up_until_something_happens() {
        let mut activity = Activity::default();
        for minute in 0..5 {
            assert_eq!(
                activity.note(ONE, at(minute, 500 * minute, 0, 7)),
                BootTime(0)
            );
        }
        assert_eq!(activity.note(ONE, at(5, 0, 0, 8)), BootTime(300_000));
        activity.keep(&BTreeSet::new());
        assert_eq!(activity.note(ONE, at(6, 0, 0, 8)), BootTime(360_000));
    }

    #[test]
    fn bytes_are_those_read_and_written() {
        assert_eq!(parse_io(b"rchar: 5\nwchar: 7\nsyscr: 1\n"), Some(12));
        assert_eq!(parse_io(b"rchar: 5\n"), None);
        assert_eq!(parse_io(b"rchar: 18446744073709551615\nwchar: 1\n"), None);
        assert_eq!(parse_io(b"\xff"), None);
    }
}
