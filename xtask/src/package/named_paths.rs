//! Each path of the package that a document names is in the package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::contents::{self, Form, Made};
use super::facts::Format;
use crate::command;
use crate::dist::Artifact;

/// Nothing is built: only the paths matter.
struct Unbuilt;

impl Made for Unbuilt {
    fn artifact(&self, _: &str, _: &Artifact) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn printed(&self, _: &Artifact, _: &[&str]) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn third_party(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// Folders of which this package alone may have files.
const OURS: &[&str] = &[
    "/etc/slurm-efa/",
    "/usr/lib/slurm-efa/",
    "/usr/share/doc/slurm-efa/",
    "/usr/share/slurm-efa/",
];

/// Folders of all packages: there only these beginnings of names are this one's.
const SHARED: &[&str] = &["/usr/bin/", "/usr/sbin/", "/usr/lib/systemd/system/"];
const NAMES: &[&str] = &["slurm-efa", "efa-", "gres-helper", "slurm-logout"];

/// What `slurm-efa setup` makes, or an administrator.
const MADE_LATER: &[&str] = &[
    "/etc/slurm-efa/efa-check-healthcheck",
    "/etc/slurm-efa/efa-check-watch",
    "/etc/slurm-efa/epilog.d",
    "/etc/slurm-efa/prolog.d",
];

/// What people read: the README, the documents, the manual pages, the examples,
/// the shipped configuration and scripts.
fn documents() -> Vec<PathBuf> {
    let root = command::workspace();
    let mut found = vec![root.join("README.md")];
    let packaging = ["man", "examples", "lifecycle", "scripts", "etc", "systemd"];
    let packaging = packaging.map(|it| format!("packaging/{it}"));
    for folder in packaging.iter().map(String::as_str).chain(["docs"]) {
        let entries = fs::read_dir(root.join(folder)).expect("a folder of documents");
        found.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    found.sort();
    found
}

/// The absolute paths in a text; roff writes `\-` for a dash.
fn paths(text: &str) -> impl Iterator<Item = String> {
    let is_path = |it: char| it.is_ascii_alphanumeric() || "/._-*".contains(it);
    let words: Vec<String> = text
        .replace('\\', "")
        .split(|it| !is_path(it))
        .map(|word| word.trim_end_matches(['.', '*', '/']).to_owned())
        .collect();
    words.into_iter().filter(|word| word.starts_with('/'))
}

/// Whether a path is one that this package must have.
fn is_ours(path: &str) -> bool {
    let later = MADE_LATER
        .iter()
        .any(|it| path == *it || path.starts_with(&format!("{it}/")));
    let name = |folder: &&str| {
        let name = path.strip_prefix(*folder)?;
        Some(NAMES.iter().any(|it| name.starts_with(it)))
    };
    !later
        && (OURS.iter().any(|it| path.starts_with(it))
            || SHARED.iter().any(|it| name(it) == Some(true)))
}

/// Everything that a package of this format has, each folder included.
fn installed(format: Format) -> BTreeSet<String> {
    let entries = contents::entries("x86_64", &Unbuilt).expect("the contents");
    let mut all = BTreeSet::new();
    let here = entries
        .iter()
        .filter(|it| it.only.is_none_or(|only| only == format));
    for entry in here {
        let above = Path::new(&entry.path).ancestors();
        all.extend(above.map(|it| it.to_string_lossy().into_owned()));
    }
    all
}

#[test]
fn the_package_has_every_path_that_its_documents_name() {
    let formats = [Format::Deb, Format::Rpm].map(installed);
    let mut named = 0;
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document");
        for path in paths(&text).filter(|it| is_ours(it)) {
            named += 1;
            if !formats.iter().all(|it| it.contains(&path)) {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(named > 40, "only {named} paths were found");
}

#[test]
fn no_document_for_users_sends_them_to_the_source_tree() {
    // Those for contributors do.
    let contributors = ["architecture.md", "packages.md", "driver-test.md"];
    for document in documents() {
        let name = document.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&document).expect("a document");
        let named = text.contains("packaging/");
        let theirs = contributors.contains(&name.as_ref());
        assert!(!named || theirs, "{} names packaging/", document.display());
    }
}

#[test]
fn the_lifecycle_script_can_be_run_where_it_is_installed() {
    let entries = contents::entries("x86_64", &Unbuilt).expect("the contents");
    let script = entries
        .iter()
        .find(|it| it.path == "/usr/share/slurm-efa/lifecycle/install_slurm_efa.sh")
        .expect("the script");
    assert_eq!(script.mode, 0o755);
    assert!(matches!(script.form, Form::File(_)), "rpm --nodocs has it");
}
