//! What preflight costs offline for a cluster of 100 groups, and what a look at the
//! slurm.conf of 1,000 nodes costs, with the aims.
//!
//! `cargo run --release -p slurm-efa --example bench`

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cdylib_tests::comparison::children_cpu;
use cdylib_tests::statistics::median;
use serde_json::json;

const GROUPS: usize = 100;
const NODES: usize = 1000;
const ROUNDS: usize = 40;
const AIM_MILLISECONDS: f64 = 20.0;
const AIM_MIB: f64 = 20.0;
/// Of setup and of doctor, besides the programs that they call.
const AIM_NODES_MILLISECONDS: f64 = 100.0;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    preflight()?;
    nodes()
}

fn preflight() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    write_files(dir.path())?;
    let mut command = Command::new(program()?);
    command
        .args(["preflight", "--cluster", "create_cluster.json"])
        .args(["--provisioning", "provisioning_parameters.json"])
        .current_dir(dir.path());
    // Nothing is wrong, and AWS was not asked.
    let cost = Cost::of(&mut command, &[3])?;
    println!("\nslurm-efa preflight, offline, {GROUPS} groups, {ROUNDS} rounds\n");
    cost.rows(AIM_MILLISECONDS);
    row("memory, peak, MiB", peak_mib()?, AIM_MIB);
    Ok(())
}

/// What setup and doctor cost where slurm.conf names many nodes. The programs of Slurm
/// that they call are shell scripts that print a line.
fn nodes() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let root = dir.path();
    let conf = root.join("etc/slurm.conf");
    write(root, "etc/slurm.conf", &slurm_conf())?;
    for slurms in ["sbin/slurmd", "bin/scontrol", "bin/srun"] {
        write(root, slurms, "#!/bin/sh\necho slurm 24.11.5\n")?;
    }
    for installed in [
        "lib/slurm-efa/spank_efa.so",
        "lib/slurm-efa/slurm-efa-job",
        "sbin/efa-check",
    ] {
        write(root, &format!("usr/{installed}"), "")?;
    }
    // Setup would change something, and doctor finds much that is missing.
    for (arguments, codes) in [
        (&["setup", "--dry-run"][..], &[0, 1][..]),
        (&["doctor"], &[1, 2, 3]),
    ] {
        let verb = arguments.join(" ");
        println!("\nslurm-efa {verb}, slurm.conf of {NODES} nodes, {ROUNDS} rounds\n");
        for role in ["compute", "controller"] {
            let mut command = Command::new(program()?);
            command.args(arguments).args(["--role", role]);
            command.arg("--root").arg(root);
            command.arg("--slurm-conf").arg(&conf);
            let cost = Cost::of(&mut command, codes)?;
            println!("{role}");
            cost.rows(AIM_NODES_MILLISECONDS);
        }
    }
    Ok(())
}

/// What a command takes, in milliseconds.
struct Cost {
    wall: f64,
    cpu: f64,
}

impl Cost {
    /// The medians of [`ROUNDS`] runs, each of which ends with one of these codes.
    fn of(command: &mut Command, codes: &[i32]) -> Result<Self, Failure> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (mut walls, mut cpus) = (Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            let (start, before) = (Instant::now(), children_cpu()?);
            let status = command.status()?;
            walls.push(start.elapsed().as_secs_f64() * 1000.0);
            cpus.push((children_cpu()? - before).as_secs_f64() * 1000.0);
            if !status.code().is_some_and(|code| codes.contains(&code)) {
                return Err(format!("{command:?} ended with {status}").into());
            }
        }
        // The first finds cold caches.
        walls.remove(0);
        cpus.remove(0);
        Ok(Self {
            wall: median(&walls),
            cpu: median(&cpus),
        })
    }

    fn rows(&self, aim: f64) {
        println!("                       measured     aim");
        row("time, median, ms", self.wall, aim);
        // On a busy machine this is what the command itself takes.
        row("processor, median, ms", self.cpu, aim);
    }
}

fn row(what: &str, measured: f64, aim: f64) {
    let verdict = if measured <= aim { "met" } else { "missed" };
    println!("{what:<21}  {measured:>8.1}  {aim:>6.0}  {verdict}");
}

fn write(root: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = root.join(name);
    fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    fs::write(&path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A line for each node, as a cluster in a cloud has them, and their names in one
/// list.
fn slurm_conf() -> String {
    let names: Vec<String> = (0..NODES)
        .map(|node| format!("ip-10-1-{}-{}", node / 250, node % 250))
        .collect();
    let mut text = "ClusterName=large\nSlurmctldHost=head\nProctrackType=proctrack/cgroup\n\
                    SlurmdSpoolDir=/var/spool/slurmd\nPrologFlags=Alloc\nGresTypes=gpu\n"
        .to_owned();
    for (node, name) in names.iter().enumerate() {
        let address = format!("10.1.{}.{}", node / 250, node % 250);
        text.push_str(&format!(
            "NodeName={name} NodeAddr={address} CPUs=192 RealMemory=1952000 Gres=gpu:h100:8 State=CLOUD\n"
        ));
    }
    text.push_str(&format!("PartitionName=gpu Nodes={}\n", names.join(",")));
    text
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
