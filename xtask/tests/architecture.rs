//! The plan of the house, held against what cargo says: which crate may know of
//! which, and what root's processes load.

#[path = "architecture/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// Layers of crates, from the ground up. A crate may depend on those of lower
/// layers, never on one of its own layer or above.
const LAYERS: &[&[&str]] = &[
    &["guard", "host"],
    &["efa", "pam", "pam-stack", "slurm", "spank"],
    &["cli", "cluster", "config", "findings", "jobs"],
    &["gpu", "hugepages", "logins", "usage"],
    &["profiles"],
];

/// What is loaded into other people's processes.
const OBJECTS: &[&str] = &["pam-slurm-logout", "spank-efa", "spank-gres"];

/// What is run.
const PROGRAMS: &[&str] = &[
    "efa-check",
    "gres-helper",
    "slurm-efa",
    "slurm-efa-job",
    "slurm-logoutd",
];

/// What no object may link, however indirectly: command lines, YAML, NVML,
/// errors and logs made for programs, threads and runtimes.
const NOT_IN_OBJECTS: &[&str] = &[
    "anyhow",
    "clap",
    "clap_builder",
    "libloading",
    "nvml-wrapper",
    "nvml-wrapper-sys",
    "rayon",
    "serde-saphyr",
    "syslog",
    "tokio",
];

/// Tests and chores: they may know everybody, and nobody may know them.
const TOOLS: &[&str] = &["cdylib-tests", "efa-device", "mock-nvml", "xtask"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
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
    kind: Option<String>,
}

impl Metadata {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).expect("cargo's metadata")
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        let ours = |package: &&Package| self.workspace_members.contains(&package.id);
        self.packages.iter().filter(ours)
    }

    fn folder(&self, package: &Package) -> PathBuf {
        let folder = package.manifest_path.parent().expect("a folder");
        let inside = folder.strip_prefix(&self.workspace_root);
        inside.expect("a folder of the workspace").to_owned()
    }

    fn name(&self, id: &str) -> &str {
        let found = self.packages.iter().find(|package| package.id == id);
        &found.expect("a package").name
    }

    /// What is linked into a crate: neither what builds it nor what tests it.
    fn linked(&self, id: &str) -> impl Iterator<Item = &str> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        let deps = &node.expect("a resolved package").deps;
        deps.iter()
            .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .map(|dep| dep.pkg.as_str())
    }

    /// The same, and what those link.
    fn linked_in_all(&self, id: &str) -> BTreeSet<&str> {
        let mut all = BTreeSet::new();
        let mut next: Vec<&str> = self.linked(id).collect();
        while let Some(id) = next.pop() {
            if all.insert(id) {
                next.extend(self.linked(id));
            }
        }
        all.into_iter().map(|id| self.name(id)).collect()
    }
}

/// The layer of each crate of this workspace. Objects and programs are on top.
fn layers() -> BTreeMap<&'static str, usize> {
    let mut layers = BTreeMap::new();
    for (layer, names) in LAYERS.iter().enumerate() {
        layers.extend(names.iter().map(|name| (*name, layer)));
    }
    let top = LAYERS.len();
    layers.extend(OBJECTS.iter().chain(PROGRAMS).map(|name| (*name, top)));
    layers.extend(TOOLS.iter().map(|name| (*name, top + 1)));
    layers
}

#[test]
fn a_crate_depends_on_crates_of_lower_layers_only() {
    let metadata = Metadata::read();
    let layers = layers();
    for package in metadata.members() {
        let name = package.name.as_str();
        let layer = *layers
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no layer: give it one in {}", file!()));
        if TOOLS.contains(&name) {
            continue;
        }
        for id in metadata.linked(&package.id) {
            let other = metadata.name(id);
            if let Some(below) = layers.get(other) {
                assert!(*below < layer, "{name} -> {other}: not downwards");
            }
        }
    }
}

#[test]
fn what_is_common_to_command_lines_is_linked_into_programs_only() {
    let metadata = Metadata::read();
    for package in metadata.members() {
        let name = package.name.as_str();
        let links = metadata
            .linked(&package.id)
            .any(|id| metadata.name(id) == "cli");
        let may = PROGRAMS.contains(&name) || TOOLS.contains(&name);
        assert!(may || !links, "{name} -> cli");
    }
}

#[test]
fn an_object_links_no_command_line_yaml_nvml_or_runtime() {
    let metadata = Metadata::read();
    for package in metadata.members() {
        if !OBJECTS.contains(&package.name.as_str()) {
            continue;
        }
        let linked = metadata.linked_in_all(&package.id);
        for name in NOT_IN_OBJECTS {
            assert!(!linked.contains(name), "{} -> {name}", package.name);
        }
    }
}

#[test]
fn an_object_is_a_shared_object_only() {
    let metadata = Metadata::read();
    for package in metadata.members() {
        let kinds: Vec<&str> = package
            .targets
            .iter()
            .flat_map(|target| &target.kind)
            .map(String::as_str)
            .collect();
        let object = OBJECTS.contains(&package.name.as_str());
        if object {
            assert!(
                !kinds.contains(&"rlib") && !kinds.contains(&"lib"),
                "{}: what links it would carry its exported symbols",
                package.name
            );
        }
        let exports = kinds.contains(&"cdylib");
        let mock = package.name == "mock-nvml";
        assert_eq!(exports, object || mock, "{}", package.name);
    }
}

