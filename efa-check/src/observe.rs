//! What is looked at. Nothing is judged here.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use efa::devices::Devices;
use efa::{InstanceType, dma_buf, instance_types, software};
use host::BootId;
use host::Deadline;
use host::daemons::{self, Daemon};
use host::process::ProcessIdentity;
use host::state_dir::{StateDir, StateError};
use host::{Sysroot, printable};
use hugepages::ledger::Ledger;
use hugepages::{HugePages, KernelPools, PageSize, Pools as _};

use crate::counters::Wanted;
use crate::probe_worker::{self, Probe};
use crate::settings::Settings;

/// Kernel modules without which EFA does not work.
pub const MODULES: [&str; 3] = ["efa", "ib_uverbs", "ib_core"];

/// More devices than any instance has; a longer list is no list of devices.
pub const MOST_DEVICES: usize = 256;

/// How a process of a user gets to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uverbs {
    /// `/dev/infiniband/uverbsN` is there for everybody.
    Fine,
    /// The kernel made none for this device.
    None,
    /// It is not in `/dev`.
    Missing(String),
    /// Users may not read and write it.
    Closed(String, u32),
    /// It could not be looked at.
    Unreadable(String),
}

/// One EFA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The kernel's name.
    pub name: String,
    /// PCI address.
    pub pci: Option<String>,
    /// PCI device id.
    pub device_id: u16,
    /// See [`efa::devices::Device::has_p2p`].
    pub has_p2p: Option<bool>,
    /// Its character device.
    pub uverbs: Uverbs,
    /// Its counters.
    pub probe: Probe,
}

/// Everything that was seen of a node.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The instance type, or why it is not known.
    pub instance: Result<InstanceType, String>,
    /// The EFA devices, or why they are not known.
    pub devices: Result<Vec<Seen>, String>,
    /// RDMA devices that may be EFA devices: name and reason.
    pub skipped: Vec<(String, String)>,
    /// Those of [`MODULES`] that are not loaded.
    pub modules_missing: Vec<&'static str>,
    /// See [`software::is_kernels_driver`].
    pub kernels_driver: bool,
    /// What decides whether GPUDirect goes by dma-buf; only looked for where a
    /// device's `p2p` is empty.
    pub dma_buf: Option<Arc<dma_buf::Software>>,
    /// Whether libfabric and NCCL's plugin are on the node; `None` where nobody asked.
    pub stack: Option<Software>,
    /// What a process of slurmd may lock, in bytes (`u64::MAX`: all);
    /// `None` where that is not known here.
    pub memlock: Option<u64>,
    /// Yama's setting; `None` without Yama.
    pub ptrace_scope: Option<Result<u32, String>>,
    /// Pools of hugepages of which somebody wants something, or why that is
    /// not known.
    pub hugepages: Result<Vec<HugePool>, String>,
    /// No step of a job is on the node; `None` where nobody asked.
    pub is_idle: Option<bool>,
    /// How long each part took.
    pub took: Vec<(&'static str, Duration)>,
}

/// The hugepages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePool {
    /// Their size.
    pub size: PageSize,
    /// How many there are.
    pub have: HugePages,
    /// How many there shall be.
    pub want: HugePages,
    /// Who says so.
    pub wanted_by: WantedBy,
}

/// Who wants hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedBy {
    /// `hugepages` of the configuration.
    Site,
    /// The ledger: the jobs' pages and the administrator's.
    Ledger,
}

/// The node's own software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Software {
    /// `/opt/amazon/efa/lib*/libfabric.so.1`.
    pub libfabric: bool,
    /// aws-ofi-nccl.
    pub plugin: bool,
}

/// What shall be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The counters.
    pub counters: Wanted,
    /// libfabric and the plugin.
    pub stack: bool,
    /// Whether this process has slurmd's limits.
    pub from_slurmd: bool,
    /// Whether a job is on the node.
    pub jobs: bool,
    /// Processes that hang since an earlier round.
    pub held: &'a BTreeMap<String, ProcessIdentity>,
    /// Where the ledger of hugepages lies.
    pub state_dir: &'a Path,
}

