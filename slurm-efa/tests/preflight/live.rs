//! The program itself: files that are hostile, and an `aws` that is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::corpus::{Case, lifecycle};

/// Files on disk, and an `aws` that is first in PATH.
pub struct Place {
    pub dir: TempDir,
    pub scripts: TempDir,
}

/// Answers from files. What could change something ends with 97.
pub const AWS: &str = r#"#!/bin/sh
printf '%s\n' "$*" >> "$AWS_FAKE/log"
case "$2" in
    describe-*|list-*|get-*) ;;
    *) echo "not a verb that only reads: $2" >&2; exit 97 ;;
esac
name=$2
case "$*" in
    *"--service-code sagemaker"*) name=$name-sagemaker ;;
    *"--service-code vpc"*) name=$name-vpc ;;
esac
cat "$AWS_FAKE/$name.json"
"#;

impl Place {
    pub fn new(case: &Case, aws: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            scripts: case.folder(),
        };
        place.write("create_cluster.json", &case.cluster);
        for (question, text) in &case.aws {
            place.write(question.file(), text);
        }
        place.write("bin/aws", aws);
        let aws = place.path("bin/aws");
        fs::set_permissions(aws, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
            .args([
                "preflight",
                "--cluster",
                "create_cluster.json",
                "--lifecycle",
            ])
            .arg(self.scripts.path())
            .args(more)
            .current_dir(self.dir.path())
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("AWS_FAKE", self.dir.path())
            .output()
            .unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Id, severity and sentence of each finding.
fn findings(output: &Output) -> Vec<(String, String, String)> {
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
    let all = json["findings"].as_array().unwrap().iter();
    all.map(|it| (text(it, "id"), text(it, "severity"), text(it, "sentence")))
        .collect()
}

#[test]
fn live_runs_the_printed_commands_and_no_other() {
    let place = Place::new(&lifecycle(), AWS);
    let printed = place.run(&["--print-commands", "--region", "us-west-2"]);
    assert_eq!(place.log(), "", "printing runs nothing");
    let printed = stdout(&printed);
    let output = place.run(&["--live", "--region", "us-west-2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let bare = |line: &str| line.replace('\'', "");
    let printed: Vec<String> = printed
        .lines()
        .map(|line| {
            bare(
                line.strip_prefix("aws ")
                    .unwrap()
                    .split(" > ")
                    .next()
                    .unwrap(),
            )
        })
        .collect();
    assert_eq!(place.log().lines().map(bare).collect::<Vec<_>>(), printed);
    assert!(printed.len() == 9 && printed.iter().all(|it| it.contains("--region us-west-2")));
}

#[test]
fn a_live_run_is_repeated_offline_from_what_it_kept() {
    let case = lifecycle().aws(cluster::answers::Question::Subnets, |it| {
        it["Subnets"][0]["AvailableIpAddressCount"] = serde_json::json!(11);
    });
    let place = Place::new(&case, AWS);
    let live = place.run(&["--live", "--json", "--keep", "kept"]);
    let asked = place.log();
    let offline = place.run(&["--aws", "kept", "--json"]);
    assert_eq!(place.log(), asked, "--aws asks nobody");
    assert_eq!(findings(&live), findings(&offline));
    assert_eq!(live.status.code(), Some(2));
    assert_eq!(offline.status.code(), Some(2));
}

#[test]
fn an_aws_that_does_not_answer_leaves_its_checks_unknown_with_the_reason() {
    for (aws, reason) in [
        ("#!/bin/sh\necho '<html>Log in</html>'\n", "is HTML or XML"),
        ("#!/bin/sh\nexit 0\n", "is not JSON"),
        ("#!/bin/sh\necho '{}'\n", "lacks the key"),
        (
            "#!/bin/sh\necho '{\"Subnets\": 1, \"SecurityGroups\": [{}]}'\n",
            "invalid type",
        ),
        (
            "#!/bin/sh\necho >&2\necho 'Unable to locate credentials' >&2\nexit 255\n",
            "ended with 255: Unable to locate credentials",
        ),
        (
            "#!/bin/sh\nprintf 'Password: ' >&2\nread -r password || exit 255\n",
            "ended with 255: Password:",
        ),
    ] {
        let place = Place::new(&lifecycle(), aws);
        let output = place.run(&["--live", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{aws}");
        let findings = findings(&output);
        let subnets = findings.iter().find(|it| it.0 == "subnets").unwrap();
        assert_eq!(subnets.1, "unknown", "{aws}");
        assert!(subnets.2.contains(reason), "{aws}: {}", subnets.2);
        assert!(
            findings.iter().all(|it| it.1 == "ok" || it.1 == "unknown"),
            "{findings:?}"
        );
    }
}

#[test]
fn an_aws_that_hangs_costs_one_deadline() {
    let place = Place::new(&lifecycle(), "#!/bin/sh\nexec sleep 600\n");
    let start = Instant::now();
    let output = place.run(&["--live", "--json", "--timeout", "1"]);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(output.status.code(), Some(3));
    let findings = findings(&output);
    let sentence = |id: &str| &findings.iter().find(|it| it.0 == id).unwrap().2;
    assert_eq!(
        sentence("subnets"),
        "aws ec2 describe-subnets did not answer within 1 s and was ended"
    );
    assert!(
        sentence("fsx").contains("was not run, because"),
        "{}",
        sentence("fsx")
    );
}

#[test]
fn a_failed_question_leaves_no_older_answer() {
    let place = Place::new(&lifecycle(), AWS);
    assert_eq!(place.run(&["--live"]).status.code(), Some(0));
    let kept = place.path("preflight-answers/describe-subnets.json");
    assert!(kept.exists());
    place.write("bin/aws", "#!/bin/sh\nexit 255\n");
    assert_eq!(place.run(&["--live"]).status.code(), Some(3));
    assert!(!kept.exists());
}

#[test]
fn without_an_aws_the_checks_are_unknown() {
    let place = Place::new(&lifecycle(), AWS);
    fs::remove_file(place.path("bin/aws")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(["preflight", "--live", "--json", "--cluster"])
        .arg(place.path("create_cluster.json"))
        .env("PATH", place.path("bin"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let findings = findings(&output);
    let subnets = findings.iter().find(|it| it.0 == "subnets").unwrap();
    assert!(subnets.2.contains("is not in PATH"), "{}", subnets.2);
}

#[test]
fn hostile_files_end_with_a_sentence_and_a_place() {
    let place = Place::new(&lifecycle(), AWS);
    let file = |text: &[u8]| fs::write(place.path("create_cluster.json"), text).unwrap();
    let judged = |expected: &str| {
        let output = place.run(&[]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("create_cluster.json"), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    };
    file("[".repeat(100_000).as_bytes());
    judged("create_cluster.json:1:128");
    file(b"\xef\xbb\xbf{}");
    judged("byte order mark");
    file(b"{\n  \"ClusterName\": \"a\xff\"\n}");
    judged("UTF-8");
    file(b"{\"ClusterName\": \"\\u001b[31m\"}");
    judged("\\u{1b}[31m");
    let large = fs::File::create(place.path("create_cluster.json")).unwrap();
    large.set_len(100 * 1024 * 1024).unwrap();
    judged("larger");
}

#[test]
fn a_file_that_is_not_there_is_wrong_use_and_judges_nothing() {
    let place = Place::new(&lifecycle(), AWS);
    for name in ["nowhere.json", "."] {
        let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
            .args(["preflight", "--cluster", name])
            .current_dir(place.dir.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(74), "{name}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(["preflight", "--clustr", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_lifecycle_folder_that_is_not_there_is_wrong_use() {
    let place = Place::new(&lifecycle(), AWS);
    let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args([
            "preflight",
            "--cluster",
            "create_cluster.json",
            "--lifecycle",
            "nowhere",
        ])
        .current_dir(place.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
}

#[test]
fn a_plan_for_a_group_that_is_not_there_is_wrong_use_with_the_nearest_name() {
    let place = Place::new(&lifecycle(), AWS);
    let output = place.run(&["--planned", "worker-grup-1=40"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("did you mean worker-group-1?"), "{said}");
    let output = place.run(&["--planned", "worker-group-1"]);
    assert_eq!(output.status.code(), Some(64));
    let output = place.run(&["--planned", "worker-group-1=40", "--aws", "."]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("addresses-planned"));
}

#[test]
fn a_key_twice_and_a_number_in_quotes_are_named_with_line_and_column() {
    let place = Place::new(&lifecycle(), AWS);
    for (text, expected) in [
        (
            "{\"ClusterName\": \"a\",\n \"ClusterName\": \"b\"}",
            "create_cluster.json:2:15",
        ),
        (
            "{\"ClusterName\": \"a\", \"Tags\": [],\n \"InstanceGroups\": [{\"InstanceCount\": \"16\"}]}",
            "create_cluster.json:2:39 /InstanceGroups/0/InstanceCount",
        ),
        (
            "{\"ClusterName\": \"a\",\n\n  \"clusterRole\": \"x\"}",
            "create_cluster.json:3:18 /clusterRole",
        ),
    ] {
        place.write("create_cluster.json", text);
        let output = stdout(&place.run(&[]));
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[test]
fn the_manual_has_the_table_of_checks() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/preflight.md");
    let docs = fs::read_to_string(docs).unwrap();
    let table = slurm_efa::preflight::checks::markdown();
    assert!(
        docs.contains(&table),
        "put this into docs/preflight.md:\n{table}"
    );
}

#[test]
fn the_manual_page_has_every_option() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/man/slurm-efa-preflight.8");
    let page = fs::read_to_string(page).unwrap().replace("\\-", "-");
    for command in [
        &["preflight", "--help"][..],
        &["preflight", "init", "--help"],
    ] {
        let help = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
            .args(command)
            .output()
            .unwrap();
        let help = stdout(&help);
        let first = help.lines().filter_map(|it| it.split_whitespace().next());
        let options: Vec<&str> = first.filter(|it| it.starts_with("--")).collect();
        assert!(options.len() > 10, "{help}");
        for option in options.into_iter().filter(|it| *it != "--help") {
            assert!(page.contains(option), "{option} is not in the manual page");
        }
    }
}
