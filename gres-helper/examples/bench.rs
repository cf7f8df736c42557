//! What shared GPUs cost a node: prolog and epilog against a shell prolog as
//! sites write it, and a minute of the watchdog. Over the mock of NVML, 8×H100.
//!
//! `make bench`, or `cargo run --release -p gres-helper --example bench`

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use cdylib_tests::comparison::{self, Way};
use gpu::settings::Settings;
use gpu::shares;
use host::Deadline;
use host::Pid;
use host::process::stat;
use mock_nvml::{Here, Machine, Process};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use slurm::{JobId, JobKey};

const ROUNDS: usize = 20;
const GPUS: u32 = 8;
const PROCESSES: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);
const JOB: u32 = 7;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        Some("smi") => smi(&args.collect::<Vec<_>>()),
        _ => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A node with its GPUs.
struct Node {
    dir: tempfile::TempDir,
    nvml: Here,
    helper: PathBuf,
}

impl Node {
    fn new() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let at = dir.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
        let machine = Machine::model("8xH100", 8).ok_or("no such machine")?;
        let library = cdylib_tests::modules::mock_nvml();
        let nvml = mock_nvml::install(&library, &at.join("nvml"), &machine)?;
        fs::create_dir(at.join("spool"))?;
        let toml = format!(
            "state_dir = \"{0}/state\"\n[gres]\nnvml_library = \"{1}\"\n\
             spool_dir = \"{0}/spool\"\nshard_size = \"10G\"\n",
            at.display(),
            nvml.library().display()
        );
        fs::write(at.join("slurm-efa.toml"), toml)?;
        Ok(Self {
            dir,
            nvml,
            helper: program()?,
        })
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("slurm-efa.toml")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.helper);
        command.arg("--config").arg(self.config());
        command.args(["--node-name", "n1", verb]);
        command
            .env("SLURM_JOB_ID", JOB.to_string())
            .env("SLURM_JOB_UID", "1000")
            .env("SLURM_JOB_GPUS", "0");
        command
    }

    fn shell(&self, script: &str) -> Result<Command, Failure> {
        let mut command = Command::new("bash");
        command
            .args(["-c", script, "bash"])
            .arg(std::env::current_exe()?)
            .arg(self.nvml.library());
        Ok(command)
    }

    /// Gives the job a share, as the plugin does when its step starts.
    fn share(&self) -> Result<(), Failure> {
        let text = fs::read_to_string(self.config())?;
        let config = config::parse(&text, &self.config())?;
        let name: slurm::NodeName = "n1".parse()?;
        let settings = Settings::of(&config, Some(name.clone()))?;
        let key = JobKey {
            job: JobId(JOB),
            node: name,
        };
        let deadline = Deadline::after(Duration::from_secs(5));
        shares::change(
            &mut settings.state()?,
            &key,
            host::Uid(1000),
            None,
            deadline,
            |record| {
                record.shards = Some(1);
            },
        )?;
        Ok(())
    }
}

fn measure() -> Result<(), Failure> {
    let node = Node::new()?;
    println!(
        "\nprolog and epilog of a job on one of {GPUS} GPUs, over the mock of NVML, {ROUNDS} rounds \
         in turn, medians; bash calls a stand-in of nvidia-smi that loads the library, asks and \
         prints, which is less than the real one does\n"
    );
    let ours = vec![node.command("prolog"), node.command("epilog")];
    let usual = vec![node.shell(PROLOG)?, node.shell(EPILOG)?];
    let mut ways = [
        Way::new("gres-helper", ours, 1),
        Way::new("bash and nvidia-smi", usual, 4),
    ];
    comparison::compare(&mut ways, ROUNDS)?;

    let mut processes = Vec::new();
    let watched = watch(&node, &mut processes);
    for process in &mut processes {
        process.kill()?;
        process.wait()?;
    }
    watched
}

/// A minute of `watch` with many processes on each GPU.
fn watch(node: &Node, processes: &mut Vec<Child>) -> Result<(), Failure> {
    for _ in 0..PROCESSES {
        processes.push(Command::new("sleep").arg("3600").spawn()?);
    }
    let all: Vec<Process> = processes
        .iter()
        .map(|process| Process {
            pid: process.id(),
            used_mib: Some(100),
            mps: false,
            instance: None,
        })
        .collect();
    node.nvml.change(|machine| {
        for gpu in &mut machine.gpus {
            gpu.processes.clone_from(&all);
        }
    })?;
    println!("\ngres-helper watch, {GPUS} GPUs with {PROCESSES} processes each, a minute\n");
    println!(
        "{:<28}{:>12}{:>12}{:>14}{:>10}{:>10}",
        "", "own CPU ms", "of a core", "with mock ms", "RSS MiB", "PSS MiB"
    );
    for (what, shared) in [("no job that shares", false), ("a job that shares", true)] {
        if shared {
            node.command("prolog").status()?;
            node.share()?;
        }
        let mut watch = node.command("watch");
        let mut watch = watch.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let measured = minute(watch.id());
        watch.kill()?;
        watch.wait()?;
        let Family { own, cpu, rss, pss } = measured?;
        println!(
            "{what:<28}{:>12.0}{:>11.3}%{:>14.0}{rss:>10.1}{pss:>10.1}",
            own * 1e3,
            own / MINUTE.as_secs_f64() * 100.0,
            cpu * 1e3,
        );
    }
    Ok(())
}

