//! `cargo xtask dist`: the files that are shipped, built so that one of each
//! serves every distribution, and proof that they do.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::elf::{Glibc, Needs};
use crate::{command, venv};

/// Where packages install a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallDir {
    /// The same folder everywhere.
    At(&'static str),
    /// Where PAM looks for modules, which is not the same on Debian and RHEL.
    Security,
}

impl InstallDir {
    /// plugstack.conf takes absolute paths, so one folder serves everywhere.
    const MODULES: Self = Self::At("/usr/lib/slurm-efa");
}

/// How a file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Loaded by Slurm or PAM.
    Module,
    /// Run by a person or by systemd.
    Program,
}

/// A file that is shipped.
pub struct Artifact {
    /// The crate that makes it.
    pub package: &'static str,
    /// What cargo calls it.
    built: &'static str,
    /// What everyone else calls it.
    pub shipped: &'static str,
    kind: Kind,
    pub place: InstallDir,
    /// Other names that it has there: Slurm's configuration takes programs
    /// without arguments.
    pub links: &'static [&'static str],
    /// Whether it is a program with the hidden subcommand `completions SHELL`.
    pub completes: bool,
    /// Of a module, every symbol that its host shall see, in alphabetical order.
    exports: &'static [&'static str],
    /// Of a module, libraries beside glibc's that its host has loaded before it.
    of_host: &'static [&'static str],
    /// Of a module, the most bytes that it may have: each of its hosts maps it.
    /// Some 200 kB of each are std's own printing of backtraces, which no object
    /// calls, and 180 kB the reading of TOML and JSON.
    most: Option<usize>,
}

pub const ARTIFACTS: &[Artifact] = &[
    Artifact {
        package: "spank-efa",
        built: "libspank_efa.so",
        shipped: "spank_efa.so",
        kind: Kind::Module,
        place: InstallDir::MODULES,
        links: &[],
        completes: false,
        exports: &[
            "plugin_name",
            "plugin_type",
            "plugin_version",
            "slurm_spank_init",
            "slurm_spank_init_post_opt",
            "slurm_spank_task_exit",
            "slurm_spank_task_init",
            "slurm_spank_task_init_privileged",
            "slurm_spank_user_init",
        ],
        of_host: &[],
        most: Some(1_550_000),
    },
    Artifact {
        package: "spank-gres",
        built: "libspank_gres.so",
        shipped: "spank_gres.so",
        kind: Kind::Module,
        place: InstallDir::MODULES,
        links: &[],
        completes: false,
        exports: &[
            "plugin_name",
            "plugin_type",
            "plugin_version",
            "slurm_spank_init",
            "slurm_spank_init_post_opt",
            "slurm_spank_task_init_privileged",
            "slurm_spank_user_init",
        ],
        of_host: &[],
        most: Some(950_000),
    },
    Artifact {
        package: "gres-helper",
        built: "gres-helper",
        shipped: "gres-helper",
        kind: Kind::Program,
        place: InstallDir::At("/usr/bin"),
        links: &["gres-helper-prolog", "gres-helper-epilog"],
        completes: true,
        exports: &[],
        of_host: &[],
        most: None,
    },
    Artifact {
        package: "efa-check",
        built: "efa-check",
        shipped: "efa-check",
        kind: Kind::Program,
        place: InstallDir::At("/usr/sbin"),
        // The last is the second's name of the last release, for this one.
        links: &[
            "efa-check-prolog",
            "efa-check-healthcheck",
            "efa-check-watch",
        ],
        completes: true,
        exports: &[],
        of_host: &[],
        most: None,
    },
    Artifact {
        package: "slurm-efa-job",
        built: "slurm-efa-job",
        shipped: "slurm-efa-job",
        kind: Kind::Program,
        place: InstallDir::MODULES,
        links: &["slurm-efa-job-prolog", "slurm-efa-job-epilog"],
        completes: false,
        exports: &[],
        of_host: &[],
        most: None,
    },
    // The plugin and the job's program start it, and look for it beside themselves.
    Artifact {
        package: "efa-check",
        built: "efa-counter-reader",
        shipped: "efa-counter-reader",
        kind: Kind::Program,
        place: InstallDir::MODULES,
        links: &[],
        completes: false,
        exports: &[],
        of_host: &[],
        most: None,
    },
    Artifact {
        package: "slurm-efa",
        built: "slurm-efa",
        shipped: "slurm-efa",
        kind: Kind::Program,
        place: InstallDir::At("/usr/bin"),
        links: &[],
        completes: true,
        exports: &[],
        of_host: &[],
        most: None,
    },
    Artifact {
        package: "pam-slurm-logout",
        built: "libpam_slurm_logout.so",
        shipped: "pam_slurm_logout.so",
        kind: Kind::Module,
        place: InstallDir::Security,
        links: &[],
        completes: false,
        // pam-bindings' macro exports all; the module answers three of them as
        // libpam does for a module without them.
        exports: &[
            "pam_sm_acct_mgmt",
            "pam_sm_authenticate",
            "pam_sm_chauthtok",
            "pam_sm_close_session",
            "pam_sm_open_session",
            "pam_sm_setcred",
        ],
        of_host: &["libpam.so.0"],
        most: Some(950_000),
    },
    Artifact {
        package: "slurm-logoutd",
        built: "slurm-logoutd",
        shipped: "slurm-logoutd",
        kind: Kind::Program,
        place: InstallDir::At("/usr/sbin"),
        links: &[],
        completes: false,
        exports: &[],
        of_host: &[],
        most: None,
    },
    Artifact {
        package: "slurm-logoutd",
        built: "slurm-logout",
        shipped: "slurm-logout",
        kind: Kind::Program,
        place: InstallDir::At("/usr/bin"),
        links: &[],
        completes: true,
        exports: &[],
        of_host: &[],
        most: None,
    },
];

