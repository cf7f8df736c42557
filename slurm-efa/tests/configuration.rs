//! What `slurm-efa config`, `doctor` and `setup` say of slurm-efa.toml. None needs
//! a Slurm for that; the schema needs Python's jsonschema.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use config::reference::{Key, SECTIONS};
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

    /// What doctor finds about the configuration: the worst grade, and all evidence.
    fn configuration(&self, role: &str) -> (String, String) {
        let output = self.run("doctor", role, &["--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["findings"].as_array().unwrap();
        let found = findings.iter().filter(|it| it["id"] == "configuration");
        let found: Vec<&Value> = found.collect();
        let text = |key: &str| {
            let texts = found.iter().filter_map(|it| it[key].as_str());
            texts.collect::<Vec<_>>().join("\n")
        };
        let grade = found[0]["grade"].as_str().unwrap();
        (grade.to_owned(), text("evidence"))
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

/// `slurm-efa config` with these arguments.
fn config_command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .arg("config")
        .args(arguments)
        .output()
        .unwrap()
}

fn checked(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let node = Node::new(text);
    let file = node.config.to_str().unwrap();
    let output = config_command(&[&["check", file], more].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said.replace(file, "FILE"))
}

#[test]
fn config_check_finds_every_mistake_of_every_section() {
    let text = "harmfull = \"warn\"\ndefault_profile = \"p55\"\n[profile.a]\nbase = \"nope\"\n\
                [hugepages]\nmax = \"10\"\n[health]\nresum = true\nhold = [\"modules\"]\n\
                [logout]\ngrase = \"60s\"\non_error = \"maybe\"\n[gres]\nshard_sise = \"10G\"\n";
    let (code, said) = checked(text, &[]);
    assert_eq!(code, Some(2), "{said}");
    for (line, words) in [
        (1, "unknown key `harmfull`, did you mean `harmful`?"),
        (2, "there is no profile \"p55\"; did you mean `p5`?"),
        (3, "base \"nope\" does not exist"),
        (6, "`max`: `10` has no unit"),
        (8, "[health] unknown key `resum`, did you mean `resume`?"),
        (9, "`hold`: `modules` is fatal for every job anyway"),
        (11, "[logout] unknown key `grase`, did you mean `grace`?"),
        (12, "`on_error`: unknown variant `maybe`"),
        (
            14,
            "[gres] unknown key `shard_sise`, did you mean `shard_size`?",
        ),
    ] {
        let start = format!("FILE:{line}: ");
        let found = said
            .lines()
            .any(|it| it.contains(&start) && it.contains(words));
        assert!(found, "{start}{words}: {said}");
    }
    assert_eq!(said.matches("FATAL").count(), 9, "{said}");
}

#[test]
fn config_check_of_a_correct_file_exits_with_zero() {
    let (code, said) = checked("default_profile = \"auto\"\n", &[]);
    assert_eq!((code, said.starts_with("ok ")), (Some(0), true), "{said}");
}

#[test]
fn config_check_warns_of_an_old_spelling() {
    let (code, said) = checked("[gres]\ngrace_seconds = 30\n", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("write `grace = \"30s\"`"), "{said}");
}

#[test]
fn config_check_names_each_warning_of_health_once() {
    let text = "[health]\nmemlock = 65536\nhold = [\"rx-drops\"]\n";
    let (code, said) = checked(text, &[]);
    assert_eq!(code, Some(1), "{said}");
    for words in ["write `memlock = \"64K\"`", "any job can cause rx-drops"] {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
}

#[test]
fn config_check_warns_of_a_folder_that_is_missing_on_this_node_only_when_asked() {
    let text = "sysroot = \"/nope/%n\"\n[report]\nlog = \"/nope/jobs.jsonl\"\n";
    assert_eq!(checked(text, &[]).0, Some(0));
    let (code, said) = checked(text, &["--folders", "--node", "n1"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "FILE:1: `sysroot`: /nope/n1: there is no such folder",
        "FILE:3: [report] `log`: /nope/jobs.jsonl: there is no such folder",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn config_check_of_a_file_that_others_may_write_judges_its_text_and_warns() {
    let node = Node::new("[health]\nresum = true\n");
    fs::set_permissions(&node.config, fs::Permissions::from_mode(0o666)).unwrap();
    let output = config_command(&["check", node.config.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean `resume`?"), "{said}");
    assert!(said.contains("WARNING"), "{said}");
}

#[test]
fn config_check_of_a_file_that_is_missing_is_fatal() {
    let output = config_command(&["check", "/nonexistent/slurm-efa.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn config_show_says_for_each_key_what_holds_and_why() {
    let text = "report_dir = \"/shared\"\n[profile.\"p5.48xlarge\"]\ndevices = 32\n\
                [report]\nmax_log_mib = 2\n[hugepages]\nmax = \"48G\"\n";
    let node = Node::new(text);
    let file = node.config.to_str().unwrap();
    let output = config_command(&["show", "--config", file]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let line = |start: &str| {
        let line = said.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{start}: {said}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("harmful"), "harmful = \"refuse\" # default");
    assert_eq!(line("max ="), "max = \"48G\" # line 7");
    assert_eq!(line("max_log"), "max_log = \"2M\" # line 5, as max_log_mib");
    assert_eq!(line("dir"), "dir = \"/shared\" # line 1, as report_dir");
    assert_eq!(
        line("# default_profile"),
        "# default_profile: a job that names no profile has none"
    );
    assert_eq!(line("devices"), "devices = 32 # line 3");
    // It is TOML again, and means the same.
    let shown: toml::Table = said.parse().unwrap();
    assert_eq!(
        shown["profile"]["p5.48xlarge"]["devices"].as_integer(),
        Some(32)
    );
    let again = Node::new(&said);
    let output = config_command(&["check", again.config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn config_show_has_a_json_form_with_version_and_origin() {
    let node = Node::new("[logout]\ngrace = \"5m\"\n");
    let file = node.config.to_str().unwrap();
    let output = config_command(&["show", "--json", "--node", "n1", "--config", file]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&document["version"], &document["node"]),
        (&1.into(), &"n1".into())
    );
    let keys = document["keys"].as_array().unwrap();
    let grace = keys
        .iter()
        .find(|it| it["section"] == "logout" && it["key"] == "grace");
    let expected = serde_json::json!({
        "section": "logout", "key": "grace", "value": "5m", "origin": "file", "line": 2,
    });
    assert_eq!(grace, Some(&expected));
}

/// Judges documents by a schema: a line for each, `valid` or why not.
const VALIDATOR: &str = "
import json, sys
import jsonschema
given = json.load(sys.stdin)
jsonschema.Draft7Validator.check_schema(given['schema'])
validator = jsonschema.Draft7Validator(given['schema'])
for document in given['documents']:
    error = next(validator.iter_errors(document), None)
    print('valid' if error is None else error.message.replace('\\n', ' '))
";

/// What a JSON Schema validator says of texts in TOML.
fn judged(texts: &[String]) -> Vec<String> {
    let schema: Value = serde_json::from_slice(&config_command(&["schema"]).stdout).unwrap();
    let documents: Vec<toml::Table> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let given = serde_json::json!({ "schema": schema, "documents": documents });
    let mut child = Command::new("python3")
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(given.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "cargo xtask setup --for test");
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(str::to_owned).collect()
}

/// A file with one key, of each key of each section.
fn of_each_key(value: impl Fn(&Key) -> String) -> Vec<String> {
    let sections = SECTIONS.iter();
    let files = sections.flat_map(|section| {
        let header = section.header().unwrap_or_default();
        let file = |key: &Key| format!("{header}\n{} = {}\n", key.name, value(key));
        section.keys.iter().map(file).collect::<Vec<_>>()
    });
    files.collect()
}

#[test]
fn the_schema_accepts_a_value_of_each_key() {
    let files = of_each_key(|key| key.example().to_owned());
    for (file, verdict) in files.iter().zip(judged(&files)) {
        assert_eq!(verdict, "valid", "{file}");
    }
}

#[test]
fn the_schema_refuses_a_wrong_value_of_each_key() {
    // No key is a list of lists.
    let files = of_each_key(|_| "[[]]".to_owned());
    let verdicts = judged(&files);
    assert_eq!(verdicts.len(), files.len());
    for (file, verdict) in files.iter().zip(verdicts) {
        assert_ne!(verdict, "valid", "{file}");
    }
}

#[test]
fn the_schema_refuses_what_the_programs_refuse() {
    let files = [
        "[health]\nresum = true\n",
        "[hugepage]\n",
        "[profile.auto]\n",
        "[profile.a]\nenvironment = {}\n",
        "[health]\ndisable = [\"qqq\"]\n",
        "[health]\nrates = { qqq = { burst = 1, per_minute = 1 } }\n",
        "[logout]\ngrace = \"1 minute\"\n",
        "[hugepages]\nmax = \"10\"\n",
        "[report]\ndir = \"relative\"\n",
    ]
    .map(str::to_owned);
    for (file, verdict) in files.iter().zip(judged(&files)) {
        assert_eq!(checked(file, &[]).0, Some(2), "{file}");
        assert_ne!(verdict, "valid", "{file}");
    }
}

#[test]
fn the_shipped_file_with_every_key_set_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shipped = fs::read_to_string(root.join("packaging/etc/slurm-efa.toml")).unwrap();
    // A comment has a blank after its sign.
    let uncommented = shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    let text: Vec<&str> = uncommented
        // It excludes shard_size.
        .filter(|line| !line.starts_with("shards_per_gpu"))
        .collect();
    let text = text.join("\n");
    let keys: usize = SECTIONS.iter().map(|section| section.keys.len()).sum();
    let set = text
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'));
    assert_eq!(set.count(), keys - 1);
    assert_eq!(judged(std::slice::from_ref(&text)), ["valid"]);
    assert_eq!(checked(&text, &[]).0, Some(0), "{}", checked(&text, &[]).1);
}
