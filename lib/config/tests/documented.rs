//! The tables of the documents, against the parsers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A section, the document that describes it, and the line before its table.
const TABLES: [(&str, &str, &str); 6] = [
    (
        "profile.p5",
        "docs/configuration.md",
        "| key of `[profile.NAME]` |",
    ),
    (
        "hugepages",
        "docs/configuration.md",
        "| key of `[hugepages]` |",
    ),
    ("report", "docs/configuration.md", "| key of `[report]` |"),
    ("logout", "docs/configuration.md", "## logout"),
    ("gres", "docs/configuration.md", "## `[gres]`"),
    ("health", "docs/efa-check.md", "## Configuration"),
];

/// What a section still accepts and the tables no longer name.
const OLD: [&str; 4] = [
    "max_log_mib",
    "nvml_seconds",
    "sample_seconds",
    "grace_seconds",
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap()
}

/// Everything that is wrong with a text.
fn problems(text: &str) -> Vec<String> {
    let path = PathBuf::from("/etc/x.toml");
    match config::parse(text, &path) {
        Ok(config) => config.problems().iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// The keys of the first table after `start`.
fn documented(document: &str, start: &str) -> BTreeSet<String> {
    let lines = document.lines().skip_while(|line| !line.starts_with(start));
    let rows = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let keys = rows.skip(2).flat_map(|row| {
        let first = row.split('|').nth(1).unwrap().to_owned();
        let names: Vec<String> = first
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        names
    });
    keys.collect()
}

/// The keys that a section accepts, as the error for one that is unlike any
/// other lists them.
fn accepted(section: &str) -> BTreeSet<String> {
    let problem = problems(&format!("[{section}]\nqqqqqqqqqqqqqqqq = 1\n")).concat();
    let (_, expected) = problem.split_once("expected ").unwrap();
    let names = expected.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn every_documented_key_is_accepted() {
    for (section, document, start) in TABLES {
        let keys = documented(&read(document), start);
        assert!(keys.len() >= 3, "{section}: {keys:?}");
        let accepted = accepted(section);
        let unknown: Vec<_> = keys.difference(&accepted).collect();
        assert!(unknown.is_empty(), "{document}, [{section}]: {unknown:?}");
    }
}

#[test]
fn every_accepted_key_is_documented() {
    for (section, document, start) in TABLES {
        let mut keys = accepted(section);
        keys.retain(|key| !OLD.contains(&key.as_str()));
        let documented = documented(&read(document), start);
        let missing: Vec<_> = keys.difference(&documented).collect();
        assert!(missing.is_empty(), "{document}, [{section}]: {missing:?}");
    }
}
