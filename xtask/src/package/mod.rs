//! What `cargo xtask dist` does at its end: a .deb and an .rpm of each processor
//! architecture, an SBOM, and the hashes of all of them. Everything in them comes from
//! the checkout and the last commit's time, so the same commit gives the same
//! bytes.

mod contents;
mod crates;
mod deb;
mod facts;
mod licences;
#[cfg(test)]
mod named_paths;
mod sbom;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::contents::{Entry, Form, Made};
use self::crates::Crates;
use self::facts::{BuildTime, Format, LICENCE, NAME, RELEASE, go_arch};
use crate::command;
use crate::dist::{self, ARCHES, ARTIFACTS, Artifact, Variant};

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const SUMMARY: &str = "Elastic Fabric Adapter for Slurm jobs on AWS GPU clusters";
const DESCRIPTION: &str = "\
The SPANK plugin spank_efa gives jobs the environment that the node's EFA
stack needs; slurm-efa-job, as prolog and epilog, gives them hugepages and
reports what they moved over EFA. efa-check keeps jobs from nodes whose
adapters are faulty. gres-helper and the SPANK plugin spank_gres share GPUs.
The PAM module pam_slurm_logout and the daemon slurm-logoutd end logins when
jobs end; slurm-logout shows them. slurm-efa checks clusters before they are
created (preflight), sets nodes up (setup, revert), finds what is wrong on
them (doctor), checks the configuration (config), returns what ended jobs
left (reconcile), and reports what jobs moved (report).
Installing the package changes no configuration: nothing is enabled until an
administrator says so.";
const HOMEPAGE: &str = "https://github.com/slurm-efa/slurm-efa";
const MAINTAINER: &str = "The slurm-efa authors <slurm-efa@users.noreply.github.com>";

/// What is packaged is loaded by glibc's own loader; see [`dist`].
const GLIBC: &str = "2.17";

/// The architectures for which `cargo xtask dist` has left everything.
pub fn built() -> Vec<&'static str> {
    let whole = |arch: &&str| {
        ARTIFACTS
            .iter()
            .all(|artifact| dist::shipped(Variant::Shipped, arch, artifact).is_file())
    };
    ARCHES.iter().copied().filter(whole).collect()
}

/// Packages what was built for each of `arches` into the folder `into`.
///
/// # Errors
/// When nothing was built, a tool is missing, or a dependency has no licence
/// text that could be passed on.
pub fn package(arches: &[&str], version: &str, into: &Path) -> Result<()> {
    if arches.is_empty() {
        bail!("nothing is built that could be packaged; run `make dist`");
    }
    let nfpm = dist::tools()?.join("nfpm");
    let into = std::path::absolute(into)?;
    fs::create_dir_all(&into).with_context(|| format!("{}", into.display()))?;
    remove_old(&into)?;
    let time = BuildTime::get()?;
    let crates = Crates::shipped()?;
    let sbom = format!("{NAME}-{version}.cdx.json");
    fs::write(into.join(&sbom), sbom::cyclonedx(&crates, version, &time)?)?;
    let mut made = vec![sbom];
    // One of its own: packages of two versions may be made at the same time.
    let scratch = tempfile::tempdir_in(command::target())?;
    for arch in arches {
        let stage = scratch.path().join(arch);
        let entries = contents::entries(arch, &Build { crates: &crates })?;
        write_stage(&stage, &entries, &time)?;
        for format in [Format::Deb, Format::Rpm] {
            let file = format.file_name(version, arch);
            let config = nfpm_config(format, version, arch, &stage, &entries, &time)?;
            let config_file = stage.with_extension(format!("{}.json", format.name()));
            fs::write(&config_file, format!("{config:#}\n"))?;
            // Only what it creates itself depends on the umask and the clock.
            command::output(
                Command::new(&nfpm)
                    .args(["package", "--packager", format.name(), "--config"])
                    .arg(&config_file)
                    .arg("--target")
                    .arg(into.join(&file))
                    .env("SOURCE_DATE_EPOCH", time.seconds.to_string()),
            )?;
            if format == Format::Deb {
                deb::compress(&into.join(&file), scratch.path())
                    .with_context(|| format!("{file} cannot be compressed"))?;
            }
            fits(format, fs::metadata(into.join(&file))?.len())
                .with_context(|| format!("{file} is not fit to be shipped"))?;
            made.push(file);
        }
    }
    for file in &made {
        println!("{}", into.join(file).display());
    }
    hash(&into)
}

