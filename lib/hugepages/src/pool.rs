//! The kernel's hugepage pools: one for each NUMA node and page size.
//!
//! What is counted here is the *persistent* size of a pool, `nr_hugepages`
//! minus `surplus_hugepages`. That is the number one writes: when a pool
//! shrinks below what processes have mapped, the kernel keeps those pages as
//! surplus and frees each with its last user, by itself. So the number is exact
//! at once, also while a dying process still holds pages. (Checked on Linux
//! 6.18: 8 pages, 4 of them mapped, `0` written: 4 pages, 4 surplus; unmapped: 0, 0.)

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use config::size::{Bytes, HugePages, PageSize};
use host::sysroot::shown;
use host::{ReadError, Sysroot};

/// A NUMA node, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NumaNode(pub u32);

/// The pages of one size on one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool {
    /// The size of its pages.
    pub size: PageSize,
    /// Where they lie.
    pub numa: NumaNode,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages of NUMA node {}", self.size, self.numa.0)
    }
}

/// Why a pool could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A file of the kernel's cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file of the kernel's cannot be written.
    #[error("cannot write `{value}` to {}: {source}", shown(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The counts kept changing while they were read.
    #[error("the {pool} change too fast to be counted; other software is changing them")]
    Unsteady {
        /// The pool.
        pool: Pool,
    },
}

/// The kernel's pools: all effects on the kernel that reservation has.
pub trait Pools {
    /// All pools that jobs may use, sorted.
    ///
    /// # Errors
    /// Part of the pools is never returned as if it were all.
    fn pools(&self) -> Result<Vec<Pool>, PoolError>;

    /// How many pages the kernel sets aside for good (without surplus).
    ///
    /// # Errors
    /// Not known; never read as zero.
    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError>;

    /// Asks for so many. The kernel gives what it can: read afterwards.
    ///
    /// # Errors
    /// The pool may have changed all the same.
    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError>;

    /// Lets the kernel move memory together, so that more pages can be had.
    ///
    /// # Errors
    /// Nothing is lost.
    fn compact(&mut self) -> Result<(), PoolError>;
}

impl<P: Pools + ?Sized> Pools for &mut P {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        (**self).pools()
    }

    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError> {
        (**self).persistent(pool)
    }

    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError> {
        (**self).set_persistent(pool, pages)
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        (**self).compact()
    }
}

/// Where the pools of NUMA nodes lie.
const NODES: &str = "sys/devices/system/node";
/// Where they lie on a kernel without NUMA.
const GLOBAL: &str = "sys/kernel/mm/hugepages";
const COMPACT: &str = "proc/sys/vm/compact_memory";
const MEMINFO: &str = "proc/meminfo";

/// How often counts that change while they are read are read again.
const READS: usize = 100;

/// The pools of the running kernel.
#[derive(Debug, Clone)]
pub struct KernelPools {
    root: Sysroot,
    /// `None` on a kernel without NUMA.
    nodes: Option<Vec<NumaNode>>,
}

impl KernelPools {
    /// The pools below `root`, which is `/` but in tests of this type.
    ///
    /// A NUMA node without CPUs (a GPU's or an expander's memory) is left out
    /// where there are others: the host's network buffers do not belong there.
    ///
    /// # Errors
    /// The NUMA nodes cannot be listed.
    pub fn new(root: Sysroot) -> Result<Self, PoolError> {
        let names = match root.list(NODES) {
            Ok(names) => names,
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut all: Vec<NumaNode> = names
            .iter()
            .filter_map(|name| name.strip_prefix("node")?.parse().ok().map(NumaNode))
            .filter(|numa| {
                root.list(&format!("{NODES}/node{}/hugepages", numa.0))
                    .is_ok_and(|sizes| !sizes.is_empty())
            })
            .collect();
        all.sort_unstable();
        let with_cpus: Vec<NumaNode> = all
            .iter()
            .copied()
            .filter(|numa| {
                root.read_small(&format!("{NODES}/node{}/cpulist", numa.0))
                    .is_ok_and(|list| !list.is_empty())
            })
            .collect();
        let nodes = match (with_cpus.is_empty(), all.is_empty()) {
            (false, _) => Some(with_cpus),
            (true, false) => Some(all),
            (true, true) => None,
        };
        Ok(Self { root, nodes })
    }

    /// The node's memory.
    ///
    /// # Errors
    /// `/proc/meminfo` cannot be read.
    pub fn memory(&self) -> Result<Bytes, PoolError> {
        // Some 1.5 KiB; a line for each field.
        let text = self.root.read_bounded(MEMINFO, 64 * 1024)?;
        let total = text.lines().find_map(|line| {
            let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
            kib.trim().parse::<u64>().ok()?.checked_mul(1024)
        });
        total
            .map(Bytes)
            .ok_or_else(|| unexpected(self.root.path(MEMINFO), "a line `MemTotal: … kB`", &text))
    }

    fn directory(&self, pool: Pool) -> String {
        let size = pool.size.directory();
        match &self.nodes {
            Some(_) => format!("{NODES}/node{}/hugepages/{size}", pool.numa.0),
            None => format!("{GLOBAL}/{size}"),
        }
    }

    fn count(&self, pool: Pool, file: &str) -> Result<u64, PoolError> {
        let path = format!("{}/{file}", self.directory(pool));
        let text = self.root.read_small(&path)?;
        text.parse()
            .map_err(|_| unexpected(self.root.path(&path), "a number of pages", &text))
    }

    fn write(&self, path: &str, value: &str) -> Result<(), PoolError> {
        let path = self.root.path(path);
        let written = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&path)
            // One write: the kernel takes each as a number of its own.
            .and_then(|mut file| file.write(value.as_bytes()));
        match written {
            Ok(count) if count == value.len() => Ok(()),
            other => Err(PoolError::Write {
                path,
                value: value.to_owned(),
                source: other
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::WriteZero.into()),
            }),
        }
    }
}

