//! Names under which Slurm calls the program, and calls that are wrong.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_slurm-efa-job");

/// Called by a link of this name, with these arguments and nothing in the environment
/// but `variables`.
fn called(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    symlink(PROGRAM, &link).unwrap();
    Command::new(&link)
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What slurmd gives a prolog: with and without the context, which a script of the
/// site's may have dropped.
const BY_SLURMD: [&[(&str, &str)]; 2] = [
    &[("SLURM_SCRIPT_CONTEXT", "prolog_slurmd")],
    &[("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "7")],
];

#[test]
fn a_number_in_front_and_an_extension_do_not_matter() {
    for name in [
        "slurm-efa-job-prolog",
        "50-slurm-efa-job-prolog",
        "99_slurm-efa-job-epilog",
        "slurm-efa-job-prolog.sh",
        "00-slurm-efa-job-epilog.epilog_slurmd",
    ] {
        // Without a job nothing is done, which is no wrong use.
        let output = called(name, &[], &[]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        let said = said(&output);
        assert!(said.contains("SLURM_JOB_ID is not set"), "{name}: {said}");
    }
}

#[test]
fn another_name_is_wrong_use_by_a_person() {
    for name in ["slurm-efa-job", "50-job", "slurm-efa-job-prologue"] {
        let output = called(name, &[], &[]);
        assert_eq!(output.status.code(), Some(64), "{name}");
        assert!(said(&output).contains("Usage: slurm-efa-job"), "{name}");
    }
}

#[test]
fn wrong_use_by_slurmd_fails_no_prolog() {
    for variables in BY_SLURMD {
        let output = called("50-job", &[], variables);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = said(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        for words in [
            "50-job was called without a command",
            "slurm-efa-job-prolog or slurm-efa-job-epilog",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }
    for wrong in [
        &["no-such-command"][..],
        &["prolog", "--no-such-option"],
        &["prolog", "--config"],
        &["prolog", "--config", "/nonexistent.toml"],
    ] {
        let output = called("slurm-efa-job", wrong, BY_SLURMD[0]);
        assert_eq!(output.status.code(), Some(0), "{wrong:?}: {output:?}");
    }
}
