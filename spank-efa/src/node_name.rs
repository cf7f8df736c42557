//! Slurm's name of this node, in slurmstepd.

use std::ffi::OsStr;
use std::fs;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{sockaddr_un, socklen_t};
use slurm::NodeName;

/// The name: a host name would not do, since one machine may run several slurmd.
///
/// slurmstepd has it in its own environment, which no job can reach; in 20.11
/// only the socket that it listens on tells.
pub fn node_name() -> Option<NodeName> {
    std::env::var("SLURMD_NODENAME")
        .ok()
        .and_then(|name| name.parse().ok())
        .or_else(of_own_socket)
}

fn of_own_socket() -> Option<NodeName> {
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    descriptors
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find_map(|descriptor| in_socket_path(&bound_path(descriptor)?))
}

/// The path that a Unix socket is bound to; none for any other descriptor.
fn bound_path(descriptor: RawFd) -> Option<Vec<u8>> {
    // SAFETY: sockaddr_un is plain old data, for which all zeros is a valid value.
    let mut address: sockaddr_un = unsafe { zeroed() };
    let mut length = socklen_t::try_from(size_of::<sockaddr_un>()).ok()?;
    // SAFETY: getsockname(2) writes at most `length` bytes to `address` and the
    // true length to `length`; any number is a valid argument for `descriptor`.
    let outcome =
        unsafe { libc::getsockname(descriptor, (&raw mut address).cast(), &raw mut length) };
    if outcome != 0 || i32::from(address.sun_family) != libc::AF_UNIX {
        return None;
    }
    let bytes = usize::try_from(length)
        .ok()?
        .checked_sub(offset_of!(sockaddr_un, sun_path))?;
    let path = address.sun_path.get(..bytes)?;
    // c_char is signed on one processor and unsigned on the other.
    Some(
        path.iter()
            .flat_map(|byte| byte.to_ne_bytes())
            .take_while(|byte| *byte != 0)
            .collect(),
    )
}

/// The name in `<SlurmdSpoolDir>/<NodeName>_<jobid>.<stepid>[.<component>]`,
/// where slurmstepd listens in 20.11 to 26.05.
fn in_socket_path(path: &[u8]) -> Option<NodeName> {
    let file = Path::new(OsStr::from_bytes(path)).file_name()?.to_str()?;
    let (name, ids) = file.rsplit_once('_')?;
    let is_ids = ids.contains('.') && ids.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_ids { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_listening_socket_tells_its_path_and_a_file_none() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n1_7.0");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let bound = bound_path(listener.as_raw_fd()).unwrap();
        assert_eq!(bound, path.as_os_str().as_bytes());
        assert_eq!(of_own_socket(), "n1".parse().ok());
        let file = fs::File::open(dir.path()).unwrap();
        assert_eq!(bound_path(file.as_raw_fd()), None);
        assert_eq!(bound_path(-1), None);
    }
}
