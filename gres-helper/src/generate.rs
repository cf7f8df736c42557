//! gres.conf and the lines of slurm.conf and cgroup.conf that go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use host::{Sysroot, printable};
use slurm::NodeName;
use slurm::conf::gres_conf::Line;

use gpu::inventory::{Gpu, Instance, Machine, Memory, Profile};
use gpu::settings::{Settings, Shards};

use crate::kinds;

/// What the files shall say, and what a person should know about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// gres.conf's lines.
    pub lines: Vec<Line>,
    /// Advice, in whole sentences.
    pub advice: Vec<String>,
    /// What Slurm's own detection calls the GPU of each file.
    pub detected: BTreeMap<String, String>,
}

/// The CPUs' places: for each of the OS' CPUs, Slurm's number of its core, and
/// for each socket its cores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    core: BTreeMap<u32, u32>,
    sockets: Vec<BTreeSet<u32>>,
}

/// CPUs that are looked at.
const MOST_CPUS: u32 = 4096;

impl Topology {
    /// Reads it; empty where the tree has none. Slurm numbers cores socket by
    /// socket.
    #[must_use]
    pub fn read(sysroot: &Sysroot) -> Self {
        let mut cores: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for cpu in 0..MOST_CPUS {
            let base = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            let number = |file: &str| -> Option<u32> {
                sysroot
                    .read_small(&format!("{base}/{file}"))
                    .ok()?
                    .parse()
                    .ok()
            };
            let (Some(socket), Some(core)) = (number("physical_package_id"), number("core_id"))
            else {
                break;
            };
            cores.entry((socket, core)).or_default().push(cpu);
        }
        let mut topology = Self::default();
        let mut last = None;
        for (index, ((socket, _), cpus)) in (0..).zip(cores) {
            if last != Some(socket) {
                topology.sockets.push(BTreeSet::new());
                last = Some(socket);
            }
            if let Some(cores) = topology.sockets.last_mut() {
                cores.insert(index);
            }
            topology
                .core
                .extend(cpus.into_iter().map(|cpu| (cpu, index)));
        }
        topology
    }

    /// The cores of all sockets that any of the CPUs is on, and whether those
    /// CPUs are exactly these sockets; `None` where nothing is known, or where
    /// it is all cores, which needs no saying.
    fn near(&self, cpus: &[u32]) -> Option<(BTreeSet<u32>, bool)> {
        let near: BTreeSet<u32> = cpus
            .iter()
            .filter_map(|cpu| self.core.get(cpu))
            .copied()
            .collect();
        let touched = self
            .sockets
            .iter()
            .filter(|socket| !socket.is_disjoint(&near));
        let whole: BTreeSet<u32> = touched.flatten().copied().collect();
        let all: usize = self.sockets.iter().map(BTreeSet::len).sum();
        (!whole.is_empty() && whole.len() < all).then(|| {
            let aligned = whole == near;
            (whole, aligned)
        })
    }
}

/// `0-3,8` of numbers in order.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut numbers = numbers.iter().copied().peekable();
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if_eq(&(last + 1)) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        let _ = match last - first {
            0 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
    }
    text
}

/// A device's file in the tree that is looked at.
fn device(sysroot: &Sysroot, name: &str) -> String {
    let path = sysroot.path(&format!("dev/{name}"));
    printable(&path.to_string_lossy(), 400)
}

/// A GPU's file.
fn file(sysroot: &Sysroot, gpu: &Gpu) -> Option<String> {
    Some(device(sysroot, &format!("nvidia{}", gpu.minor?)))
}

/// For each GPU its number of NVLinks to each of the others, `-1` for itself,
/// as Slurm wants `Links=`; `None` where there are none.
fn links(machine: &Machine, gpu: &Gpu) -> Option<String> {
    let same = |a: &str, b: &str| {
        // NVML writes the domain with 4 or 8 digits.
        let short = |id: &str| id.trim_start_matches('0').to_ascii_lowercase();
        short(a) == short(b)
    };
    let counts: Vec<i64> = machine
        .gpus
        .iter()
        .map(|other| match other.uuid == gpu.uuid {
            true => -1,
            false => {
                let count = gpu
                    .nvlinks
                    .iter()
                    .filter(|pci| same(pci, &other.pci))
                    .count();
                i64::try_from(count).unwrap_or(0)
            }
        })
        .collect();
    counts.iter().any(|count| *count > 0).then(|| {
        let counts: Vec<String> = counts.iter().map(i64::to_string).collect();
        counts.join(",")
    })
}

