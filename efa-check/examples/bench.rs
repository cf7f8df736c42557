//! What a prolog costs on a simulated p5.48xlarge with 32 devices: efa-check,
//! one `cat` of the very files it reads, and a loop in bash as sites write it.
//!
//! `cargo run --release -p efa-check --example bench`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cdylib_tests::simnode::SimNode;
use efa_check::counters::Wanted;

const ROUNDS: usize = 40;
/// The loop takes a second or so: it runs in every so manieth round.
const SLOW_SHARE: usize = 8;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let node = SimNode::p5_48xlarge(dir.path().join("root"))?;
    let config = dir.path().join("slurm-efa.toml");
    let base = dir.path().display();
    fs::write(
        &config,
        format!(
            "sysroot = \"{base}/root\"\nstate_dir = \"{base}/state\"\n\
             [health]\nrecord = \"{base}/record/efa.json\"\n"
        ),
    )?;
    let class = node.path("sys/class/infiniband");
    let files: Vec<PathBuf> = node
        .devices()
        .iter()
        .flat_map(|device| read_files(&class.join(device)))
        .collect();

    let mut check = Command::new(program()?);
    check.args(["prolog", "--config"]).arg(&config);
    let mut cat = Command::new("cat");
    cat.args(&files);
    let mut bash = Command::new("bash");
    bash.args(["-c", LOOP, "bash"]).arg(&class);

    let mut ways = [
        Way::new("efa-check prolog", check, 1)?,
        Way::new("cat of the same files", cat, 1)?,
        Way::new("bash: cat in $(), lspci-like calls", bash, SLOW_SHARE)?,
    ];
    // In turn, so that what disturbs the machine disturbs all.
    for round in 0..ROUNDS {
        for way in &mut ways {
            if round % way.share == 0 {
                way.run()?;
            }
        }
    }
    let costs = ways.each_ref().map(Way::cost);
    let [own, ..] = &costs;
    println!(
        "\nefa-check prolog on a simulated p5.48xlarge: {} files of 32 devices, {ROUNDS} rounds in \
         turn (bash: {}), medians\n",
        files.len(),
        ROUNDS / SLOW_SHARE
    );
    println!(
        "{:<36}{:>9}{:>9}  {:<22}",
        "", "wall ms", "CPU ms", "efa-check's wall to it"
    );
    for (way, cost) in ways.iter().zip(&costs) {
        println!(
            "{:<36}{:>9.2}{:>9.2}  {:.3}",
            way.name,
            cost.wall * 1e3,
            cost.cpu * 1e3,
            own.wall / cost.wall
        );
    }
    Ok(())
}

/// What a prolog reads of one device.
fn read_files(device: &Path) -> Vec<PathBuf> {
    let attributes = ["vendor", "device", "numa_node", "p2p"];
    attributes
        .iter()
        .map(|name| device.join("device").join(name))
        .chain(
            Wanted::Judged
                .port()
                .map(|c| device.join("ports/1/hw_counters").join(c)),
        )
        .chain(
            Wanted::Judged
                .device()
                .map(|c| device.join("hw_counters").join(c)),
        )
        .collect()
}

/// What prologs do: for each device and each value a process. The two programs
/// that ask about devices are stood in for by one that does nothing, which is
/// cheaper than either.
const LOOP: &str = r#"
for dev in "$1"/*; do
    [ "$(cat "$dev/device/vendor")" = 0x1d0f ] || continue
    /bin/true lspci -s "$(basename "$(readlink "$dev/device")")"
    /bin/true ibv_devinfo -d "$(basename "$dev")"
    [ -n "$(cat "$dev/device/p2p")" ] || bad=1
    [ "$(cat "$dev/ports/1/state")" = "4: ACTIVE" ] || bad=1
    for counter in tx_pkts rx_pkts rx_drops rdma_read_wr_err rdma_write_wr_err retrans_bytes \
        retrans_pkts retrans_timeout_events unresponsive_remote_events impaired_remote_conn_events; do
        value=$(cat "$dev/ports/1/hw_counters/$counter")
    done
    value=$(cat "$dev/hw_counters/no_completion_cmds")
    count=$((count + 1))
done
[ "$count" = 32 ]
"#;

/// The program beside this example.
fn program() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe()?;
    let profile = me
        .parent()
        .and_then(Path::parent)
        .ok_or("no target directory")?;
    let program = profile.join("efa-check");
    if !program.is_file() {
        let program = program.display();
        return Err(
            format!("{program} is not built; run cargo build --release -p efa-check").into(),
        );
    }
    Ok(program)
}

/// Seconds.
struct Cost {
    wall: f64,
    cpu: f64,
}

/// One way to look at the devices.
struct Way {
    name: &'static str,
    command: Command,
    /// It runs in every so manieth round.
    share: usize,
    walls: Vec<f64>,
    cpus: Vec<f64>,
}

impl Way {
    fn new(name: &'static str, mut command: Command, share: usize) -> Result<Way, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // The first finds cold caches.
        if !command.status()?.success() {
            return Err(format!("{name} failed: {command:?}").into());
        }
        Ok(Way {
            name,
            command,
            share,
            walls: Vec::new(),
            cpus: Vec::new(),
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        let before = children_cpu()?;
        let start = Instant::now();
        self.command.status()?;
        self.walls.push(start.elapsed().as_secs_f64());
        self.cpus.push(children_cpu()? - before);
        Ok(())
    }

    fn cost(&self) -> Cost {
        Cost {
            wall: median(&self.walls),
            cpu: median(&self.cpus),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds on processors of children that ended and were waited for, and of
/// theirs.
fn children_cpu() -> Result<f64, Failure> {
    // SAFETY: rusage is plain old data, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one writable rusage: getrusage(2).
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    #[allow(clippy::cast_precision_loss, reason = "seconds, not years")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
