//! What preflight costs offline for a cluster of 100 groups, with the aims.
//!
//! `cargo run --release -p slurm-efa --example bench`

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cdylib_tests::comparison::children_cpu;
use cdylib_tests::statistics::median;
use serde_json::json;

const GROUPS: usize = 100;
const ROUNDS: usize = 40;
const AIM_MILLISECONDS: f64 = 20.0;
const AIM_MIB: f64 = 20.0;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    write_files(dir.path())?;
    let mut command = Command::new(program()?);
    command
        .args(["preflight", "--cluster", "create_cluster.json"])
        .args(["--provisioning", "provisioning_parameters.json"])
        .current_dir(dir.path())
        .stdout(Stdio::null());
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        let (start, before) = (Instant::now(), children_cpu()?);
        let status = command.status()?;
        walls.push(start.elapsed().as_secs_f64() * 1000.0);
        cpus.push((children_cpu()? - before).as_secs_f64() * 1000.0);
        // Nothing is wrong, and AWS was not asked.
        if status.code() != Some(3) {
            return Err(format!("preflight ended with {status}").into());
        }
    }
    // The first finds cold caches.
    walls.remove(0);
    cpus.remove(0);
    println!("\nslurm-efa preflight, offline, {GROUPS} groups, {ROUNDS} rounds\n");
    println!("                       measured     aim");
    row("time, median, ms", median(&walls), AIM_MILLISECONDS);
    // On a busy machine this is what preflight itself takes.
    row("processor, median, ms", median(&cpus), AIM_MILLISECONDS);
    row("memory, peak, MiB", peak_mib()?, AIM_MIB);
    Ok(())
}

fn row(what: &str, measured: f64, aim: f64) {
    let verdict = if measured <= aim { "met" } else { "missed" };
    println!("{what:<21}  {measured:>8.1}  {aim:>6.0}  {verdict}");
}

/// A controller, login nodes and 98 groups of workers, each with scripts, two
/// volumes and a subnet of its own.
fn write_files(dir: &Path) -> Result<(), Failure> {
    let group = |index: usize| {
        json!({
            "InstanceGroupName": format!("group-{index}"),
            "InstanceType": if index < 2 { "ml.m5.xlarge" } else { "ml.p5.48xlarge" },
            "InstanceCount": if index == 0 { 1 } else { 16 },
            "ExecutionRole": "arn:aws:iam::111122223333:role/hyperpod-nodes",
            "ThreadsPerCore": 2,
            "LifeCycleConfig": {"SourceS3Uri": "s3://sagemaker-ml/lifecycle", "OnCreate": "on_create.sh"},
            "InstanceStorageConfigs": [
                {"EbsVolumeConfig": {"VolumeSizeInGB": 500}},
                {"EbsVolumeConfig": {"VolumeSizeInGB": 100, "RootVolume": true}},
            ],
            "OverrideVpcConfig": {
                "SecurityGroupIds": ["sg-0aaaaaaaaaaaaaaa1"],
                "Subnets": [format!("subnet-0bbbbbbbbbbbbb{index:03}")],
            },
        })
    };
    let cluster = json!({
        "ClusterName": "ml-cluster",
        "InstanceGroups": (0..GROUPS).map(group).collect::<Vec<_>>(),
        "VpcConfig": {"SecurityGroupIds": ["sg-0aaaaaaaaaaaaaaa1"], "Subnets": ["subnet-0bbbbbbbbbbbbb000"]},
        "Tags": [{"Key": "team", "Value": "research"}],
    });
    let worker = |index: usize| json!({"instance_group_name": format!("group-{index}"), "partition_name": format!("p{index}")});
    let parameters = json!({
        "version": "1.0.0",
        "workload_manager": "slurm",
        "controller_group": "group-0",
        "login_group": "group-1",
        "worker_groups": (2..GROUPS).map(worker).collect::<Vec<_>>(),
    });
    fs::write(dir.join("create_cluster.json"), format!("{cluster:#}"))?;
    fs::write(
        dir.join("provisioning_parameters.json"),
        format!("{parameters:#}"),
    )?;
    Ok(())
}

/// The most memory that any child had, in MiB. A child starts with this
/// program's own, which is less.
fn peak_mib() -> Result<f64, Failure> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure that the pointer leads to, and fails
    // only for another first argument.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: numbers only, zeroed above and filled by the kernel.
    let usage = unsafe { usage.assume_init() };
    Ok(usage.ru_maxrss as f64 / 1024.0)
}

/// The program beside this example.
fn program() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe()?;
    let profile = me.parent().and_then(Path::parent);
    let program = profile.ok_or("no target directory")?.join("slurm-efa");
    if !program.is_file() {
        let program = program.display();
        let build = "cargo build --release -p slurm-efa";
        return Err(format!("{program} is not built; run {build}").into());
    }
    Ok(program)
}