/// The minor number of a capability, of `…/access` below
/// `/proc/driver/nvidia/capabilities`.
fn capability(sysroot: &Sysroot, path: &str) -> Option<u32> {
    let text = sysroot
        .read_small(&format!("proc/driver/nvidia/capabilities/{path}/access"))
        .ok()?;
    let minor = text
        .lines()
        .find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
    minor.trim().parse().ok()
}

/// A MIG profile as a `Type=`, which takes no `+`.
#[must_use]
pub fn mig_kind(profile: &str) -> String {
    profile.replace('+', ".")
}

fn mig_lines(
    gpu: &Gpu,
    instance: &Instance,
    profiles: &[Profile],
    sysroot: &Sysroot,
    cores: Option<&String>,
) -> Result<Vec<Line>, String> {
    let whole = file(sysroot, gpu).ok_or_else(|| format!("{} has no minor number", gpu.label()))?;
    let minor = gpu.minor.unwrap_or_default();
    let of = |path: String| {
        let number = capability(sysroot, &path).ok_or_else(|| {
            format!(
                "{}: no /proc/driver/nvidia/capabilities/{path}/access, so the MIG device cannot \
                 be given to jobs; update the driver, or `modprobe nvidia-caps`",
                gpu.label()
            )
        })?;
        Ok::<String, String>(device(sysroot, &format!("nvidia-caps/nvidia-cap{number}")))
    };
    let base = format!("gpu{minor}/mig/gi{}", instance.id);
    let name = profiles
        .iter()
        .find(|profile| profile.id == instance.profile)
        .map(|profile| mig_kind(&profile.name));
    instance
        .compute
        .iter()
        .map(|compute| {
            let files = vec![
                whole.clone(),
                of(base.clone())?,
                of(format!("{base}/ci{}", compute.id))?,
            ];
            Ok(Line {
                name: "gpu".to_owned(),
                kind: name.clone(),
                files,
                cores: cores.cloned(),
                ..Line::default()
            })
        })
        .collect()
}

