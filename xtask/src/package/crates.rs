//! Which crates are linked into what is shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command;
use crate::dist::{self, ARCHES, ARTIFACTS};

/// A crate, as in Cargo.lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrateId {
    pub name: String,
    pub version: String,
}

/// What is known of a crate.
#[derive(Debug)]
pub struct Crate {
    /// An SPDX expression.
    pub licence: String,
    pub repository: Option<String>,
    /// Its own folder, with its licences' texts.
    pub folder: PathBuf,
    /// Whether it is of this workspace.
    pub own: bool,
    /// SHA-256 of what the registry serves, from Cargo.lock.
    pub checksum: Option<String>,
    pub needs: BTreeSet<CrateId>,
}

/// All crates that any shipped file has in it, on any architecture.
pub struct Crates(pub BTreeMap<CrateId, Crate>);

impl Crates {
    /// # Errors
    /// When cargo does not say, or a crate names no licence.
    pub fn shipped() -> Result<Self> {
        let linked = linked()?;
        let checksums = checksums()?;
        let metadata = metadata()?;
        let ids: BTreeMap<&str, CrateId> = metadata
            .packages
            .iter()
            .map(|package| (package.id.as_str(), package.crate_id()))
            .collect();
        let mut crates = BTreeMap::new();
        for package in &metadata.packages {
            let id = package.crate_id();
            if !linked.contains(&id) {
                continue;
            }
            let node = metadata.resolve.nodes.iter().find(|n| n.id == package.id);
            let needs = node.map_or(&[][..], |node| &node.deps[..]).iter();
            let needs = needs
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()))
                .filter_map(|dep| ids.get(dep.pkg.as_str()))
                .filter(|id| linked.contains(id))
                .cloned()
                .collect();
            let found = Crate {
                licence: package
                    .license
                    .clone()
                    .with_context(|| format!("{} names no licence", id.name))?,
                repository: package.repository.clone(),
                folder: package
                    .manifest_path
                    .parent()
                    .map(PathBuf::from)
                    .unwrap_or_default(),
                own: package.source.is_none(),
                checksum: checksums.get(&id).cloned(),
                needs,
            };
            crates.insert(id, found);
        }
        if crates.len() != linked.len() {
            bail!("cargo tree and cargo metadata do not agree on the dependencies");
        }
        Ok(Self(crates))
    }
}

/// What cargo links: no build scripts' dependencies, no macros.
fn linked() -> Result<BTreeSet<CrateId>> {
    let mut cargo = command::cargo();
    cargo
        .current_dir(command::workspace())
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"]);
    for arch in ARCHES {
        cargo.arg("--target").arg(dist::triple(arch));
    }
    for artifact in ARTIFACTS {
        cargo.args(["--package", artifact.package]);
    }
    let mut linked = BTreeSet::new();
    for line in command::output(&mut cargo)?.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            linked.insert(CrateId {
                name: name.to_owned(),
                version: version.trim_start_matches('v').to_owned(),
            });
        }
    }
    Ok(linked)
}

fn checksums() -> Result<BTreeMap<CrateId, String>> {
    let file = command::workspace().join("Cargo.lock");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    Ok(parse_checksums(&text))
}

/// Of Cargo.lock, which cargo writes with one key a line.
fn parse_checksums(lock: &str) -> BTreeMap<CrateId, String> {
    let of = |block: &str, key: &str| -> Option<String> {
        let value = block
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(value.trim_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let id = CrateId {
                name: of(block, "name")?,
                version: of(block, "version")?,
            };
            Some((id, of(block, "checksum")?))
        })
        .collect()
}

fn metadata() -> Result<Metadata> {
    let mut cargo = command::cargo();
    cargo
        .current_dir(command::workspace())
        .args(["metadata", "--locked", "--format-version", "1"]);
    let text = command::output(cargo.stderr(std::process::Stdio::null()))?;
    serde_json::from_str(&text).context("cargo metadata says something unexpected")
}

/// The part of `cargo metadata` that is used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

impl Package {
    fn crate_id(&self) -> CrateId {
        CrateId {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// None: an ordinary dependency.
    kind: Option<String>,
}

/// The compiler, whose standard library is linked into everything.
pub fn rust_version() -> Result<String> {
    let text = command::output(Command::new("rustc").arg("--version"))?;
    let version = text.split(' ').nth(1);
    Ok(version
        .context("rustc does not say its version")?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_has_our_crates_and_no_tool_of_ours() {
        let crates = Crates::shipped().expect("cargo").0;
        let names: BTreeSet<&str> = crates.keys().map(|id| id.name.as_str()).collect();
        for artifact in ARTIFACTS {
            assert!(names.contains(artifact.package), "{}", artifact.package);
        }
        for tool in [
            "xtask",
            "cdylib-tests",
            "proptest",
            "serde_derive",
            "bindgen",
        ] {
            assert!(!names.contains(tool), "{tool} is not shipped");
        }
    }

    #[test]
    fn a_crate_of_the_registry_has_its_hash_and_ours_none() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\
                    source = \"r\"\nchecksum = \"beef\"\n\n[[package]]\nname = \"own\"\n\
                    version = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let a = CrateId {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
        };
        assert_eq!(
            parse_checksums(lock),
            BTreeMap::from([(a, "beef".to_owned())])
        );
    }
}