/// What is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The files that are shipped.
    Shipped,
    /// The plugin with `panic-injection`, for this machine's tests of every release.
    Inject,
}

/// The plugin, and what must lie beside it.
const INJECTED: [&str; 3] = ["spank_efa.so", "slurm-efa-job", "efa-counter-reader"];

impl Variant {
    fn artifacts(self) -> impl Iterator<Item = &'static Artifact> {
        ARTIFACTS
            .iter()
            .filter(move |it| self == Self::Shipped || INJECTED.contains(&it.shipped))
    }
}

impl Artifact {
    /// What the file's owner, group and others may do.
    pub fn mode(&self) -> u32 {
        match self.kind {
            Kind::Module => 0o644,
            Kind::Program => 0o755,
        }
    }
}

/// The first must be there; the others are made where Rust has their target.
pub const ARCHES: &[&str] = &["x86_64", "aarch64"];

/// Amazon Linux 2 and RHEL 7 have 2.17; nothing older is met.
const GLIBC: (u32, u32) = (2, 17);

/// Parts of glibc itself. libgcc_s may be missing on a node, and a link to
/// libslurm would bind a module to one release.
const LIBRARIES: &[&str] = &[
    "libc.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libm.so.6",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// Builds every artifact into `target/dist/<arch>/`, or the variant for tests
/// into `target/dist-test/<arch>/`, and checks each. What is shipped is packaged
/// too. With `here`, only for this machine's processor.
///
/// # Errors
/// When a build fails, or a file asks more of a machine than promised.
pub fn dist(variant: Variant, here: bool) -> Result<Vec<&'static str>> {
    let tools = tools()?;
    let mut made = Vec::new();
    println!(
        "{:<9}{:<24}{:>9}  {:<7}needs",
        "arch", "file", "bytes", "glibc"
    );
    for (index, arch) in ARCHES.iter().enumerate() {
        // What stays must not be taken for this build's.
        remove_shipped(variant, arch)?;
        if here && *arch != std::env::consts::ARCH {
            continue;
        }
        if let Err(reason) = target_installed(&triple(arch)) {
            if index == 0 {
                return Err(reason);
            }
            println!("{arch:<9}left out: {reason:#}");
            continue;
        }
        build(variant, arch, &tools)?;
        for artifact in variant.artifacts() {
            let built = built(variant, arch, artifact);
            report(arch, artifact, &built)
                .with_context(|| format!("{} is not fit to be shipped", built.display()))?;
            ship(variant, arch, artifact, &built)?;
        }
        if variant == Variant::Inject {
            build_test_modules(arch, &tools)?;
        }
        made.push(*arch);
    }
    Ok(made)
}

/// The programs that build and package; fetched at the first call.
///
/// # Errors
/// When they cannot be had.
pub fn tools() -> Result<PathBuf> {
    venv::programs(
        &command::target().join("tools/dist"),
        "requirements-dist.txt",
    )
}

pub fn triple(arch: &str) -> String {
    format!("{arch}-unknown-linux-gnu")
}

