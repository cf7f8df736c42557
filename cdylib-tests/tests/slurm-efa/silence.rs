//! What `slurm-efa doctor` finds where a file system does not answer. Needs root.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdylib_tests::modules;
use cdylib_tests::stuck::Stuck;
use serde_json::Value;

/// Longer than doctor may take here, and shorter than for ever.
const LIMIT: Duration = Duration::from_secs(90);

/// The findings and the exit code of a doctor on this tree.
fn doctor(folder: &Path, more: &[&str]) -> (Vec<Value>, i32) {
    let output = fs::File::create(folder.join("output")).unwrap();
    let mut child = Command::new(modules::program("slurm-efa"))
        .args(["doctor", "--json", "--role", "compute", "--node", "n1"])
        .args(more)
        .arg("--root")
        .arg(folder)
        .stdout(Stdio::from(output))
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    let status = host::exec::ended_by(&mut child, deadline).expect("doctor hangs as well");
    let text = fs::read_to_string(folder.join("output")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let findings = document["findings"].as_array().unwrap().clone();
    (findings, status.code().unwrap())
}

fn with<'a>(findings: &'a [Value], id: &str) -> &'a Value {
    findings.iter().find(|it| it["id"] == id).unwrap()
}

#[test]
fn a_folder_of_the_configuration_that_does_not_answer_costs_one_finding() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("fsx");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap();
    let config = folder.path().join("slurm-efa.toml");
    let text = format!("[report]\ndir = \"{}\"\n", stuck.file().display());
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let more = ["--slurm-conf", "/nonexistent", "--config", &config];
    let (findings, _) = doctor(folder.path(), &more);
    let found = with(&findings, "configuration");
    assert_eq!(found["severity"], "unknown", "{found}");
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.contains("file system"), "{sentence}");
    // The looks after it were made.
    assert_eq!(with(&findings, "left-over")["severity"], "ok");
}

#[test]
fn a_file_that_slurm_conf_includes_and_that_does_not_answer_is_an_unknown_finding() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("nfs");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap();
    let conf = folder.path().join("slurm.conf");
    let text = format!("ClusterName=c\nInclude {}\n", stuck.file().display());
    fs::write(&conf, text).unwrap();
    let (findings, code) = doctor(folder.path(), &["--slurm-conf", conf.to_str().unwrap()]);
    assert_eq!(code, 3);
    let found = with(&findings, "slurm");
    assert_eq!(found["severity"], "unknown", "{found}");
}
