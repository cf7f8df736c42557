//! `cargo xtask roots`: a Debian of each Slurm release for the matrix, a whole one,
//! with a kernel, for the machines of `make node-test`, and one with all that
//! `make driver-test` needs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{command, setup};

/// A Slurm release, where Debian's archive has it, and what the root has besides
/// Debian's minimum.
struct Root {
    name: &'static str,
    suite: &'static str,
    slurm: &'static str,
    packages: &'static str,
    /// Packages of the suite's backports.
    backports: &'static str,
    /// What is done in it when all is installed.
    finish: &'static str,
}

/// The releases that are tested. A new one is one line.
const MATRIX: &[Root] = &[
    of_matrix("bullseye", "20.11"),
    of_matrix("bookworm", "22.05"),
    of_matrix("trixie", "24.11"),
    of_matrix("sid", "26.05"),
];

/// A root of the matrix; libslurm-dev brings spank.h.
const fn of_matrix(suite: &'static str, slurm: &'static str) -> Root {
    Root {
        name: suite,
        suite,
        slurm,
        packages: "slurm-wlm,munge,libslurm-dev",
        backports: "",
        finish: "",
    }
}

/// What boots as a whole machine: with systemd, logind, sshd, and the full
/// kernel, since the one for clouds lacks rdma_rxe.
const MACHINE: Root = Root {
    name: "machine",
    suite: "trixie",
    slurm: "24.11",
    packages: "slurm-wlm,munge,systemd-sysv,dbus,libpam-systemd,udev,kmod,openssh-server,\
               openssh-client,iproute2,rdma-core,procps,linux-image-amd64,initramfs-tools,xz-utils",
    backports: "",
    finish: "",
};

/// Where the kernel's own efa driver runs: the guests' Debian, what builds the
/// driver from the kernel's source, and a QEMU that has vfio-user-pci, which came
/// with its version 10.1. There are two kernels: the driver of the backports' counts
/// retransmissions and remotes.
const DRIVER: Root = Root {
    name: "driver",
    suite: "trixie",
    slurm: "24.11",
    packages: "slurm-wlm,munge,kmod,iproute2,procps,rdma-core,ibverbs-providers,ibverbs-utils,\
               libfabric-bin,busybox,linux-image-amd64,linux-headers-amd64,linux-source,gcc,make,\
               xz-utils,cpio",
    backports: "qemu-system-x86 linux-image-amd64 linux-headers-amd64 linux-source",
    finish: KEEP_IT_SMALL,
};

/// Of the kernels' sources nothing but the driver is needed.
const KEEP_IT_SMALL: &str = r#"
    rm -rf /boot/initrd.img-* /usr/share/doc /usr/share/man /usr/share/locale
    cd /usr/src
    for archive in linux-source-*.tar.xz; do
        tar --extract --xz --file "$archive" "${archive%.tar.xz}/drivers/infiniband/hw/efa"
        rm "$archive"
    done
"#;

/// Written into a root when it is complete; holds its list of packages.
const STAMP: &str = "slurm-efa-root";

/// Makes the roots of these names, or those of the matrix, unless they are there
/// and complete. With `list` it only prints which they are and where they belong.
///
/// # Errors
/// For an unknown name, without root's rights, or when debootstrap fails.
pub fn roots(names: &[String], list: bool) -> Result<()> {
    let known = || MATRIX.iter().chain([&MACHINE, &DRIVER]);
    for name in names {
        if !known().any(|root| root.name == name) {
            let known: Vec<&str> = known().map(|root| root.name).collect();
            bail!("there is no root {name:?}; known are {}", known.join(", "));
        }
    }
    let directory = command::cache().join("roots");
    let mut wanted: Vec<&Root> = match names {
        [] => MATRIX.iter().collect(),
        _ => known()
            .filter(|root| names.iter().any(|name| name == root.name))
            .collect(),
    };
    if list {
        for Root { name, slurm, .. } in wanted {
            println!("{slurm} {name} {}", directory.join(name).display());
        }
        return Ok(());
    }
    wanted.retain(|root| !root.complete(&directory));
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
    for root in wanted {
        if !root.complete(&directory) {
            make(&directory, root)?;
        }
    }
    Ok(())
}

impl Root {
    fn complete(&self, directory: &Path) -> bool {
        fs::read_to_string(directory.join(self.name).join(STAMP))
            .is_ok_and(|packages| packages.trim() == self.contents())
    }

    /// What the stamp of a complete root says.
    fn contents(&self) -> String {
        let parts = [self.packages, self.backports, self.finish];
        let words = parts.iter().flat_map(|part| part.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Builds under another name, so that what bears the root's name is complete
/// or stale, never half made.
fn make(directory: &Path, root: &Root) -> Result<()> {
    let Root {
        name,
        suite,
        slurm,
        packages,
        backports,
        finish,
    } = root;
    let contents = root.contents();
    let root = directory.join(name);
    let unfinished = directory.join(format!(".{name}.new"));
    let log = directory.join(format!("{name}.log"));
    println!(
        "{name} (Debian {suite}, Slurm {slurm}): debootstrap, some minutes; log: {}",
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
    .arg(format!("--include={packages}"))
    .arg(suite)
    .arg(&unfinished)
    .stdin(Stdio::null())
    .stderr(output.try_clone()?)
    .stdout(output.try_clone()?)
    .status()
    .context("debootstrap could not be started")?;
    if !status.success() {
        bail!(
            "debootstrap {suite} failed ({status}): {}",
            last_lines(&log, 3)
        );
    }
    for (what, script, arguments) in [
        (*backports, BACKPORTS, &[*suite, *backports][..]),
        (*finish, *finish, &[]),
    ] {
        if what.is_empty() {
            continue;
        }
        let status = Command::new("chroot")
            .arg(&unfinished)
            .args(["sh", "-ec", script, "sh"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output.try_clone()?)
            .status()?;
        if !status.success() {
            bail!(
                "{name} could not be completed ({status}): {}",
                last_lines(&log, 3)
            );
        }
    }
    drop_downloads(&unfinished)?;
    fs::write(unfinished.join(STAMP), format!("{contents}\n"))?;
    remove(&root)?;
    fs::rename(&unfinished, &root).with_context(|| format!("{}", root.display()))?;
    println!("{name} (Slurm {slurm}): ready");
    Ok(())
}

/// Installs packages of the backports from where debootstrap got the suite.
const BACKPORTS: &str = r#"
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C
    suite=$1 packages=$2
    sed "s/ $suite / $suite-backports /" /etc/apt/sources.list \
        >/etc/apt/sources.list.d/backports.list
    apt-get update
    apt-get install --yes --no-install-recommends -t "$suite-backports" $packages
    rm -rf /var/lib/apt/lists/*
"#;

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
        let directory = tempfile::tempdir().expect("a temporary directory");
        let stamp = directory.path().join(MACHINE.name).join(STAMP);
        fs::create_dir(stamp.parent().expect("a root")).expect("a root");
        assert!(!MACHINE.complete(directory.path()));
        fs::write(&stamp, "slurm-wlm\n").expect("a stamp");
        assert!(!MACHINE.complete(directory.path()));
        fs::write(&stamp, format!("{}\n", MACHINE.packages)).expect("a stamp");
        assert!(MACHINE.complete(directory.path()));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = roots(&["buster".to_owned()], true).expect_err("not in the table");
        for name in ["bullseye", "machine"] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