/// Makes sure that Rust's standard library for `triple` is here.
fn target_installed(triple: &str) -> Result<()> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(triple)
        .join("lib")
        .is_dir()
    {
        return Ok(());
    }
    if command::find("rustup").is_none() {
        bail!("this Rust has no {triple} and no rustup to add it");
    }
    command::output(Command::new("rustup").args(["target", "add", triple]))?;
    Ok(())
}

fn build(variant: Variant, arch: &str, tools: &Path) -> Result<()> {
    let mut zigbuild = zigbuild(variant, arch, tools)?;
    let packages: BTreeSet<&str> = variant.artifacts().map(|it| it.package).collect();
    for package in packages {
        zigbuild.args(["--package", package]);
    }
    if variant == Variant::Inject {
        zigbuild.args(["--features", "spank-efa/panic-injection"]);
    }
    command::run(&mut zigbuild)
}

/// Made-up modules that tests of every release load: example, package.
const TEST_MODULES: [(&str, &str); 1] = [("noting_plugin", "spank")];

/// Builds the [`TEST_MODULES`], and puts them beside the variant for tests.
fn build_test_modules(arch: &str, tools: &Path) -> Result<()> {
    let release = build_dir(Variant::Inject)
        .join(triple(arch))
        .join("release");
    for (example, package) in TEST_MODULES {
        let mut zigbuild = zigbuild(Variant::Inject, arch, tools)?;
        command::run(zigbuild.args(["--package", package, "--example", example]))?;
        let built = release.join(format!("examples/lib{example}.so"));
        let file = dist_dir(Variant::Inject)
            .join(arch)
            .join(format!("{example}.so"));
        fs::copy(&built, &file).with_context(|| format!("{}", built.display()))?;
    }
    Ok(())
}

/// A build for the oldest glibc.
fn zigbuild(variant: Variant, arch: &str, tools: &Path) -> Result<Command> {
    let (major, minor) = GLIBC;
    let mut zigbuild = Command::new(tools.join("cargo-zigbuild"));
    zigbuild
        .current_dir(command::workspace())
        .args(["zigbuild", "--quiet", "--release", "--locked"])
        .arg("--target")
        .arg(format!("{}.{major}.{minor}", triple(arch)))
        .env("PATH", path_with(tools)?)
        .env("CARGO_ENCODED_RUSTFLAGS", remap_flags());
    if let Some(epoch) = source_date() {
        zigbuild.env("SOURCE_DATE_EPOCH", epoch);
    }
    zigbuild.arg("--target-dir").arg(build_dir(variant));
    Ok(zigbuild)
}

/// cargo-zigbuild finds zig through the python3 beside it.
fn path_with(tools: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(tools.to_path_buf()).chain(std::env::split_paths(&path));
    std::env::join_paths(all).context("PATH cannot be extended")
}

/// Directories of this machine and what stands for them in the built files:
/// panic messages carry the paths of source files.
fn private_paths() -> Vec<(PathBuf, &'static str)> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".cargo")));
    let mut paths = vec![(command::workspace().to_path_buf(), "/slurm-efa")];
    paths.extend(cargo_home.map(|dir| (dir, "/cargo")));
    paths
}

/// RUSTFLAGS in the form that allows for blanks in paths.
fn remap_flags() -> OsString {
    let mut flags = OsString::new();
    for (from, to) in private_paths() {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

/// The time stamp of everything built: the one that was asked for, else that of
/// the last commit; none outside a checkout.
pub fn source_date() -> Option<String> {
    std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| {
        let mut git = Command::new("git");
        git.current_dir(command::workspace())
            .args(["log", "-1", "--format=%ct"]);
        let time = command::output(&mut git).ok()?.trim().to_owned();
        (!time.is_empty()).then_some(time)
    })
}

/// The variants do not rebuild each other's.
fn build_dir(variant: Variant) -> PathBuf {
    match variant {
        Variant::Shipped => command::target(),
        Variant::Inject => command::target().join("inject"),
    }
}

fn built(variant: Variant, arch: &str, artifact: &Artifact) -> PathBuf {
    let release = build_dir(variant).join(triple(arch)).join("release");
    release.join(artifact.built)
}

/// Where what is built for people to take is put.
pub fn dist_dir(variant: Variant) -> PathBuf {
    command::target().join(match variant {
        Variant::Shipped => "dist",
        Variant::Inject => "dist-test",
    })
}

pub fn shipped(variant: Variant, arch: &str, artifact: &Artifact) -> PathBuf {
    dist_dir(variant).join(arch).join(artifact.shipped)
}

fn remove_shipped(variant: Variant, arch: &str) -> Result<()> {
    for artifact in variant.artifacts() {
        let file = shipped(variant, arch, artifact);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts the built file under its own name, whole or not at all.
fn ship(variant: Variant, arch: &str, artifact: &Artifact, built: &Path) -> Result<()> {
    let file = shipped(variant, arch, artifact);
    let unfinished = file.with_file_name(format!(".{}.new", artifact.shipped));
    let mode = artifact.mode();
    let copy = || -> io::Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(built, &unfinished)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))?;
        fs::rename(&unfinished, &file)
    };
    copy().with_context(|| format!("{} could not be put at {}", built.display(), file.display()))
}

