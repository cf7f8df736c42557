//! By which lock a process that reads a device's counters is known while it does,
//! and stays known while it hangs in the kernel.

#![allow(unsafe_code, reason = "no safe crate locks a part of a file")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use host::state_layout::counters::READERS;

/// A lock for each device: a byte of one file, whose place is made of the name.
/// The kernel frees it when its process has really ended.
#[derive(Debug)]
pub struct ReaderLocks(File);

impl ReaderLocks {
    /// Opens the file in the state directory; `None` where this user may not.
    #[must_use]
    pub fn open(state: &Path) -> Option<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(state.join(READERS));
        file.ok().map(Self)
    }

    /// Takes the lock; the process that has it, if another does.
    #[must_use]
    pub fn take(&self, device: &str) -> Option<u32> {
        let mut lock = byte(device, libc::F_WRLCK);
        if self.control(libc::F_SETLK, &mut lock) {
            return None;
        }
        let mut lock = byte(device, libc::F_WRLCK);
        let other = self.control(libc::F_GETLK, &mut lock)
            && i32::from(lock.l_type) != libc::F_UNLCK
            && lock.l_pid > 0;
        match other {
            true => u32::try_from(lock.l_pid).ok(),
            // It was let go meanwhile, or locks do not work here: it is read.
            false => None,
        }
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
