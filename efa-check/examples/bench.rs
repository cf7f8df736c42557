//! What a prolog costs on a simulated p5.48xlarge with 32 devices: efa-check,
//! one `cat` of the very files it reads, and a loop in bash as sites write it.
//!
//! `cargo run --release -p efa-check --example bench`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdylib_tests::comparison::{self, Way};
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

    println!(
        "\nefa-check prolog on a simulated p5.48xlarge: {} files of 32 devices, {ROUNDS} rounds in \
         turn (bash: {}), medians\n",
        files.len(),
        ROUNDS / SLOW_SHARE
    );
    let mut ways = [
        Way::new("efa-check prolog", vec![check], 1),
        Way::new("cat of the same files", vec![cat], 1),
        Way::new("bash: cat in $(), lspci-like calls", vec![bash], SLOW_SHARE),
    ];
    comparison::compare(&mut ways, ROUNDS)
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