/// What gres.conf should say of a machine. `profiles` are those of each GPU
/// that is in MIG mode, by UUID.
///
/// # Errors
/// A GPU cannot be described; for a person.
pub fn wanted(
    machine: &Machine,
    profiles: &BTreeMap<String, Vec<Profile>>,
    settings: &Settings,
) -> Result<Wanted, String> {
    let topology = Topology::read(&settings.sysroot);
    let kinds = kinds::of(machine.gpus.iter().map(|gpu| gpu.name.as_str()));
    let mut wanted = Wanted::default();
    let (mut gpus, mut shards) = (Vec::new(), Vec::new());
    let mut too_small = Vec::new();
    let mut aligned = true;
    for gpu in &machine.gpus {
        if gpu.lost || gpu.minor.is_none() || gpu.instances_unknown {
            return Err(format!(
                "{} does not answer ({}); reset it or reboot the node, then generate again",
                gpu.label(),
                gpu.trouble
                    .first()
                    .map_or("no reason given", String::as_str)
            ));
        }
        let near = topology.near(&gpu.cpus);
        aligned &= near.as_ref().is_none_or(|(_, aligned)| *aligned);
        let cores = near.map(|(cores, _)| ranges(&cores));
        if gpu.in_mig_mode() {
            let none = Vec::new();
            let profiles = profiles.get(&gpu.uuid).unwrap_or(&none);
            for instance in &gpu.instances {
                gpus.extend(mig_lines(
                    gpu,
                    instance,
                    profiles,
                    &settings.sysroot,
                    cores.as_ref(),
                )?);
            }
            continue;
        }
        let files: Vec<String> = file(&settings.sysroot, gpu).into_iter().collect();
        let detected = kinds::detected(&gpu.name);
        let kind = kinds.get(&detected).cloned();
        let named = files.iter().map(|file| (file.clone(), detected.clone()));
        wanted.detected.extend(named);
        gpus.push(Line {
            name: "gpu".to_owned(),
            kind,
            files: files.clone(),
            cores,
            links: links(machine, gpu),
            ..Line::default()
        });
        match gpu.memory.and_then(|memory| settings.shards_of(memory)) {
            Some((_, count)) => shards.push(Line {
                name: "shard".to_owned(),
                files,
                count: Some(count),
                ..Line::default()
            }),
            None => too_small.extend(gpu.memory.map(|memory| (gpu, memory))),
        }
    }
    if let Some(sentence) = no_shard_of(&too_small, settings) {
        if shards.is_empty() {
            return Err(sentence);
        }
        wanted.advice.push(sentence);
    }
    if !aligned {
        wanted.advice.push(
            "the CPUs near a GPU are only a part of a socket; Slurm gives cores to GPUs by whole \
             sockets, so Cores= names the whole socket. SlurmdParameters=numa_node_as_socket (or \
             l3cache_as_socket) makes each such part a socket"
                .to_owned(),
        );
    }
    if topology.sockets.is_empty() {
        wanted
            .advice
            .push("the CPUs' topology cannot be read, so there is no Cores=".to_owned());
    }
    let divided = machine.gpus.iter().any(Gpu::in_mig_mode);
    if divided && !shards.is_empty() {
        wanted
            .advice
            .push("GPUs in MIG mode get no shards: a MIG device is given to one job".to_owned());
    }
    wanted.lines = gpus;
    wanted.lines.extend(shards);
    Ok(wanted)
}

/// That not even one shard of the size that is asked for fits on these GPUs; `None` where
/// there are none, or no shards are asked for.
fn no_shard_of(gpus: &[(&Gpu, Memory)], settings: &Settings) -> Option<String> {
    let (gpu, memory) = gpus.first()?;
    let asked = match settings.gres.shards {
        Shards::None => return None,
        Shards::Size(size) => format!("a shard of {size} MiB does"),
        Shards::PerGpu(count) => format!("{count} shards do"),
    };
    let reserved = memory.reserved.saturating_add(settings.gres.reserve_mib);
    let usable = memory.total.saturating_sub(reserved);
    Some(format!(
        "{asked} not fit on {}, which has {usable} MiB beside what the driver and reserve_mib take",
        gpu.label()
    ))
}

/// `gpu:h100:8,shard:56`, for slurm.conf's `Gres=`.
#[must_use]
pub fn gres(lines: &[Line]) -> String {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for line in lines {
        let name = match &line.kind {
            Some(kind) => format!("{}:{kind}", line.name),
            None => line.name.clone(),
        };
        let count = line.count.unwrap_or(1);
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => counts.push((name, count)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name}:{count}"))
        .collect();
    counts.join(",")
}

/// gres.conf's text.
#[must_use]
pub fn gres_conf(wanted: &Wanted, node: &NodeName) -> String {
    let mut text = String::new();
    for advice in &wanted.advice {
        let _ = writeln!(text, "# {advice}.");
    }
    for line in &wanted.lines {
        let _ = writeln!(text, "NodeName={node} {line}");
    }
    text
}

/// slurm.conf's lines.
#[must_use]
pub fn slurm_conf(wanted: &Wanted, node: &NodeName) -> String {
    let shard = wanted.lines.iter().any(|line| line.name == "shard");
    format!(
        "GresTypes={}\nSelectType=select/cons_tres\n\
         # In the node's own line:\nNodeName={node} Gres={}\n",
        if shard { "gpu,shard" } else { "gpu" },
        gres(&wanted.lines)
    )
}

/// cgroup.conf's lines: without them a job sees the GPUs of others.
pub const CGROUP_CONF: &str = "ConstrainDevices=yes\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ranges() {
        let text = |numbers: &[u32]| ranges(&numbers.iter().copied().collect());
        assert_eq!(text(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(text(&[]), "");
    }
}
