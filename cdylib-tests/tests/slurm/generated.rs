//! What the tests on generated trees of files have in common.

use std::fs;
use std::path::Path;

use proptest::test_runner::{Config, TestRunner};

/// Tries this many trees, or as many as `SLURM_EFA_CASES` says.
pub fn runner(trees: u32) -> TestRunner {
    let cases = std::env::var("SLURM_EFA_CASES");
    TestRunner::new(Config {
        cases: cases.map_or(trees, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    })
}

/// The files of a tree, for a person.
pub fn texts(folder: &Path, files: &[&str]) -> String {
    let text = |file: &&str| {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        format!("== {file}\n{text}")
    };
    files.iter().map(text).collect()
}
