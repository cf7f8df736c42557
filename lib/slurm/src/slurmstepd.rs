//! What slurmstepd knows of itself, for what it loads.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::NodeName;
use crate::stepd_sockets::Step;

/// Most of the kernel's list of sockets that is read, in bytes.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

/// Slurm's name of this node. The machine's name would not do, since one machine
/// may run several slurmd.
///
/// slurmstepd has it in its own environment, which no job can reach; in 20.11
/// only the path of the socket that it listens on has it.
#[must_use]
pub fn node_name() -> Option<NodeName> {
    let given = std::env::var("SLURMD_NODENAME").ok();
    given
        .and_then(|name| name.parse().ok())
        .or_else(|| of_sockets(&own_sockets()?))
}

/// The name in the path of one of these sockets.
fn of_sockets(inodes: &BTreeSet<u64>) -> Option<NodeName> {
    let mut list = Vec::new();
    let file = File::open("/proc/self/net/unix").ok()?;
    file.take(LARGEST_LIST).read_to_end(&mut list).ok()?;
    let mut lines = list.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let (inode, path) = bound_socket(line)?;
        in_socket_path(inodes.contains(&inode).then_some(path)?)
    })
}

/// The inodes of the sockets that this process has open.
fn own_sockets() -> Option<BTreeSet<u64>> {
    let inode = |descriptor: io::Result<fs::DirEntry>| {
        let target = fs::read_link(descriptor.ok()?.path()).ok()?;
        let number = target.to_str()?.strip_prefix("socket:[")?;
        number.strip_suffix(']')?.parse().ok()
    };
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    Some(descriptors.filter_map(inode).collect())
}

/// Inode and path in a line of `/proc/net/unix`, which has `Num RefCount Protocol
/// Flags Type St Inode Path`; none of a socket that is not bound to a file.
fn bound_socket(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = line;
    let mut inode = None;
    for _ in 0..7 {
        let word = rest.trim_ascii_start();
        let end = word.iter().position(|byte| *byte == b' ')?;
        inode = Some(&word[..end]);
        rest = &word[end..];
    }
    let inode = std::str::from_utf8(inode?).ok()?.parse().ok()?;
    // One blank, then the path as it is, which may begin with others.
    let path = rest.get(1..)?;
    path.starts_with(b"/").then_some((inode, path))
}

/// The name in `<SlurmdSpoolDir>/<NodeName>_<jobid>.<stepid>[.<component>]`,
/// where slurmstepd listens in 20.11 to 26.05.
fn in_socket_path(path: &[u8]) -> Option<NodeName> {
    let file = Path::new(OsStr::from_bytes(path)).file_name()?.to_str()?;
    let (name, _) = Step::of_any_socket(file)?;
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_name_is_in_the_path_of_the_sockets_of_ordinary_batch_and_het_steps() {
        for file in ["n1_7.0", "n1_7.4294967291", "n1_7.0.1"] {
            let name = in_socket_path(format!("/var/spool/slurmd/{file}").as_bytes());
            assert_eq!(name, "n1".parse().ok(), "{file}");
        }
        let name = in_socket_path(b"/spool/gpu_a_1_7.0");
        assert_eq!(name, "gpu_a_1".parse().ok());
    }

    #[test]
    fn other_sockets_name_no_node() {
        for path in [
            "",
            "/",
            "/run/munge/munge.socket.2",
            "/x/n1_7",
            "/x/n1_a.b",
            "_7.0",
        ] {
            assert_eq!(in_socket_path(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn inode_and_path_are_read_from_the_kernels_list() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01    77 /run/a b";
        assert_eq!(bound_socket(line), Some((77, &b"/run/a b"[..])));
        for line in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "0000000000000000: 00000003 00000000 00000000 0001 03 8670075",
            "0000000000000000: 00000003 00000000 00000000 0001 03 8670075 @abstract",
            "",
        ] {
            assert_eq!(bound_socket(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_name_is_found_by_the_socket_that_this_process_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("n1_7.0")).unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        assert!(own_sockets().unwrap().contains(&inode));
        assert_eq!(of_sockets(&[inode].into()), "n1".parse().ok());
        drop(listener);
        assert!(!own_sockets().unwrap().contains(&inode));
        assert_eq!(of_sockets(&[inode].into()), None);
    }
}