/// What each object's crate denies; its clippy.toml says which methods, types and
/// macros.
const LINTS_OF_OBJECTS: &[&str] = &[
    "unwrap_used",
    "expect_used",
    "panic",
    "unreachable",
    "indexing_slicing",
    "string_slice",
    "print_stdout",
    "print_stderr",
    "exit",
    "disallowed_methods",
    "disallowed_types",
    "disallowed_macros",
];

#[test]
fn an_object_has_the_strict_lints() {
    let metadata = Metadata::read();
    let rules = metadata.workspace_root.join(RULES_OF_OBJECTS);
    let rules = fs::read_to_string(rules).expect(RULES_OF_OBJECTS);
    for package in metadata.members() {
        if !OBJECTS.contains(&package.name.as_str()) {
            continue;
        }
        let folder = metadata.workspace_root.join(metadata.folder(package));
        let own = fs::read_to_string(folder.join("clippy.toml"));
        assert_eq!(own.as_ref().ok(), Some(&rules), "{}", package.name);
        let root = fs::read_to_string(folder.join("src/lib.rs")).expect("lib.rs");
        let denied = root
            .split_once("deny(")
            .and_then(|it| it.1.split_once("\n    )"));
        let denied = denied.expect("the lints that the crate denies").0;
        for lint in LINTS_OF_OBJECTS {
            let line = format!("        clippy::{lint},");
            assert!(
                denied.lines().any(|it| it == line),
                "{}: {lint}",
                package.name
            );
        }
    }
}

/// Rules of clippy for all objects.
const RULES_OF_OBJECTS: &str = "lib/guard/objects.clippy.toml";

/// The macro that a plugin is made with; its text is expanded in the objects.
const EXPORT_MACRO: &str = "lib/spank/src/plugin.rs";

#[test]
fn a_library_exports_no_symbol_and_has_no_constructor() {
    fn visit(folder: &Path, root: &Path, seen: &mut usize) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                visit(&path, root, seen);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *seen += 1;
                let inside = path.strip_prefix(root).expect("inside");
                let text = fs::read_to_string(&path).expect("source");
                for word in ["no_mangle", "export_name", "link_section"] {
                    assert!(
                        !text.contains(word) || inside == Path::new(EXPORT_MACRO),
                        "{}: {word}",
                        inside.display()
                    );
                }
            }
        }
    }
    let root = Metadata::read().workspace_root;
    let mut seen = 0;
    for library in fs::read_dir(root.join("lib")).expect("lib") {
        visit(
            &library.expect("an entry").path().join("src"),
            &root,
            &mut seen,
        );
    }
    assert!(seen > 30, "{seen} files: this looks at the wrong folder");
}

#[test]
fn the_table_of_rooms_names_each_crate_and_no_other() {
    let metadata = Metadata::read();
    let text = fs::read_to_string(metadata.workspace_root.join("docs/architecture.md"));
    let text = text.expect("docs/architecture.md");
    let section = text.split("\n## ").find(|part| part.starts_with("Rooms\n"));
    let rooms: BTreeSet<&str> = section
        .expect("the section of rooms")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"))
        .map(|(folder, _)| folder)
        .collect();
    // Rooms that hold no crate, or one of another workspace.
    let others = ["fuzz", "packaging"];
    let folders: Vec<PathBuf> = metadata.members().map(|it| metadata.folder(it)).collect();
    let expected: BTreeSet<&str> = folders
        .iter()
        .map(|folder| folder.to_str().expect("UTF-8"))
        .chain(others)
        .collect();
    assert_eq!(rooms, expected);
}

#[test]
fn every_file_that_docs_architecture_names_is_there() {
    let metadata = Metadata::read();
    let root = &metadata.workspace_root;
    let text = fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    let in_backquotes = text.split('`').skip(1).step_by(2);
    let of_the_tree = in_backquotes.filter(|name| {
        let first = name.split('/').next().unwrap_or_default();
        name.contains('/') && !name.contains(char::is_whitespace) && root.join(first).is_dir()
    });
    let missing: Vec<&str> = of_the_tree
        .filter(|name| !root.join(name).exists())
        .collect();
    assert!(missing.is_empty(), "not there: {missing:?}");
}

#[test]
fn each_of_the_twelve_requests_leads_to_something_of_the_tree() {
    let root = Metadata::read().workspace_root;
    let text = fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    for number in 1..=12 {
        let start = format!("| {number}. ");
        let mut rows = text.lines().filter(|line| line.starts_with(&start));
        let row = rows.next().unwrap_or_else(|| panic!("no request {number}"));
        let mut names = row.split('`').skip(1).step_by(2);
        assert!(names.any(|name| root.join(name).exists()), "{row}");
    }
}

/// nextest limits how many Slurms run at a time, in cdylib-tests alone.
#[test]
fn a_test_that_starts_a_slurm_is_in_cdylib_tests() {
    /// The fixtures that start one.
    const FIXTURES: [&str; 4] = ["testbed", "efa_cluster", "slurmctld", "Testbed"];
    let metadata = Metadata::read();
    let mut elsewhere = Vec::new();
    for package in metadata
        .members()
        .filter(|it| !TOOLS.contains(&it.name.as_str()))
    {
        let tests = metadata
            .workspace_root
            .join(metadata.folder(package))
            .join("tests");
        let mut todo = vec![tests];
        while let Some(path) = todo.pop() {
            if let Ok(entries) = fs::read_dir(&path) {
                todo.extend(entries.flatten().map(|entry| entry.path()));
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let uses = text.lines().filter(|line| line.contains("cdylib_tests::"));
            if uses
                .into_iter()
                .any(|line| FIXTURES.iter().any(|it| line.contains(it)))
            {
                elsewhere.push(path);
            }
        }
    }
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
