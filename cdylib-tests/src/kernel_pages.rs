//! The running kernel's hugepages, which belong to the machine: tests that
//! change them go one at a time, and leave them as they were.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

const LOCK: &str = "/run/slurm-efa-test-hugepages.lock";
const NODES: &str = "/sys/devices/system/node";

/// The right to change the kernel's pages. When it is dropped they are as they
/// were, even if a test failed with jobs in the middle.
#[derive(Debug)]
pub struct Alone {
    before: Vec<(PathBuf, u64)>,
    _lock: File,
}

/// Waits until no other test, demo or benchmark changes the kernel's pages.
///
/// # Errors
/// Not root, most likely.
pub fn alone() -> io::Result<Alone> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)?;
    // SAFETY: flock(2) takes an open descriptor, which `lock` is, and waits.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Alone {
        before: counts()?,
        _lock: lock,
    })
}

impl Drop for Alone {
    fn drop(&mut self) {
        let Ok(now) = counts() else { return };
        for ((path, before), (_, now)) in self.before.iter().zip(now) {
            if *before != now {
                // Best effort: whoever is next finds them otherwise.
                let _ = fs::write(path.join("nr_hugepages"), before.to_string());
            }
        }
    }
}

/// A file of every pool (a NUMA node's pages of one size), in a fixed order.
///
/// # Errors
/// The kernel has no NUMA nodes in sysfs.
pub fn pools(file: &str) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut pools = Vec::new();
    for node in fs::read_dir(NODES)? {
        let sizes = match fs::read_dir(node?.path().join("hugepages")) {
            Ok(sizes) => sizes,
            // Not a NUMA node.
            Err(_) => continue,
        };
        for size in sizes {
            let path = size?.path();
            let text = fs::read_to_string(path.join(file))?;
            pools.push((path, text.trim().parse().map_err(io::Error::other)?));
        }
    }
    pools.sort();
    Ok(pools)
}

/// The pages of every pool, surplus included.
///
/// # Errors
/// As [`pools`].
pub fn counts() -> io::Result<Vec<(PathBuf, u64)>> {
    pools("nr_hugepages")
}

/// How many 2 MiB pages nobody has mapped or reserved.
///
/// # Errors
/// As [`pools`].
pub fn free() -> io::Result<usize> {
    let small = |(path, pages): (PathBuf, u64)| match path.ends_with("hugepages-2048kB") {
        true => usize::try_from(pages).unwrap_or(usize::MAX),
        false => 0,
    };
    Ok(pools("free_hugepages")?.into_iter().map(small).sum())
}

/// The MiB of 2 MiB pages that the kernel sets aside.
///
/// # Errors
/// As [`pools`].
pub fn mebibytes() -> io::Result<u64> {
    let small = |(path, pages): (PathBuf, u64)| match path.ends_with("hugepages-2048kB") {
        true => pages * 2,
        false => 0,
    };
    Ok(counts()?.into_iter().map(small).sum())
}
