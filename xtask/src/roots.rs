//! `cargo xtask roots`: a Debian of each Slurm release, for the matrix.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{command, setup};

/// A Slurm release and where Debian's archive has it.
struct Release {
    suite: &'static str,
    slurm: &'static str,
}

/// The releases that are tested. A new one is one line.
const RELEASES: &[Release] = &[
    Release {
        suite: "bullseye",
        slurm: "20.11",
    },
    Release {
        suite: "bookworm",
        slurm: "22.05",
    },
    Release {
        suite: "trixie",
        slurm: "24.11",
    },
    Release {
        suite: "sid",
        slurm: "26.05",
    },
];

/// What each root has besides Debian's minimum; libslurm-dev brings spank.h.
const PACKAGES: &str = "slurm-wlm,munge,libslurm-dev";

/// Written into a root when it is complete; holds `PACKAGES`.
const STAMP: &str = "slurm-efa-root";

/// Makes the roots of `suites`, or of all releases, unless they are there and
/// complete. With `list` it only prints which they are and where they belong.
///
/// # Errors
/// For an unknown suite, without root's rights, or when debootstrap fails.
pub fn roots(suites: &[String], list: bool) -> Result<()> {
    for suite in suites {
        if !RELEASES.iter().any(|release| release.suite == suite) {
            let known: Vec<&str> = RELEASES.iter().map(|release| release.suite).collect();
            bail!(
                "there is no release table entry for {suite:?}; known are {}",
                known.join(", ")
            );
        }
    }
    let directory = command::cache().join("roots");
    let mut wanted: Vec<&Release> = RELEASES
        .iter()
        .filter(|release| suites.is_empty() || suites.iter().any(|suite| suite == release.suite))
        .collect();
    if list {
        for Release { suite, slurm } in wanted {
            println!("{slurm} {suite} {}", directory.join(suite).display());
        }
        return Ok(());
    }
    wanted.retain(|release| !complete(&directory.join(release.suite)));
    if wanted.is_empty() {
        return Ok(());
    }
    if !setup::is_root() {
        bail!(
            "debootstrap needs root's rights to make {}; run the same command as root",
            directory.display()
        );
    }
    fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
    // Held until the process ends: a second `make matrix` waits here, and then
    // finds the roots complete.
    let lock = File::create(directory.join(".lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .context("the lock of the roots")?;
    for release in wanted {
        if !complete(&directory.join(release.suite)) {
            make(&directory, release)?;
        }
    }
    Ok(())
}

fn complete(root: &Path) -> bool {
    fs::read_to_string(root.join(STAMP)).is_ok_and(|packages| packages.trim() == PACKAGES)
}

/// Builds under another name, so that what bears the suite's name is complete
/// or stale, never half made.
fn make(directory: &Path, release: &Release) -> Result<()> {
    let Release { suite, slurm } = release;
    let root = directory.join(suite);
    let unfinished = directory.join(format!(".{suite}.new"));
    let log = directory.join(format!("{suite}.log"));
    println!(
        "{suite} (Slurm {slurm}): debootstrap, a minute or two; log: {}",
        log.display()
    );
    remove(&unfinished)?;
    let output = File::create(&log).with_context(|| format!("{}", log.display()))?;
    let status = Command::new(
        command::find("debootstrap")
            .context("debootstrap was not found; run `cargo xtask setup --for matrix`")?,
    )
    // Without it, debootstrap goes on unverified when it lacks the keyring.
    .args(["--force-check-gpg", "--variant=minbase"])
    .arg(format!("--include={PACKAGES}"))
    .arg(suite)
    .arg(&unfinished)
    .stdin(Stdio::null())
    .stderr(output.try_clone()?)
    .stdout(output)
    .status()
    .context("debootstrap could not be started")?;
    if !status.success() {
        bail!(
            "debootstrap {suite} failed ({status}): {}",
            last_lines(&log, 3)
        );
    }
    drop_downloads(&unfinished)?;
    fs::write(unfinished.join(STAMP), format!("{PACKAGES}\n"))?;
    remove(&root)?;
    fs::rename(&unfinished, &root).with_context(|| format!("{}", root.display()))?;
    println!("{suite} (Slurm {slurm}): ready");
    Ok(())
}

/// The packages themselves are of no more use, and are half of the size.
fn drop_downloads(root: &Path) -> Result<()> {
    command::output(Command::new("chroot").arg(root).args(["apt-get", "clean"]))?;
    Ok(())
}

/// Removes a root, if there is one and nothing is mounted in it: deleting
/// through a bind mount would delete the host's files.
fn remove(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    if let Some(mount) = mount_below(&mounts, root) {
        bail!(
            "{} is mounted inside an old root; unmount it, then run this again",
            mount.display()
        );
    }
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} could not be removed", root.display()))
        }
        _ => Ok(()),
    }
}

/// The first mount point at or below `root` in the text of mountinfo.
fn mount_below(mountinfo: &str, root: &Path) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .find(|point| point.starts_with(root))
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().rev().take(count).collect();
    lines.reverse();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                          30 22 0:5 / /cache/roots/sid/dev rw - devtmpfs udev rw\n";

    #[test]
    fn a_mount_inside_a_root_is_seen() {
        let found = mount_below(MOUNTS, Path::new("/cache/roots/sid"));
        assert_eq!(found.as_deref(), Some(Path::new("/cache/roots/sid/dev")));
    }

    #[test]
    fn a_mount_elsewhere_is_none_of_ours() {
        for root in [
            "/cache/roots/trixie",
            "/cache/roots/si",
            "/cache/roots/sid/dev/shm",
        ] {
            assert_eq!(mount_below(MOUNTS, Path::new(root)), None, "{root}");
        }
    }

    #[test]
    fn a_root_made_from_another_list_of_packages_is_not_complete() {
        let root = tempfile::tempdir().expect("a temporary directory");
        assert!(!complete(root.path()));
        fs::write(root.path().join(STAMP), "slurm-wlm\n").expect("a stamp");
        assert!(!complete(root.path()));
        fs::write(root.path().join(STAMP), format!("{PACKAGES}\n")).expect("a stamp");
        assert!(complete(root.path()));
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let error = roots(&["buster".to_owned()], true).expect_err("not in the table");
        assert!(error.to_string().contains("bullseye"), "{error}");
    }
}
