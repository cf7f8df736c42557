//! Messages on users' terminals.
//!
//! A terminal belongs to its user: it may not drain, be closed, or have been
//! replaced by something else under its name. So the device is opened without
//! waiting, recognised by its number and owner, written to once, and what it
//! does not take is lost.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use host::Uid;
use rustix::fs::{OFlags, major, makedev, minor};

/// Majors of Unix98 pseudo-terminals, 256 each (Documentation/admin-guide/devices.txt).
const PTS: std::ops::RangeInclusive<u32> = 136..=143;

/// The number after `/dev/pts/`, from a device number of `/proc/PID/stat`.
#[must_use]
pub fn pts(tty: u32) -> Option<u32> {
    let device = u64::from(tty);
    let major = major(device);
    PTS.contains(&major)
        .then(|| (major - PTS.start()) * 256 + minor(device))
}

/// Writes a message to each of these terminals that belongs to the user;
/// how many took all of it. `message` is ours: plain text, one line break
/// for each line.
pub fn tell(terminals: &BTreeSet<u32>, uid: Uid, message: &str) -> usize {
    let text = format!("\r\n{}\r\n", message.replace('\n', "\r\n"));
    terminals
        .iter()
        .filter(|tty| write_to(**tty, uid, text.as_bytes()).is_ok())
        .count()
}

fn write_to(tty: u32, uid: Uid, text: &[u8]) -> io::Result<()> {
    let mut terminal = open(tty, uid)?;
    match terminal.write(text)? {
        written if written == text.len() => Ok(()),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// When the terminal last gave input (its access time, in wall-clock seconds).
#[must_use]
pub fn last_input(tty: u32, uid: Uid) -> Option<i64> {
    Some(open(tty, uid).ok()?.metadata().ok()?.atime())
}

fn open(tty: u32, uid: Uid) -> io::Result<File> {
    let number = pts(tty).ok_or(io::ErrorKind::Unsupported)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(format!("/dev/pts/{number}"))?;
    let found = file.metadata()?;
    let device = u64::from(tty);
    let same = found.rdev() == makedev(major(device), minor(device));
    if same && found.uid() == uid.0 && found.file_type().is_char_device() {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pseudo_terminals_have_a_number() {
        assert_eq!(pts(34_816), Some(0));
        assert_eq!(pts(34_816 + 7), Some(7));
        assert_eq!(pts(1025), None, "tty1");
        assert_eq!(pts(0), None);
        // Minor numbers above 255 stand in the upper half.
        assert_eq!(pts((1 << 20) | 34_816), Some(256));
    }

    #[test]
    fn a_terminal_of_nobody_takes_nothing_and_holds_up_nobody() {
        assert_eq!(tell(&[34_816 + 255, 1025].into(), Uid(20_001), "x"), 0);
    }
}