/// Prints the file's line of the table.
fn report(arch: &str, artifact: &Artifact, file: &Path) -> Result<()> {
    let data = fs::read(file)?;
    let needs = Needs::read(&data)?;
    let faults = faults(arch, artifact, &needs, &data, &private_paths());
    let glibc = needs
        .glibc
        .as_ref()
        .map_or_else(|| "-".to_owned(), Glibc::to_string);
    let libraries: Vec<&str> = needs.libraries.iter().map(String::as_str).collect();
    let (shipped, bytes) = (artifact.shipped, data.len());
    println!(
        "{arch:<9}{shipped:<24}{bytes:>9}  {glibc:<7}{}",
        libraries.join(" ")
    );
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

/// Everything about a file that would hurt on a user's machine, as sentences.
fn faults(
    arch: &str,
    artifact: &Artifact,
    needs: &Needs,
    data: &[u8],
    private: &[(PathBuf, &str)],
) -> Vec<String> {
    let mut faults = Vec::new();
    if needs.arch != arch {
        faults.push(format!("it is built for {}, not for {arch}", needs.arch));
    }
    let limit = Glibc::new(GLIBC.0, GLIBC.1);
    if let Some(glibc) = needs.glibc.as_ref().filter(|glibc| **glibc > limit) {
        faults.push(format!("it needs glibc {glibc}, more than {limit}"));
    }
    for name in &needs.unstable {
        faults.push(format!(
            "it needs a symbol of {name}, which any update of glibc may change"
        ));
    }
    let there = |name: &str| LIBRARIES.contains(&name) || artifact.of_host.contains(&name);
    for library in needs.libraries.iter().filter(|name| !there(name)) {
        faults.push(format!("it needs {library}, which a node may lack"));
    }
    let Artifact { kind, exports, .. } = *artifact;
    let shown = needs.exports.iter().map(String::as_str);
    if kind == Kind::Module && !shown.eq(exports.iter().copied()) {
        let shown: Vec<&str> = needs.exports.iter().map(String::as_str).collect();
        faults.push(format!(
            "it exports {} instead of {}",
            shown.join(" "),
            exports.join(" ")
        ));
    }
    if kind == Kind::Module && !needs.nodelete {
        faults.push(
            "the linker was not given `-z nodelete`: unloading it would pull code from under its \
             panic hook"
                .to_owned(),
        );
    }
    if needs.debug_info {
        faults.push("it still has its debugging sections".to_owned());
    }
    if needs.symbols {
        faults.push("it still has its symbols".to_owned());
    }
    if let Some(most) = artifact.most.filter(|most| data.len() > *most) {
        faults.push(format!(
            "it has {} bytes, more than the {most} that it may have",
            data.len()
        ));
    }
    for (path, _) in private {
        let path = path.as_os_str().as_encoded_bytes();
        if !path.is_empty() && data.windows(path.len()).any(|window| window == path) {
            faults.push(format!(
                "it names {}, a path of this machine",
                path.escape_ascii()
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Artifact = Artifact {
        package: "hooks",
        built: "libhooks.so",
        shipped: "hooks.so",
        kind: Kind::Module,
        place: InstallDir::MODULES,
        links: &[],
        completes: false,
        exports: &["hook"],
        of_host: &[],
        most: Some(10),
    };

    const PROGRAM: Artifact = Artifact {
        kind: Kind::Program,
        exports: &[],
        most: None,
        ..MODULE
    };

    const LARGE: Artifact = Artifact {
        most: None,
        ..MODULE
    };

    fn fit() -> Needs {
        Needs {
            arch: "x86_64",
            glibc: Some(Glibc::new(2, 14)),
            unstable: BTreeSet::new(),
            libraries: BTreeSet::from(["libc.so.6".to_owned()]),
            exports: BTreeSet::from(["hook".to_owned()]),
            nodelete: true,
            debug_info: false,
            symbols: false,
        }
    }

    fn faults_of(needs: &Needs) -> String {
        faults("x86_64", &MODULE, needs, b"", &[]).join("; ")
    }

    #[test]
    fn a_module_that_needs_little_is_fit() {
        assert_eq!(faults_of(&fit()), "");
    }

    #[test]
    fn glibc_2_17_is_fit_and_anything_newer_is_not() {
        let at_limit = Needs {
            glibc: Some(Glibc::new(2, 17)),
            ..fit()
        };
        assert_eq!(faults_of(&at_limit), "");
        let above = Needs {
            glibc: Some(Glibc::new(2, 18)),
            ..fit()
        };
        assert_eq!(faults_of(&above), "it needs glibc 2.18, more than 2.17");
    }

    #[test]
    fn a_library_outside_glibc_is_a_fault() {
        for library in ["libgcc_s.so.1", "libslurm.so.38", "libslurmfull.so"] {
            let needs = Needs {
                libraries: BTreeSet::from([library.to_owned()]),
                ..fit()
            };
            assert!(faults_of(&needs).contains(library));
        }
    }

    #[test]
    fn a_library_of_the_host_is_fit_for_its_module_only() {
        let needs = Needs {
            libraries: BTreeSet::from(["libpam.so.0".to_owned()]),
            ..fit()
        };
        assert!(faults_of(&needs).contains("libpam.so.0"));
        let module = Artifact {
            of_host: &["libpam.so.0"],
            ..MODULE
        };
        assert!(faults("x86_64", &module, &needs, b"", &[]).is_empty());
    }

    #[test]
    fn a_private_symbol_of_glibc_is_a_fault() {
        let needs = Needs {
            unstable: BTreeSet::from(["GLIBC_PRIVATE".to_owned()]),
            ..fit()
        };
        assert!(faults_of(&needs).contains("GLIBC_PRIVATE"));
    }

    #[test]
    fn a_module_that_can_be_unloaded_is_a_fault_but_a_program_is_none() {
        let needs = Needs {
            nodelete: false,
            ..fit()
        };
        assert!(faults_of(&needs).contains("nodelete"));
        assert!(faults("x86_64", &PROGRAM, &needs, b"", &[]).is_empty());
    }

    #[test]
    fn a_module_that_exports_more_or_less_than_its_hooks_is_a_fault() {
        for exports in [&[][..], &["hook", "init"]] {
            let needs = Needs {
                exports: exports.iter().map(|name| (*name).to_owned()).collect(),
                ..fit()
            };
            assert!(faults_of(&needs).contains("instead of hook"));
        }
    }

    #[test]
    fn the_wrong_processor_is_a_fault() {
        assert!(
            faults_of(&Needs {
                arch: "aarch64",
                ..fit()
            })
            .contains("aarch64")
        );
    }

    #[test]
    fn debugging_sections_are_a_fault() {
        assert!(
            faults_of(&Needs {
                debug_info: true,
                ..fit()
            })
            .contains("debugging")
        );
    }

    #[test]
    fn symbols_are_a_fault() {
        let needs = Needs {
            symbols: true,
            ..fit()
        };
        assert!(faults_of(&needs).contains("symbols"));
    }

    #[test]
    fn a_module_that_is_larger_than_it_may_be_is_a_fault() {
        let module = |data| faults("x86_64", &MODULE, &fit(), data, &[]).join("; ");
        assert_eq!(module(&[0; 10]), "");
        assert!(module(&[0; 11]).contains("11 bytes, more than the 10"));
    }

    #[test]
    fn a_path_of_the_build_machine_is_a_fault() {
        let private = [(PathBuf::from("/home/me/slurm-efa"), "/slurm-efa")];
        let data = b"\0/home/me/slurm-efa/lib/host/src/lib.rs\0";
        assert_eq!(faults("x86_64", &LARGE, &fit(), data, &private).len(), 1);
        let clean = b"\0/slurm-efa/lib/host/src/lib.rs\0";
        assert!(faults("x86_64", &LARGE, &fit(), clean, &private).is_empty());
    }

    #[test]
    fn no_two_artifacts_share_a_name() {
        let names: BTreeSet<&str> = ARTIFACTS.iter().map(|artifact| artifact.shipped).collect();
        assert_eq!(names.len(), ARTIFACTS.len());
    }
}
