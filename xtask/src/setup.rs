//! `cargo xtask setup`: what a Debian or Ubuntu machine with only Rust lacks.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::command;

/// What the machine is to be made ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// `make demo`: Slurm itself
    Demo,
    /// `make test`: Slurm, rustfmt and clippy
    Test,
    /// `make bench`: Slurm and valgrind
    Bench,
    /// `make dist`: Python's venv, which holds zig and nfpm
    Dist,
    /// `make matrix`: debootstrap, Slurm's headers, libclang, and what judges packages
    Matrix,
    /// `make node-test`: QEMU, debootstrap, and what makes a disk and a network
    NodeTest,
    /// `make driver-test`: debootstrap, and what makes a disk
    DriverTest,
    /// `make fuzz`: cargo-fuzz and the C++ compiler of its libFuzzer
    Fuzz,
}

use Purpose::{Bench, Demo, Dist, DriverTest, Fuzz, Matrix, NodeTest, Test};

/// A Debian package and the way to see that the machine has what it brings,
/// from wherever: a machine with its own Slurm needs no package of it.
struct Need {
    package: &'static str,
    present: fn() -> bool,
    purposes: &'static [Purpose],
}

const NEEDS: &[Need] = &[
    Need {
        package: "slurmd",
        present: || program("slurmd"),
        purposes: SLURM,
    },
    Need {
        package: "slurmctld",
        present: || program("slurmctld"),
        purposes: SLURM,
    },
    Need {
        package: "slurm-client",
        present: || program("srun"),
        purposes: SLURM,
    },
    Need {
        package: "munge",
        present: || program("munged"),
        purposes: SLURM,
    },
    Need {
        package: "strace",
        present: || program("strace"),
        purposes: &[Test],
    },
    Need {
        package: "python3-jsonschema",
        present: || succeeds(Command::new("python3").args(["-c", "import jsonschema"])),
        purposes: &[Test],
    },
    Need {
        package: "lua5.4",
        present: || program("luac5.4") && program("lua5.4"),
        purposes: &[Test],
    },
    Need {
        package: "shellcheck",
        present: || program("shellcheck"),
        purposes: &[Test],
    },
    Need {
        package: "ansible-core",
        present: || program("ansible-playbook"),
        purposes: &[Test],
    },
    Need {
        package: "secilc",
        present: || program("secilc"),
        purposes: &[Test],
    },
    Need {
        package: "zsh",
        present: || program("zsh"),
        purposes: &[Test],
    },
    Need {
        package: "fish",
        present: || program("fish"),
        purposes: &[Test],
    },
    Need {
        package: "openssh-server",
        present: || program("sshd"),
        purposes: LOGINS,
    },
    Need {
        package: "openssh-client",
        present: || program("ssh") && program("sftp"),
        purposes: &[Demo, Test, Bench, Matrix, NodeTest],
    },
    Need {
        package: "uidmap",
        present: || program("newuidmap"),
        purposes: &[Test],
    },
    Need {
        package: "tmux",
        present: || program("tmux"),
        purposes: &[Test],
    },
    Need {
        package: "libpam-slurm-adopt",
        present: || Path::new("/lib/security/pam_slurm_adopt.so").is_file(),
        purposes: &[Bench],
    },
    Need {
        package: "libpam-slurm",
        present: || Path::new("/lib/security/pam_slurm.so").is_file(),
        purposes: &[Bench],
    },
    Need {
        package: "valgrind",
        present: || program("valgrind"),
        purposes: &[Bench],
    },
    Need {
        package: "python3",
        present: || program("python3"),
        purposes: &[Test, Dist, Matrix],
    },
    Need {
        package: "python3-venv",
        present: python_venv,
        purposes: &[Test, Dist, Matrix],
    },
    Need {
        package: "xz-utils",
        present: || program("xz"),
        purposes: &[Dist, Matrix],
    },
    Need {
        package: "debootstrap",
        present: || program("debootstrap"),
        purposes: &[Matrix, NodeTest, DriverTest],
    },
    Need {
        package: "debian-archive-keyring",
        present: debian_keyring,
        purposes: &[Matrix, NodeTest, DriverTest],
    },
    Need {
        package: "libslurm-dev",
        present: spank_header,
        purposes: &[Matrix],
    },
    Need {
        package: "libclang-dev",
        present: libclang,
        purposes: &[Matrix],
    },
    Need {
        package: "cpio",
        present: || program("cpio"),
        purposes: &[Matrix],
    },
    Need {
        package: "lintian",
        present: || program("lintian"),
        purposes: &[Matrix],
    },
    Need {
        package: "rpm",
        present: || program("rpm") && program("rpm2cpio"),
        purposes: &[Matrix],
    },
    Need {
        package: "rpmlint",
        present: || program("rpmlint"),
        purposes: &[Matrix],
    },
    Need {
        package: "qemu-system-x86",
        present: || program("qemu-system-x86_64"),
        purposes: &[NodeTest],
    },
    Need {
        package: "e2fsprogs",
        present: || program("mkfs.ext4"),
        purposes: &[NodeTest, DriverTest],
    },
    Need {
        package: "iproute2",
        present: || program("ip"),
        purposes: &[NodeTest],
    },
    Need {
        package: "g++",
        present: || program("c++"),
        purposes: &[Fuzz],
    },
];