/// Looks at the node once.
#[must_use]
pub fn observe(sysroot: &Sysroot, settings: &Settings, ask: Ask<'_>) -> Observation {
    let mut took = Vec::new();
    let mut timed = Instant::now();
    let mut lap = |part| {
        took.push((part, timed.elapsed()));
        timed = Instant::now();
    };
    let (devices, skipped) = list(sysroot);
    lap("devices");
    let mut node = None;
    let without_p2p = devices.as_ref().is_ok_and(|found| {
        let mut p2p = found.iter().map(|device| device.has_p2p);
        p2p.any(|has_p2p| has_p2p == Some(false))
    });
    let devices = devices.map(|found| {
        let names: Vec<&str> = found.iter().map(|d| d.name.as_str()).collect();
        let (limit, mut uverbs) = (settings.probe_limit, Vec::new());
        let probes = probe_worker::probe(
            sysroot,
            ask.state_dir,
            &names,
            ask.counters,
            limit,
            ask.held,
            || {
                uverbs.extend(names.iter().map(|name| uverbs_of(sysroot, name)));
                node = Some(look_around(sysroot, settings, ask));
            },
        );
        let parts = found.devices.into_iter().zip(uverbs).zip(probes);
        parts
            .map(|((device, uverbs), probe)| Seen {
                name: device.name,
                pci: device.pci_address,
                device_id: device.device_id,
                has_p2p: device.has_p2p,
                uverbs,
                probe,
            })
            .collect()
    });
    lap("counters");
    let around = node.unwrap_or_else(|| look_around(sysroot, settings, ask));
    Observation {
        devices,
        skipped,
        dma_buf: without_p2p.then(|| Arc::new(dma_buf::Software::probe(sysroot))),
        took,
        ..around
    }
}

/// What is not about single devices.
fn look_around(sysroot: &Sysroot, settings: &Settings, ask: Ask<'_>) -> Observation {
    let modules_missing = MODULES
        .into_iter()
        .filter(|module| !sysroot.path(&format!("sys/module/{module}")).is_dir())
        .collect();
    let kernels_driver = software::is_kernels_driver(sysroot);
    let stack = ask.stack.then(|| Software {
        libfabric: software::libfabric_file(sysroot).is_some(),
        plugin: software::plugin_file(sysroot).is_some(),
    });
    let memlock = if ask.from_slurmd {
        memlock(sysroot, "proc/self/limits")
    } else {
        slurmd_limits(sysroot).and_then(|rel| memlock(sysroot, &rel))
    };
    Observation {
        instance: instance_types::detect(sysroot).map_err(|error| error.to_string()),
        devices: Ok(Vec::new()),
        skipped: Vec::new(),
        modules_missing,
        kernels_driver,
        dma_buf: None,
        stack,
        memlock,
        ptrace_scope: number(sysroot, "proc/sys/kernel/yama/ptrace_scope"),
        hugepages: hugepages(sysroot, settings, ask.state_dir),
        is_idle: ask.jobs.then(|| is_idle(sysroot)),
        took: Vec::new(),
    }
}

/// How many EFA devices there are now, for who waits for them.
#[must_use]
pub fn count(sysroot: &Sysroot) -> Option<usize> {
    efa::devices::count(sysroot).ok()
}