fn unexpected(path: PathBuf, expected: &'static str, found: &str) -> PoolError {
    PoolError::Read(ReadError::Unexpected {
        path,
        expected,
        found: found.chars().take(80).collect(),
    })
}

impl Pools for KernelPools {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        let only = [NumaNode(0)];
        let nodes = self.nodes.as_deref().unwrap_or(&only);
        let mut pools = Vec::new();
        for size in PageSize::ALL {
            for &numa in nodes {
                let pool = Pool { size, numa };
                match self.count(pool, "nr_hugepages") {
                    Ok(_) => pools.push(pool),
                    // The kernel has no pages of this size.
                    Err(PoolError::Read(error)) if error.is_missing() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(pools)
    }

    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError> {
        let read = || -> Result<(u64, u64), PoolError> {
            let surplus = self.count(pool, "surplus_hugepages")?;
            Ok((self.count(pool, "nr_hugepages")?, surplus))
        };
        // The kernel frees surplus pages whenever a process ends, which changes
        // both numbers: believe them when they come twice.
        let mut last = read()?;
        for _ in 0..READS {
            let now = read()?;
            if now == last {
                let (pages, surplus) = now;
                return Ok(HugePages(pages.saturating_sub(surplus)));
            }
            last = now;
        }
        Err(PoolError::Unsteady { pool })
    }

    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError> {
        let path = format!("{}/nr_hugepages", self.directory(pool));
        self.write(&path, &pages.to_string())
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        self.write(COMPACT, "1")
    }
}

/// Pages of several pools.
pub(crate) type Counts = BTreeMap<Pool, HugePages>;

/// The pages of `pool` in `counts`; none if it is not there.
pub(crate) fn at(counts: &Counts, pool: Pool) -> HugePages {
    counts.get(&pool).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn put(dir: &Path, path: &str, text: &str) {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn pool(dir: &Path, base: &str, size: PageSize, pages: u64, surplus: u64) {
        let base = format!("{base}/{}", size.directory());
        put(dir, &format!("{base}/nr_hugepages"), &format!("{pages}\n"));
        put(
            dir,
            &format!("{base}/surplus_hugepages"),
            &format!("{surplus}\n"),
        );
    }

    fn machine(nodes: &[(u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (node, cpus) in nodes {
            let base = format!("{NODES}/node{node}");
            put(dir.path(), &format!("{base}/cpulist"), &format!("{cpus}\n"));
            for size in PageSize::ALL {
                pool(dir.path(), &format!("{base}/hugepages"), size, 10, 4);
            }
        }
        dir
    }

    fn kernel(dir: &tempfile::TempDir) -> KernelPools {
        KernelPools::new(Sysroot::new(dir.path().to_owned())).unwrap()
    }

    const TWO: PageSize = PageSize::TwoMiB;

    #[test]
    fn there_is_a_pool_for_each_numa_node_and_size() {
        let dir = machine(&[(0, "0-3"), (10, "4-7")]);
        let pools = kernel(&dir).pools().unwrap();
        let expected: Vec<Pool> = PageSize::ALL
            .into_iter()
            .flat_map(|size| {
                [0, 10].map(|n| Pool {
                    size,
                    numa: NumaNode(n),
                })
            })
            .collect();
        assert_eq!(pools, expected);
    }

    #[test]
    fn memory_without_cpus_is_not_for_network_buffers() {
        let dir = machine(&[(0, "0-71"), (1, ""), (2, "")]);
        let pools = kernel(&dir).pools().unwrap();
        assert!(pools.iter().all(|pool| pool.numa == NumaNode(0)));
        let only = machine(&[(3, "")]);
        assert!(!kernel(&only).pools().unwrap().is_empty());
    }

    #[test]
    fn surplus_pages_do_not_count() {
        let dir = machine(&[(0, "0")]);
        let numa = NumaNode(0);
        let pages = kernel(&dir).persistent(Pool { size: TWO, numa });
        assert_eq!(pages.unwrap(), HugePages(6));
    }

    #[test]
    fn a_kernel_without_numa_has_one_pool_for_each_size_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        pool(dir.path(), GLOBAL, TWO, 7, 0);
        let mut kernel = kernel(&dir);
        let only = Pool {
            size: TWO,
            numa: NumaNode(0),
        };
        assert_eq!(kernel.pools().unwrap(), [only]);
        kernel.set_persistent(only, HugePages(9)).unwrap();
        assert_eq!(kernel.persistent(only).unwrap(), HugePages(9));
    }

    #[test]
    fn a_machine_without_hugepages_has_no_pools() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kernel(&dir).pools().unwrap().is_empty());
    }

    #[test]
    fn a_count_that_is_no_number_is_an_error_and_not_zero() {
        let dir = machine(&[(0, "0")]);
        let only = Pool {
            size: TWO,
            numa: NumaNode(0),
        };
        let path = format!("{NODES}/node0/hugepages/{}/nr_hugepages", TWO.directory());
        put(dir.path(), &path, "many\n");
        let error = kernel(&dir).persistent(only).unwrap_err();
        assert!(error.to_string().contains("number of pages"), "{error}");
        assert!(kernel(&dir).pools().is_err());
    }

    #[test]
    fn the_memory_of_the_machine_is_told() {
        let dir = machine(&[]);
        put(
            dir.path(),
            MEMINFO,
            "MemTotal:       24576 kB\nMemFree: 1 kB\n",
        );
        assert_eq!(kernel(&dir).memory().unwrap(), Bytes(24576 * 1024));
        put(dir.path(), MEMINFO, "nothing");
        assert!(kernel(&dir).memory().is_err());
    }
}
