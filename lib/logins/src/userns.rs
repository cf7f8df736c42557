//! User namespaces: who owns the one that a process runs in, from ioctl_ns(2).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;

use host::{Pid, Uid};

use crate::membership::Namespace;

/// The kernel nests at most 32 user namespaces.
const DEEPEST: usize = 33;

/// From linux/nsfs.h, the same on all architectures.
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The user namespace of a process.
#[must_use]
pub fn of(pid: Pid) -> Namespace {
    let path = format!("/proc/{}/ns/user", pid.0);
    let named = |path: &str| std::fs::metadata(path).map(|it| (it.dev(), it.ino()));
    match (named("/proc/self/ns/user"), named(&path)) {
        (Ok(own), Ok(its)) if own == its => Namespace::Initial,
        (Ok(own), Ok(_)) => match owners(&path, own) {
            Ok(owners) => Namespace::Foreign(owners),
            Err(_) => Namespace::Unknown,
        },
        _ => Namespace::Unknown,
    }
}

/// Who owns the namespace and each one around it, up to `own`.
fn owners(path: &str, own: (u64, u64)) -> io::Result<Vec<Uid>> {
    let mut owners = Vec::new();
    let mut namespace = File::open(path)?;
    for _ in 0..DEEPEST {
        let found = namespace.metadata()?;
        if (found.dev(), found.ino()) == own {
            break;
        }
        owners.push(owner(&namespace)?);
        match parent(&namespace) {
            Ok(next) => namespace = next,
            // It is outside of what this program may see.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(owners)
}

fn owner(namespace: &File) -> io::Result<Uid> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the descriptor is open, and NS_GET_OWNER_UID writes one uid_t to
    // the address that is its argument; on any other file it fails.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Uid(uid))
}

fn parent(namespace: &File) -> io::Result<File> {
    // SAFETY: the descriptor is open, and NS_GET_PARENT takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT as _) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the ioctl succeeded, so this is a new descriptor that nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_this_namespace_is_seen_as_one() {
        assert_eq!(of(Pid(std::process::id())), Namespace::Initial);
    }

    #[test]
    fn a_process_that_is_gone_has_an_unknown_namespace() {
        assert_eq!(of(Pid(1 << 30)), Namespace::Unknown);
    }
}