const LOGINS: &[Purpose] = &[Demo, Test, Bench, Matrix];

const SLURM: &[Purpose] = &[Demo, Test, Bench, Matrix];

/// Installs what is missing for `purpose`; silent when nothing is.
///
/// # Errors
/// When something is missing and this user cannot install it (the error names
/// the command to run), or an installation fails.
pub fn setup(purpose: Purpose) -> Result<()> {
    packages(purpose)?;
    match purpose {
        Test => rust_components(),
        Fuzz => cargo_fuzz(),
        Demo | Bench | Dist | Matrix | NodeTest | DriverTest => Ok(()),
    }
}

/// True when this process may install packages, bootstrap roots and so on.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn packages(purpose: Purpose) -> Result<()> {
    let missing: Vec<&str> = NEEDS
        .iter()
        .filter(|need| need.purposes.contains(&purpose) && !(need.present)())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let script = command::workspace().join("xtask/install-packages");
    if !program("apt-get") {
        bail!(
            "this machine lacks {list} (Debian's package names) and has no apt-get; install them \
             in its own way"
        );
    }
    if !is_root() {
        bail!(
            "this machine lacks {list}; run `sudo xtask/install-packages {list}`, then the same \
             command again"
        );
    }
    println!("installing {list}");
    command::run(Command::new(script).args(&missing))?;
    let still: Vec<&str> = NEEDS
        .iter()
        .filter(|need| missing.contains(&need.package) && !(need.present)())
        .map(|need| need.package)
        .collect();
    if !still.is_empty() {
        bail!(
            "{} installed, but what they should bring was not found",
            still.join(" ")
        );
    }
    Ok(())
}

fn rust_components() -> Result<()> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| !succeeds(command::cargo().args([subcommand, "--version"])))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !program("rustup") {
        bail!(
            "this Rust lacks {}; install it the way Rust itself was",
            missing.join(" and ")
        );
    }
    println!("installing {}", missing.join(" and "));
    command::run(
        Command::new("rustup")
            .args(["component", "add"])
            .args(&missing),
    )
}

fn cargo_fuzz() -> Result<()> {
    if succeeds(command::cargo().args(["fuzz", "--version"])) {
        return Ok(());
    }
    println!("installing cargo-fuzz (built from source, a minute or two)");
    command::run(command::cargo().args(["install", "--locked", "--quiet", "cargo-fuzz"]))
}

fn program(name: &str) -> bool {
    command::find(name).is_some()
}

/// Debian's python3 has the venv module without what fills a venv.
fn python_venv() -> bool {
    succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
}

fn debian_keyring() -> bool {
    Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").is_file()
}

fn spank_header() -> bool {
    Path::new("/usr/include/slurm/spank.h").is_file()
}

/// bindgen loads libclang when it runs; these are the places it looks in on
/// Debian, besides LIBCLANG_PATH.
fn libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let llvm = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    llvm.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .any(|entry| {
            let lib = std::fs::read_dir(entry.path().join("lib"))
                .into_iter()
                .flatten()
                .flatten();
            lib.into_iter().any(|file| {
                file.file_name()
                    .to_string_lossy()
                    .starts_with("libclang.so")
            })
        })
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_that_starts_slurm_asks_for_all_of_it() {
        for purpose in SLURM {
            for package in ["slurmd", "slurmctld", "slurm-client", "munge"] {
                assert!(
                    NEEDS
                        .iter()
                        .any(|need| need.package == package && need.purposes.contains(purpose)),
                    "{package} for {purpose:?}"
                );
            }
        }
    }

    #[test]
    fn the_matrix_asks_for_all_that_dist_needs() {
        for need in NEEDS.iter().filter(|need| need.purposes.contains(&Dist)) {
            assert!(need.purposes.contains(&Matrix), "{}", need.package);
        }
    }
}
