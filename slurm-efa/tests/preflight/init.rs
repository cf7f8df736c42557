//! `slurm-efa preflight init`: what it writes passes, and it replaces nothing.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use findings::Severity;
use slurm_efa::preflight::init::{Lustre, Setup, Wanted};
use tempfile::TempDir;

use crate::corpus::lifecycle;
use crate::live::{AWS, Place, stdout};

const FSX: &str = "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com/abcdefgh";

/// Options for everything that is asked otherwise.
const OPTIONS: [&str; 16] = [
    "--type",
    "p5.48xlarge",
    "--count",
    "4",
    "--login-nodes",
    "1",
    "--subnet",
    "subnet-0bbbbbbbbbbbbbbb1",
    "--security-group",
    "sg-0aaaaaaaaaaaaaaa1",
    "--execution-role",
    "arn:aws:iam::111122223333:role/hyperpod-nodes",
    "--source",
    "s3://sagemaker-ml-111122223333/lifecycle",
    "--fsx",
    FSX,
];

fn init(folder: &Path, options: &[&str], answers: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(["preflight", "init"])
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may have ended without a question.
    let _ = input.write_all(answers.as_bytes());
    drop(input);
    child.wait_with_output().unwrap()
}

/// The names in a folder.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_is_written_passes_every_check_of_files_for_a_grid_of_options() {
    let types = [
        "p5.48xlarge",
        "ml.p5en.48xlarge",
        "p4d.24xlarge",
        "ml.p6-b200.48xlarge",
        "trn1.32xlarge",
        "g5.12xlarge",
        "c5n.18xlarge",
    ];
    let source = "s3://sagemaker-x/lifecycle".to_owned();
    let mut judged = 0;
    for instance_type in types {
        for (count, login_nodes) in [(1, 0), (4, 1), (100, 3)] {
            for fsx in [None, Some(FSX.parse::<Lustre>().unwrap())] {
                for setup in [
                    Setup::Api,
                    Setup::Scripts {
                        source: source.clone(),
                    },
                ] {
                    let wanted = Wanted {
                        name: "ml-cluster".to_owned(),
                        setup,
                        instance_type: instance_type.to_owned(),
                        count,
                        partition: "dev".to_owned(),
                        controller_type: "ml.m5.xlarge".to_owned(),
                        login_type: "m5.large".to_owned(),
                        login_nodes,
                        subnet: "subnet-0bbbbbbbbbbbbbbb1".to_owned(),
                        security_group: "sg-0aaaaaaaaaaaaaaa1".to_owned(),
                        execution_role: "arn:aws:iam::111122223333:role/nodes".to_owned(),
                        fsx: fsx.clone(),
                    };
                    let report = wanted.files().unwrap().judge();
                    let mut findings = report.findings.0.iter();
                    assert!(
                        findings.all(|it| matches!(it.severity, Severity::Ok | Severity::Unknown)),
                        "{wanted:?}: {}",
                        report.to_text()
                    );
                    judged += 1;
                }
            }
        }
    }
    assert_eq!(judged, 84);
}

#[test]
fn the_files_pass_with_scripts_and_answers_of_aws_in_both_modes() {
    let place = Place::new(&lifecycle(), AWS);
    fs::remove_file(place.scripts.path().join("provisioning_parameters.json")).unwrap();
    let output = init(place.scripts.path(), &OPTIONS, "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("next: slurm-efa preflight --cluster ./create_cluster.json"));
    let preflight = |cluster: &Path, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
            .args(["preflight", "--aws"])
            .arg(place.dir.path())
            .arg("--cluster")
            .arg(cluster)
            .arg("--lifecycle")
            .arg(place.scripts.path())
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    };
    preflight(&place.scripts.path().join("create_cluster.json"), &[]);
    let api = tempfile::tempdir().unwrap();
    let mut options: Vec<&str> = OPTIONS.into_iter().filter(|it| *it != "--source").collect();
    options.retain(|it| !it.starts_with("s3:"));
    options.push("--api");
    let output = init(api.path(), &options, "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(names(&api), ["create_cluster.json"]);
    // No parameters are read there, so those of the folder must go.
    fs::remove_file(place.scripts.path().join("provisioning_parameters.json")).unwrap();
    preflight(&api.path().join("create_cluster.json"), &[]);
}

#[test]
fn a_file_that_is_there_is_replaced_only_with_overwrite() {
    for name in ["create_cluster.json", "provisioning_parameters.json"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "mine").unwrap();
        let output = init(dir.path(), &OPTIONS, "");
        assert_eq!(output.status.code(), Some(73), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--overwrite"), "{said}");
        assert_eq!(names(&dir), [name], "one file without the other");
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
        let mut options = OPTIONS.to_vec();
        options.push("--overwrite");
        let output = init(dir.path(), &options, "");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let both = ["create_cluster.json", "provisioning_parameters.json"];
        assert_eq!(names(&dir), both);
        assert_ne!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
    }
}

#[test]
fn what_no_option_says_is_asked_until_it_is_understood() {
    let asked = tempfile::tempdir().unwrap();
    let answers = format!(
        "p5.48xlarge\nmany\n4\n\nsubnet-0bbbbbbbbbbbbbbb1\nsg-0aaaaaaaaaaaaaaa1\n\n\
         arn:aws:iam::111122223333:role/hyperpod-nodes\n\
         s3://sagemaker-ml-111122223333/lifecycle\n{FSX}\n"
    );
    let output = init(asked.path(), &[], &answers);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"many\" is not a number"), "{said}");
    assert!(said.contains("How many login nodes? [1]"), "{said}");
    let given = tempfile::tempdir().unwrap();
    assert_eq!(init(given.path(), &OPTIONS, "").status.code(), Some(0));
    for name in ["create_cluster.json", "provisioning_parameters.json"] {
        let text = |dir: &TempDir| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text(&asked), text(&given));
    }
}

#[test]
fn where_nobody_answers_the_missing_option_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = init(dir.path(), &OPTIONS[2..], "");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--type is missing"), "{said}");
    assert_eq!(names(&dir), [""; 0]);
    // What has a proposal needs no answer.
    let output = init(dir.path(), &OPTIONS[..14], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_would_not_pass_is_named_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    for (option, wrong, said) in [
        ("--type", "p5.48xlrage", "did you mean ml.p5.48xlarge?"),
        (
            "--execution-role",
            "hyperpod-nodes",
            "does not match the pattern",
        ),
        ("--count", "100000", "is out of range: from 0 to 6758"),
        ("--subnet", "my subnet", "does not match the pattern"),
    ] {
        let mut options = OPTIONS.to_vec();
        let at = options.iter().position(|it| *it == option).unwrap();
        options[at + 1] = wrong;
        let output = init(dir.path(), &options, "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stdout(&output).contains(said), "{}", stdout(&output));
        assert_eq!(names(&dir), [""; 0]);
    }
    let mut options = OPTIONS.to_vec();
    options[15] = "fs-1";
    let output = init(dir.path(), &options, "");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    // A warning is shown, and the files are written.
    options[15] = FSX;
    options[13] = "s3://ml/lifecycle";
    let output = init(dir.path(), &options, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stdout(&output).contains("bucket-name"),
        "{}",
        stdout(&output)
    );
    assert_eq!(names(&dir).len(), 2);
}
