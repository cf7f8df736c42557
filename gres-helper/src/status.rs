//! `status` and `metrics`: who shares which GPU, and what holds them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use findings::prometheus::{escape, head};
use findings::{Document, Finding, Findings, Remedies, Severity, Show};
use serde::Serialize;
use slurm::NodeName;

use crate::watch::Held;
use gpu::inventory::{ComputeMode, Gpu, Machine};
use gpu::settings::Settings;
use gpu::shares::{Record, Tier};
use host::Uid;

/// A node's GPUs and who is on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The driver's version.
    pub driver: String,
    /// Whether a watchdog runs.
    pub watchdog: bool,
    /// The GPUs.
    pub gpus: Vec<GpuStatus>,
    /// What speaks against them; the document shows it in its own way.
    #[serde(skip)]
    pub findings: Findings,
    /// What could not be found out.
    pub problems: Vec<String>,
}

/// A GPU and who is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuStatus {
    /// NVML's index.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// The product's name.
    pub model: String,
    /// `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// All of its memory, MiB.
    pub memory_mib: Option<u64>,
    /// What processes hold, MiB.
    pub used_mib: Option<u64>,
    /// Its MIG devices by profile count; `None`: MIG is off or not there.
    pub mig_devices: Option<usize>,
    /// Who may use it.
    pub compute_mode: Option<ComputeMode>,
    /// How many shards it has.
    pub shards: u64,
    /// How many are given to jobs that are on this GPU alone.
    pub shards_used: u64,
    /// What holds the next job, and every present one, at least.
    pub tier: Tier,
    /// The same in words.
    pub tier_words: &'static str,
    /// The jobs.
    pub jobs: Vec<JobStatus>,
}

/// A job on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its number.
    pub job: u32,
    /// Its user.
    pub uid: Uid,
    /// Its shards on this node; `None`: it has whole GPUs.
    pub shards: Option<u64>,
    /// Its share, MiB.
    pub share_mib: Option<u64>,
    /// What it holds on all its GPUs, MiB.
    pub used_mib: u64,
    /// Whether that is more than its share.
    pub over: bool,
    /// What holds it.
    pub tier: Tier,
    /// Why that is less than the site asked for.
    pub refused: Option<String>,
}

/// What is known, put together.
#[must_use]
pub fn status(
    settings: &Settings,
    machine: &Machine,
    records: &[Record],
    held: &BTreeMap<u32, Held>,
    watchdog: bool,
) -> Status {
    let gpus = machine
        .gpus
        .iter()
        .map(|gpu| gpu_status(settings, gpu, records, held, watchdog))
        .collect();
    Status {
        driver: machine.driver.clone(),
        watchdog,
        gpus,
        findings: Findings::default(),
        problems: Vec::new(),
    }
}

/// What really holds: a tier that is only wished for counts for nothing.
fn in_force(record: &Record, watchdog: bool) -> Tier {
    match record.tier {
        tier @ (Tier::Mps | Tier::Cgroup) if record.fenced => tier,
        Tier::Mig => Tier::Mig,
        _ if watchdog && record.share_mib().is_some() => Tier::Watchdog,
        _ => Tier::CountOnly,
    }
}

fn gpu_status(
    settings: &Settings,
    gpu: &Gpu,
    records: &[Record],
    held: &BTreeMap<u32, Held>,
    watchdog: bool,
) -> GpuStatus {
    let on_it: Vec<&Record> = records
        .iter()
        .filter(|record| record.gpus.contains(&gpu.uuid))
        .collect();
    let jobs: Vec<JobStatus> = on_it
        .iter()
        .map(|record| {
            let used = held.get(&record.job.0).map_or(0, |held| held.mib);
            JobStatus {
                job: record.job.0,
                uid: record.uid,
                shards: record.shards,
                share_mib: record.share_mib(),
                used_mib: used,
                over: record.share_mib().is_some_and(|share| used > share),
                tier: in_force(record, watchdog),
                refused: record.refused.clone(),
            }
        })
        .collect();
    // With no job there, what is sure without a look at one.
    let idle = match () {
        () if gpu.in_mig_mode() => Tier::Mig,
        () if watchdog => Tier::Watchdog,
        () => Tier::CountOnly,
    };
    let shared = jobs
        .iter()
        .filter(|job| job.shards.is_some())
        .map(|job| job.tier)
        .min();
    let tier = shared.unwrap_or(idle);
    let shards = match gpu.in_mig_mode() {
        true => 0,
        false => gpu
            .memory
            .and_then(|memory| settings.shards_of(memory))
            .map_or(0, |it| it.1),
    };
    GpuStatus {
        index: gpu.index,
        uuid: gpu.uuid.clone(),
        model: gpu.name.clone(),
        minor: gpu.minor,
        memory_mib: gpu.memory.map(|memory| memory.total),
        used_mib: gpu.memory.map(|memory| memory.used),
        mig_devices: gpu.in_mig_mode().then(|| {
            gpu.instances
                .iter()
                .map(|instance| instance.compute.len())
                .sum()
        }),
        compute_mode: gpu.compute_mode,
        shards,
        shards_used: on_it
            .iter()
            .filter(|record| record.gpus.len() == 1)
            .filter_map(|record| record.shards)
            .sum(),
        tier,
        tier_words: tier.words(),
        jobs,
    }
}

