//! The virtual cluster of `make node-test`: a controller, a login node and a
//! compute node, each a whole Debian with systemd in QEMU, laid out as HyperPod
//! lays out its nodes. The package that `make dist` built is installed by the
//! lifecycle script, and every scene of [`scenes::SCENES`] looks at what is then
//! seen on whole machines.
//!
//! All of it lives in PID, network and mount namespaces of its own, whose first
//! process is this program: however it ends, the kernel ends the machines.

mod cluster;
mod common;
mod image;
mod machine;
mod scenes;

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use crate::matrix::guarded;
use cluster::Cluster;
use common::Verdict;
use image::Image;
use scenes::{SCENES, Scene};

/// What is run.
#[derive(Debug, Default)]
pub struct Selection {
    /// Scenes whose name contains this, and those without which no other can be.
    pub only: Option<String>,
    /// Leave the machines on at the end, until standard input ends.
    pub hold: bool,
}

/// Runs this very program again with these arguments, in namespaces that end
/// with it, and this process's end ends it.
///
/// # Errors
/// It cannot be started.
pub fn in_own_namespaces<S: AsRef<OsStr>>(arguments: &[S]) -> std::io::Result<ExitStatus> {
    Command::new("setpriv")
        .args(["--pdeathsig=KILL", "--", "unshare"])
        .args(["--net", "--mount", "--propagation=private"])
        .args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .status()
}

/// Makes the cluster and plays the scenes, printing as it goes; true when every
/// one is fine.
///
/// # Errors
/// There is no cluster to play on.
pub fn run(selection: &Selection) -> Verdict<bool> {
    let started = Instant::now();
    let wanted = |scene: &&Scene| {
        scene.needed
            || selection
                .only
                .as_ref()
                .is_none_or(|part| scene.name.contains(part))
    };
    let scenes: Vec<&Scene> = SCENES.iter().filter(wanted).collect();
    let image = Image::get()?;
    let mut cluster = Cluster::start(&image, scratch()?)?;
    let mut failed = 0;
    for (number, scene) in (1..).zip(&scenes) {
        let count = scenes.len();
        eprint!("{number:>2}/{count}  {:<58}", scene.name);
        let began = Instant::now();
        let verdict = guarded(|| (scene.play)(&mut cluster));
        let seconds = began.elapsed().as_secs();
        match verdict {
            Ok(()) => eprintln!("ok  {seconds:>4} s"),
            Err(reason) => {
                failed += 1;
                eprintln!("FAILED {seconds} s\n\n{reason}\n{}", cluster.logs());
                if scene.needed {
                    break;
                }
            }
        }
    }
    eprintln!(
        "{} scenes, {failed} failed, {} s",
        scenes.len(),
        started.elapsed().as_secs()
    );
    if selection.hold {
        eprintln!("{}\nEnd of input (Ctrl-D) ends it.", cluster.way_in());
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(failed == 0)
}

/// A folder that is seen in this mount namespace only, and ends with it.
fn scratch() -> Verdict<&'static Path> {
    const PLACE: &str = "/run";
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "mode=700", "node-test", PLACE])
        .status()?;
    if !mounted.success() {
        return Err(format!("no tmpfs on {PLACE}").into());
    }
    Ok(Path::new(PLACE))
}