/// What `make dist` has left.
struct Build<'c> {
    crates: &'c Crates,
}

impl Made for Build<'_> {
    fn artifact(&self, arch: &str, artifact: &Artifact) -> Result<Vec<u8>> {
        let file = dist::shipped(Variant::Shipped, arch, artifact);
        contents::read(&file).context("run `make dist`")
    }

    fn printed(&self, artifact: &Artifact, arguments: &[&str]) -> Result<Vec<u8>> {
        // A build for another processor does not run here, but has the same options.
        let here = dist::shipped(Variant::Shipped, std::env::consts::ARCH, artifact);
        let printed = command::output(Command::new(here).args(arguments))?;
        Ok(printed.into_bytes())
    }

    fn third_party(&self) -> Result<Vec<u8>> {
        Ok(licences::third_party(self.crates)?.into_bytes())
    }
}

/// The most bytes of a Debian package: every node that starts fetches one. Its
/// five programs have a command-line parser and a standard library each.
const LARGEST_DEB: u64 = 3_700_000;

fn fits(format: Format, bytes: u64) -> Result<()> {
    if format == Format::Deb && bytes > LARGEST_DEB {
        bail!("it has {bytes} bytes, more than the {LARGEST_DEB} that it may have");
    }
    Ok(())
}

/// Packages of another version would otherwise lie beside this one's.
fn remove_old(into: &Path) -> Result<()> {
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.starts_with(NAME)
            && [".deb", ".rpm", ".cdx.json"]
                .iter()
                .any(|end| name.ends_with(end));
        if ours || name == "SHA256SUMS" {
            fs::remove_file(&path).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes SHA256SUMS of everything below `into`, for `sha256sum --check`.
fn hash(into: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        } else {
            for entry in fs::read_dir(path)? {
                files.push(entry?.path());
            }
        }
    }
    files.sort();
    let mut names: Vec<&Path> = Vec::new();
    for file in &files {
        let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if !file.file_name().is_some_and(hidden) {
            names.push(file.strip_prefix(into)?);
        }
    }
    let sums = command::output(
        Command::new("sha256sum")
            .current_dir(into)
            .arg("--")
            .args(names),
    )?;
    fs::write(into.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// Lays the files out as they will be installed, in a folder that is new.
fn write_stage(stage: &Path, entries: &[Entry], time: &BuildTime) -> Result<()> {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(time.seconds);
    for entry in entries {
        let path = staged(stage, entry);
        if let Some(content) = entry.content() {
            let write = || -> io::Result<()> {
                fs::create_dir_all(path.parent().unwrap_or(stage))?;
                fs::write(&path, content)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))?;
                File::open(&path)?.set_modified(modified)
            };
            write().with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

fn staged(stage: &Path, entry: &Entry) -> PathBuf {
    stage.join(entry.path.trim_start_matches('/'))
}

/// nfpm's configuration; it reads YAML, of which JSON is a part.
fn nfpm_config(
    format: Format,
    version: &str,
    arch: &str,
    stage: &Path,
    entries: &[Entry],
    time: &BuildTime,
) -> Result<Value> {
    let packaging = command::workspace().join("packaging");
    let script = |name: &str| packaging.join("scripts").join(name);
    let contents: Vec<Value> = entries
        .iter()
        .filter(|entry| entry.only.is_none_or(|only| only == format))
        .map(|entry| {
            let info = json!({
                "owner": "root", "group": "root", "mode": entry.mode, "mtime": time.text,
            });
            let source = staged(stage, entry);
            match &entry.form {
                Form::Link(target) => json!({
                    "dst": entry.path, "src": target, "type": "symlink", "file_info": info,
                }),
                Form::Folder => json!({ "dst": entry.path, "type": "dir", "file_info": info }),
                Form::File(_) => json!({ "dst": entry.path, "src": source, "file_info": info }),
                Form::Config(_) => json!({
                    "dst": entry.path, "src": source, "type": "config|noreplace",
                    "file_info": info,
                }),
                Form::Licence(_) => json!({
                    "dst": entry.path, "src": source, "type": "license", "file_info": info,
                }),
                // Only rpm has a mark for them; nfpm leaves them out of a .deb.
                Form::Document(_) => json!({
                    "dst": entry.path, "src": source, "file_info": info,
                    "type": if format == Format::Rpm { "doc" } else { "" },
                }),
            }
        })
        .collect();
    let depends = match format {
        Format::Deb => vec![format!("libc6 (>= {GLIBC})")],
        // Debian's base system has what the scripts call; a container of RHEL may not.
        Format::Rpm => {
            let scripts = ["/bin/sh", "coreutils", "grep"].map(str::to_owned);
            [vec![format!("glibc >= {GLIBC}")], scripts.to_vec()].concat()
        }
    };
    Ok(json!({
        "name": NAME,
        "arch": go_arch(arch),
        "version": version,
        "release": RELEASE,
        "section": "admin",
        "priority": "optional",
        "maintainer": MAINTAINER,
        "vendor": "The slurm-efa authors",
        "homepage": HOMEPAGE,
        "license": LICENCE,
        "description": match format {
            Format::Deb => format!("{SUMMARY}\n{DESCRIPTION}"),
            Format::Rpm => DESCRIPTION.to_owned(),
        },
        "changelog": packaging.join("changelog.yaml"),
        "mtime": time.text,
        "disable_globbing": true,
        "umask": 0o022,
        "depends": depends,
        "contents": contents,
        "scripts": {
            "postinstall": script("after-install.sh"),
            "preremove": script("before-removal.sh"),
            "postremove": script("after-removal.sh"),
        },
        "deb": { "compression": "xz" },
        // xz is the best that rpm of Amazon Linux 2 unpacks.
        "rpm": {
            "summary": SUMMARY,
            "group": "System Environment/Base",
            "packager": MAINTAINER,
            "buildhost": "reproducible",
            "compression": "xz",
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_as_their_distributions_do() {
        assert_eq!(
            Format::Deb.file_name("1.2.3", "aarch64"),
            "slurm-efa_1.2.3-1_arm64.deb"
        );
        assert_eq!(
            Format::Rpm.file_name("1.2.3", "x86_64"),
            "slurm-efa-1.2.3-1.x86_64.rpm"
        );
    }

    #[test]
    fn a_debian_package_that_is_too_large_is_not_shipped() {
        assert!(fits(Format::Deb, LARGEST_DEB).is_ok());
        assert!(fits(Format::Deb, LARGEST_DEB + 1).is_err());
    }

    #[test]
    fn the_description_names_every_program_and_module_that_people_meet() {
        // What the plugin and slurm-efa-job start is theirs.
        let met = ARTIFACTS
            .iter()
            .filter(|it| it.shipped != "efa-counter-reader");
        for artifact in met {
            let name = artifact.shipped.trim_end_matches(".so");
            assert!(
                DESCRIPTION
                    .split(|it: char| !(it.is_alphanumeric() || "-_".contains(it)))
                    .any(|it| it == name),
                "{name}"
            );
        }
        for line in DESCRIPTION.lines() {
            assert!(line.len() < 80, "lintian and rpmlint refuse {line}");
        }
    }

    #[test]
    fn the_newest_entry_of_the_changelog_is_this_version() {
        let file = command::workspace().join("packaging/changelog.yaml");
        let text = fs::read_to_string(file).expect("the changelog");
        let newest = text
            .lines()
            .find_map(|line| line.strip_prefix("- semver: "));
        assert_eq!(newest, Some(format!("{VERSION}-{RELEASE}").as_str()));
    }
}