/// A finding, with the keys that it had up to 0.1, for one release.
#[derive(Debug, Serialize)]
pub struct ShownFinding<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    grade: Severity,
    check: &'static str,
    text: String,
}

/// For a program.
#[must_use]
pub fn document<'a>(
    status: &'a Status,
    node: Option<&'a NodeName>,
    unix: u64,
) -> Document<'a, ShownFinding<'a>, &'a Status> {
    let shown = |finding: &'a Finding| ShownFinding {
        finding,
        grade: finding.severity,
        check: finding.id,
        text: finding.advice(),
    };
    let node = node.map(NodeName::as_str);
    status.findings.document(node, unix, shown, status)
}

/// For a person.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    for gpu in &status.gpus {
        let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |it| it.to_string());
        let _ = write!(
            text,
            "GPU {} {}  {} of {} MiB used",
            gpu.index,
            if gpu.model.is_empty() {
                "(no name)"
            } else {
                &gpu.model
            },
            number(gpu.used_mib),
            number(gpu.memory_mib)
        );
        if let Some(count) = gpu.mig_devices {
            let _ = write!(text, "  {count} MIG devices");
        }
        if gpu.shards > 0 {
            let _ = write!(text, "  shards {}/{}", gpu.shards_used, gpu.shards);
        }
        if gpu.compute_mode == Some(ComputeMode::ExclusiveProcess) {
            text.push_str("  EXCLUSIVE_PROCESS");
        }
        let _ = writeln!(text, "\n  in force: {}", gpu.tier_words);
        for job in &gpu.jobs {
            let share = match (job.shards, job.share_mib) {
                (Some(shards), Some(share)) => format!("{shards} shards = {share} MiB"),
                (Some(shards), None) => format!("{shards} shards, of unknown size"),
                (None, _) => "whole GPU".to_owned(),
            };
            let over = if job.over { "  OVER ITS SHARE" } else { "" };
            let _ = writeln!(
                text,
                "  job {} uid {}  {share}, holds {} MiB{over}  [{}]",
                job.job,
                job.uid,
                job.used_mib,
                job.tier.words()
            );
            if let Some(reason) = &job.refused {
                let _ = writeln!(text, "    {reason}");
            }
        }
    }
    text.push_str(&status.findings.text(Show::NotOk, Remedies::Shown));
    for problem in &status.problems {
        let _ = writeln!(text, "not known: {problem}");
    }
    text
}

/// For node_exporter's textfile collector.
#[must_use]
pub fn metrics(status: &Status) -> String {
    type Of = fn(&GpuStatus) -> Option<u64>;
    const ROWS: &[(&str, &str, Of)] = &[
        ("gres_gpu_memory_mib", "Memory of the GPU.", |gpu| {
            gpu.memory_mib
        }),
        ("gres_gpu_used_mib", "Memory that processes hold.", |gpu| {
            gpu.used_mib
        }),
        ("gres_gpu_shards", "Shards of the GPU.", |gpu| {
            Some(gpu.shards)
        }),
        ("gres_gpu_shards_used", "Shards given to jobs.", |gpu| {
            Some(gpu.shards_used)
        }),
        (
            "gres_gpu_tier",
            "What holds jobs to their shares: 0 count only, 1 watchdog, 2 MPS, 3 cgroup, 4 MIG.",
            |gpu| Some(gpu.tier as u64),
        ),
    ];
    let mut text = String::new();
    for (name, help, of) in ROWS {
        head(&mut text, name, "gauge", help);
        for gpu in &status.gpus {
            if let Some(value) = of(gpu) {
                let _ = writeln!(
                    text,
                    "{name}{{gpu=\"{}\",uuid=\"{}\"}} {value}",
                    gpu.index,
                    escape(&gpu.uuid)
                );
            }
        }
    }
    for (name, help, of) in [
        (
            "gres_job_share_mib",
            "The job's share.",
            (|job| job.share_mib) as fn(&JobStatus) -> Option<u64>,
        ),
        ("gres_job_used_mib", "What the job holds.", |job| {
            Some(job.used_mib)
        }),
    ] {
        head(&mut text, name, "gauge", help);
        let jobs: BTreeMap<u32, &JobStatus> = status
            .gpus
            .iter()
            .flat_map(|gpu| &gpu.jobs)
            .map(|job| (job.job, job))
            .collect();
        for (number, job) in jobs {
            if let Some(value) = of(job) {
                let _ = writeln!(
                    text,
                    "{name}{{job=\"{number}\",uid=\"{}\"}} {value}",
                    job.uid
                );
            }
        }
    }
    head(
        &mut text,
        "gres_findings",
        "gauge",
        "What speaks against the node's GPUs.",
    );
    let _ = writeln!(text, "gres_findings {}", status.findings.0.len());
    text
}
