//! By which lock a process that reads a device's counters is known while it does,
//! and stays known while it hangs in the kernel.

#![allow(unsafe_code, reason = "no safe crate locks a part of a file")]

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use host::state_dir::StateDir;
use host::state_layout::counters::READERS;
use host::{Pid, Sysroot, Uid, daemons, process};

use crate::counter_reader::{CHILD, PROGRAM};

/// A lock for each device: a byte of one file, whose place is made of the name.
/// The kernel frees it when its process has really ended.
#[derive(Debug)]
pub struct ReaderLocks(File);

impl ReaderLocks {
    /// Opens the file in the state directory, which is made if it is missing: the
    /// first look at a node leaves a reader as any other does. `None` where this
    /// user may not.
    #[must_use]
    pub fn open(state: &Path) -> Option<Self> {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(state.join(READERS))
        };
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                StateDir::open(state).ok()?;
                open()
            }
            file => file,
        };
        file.ok().map(Self)
    }

    /// As [`ReaderLocks::open`], in a folder of this user's own: only if nobody else can
    /// have put the file there.
    #[must_use]
    pub fn open_own(folder: &Path) -> Option<Self> {
        StateDir::open(folder).ok()?;
        Self::open(folder)
    }

    /// Takes the lock; the process that has it, if another does.
    #[must_use]
    pub fn take(&self, device: &str) -> Option<u32> {
        let mut lock = byte(device, libc::F_WRLCK);
        if self.control(libc::F_SETLK, &mut lock) {
            return None;
        }
        // It was let go meanwhile, or locks do not work here: then it is read.
        self.holder(device)
    }

    /// The process that has the lock; `None`: nobody, or this one. Takes nothing.
    #[must_use]
    pub fn holder(&self, device: &str) -> Option<u32> {
        let mut lock = byte(device, libc::F_WRLCK);
        let is_held = self.control(libc::F_GETLK, &mut lock)
            && i32::from(lock.l_type) != libc::F_UNLCK
            && lock.l_pid > 0;
        let pid = is_held.then(|| u32::try_from(lock.l_pid).ok());
        pid.flatten()
    }

    /// Lets it go.
    pub fn release(&self, device: &str) {
        self.control(libc::F_SETLK, &mut byte(device, libc::F_UNLCK));
    }

    fn control(&self, command: i32, lock: &mut libc::flock) -> bool {
        // SAFETY: fcntl(2) with these commands reads and writes the structure,
        // which is ours.
        unsafe { libc::fcntl(self.0.as_raw_fd(), command, std::ptr::from_mut(lock)) == 0 }
    }
}

/// Whether a process hangs in the kernel: a signal that ends it is on its way, and
/// a thread of it waits and does not take it. A slow one has no such signal.
#[must_use]
pub fn cannot_be_ended(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads
        .into_iter()
        .flatten()
        .take(MOST_THREADS)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|thread| process::read(pid, &format!("task/{thread}/status")).ok()?)
        .any(|status| hangs(&String::from_utf8_lossy(&status)))
}

/// The processes of root or of this user that read counters below this sysroot and hang
/// in the kernel, for those who may not open root's locks. At which device they are,
/// only the lock says.
#[must_use]
pub fn hanging_readers(read: &Sysroot, user: Uid) -> Vec<Pid> {
    let real = Sysroot::real();
    let of = |uid| daemons::of_user(&real, uid).unwrap_or_default();
    let mut pids = of(Uid::ROOT);
    pids.extend(of(user));
    let root = read.path("");
    pids.retain(|pid| {
        let line = daemons::of_process(&real, *pid, "cmdline");
        line.is_some_and(|line| is_reader(&line, &root)) && cannot_be_ended(*pid)
    });
    pids
}

/// Reads `/proc/PID/cmdline`: `efa-counter-reader SYSROOT …`, or efa-check's
/// `counter-reader all|judged SYSROOT …`.
fn is_reader(line: &str, sysroot: &Path) -> bool {
    let words: Vec<&str> = line.split('\0').take(4).collect();
    let [program, first, _, third] = words[..] else {
        return false;
    };
    let is_sysroot = |word: &str| Path::new(word) == sysroot;
    match Path::new(program).file_name() {
        Some(name) if name == PROGRAM => is_sysroot(first),
        _ => first == CHILD && is_sysroot(third),
    }
}

/// Threads of a process that are looked at.
const MOST_THREADS: usize = 256;

/// Reads `/proc/PID/task/TID/status`.
fn hangs(status: &str) -> bool {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let deadly = [libc::SIGKILL, libc::SIGALRM].map(|signal| 1_u64 << (signal - 1));
    let has_deadly = |name: &str| {
        let pending = field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        pending.is_some_and(|mask| deadly.iter().any(|bit| mask & bit != 0))
    };
    let waits = field("State:").is_some_and(|state| state.starts_with('D'));
    waits && (has_deadly("SigPnd:") || has_deadly("ShdPnd:"))
}

/// The device's byte: FNV-1a of its name.
fn byte(device: &str, kind: i32) -> libc::flock {
    let hash = device
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        // Far below what an offset may be.
        l_start: i64::try_from(hash >> 2).unwrap_or_default(),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, own: &str, shared: &str) -> String {
        format!("Name:\tx\nState:\t{state}\nSigPnd:\t{own}\nShdPnd:\t{shared}\n")
    }

    #[test]
    fn a_reader_is_known_by_its_command_line() {
        let is_here = |line: &str| is_reader(line, Path::new("/"));
        assert!(is_here("/usr/lib/slurm-efa/efa-counter-reader\0/\0/run\0"));
        assert!(is_here("/proc/self/exe\0counter-reader\0all\0/\0/run\0"));
        for line in [
            "",
            "\0",
            "/usr/bin/tail\0-f\0counter-reader\0/\0",
            "efa-check\0node\0",
            "efa-counter-reader\0/tree\0/run\0",
            "/proc/self/exe\0counter-reader\0all\0/tree\0",
        ] {
            assert!(!is_here(line), "{line}");
        }
    }

    #[test]
    fn only_what_waits_in_the_kernel_with_a_deadly_signal_on_its_way_cannot_be_ended() {
        let (none, kill, alarm) = ("0000000000000000", "0000000000000100", "0000000000002000");
        let waits = "D (disk sleep)";
        assert!(hangs(&status(waits, kill, none)));
        assert!(hangs(&status(waits, none, alarm)));
        assert!(!hangs(&status(waits, none, none)), "it may be slow");
        assert!(!hangs(&status("R (running)", kill, none)));
        assert!(!hangs(&status("S (sleeping)", none, kill)));
        assert!(!hangs(""));
        assert!(!cannot_be_ended(Pid(std::process::id())));
    }
}