/// Time since boot.
#[must_use]
pub fn uptime(sysroot: &Sysroot) -> Option<Duration> {
    let text = sysroot.read_small("proc/uptime").ok()?;
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn list(sysroot: &Sysroot) -> (Result<Devices, String>, Vec<(String, String)>) {
    match efa::devices::devices(sysroot) {
        Ok(mut found) => {
            let skipped = found
                .skipped
                .drain(..)
                // Without a place on a bus it is software, such as soft-RoCE.
                .filter(|(name, _)| {
                    sysroot
                        .path(&format!("{}/{name}/device", efa::devices::CLASS))
                        .exists()
                })
                .map(|(name, reason)| (name, reason.to_string()))
                .collect();
            if found.len() > MOST_DEVICES {
                let reason = format!("{} devices: no instance has so many", found.len());
                return (Err(reason), skipped);
            }
            (Ok(found), skipped)
        }
        Err(error) => (Err(error.to_string()), Vec::new()),
    }
}

fn uverbs_of(sysroot: &Sysroot, device: &str) -> Uverbs {
    let folder = format!("{}/{device}/device/infiniband_verbs", efa::devices::CLASS);
    let names = match sysroot.list(&folder) {
        Ok(names) => names,
        Err(error) if error.is_missing() => return Uverbs::None,
        Err(error) => return Uverbs::Unreadable(error.to_string()),
    };
    let Some(name) = names.into_iter().find(|name| name.starts_with("uverbs")) else {
        return Uverbs::None;
    };
    let place = format!("/dev/infiniband/{name}");
    match std::fs::metadata(sysroot.path(&place)) {
        Ok(meta) => {
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o006 == 0o006 {
                Uverbs::Fine
            } else {
                Uverbs::Closed(place, mode)
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Uverbs::Missing(place),
        Err(error) => Uverbs::Unreadable(format!("{place}: {error}")),
    }
}

fn number<T: std::str::FromStr>(sysroot: &Sysroot, rel: &str) -> Option<Result<T, String>> {
    match sysroot.read_small(rel) {
        Ok(text) => Some(text.parse().map_err(|_| {
            let text = printable(&text, 40);
            format!("/{rel}: `{text}` is no number")
        })),
        Err(error) if error.is_missing() => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

fn hugepages(
    sysroot: &Sysroot,
    settings: &Settings,
    state_dir: &Path,
) -> Result<Vec<HugePool>, String> {
    let mut pools = by_ledger(state_dir)?;
    if let Some(want) = settings.hugepages {
        let size = PageSize::TwoMiB;
        let place = format!("sys/kernel/mm/hugepages/{}/nr_hugepages", size.directory());
        // A kernel without such a pool has none of its pages.
        let have = number(sysroot, &place).unwrap_or(Ok(0))?;
        pools.push(HugePool {
            size,
            have: HugePages(have),
            want: HugePages(want),
            wanted_by: WantedBy::Site,
        });
    }
    Ok(pools)
}

/// What the ledger wants and the kernel has. Both are the machine's own, never
/// a simulated tree's: the ledger speaks of pages that were really taken.
fn by_ledger(state_dir: &Path) -> Result<Vec<HugePool>, String> {
    let unknown = |error: &dyn std::fmt::Display| format!("the ledger of hugepages: {error}");
    let Some(state) = StateDir::open_existing(state_dir).map_err(|error| unknown(&error))? else {
        return Ok(Vec::new());
    };
    let now = Deadline::after(Duration::ZERO);
    let ledger = match Ledger::open_existing(&state, now) {
        Ok(Some(ledger)) => ledger,
        Ok(None) => return Ok(Vec::new()),
        // A prolog or an epilog is changing what would be compared: nothing is
        // said of it now, and the next round looks again.
        Err(StateError::Busy { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(unknown(&error)),
    };
    let boot = BootId::current().map_err(|error| unknown(&error))?;
    let mut found = Vec::new();
    for size in PageSize::ALL {
        let target = ledger
            .target(size, &boot)
            .map_err(|error| unknown(&error))?;
        let Some(want) = target.filter(|pages| !pages.is_zero()) else {
            continue;
        };
        let kernel = KernelPools::new(Sysroot::real()).map_err(|error| error.to_string())?;
        let mut have = HugePages::ZERO;
        for pool in kernel.pools().map_err(|error| error.to_string())? {
            if pool.size == size {
                have = have.plus(kernel.persistent(pool).map_err(|error| error.to_string())?);
            }
        }
        found.push(HugePool {
            size,
            have,
            want,
            wanted_by: WantedBy::Ledger,
        });
    }
    Ok(found)
}

/// The soft limit of `Max locked memory` in a file of proc(5)'s `limits`.
fn memlock(sysroot: &Sysroot, rel: &str) -> Option<u64> {
    let text = sysroot.read_small(rel).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

/// The limits of the slurmd of this node, for who was not started by it.
fn slurmd_limits(sysroot: &Sysroot) -> Option<String> {
    let all = daemons::of_root(sysroot, "slurmd")?;
    let slurmd = all.into_iter().find(|daemon| daemon.is_nodes)?;
    Some(format!("proc/{}/limits", slurmd.pid))
}

/// Whether no step of a job is on the node, as far as its processes show; `false`
/// where they cannot be looked at. A step that may be another's counts.
#[must_use]
pub fn is_idle(sysroot: &Sysroot) -> bool {
    // With cgroup v2 one that belongs to no job keeps slurmd's scope: `slurmstepd infinity`.
    let is_step = |daemon: &Daemon| {
        let called = daemons::of_process(sysroot, daemon.pid, "cmdline");
        !called.is_some_and(|it| it.ends_with("\0infinity\0"))
    };
    daemons::of_root(sysroot, "slurmstepd").is_some_and(|all| !all.iter().any(is_step))
}

#[cfg(test)]
impl Observation {
    /// Nothing was seen.
    pub(crate) fn nothing() -> Self {
        Self {
            instance: Err(String::new()),
            devices: Ok(Vec::new()),
            skipped: Vec::new(),
            modules_missing: Vec::new(),
            kernels_driver: false,
            dma_buf: None,
            stack: None,
            memlock: None,
            ptrace_scope: None,
            hugepages: Ok(Vec::new()),
            is_idle: None,
            took: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::state_layout::job::LEDGER;

    #[test]
    fn while_a_prolog_changes_the_ledger_nothing_is_said_of_it_and_what_is_broken_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let prolog = Ledger::open(&state, Deadline::after(Duration::ZERO)).unwrap();
        let pools = by_ledger(state.path()).map(|pools| pools.len());
        assert_eq!(pools, Ok(0));
        drop(prolog);
        let folder = state.path().join(LEDGER);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "").unwrap();
        let reason = by_ledger(state.path()).err().unwrap();
        assert!(reason.starts_with("the ledger of hugepages: "), "{reason}");
    }
}
