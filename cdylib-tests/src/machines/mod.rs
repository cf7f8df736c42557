//! What the tests on whole machines share ([`crate::node_test`],
//! [`crate::driver_test`]): images that are made once, QEMU without KVM, and scenes
//! that are played in order.
//!
//! All of it lives in PID, network and mount namespaces of its own, whose first
//! process is the test's program: however it ends, the kernel ends the machines.

pub mod command;
pub mod image;
pub mod qemu;
pub mod scene;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// How something ends.
pub type Verdict<T = ()> = Result<T, Box<dyn Error>>;

/// The last bytes of a file.
pub fn tail(file: &Path, bytes: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let from = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[from..]).into_owned()
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

/// A folder that is seen in this mount namespace only, and ends with it.
///
/// # Errors
/// It cannot be mounted.
pub fn scratch() -> Verdict<&'static Path> {
    const PLACE: &str = "/run";
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "mode=700", "machines", PLACE])
        .status()?;
    if !mounted.success() {
        return Err(format!("no tmpfs on {PLACE}").into());
    }
    Ok(Path::new(PLACE))
}
