//! What it proves that a child did not answer in time.
//!
//! Late alone proves nothing: load on the CPUs makes every process late.
//! So a late child is killed. One that waits in the kernel for a device that
//! does not answer cannot be ended even so, and stays in state `D`
//! (proc_pid_stat(5)); everything else ends at once.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::exec;
use crate::ids::Pid;
use crate::process;
use crate::process::{ProcessIdentity, Stat};

/// How long a child that was killed may take to end.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// What became of a late child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It ended: why it was late is not known.
    Ended,
    /// SIGKILL does not end it, and it waits in the kernel.
    Hangs(ProcessIdentity),
    /// It still runs, and does not wait in the kernel: it got no CPU, for example.
    Unknown,
}

/// A late child, as far as its fate depends on it.
pub trait Late {
    /// Sends SIGKILL.
    fn kill(&mut self);
    /// Waits for its end; whether it has ended by then.
    fn ends_by(&mut self, deadline: Instant) -> bool;
    /// What it does now.
    fn stat(&self) -> Option<Stat>;
    /// Its number.
    fn pid(&self) -> Pid;
}

impl Late for Child {
    fn kill(&mut self) {
        // It fails only for one that has ended.
        let _ = Child::kill(self);
    }

    fn ends_by(&mut self, deadline: Instant) -> bool {
        exec::ended_by(self, deadline).is_some()
    }

    fn stat(&self) -> Option<Stat> {
        process::stat(self.pid()).ok().flatten()
    }

    fn pid(&self) -> Pid {
        Pid(self.id())
    }
}

/// Ends late children and finds out what became of each, in [`PATIENCE`] for
/// all of them together.
pub fn end<'c, C: Late + 'c>(children: impl IntoIterator<Item = &'c mut C>) -> Vec<Fate> {
    let mut children: Vec<&mut C> = children.into_iter().collect();
    for child in &mut children {
        child.kill();
    }
    let deadline = Instant::now() + PATIENCE;
    children
        .into_iter()
        .map(|child| {
            if child.ends_by(deadline) {
                return Fate::Ended;
            }
            match child.stat() {
                Some(stat) if stat.has_ended() => Fate::Ended,
                Some(stat) if stat.state == b'D' => Fate::Hangs(ProcessIdentity {
                    pid: child.pid(),
                    start: stat.start,
                }),
                Some(_) | None => Fate::Unknown,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A child that does what is written here.
    struct Scripted {
        killed: bool,
        ends: bool,
        state: Option<u8>,
    }

    impl Late for Scripted {
        fn kill(&mut self) {
            self.killed = true;
        }

        fn ends_by(&mut self, deadline: Instant) -> bool {
            assert!(self.killed, "it was waited for before it was killed");
            assert!(deadline <= Instant::now() + PATIENCE);
            self.ends
        }

        fn stat(&self) -> Option<Stat> {
            Some(Stat {
                parent: Pid(1),
                tty: None,
                cpu: 0,
                start: 7,
                state: self.state?,
            })
        }

        fn pid(&self) -> Pid {
            Pid(42)
        }
    }

    fn fate_of(ends: bool, state: Option<u8>) -> Fate {
        let mut child = Scripted {
            killed: false,
            ends,
            state,
        };
        end([&mut child])[0]
    }

    #[test]
    fn only_a_child_that_waits_in_the_kernel_after_sigkill_hangs() {
        let identity = ProcessIdentity {
            pid: Pid(42),
            start: 7,
        };
        assert_eq!(fate_of(false, Some(b'D')), Fate::Hangs(identity));
        for state in [Some(b'R'), Some(b'S'), Some(b'T'), None] {
            assert_eq!(fate_of(false, state), Fate::Unknown, "{state:?}");
        }
        assert_eq!(fate_of(false, Some(b'Z')), Fate::Ended);
        // It waited in the kernel when it was killed, and ended.
        assert_eq!(fate_of(true, Some(b'D')), Fate::Ended);
    }

    fn sh(script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command.spawn().unwrap()
    }

    #[test]
    fn a_child_that_is_busy_or_sleeps_or_is_stopped_has_ended() {
        let mut children = [
            sh("while :; do :; done"),
            sh("exec sleep 600"),
            sh("kill -STOP $$"),
        ];
        let stopped = Pid(children[2].id());
        let begun = Instant::now();
        while process::stat(stopped).unwrap().unwrap().state != b'T' {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert_eq!(end(&mut children), [Fate::Ended; 3]);
    }
}
