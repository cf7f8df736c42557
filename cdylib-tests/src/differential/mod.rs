//! What `lib/slurm` knows of Slurm's files, against Slurm itself: generated trees
//! of files that both read. The tests try them on this machine's Slurm, the matrix
//! on each release.

pub mod gres_conf;
pub mod plugstack;
pub mod slurm_conf;

use std::error::Error;
use std::fmt::{Debug, Display};
use std::fs;
use std::path::Path;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// Tries this many trees, or as many as `SLURM_EFA_CASES` says. The error is what
/// the check says of the smallest tree that was found to fail.
fn try_trees<S: Strategy<Value: Debug>>(
    trees: u32,
    strategy: &S,
    check: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> Result<(), Box<dyn Error>> {
    let cases = match std::env::var("SLURM_EFA_CASES") {
        Ok(cases) => cases.parse()?,
        Err(_) => trees,
    };
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    });
    runner.run(strategy, check).map_err(|error| match error {
        // The check shows the tree as files.
        TestError::Fail(why, _) => why.to_string().into(),
        TestError::Abort(why) => why.to_string().into(),
    })
}

/// What stands in the way of a check fails the tree as well.
fn failed(error: impl Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// The files of a tree, for a person.
fn texts(folder: &Path, files: &[&str]) -> String {
    let text = |file: &&str| match fs::read_to_string(folder.join(file)) {
        Ok(text) => format!("== {file}\n{text}"),
        Err(error) => format!("== {file}: {error}\n"),
    };
    files.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_fails_is_shown_as_small_as_it_can_be() {
        let trees = proptest::collection::vec("[a-z]{0,8}", 0..20);
        let tried = try_trees(500, &trees, |tree| {
            let bad = tree.iter().any(|line| line.starts_with('q'));
            match bad {
                true => Err(failed(tree.join("\n"))),
                false => Ok(()),
            }
        });
        assert_eq!(tried.unwrap_err().to_string(), "q");
    }
}
