//! What `slurm-efa doctor` and `slurm-efa setup` say of slurm-efa.toml. Neither
//! needs a Slurm for that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A node without a Slurm, and its configuration.
struct Node {
    dir: TempDir,
    config: PathBuf,
}

impl Node {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = fs::canonicalize(dir.path()).unwrap().join("slurm-efa.toml");
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        Self { dir, config }
    }

    fn run(&self, command: &str, role: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
            .args([command, "--role", role])
            .arg("--config")
            .arg(&self.config)
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .args(["--slurm-conf", "/nonexistent/slurm.conf"])
            .args(more)
            .output()
            .unwrap()
    }

    /// What doctor finds about the configuration: grade and evidence.
    fn configuration(&self, role: &str) -> (String, String) {
        let output = self.run("doctor", role, &["--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap();
        let finding = findings.iter().find(|it| it["id"] == "configuration");
        let finding = finding.unwrap();
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        (text("grade"), text("evidence"))
    }
}

/// Each mistake, its line, and what must be said of it. All but the last one
/// make a program refuse the file.
const MISTAKES: [(&str, usize, &str); 5] = [
    (
        "[logout]\ngrase = \"60s\"\n",
        2,
        "[logout] unknown key `grase`, did you mean `grace`?",
    ),
    (
        "[health]\nresum = true\n",
        2,
        "[health] unknown key `resum`, did you mean `resume`?",
    ),
    (
        "\n[gres]\nshard_sise = \"10G\"\n",
        3,
        "[gres] unknown key `shard_sise`, did you mean `shard_size`?",
    ),
    (
        "harmful = \"warn\"\ndefault_profile = \"p55\"\n",
        2,
        "`default_profile`: there is no profile \"p55\"; did you mean `p5`?",
    ),
    (
        "[report]\ndir = \"/nope\"\n",
        2,
        "[report] `dir`: /nope: there is no such folder",
    ),
];

fn mistake(at: usize) {
    let (text, line, sentence) = MISTAKES[at];
    let node = Node::new(text);
    let (grade, evidence) = node.configuration("compute");
    assert_ne!(grade, "ok");
    let place = format!("{}:{line}: {sentence}", node.config.display());
    assert!(evidence.contains(&place), "{evidence}");
    assert_ne!(node.run("doctor", "compute", &[]).status.code(), Some(0));
}

#[test]
fn doctor_names_a_misspelt_key_of_logout() {
    mistake(0);
}

#[test]
fn doctor_names_a_misspelt_key_of_health() {
    mistake(1);
}

#[test]
fn doctor_names_a_misspelt_key_of_gres() {
    mistake(2);
}

#[test]
fn doctor_names_a_default_profile_that_does_not_exist() {
    mistake(3);
}

#[test]
fn doctor_names_a_folder_of_records_that_is_missing_on_a_compute_node() {
    mistake(4);
}

#[test]
fn doctor_does_not_look_for_the_folder_of_records_where_no_job_runs() {
    let node = Node::new(MISTAKES[4].0);
    assert_eq!(node.configuration("login").0, "ok");
}

#[test]
fn doctor_names_the_mistakes_of_several_sections_at_once() {
    let node = Node::new(&[MISTAKES[0].0, MISTAKES[1].0].concat());
    let (_, evidence) = node.configuration("compute");
    assert!(evidence.contains(MISTAKES[0].2), "{evidence}");
    assert!(evidence.contains(MISTAKES[1].2), "{evidence}");
}

#[test]
fn doctor_shows_an_old_spelling_with_the_new_one() {
    let node = Node::new("[gres]\ngrace_seconds = 30\n");
    let (grade, evidence) = node.configuration("compute");
    assert_eq!(grade, "warning");
    let sentence = ":2: [gres] `grace_seconds` has an old spelling, which the next release will \
                    refuse; write `grace = \"30s\"`";
    assert!(evidence.contains(sentence), "{evidence}");
}

#[test]
fn a_correct_configuration_is_ok() {
    let node = Node::new("default_profile = \"p5\"\n[logout]\ngrace = \"1m\"\n");
    assert_eq!(node.configuration("compute").0, "ok");
}

#[test]
fn setup_refuses_a_file_that_a_program_would_refuse() {
    for (text, line, sentence) in &MISTAKES[..4] {
        let node = Node::new(text);
        let output = node.run("setup", "compute", &["--dry-run"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let place = format!("{}:{line}: {sentence}", node.config.display());
        assert!(stderr.contains(&place), "{stderr}");
        assert_eq!(output.status.code(), Some(78), "{stderr}");
    }
}