/// A process, and its child, in which the mock of NVML works.
struct Family {
    /// CPU seconds of the process alone.
    own: f64,
    /// CPU seconds of both.
    cpu: f64,
    /// MiB of both, the program's code counted in each.
    rss: f64,
    /// MiB of both, what they share counted once.
    pss: f64,
}

/// CPU time of a minute, and memory at its end.
fn minute(pid: u32) -> Result<Family, Failure> {
    // Its first look, its child's start and the library's are not a minute's.
    std::thread::sleep(Duration::from_secs(3));
    let before = family(pid)?;
    std::thread::sleep(MINUTE);
    let after = family(pid)?;
    Ok(Family {
        own: after.own - before.own,
        cpu: after.cpu - before.cpu,
        ..after
    })
}

fn family(pid: u32) -> Result<Family, Failure> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let mut family = Family {
        own: 0.0,
        cpu: 0.0,
        rss: 0.0,
        pss: 0.0,
    };
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    for each in std::iter::once(pid).chain(children) {
        let stat = stat(Pid(each))?.ok_or("it has ended")?;
        family.cpu += stat.cpu as f64 / rustix::param::clock_ticks_per_second() as f64;
        if each == pid {
            family.own = family.cpu;
        }
        let memory = fs::read_to_string(format!("/proc/{each}/smaps_rollup"))?;
        let mib = |name: &str| -> Result<f64, Failure> {
            let line = memory.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            Ok(kib.ok_or("smaps_rollup lacks a line")?.parse::<f64>()? / 1024.0)
        };
        family.rss += mib("Rss:")?;
        family.pss += mib("Pss:")?;
    }
    Ok(family)
}

/// What prologs do: nvidia-smi for each value of each GPU.
const PROLOG: &str = r#"
smi() { "$bench" smi "$library" "$@"; }
bench=$1 library=$2
[ "$(smi count)" = 8 ] || exit 1
for gpu in 0 1 2 3 4 5 6 7; do
    [ "$(smi ecc $gpu)" = 0 ] || exit 1
    [ -n "$(smi uuid $gpu)" ] || exit 1
    [ "$(smi mode $gpu)" = Default ] || exit 1
done
exit 0
"#;

/// And what epilogs do.
const EPILOG: &str = r#"
smi() { "$bench" smi "$library" "$@"; }
bench=$1 library=$2
for gpu in 0 1 2 3 4 5 6 7; do
    for pid in $(smi processes $gpu); do :; done
    [ "$(smi ecc $gpu)" = 0 ] || exit 1
done
exit 0
"#;

/// A stand-in of nvidia-smi: `LIBRARY WHAT [GPU]`.
fn smi(args: &[String]) -> Result<(), Failure> {
    let [library, what, rest @ ..] = args else {
        return Err("LIBRARY WHAT [GPU]".into());
    };
    let nvml = Nvml::builder().lib_path(library.as_ref()).init()?;
    if what == "count" {
        println!("{}", nvml.device_count()?);
        return Ok(());
    }
    let index = rest.first().ok_or("which GPU?")?.parse()?;
    let gpu = nvml.device_by_index(index)?;
    match what.as_str() {
        "ecc" => {
            let (kind, counter) = (MemoryError::Uncorrected, EccCounter::Volatile);
            println!("{}", gpu.total_ecc_errors(kind, counter)?);
        }
        "uuid" => println!("{}", gpu.uuid()?),
        "mode" => println!("{:?}", gpu.compute_mode()?),
        "processes" => {
            for process in gpu.running_compute_processes()? {
                println!("{}", process.pid);
            }
        }
        other => return Err(format!("{other}?").into()),
    }
    Ok(())
}

/// The program beside this example.
fn program() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe()?;
    let profile = me.parent().and_then(Path::parent);
    let program = profile.ok_or("no target directory")?.join("gres-helper");
    if !program.is_file() {
        let program = program.display();
        return Err(format!("{program} is not built; run make bench").into());
    }
    Ok(program)
}
