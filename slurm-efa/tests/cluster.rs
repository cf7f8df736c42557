//! `slurm-efa cluster show`: what HyperPod's files say of a cluster.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn show(dir: &TempDir, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(["cluster", "show"])
        .args(more)
        .current_dir(dir.path())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn resources(group: impl Fn(Value) -> Value) -> String {
    let instance = |name: &str, address: &str| {
        json!({"InstanceName": name, "AgentIpAddress": "172.16.0.1",
            "CustomerIpAddress": address, "InstanceId": format!("i-{name}")})
    };
    let groups = [
        json!({"Name": "controller-machine", "InstanceType": "ml.m5.xlarge",
            "Instances": [instance("head-1", "10.1.0.10")]}),
        json!({"Name": "worker-group-1", "InstanceType": "ml.p5.48xlarge",
            "Instances": [instance("w-1", "10.1.1.1"), instance("w-2", "10.1.1.2")]}),
    ];
    json!({
        "ClusterConfig": {"ClusterName": "ml-cluster",
            "ClusterArn": "arn:aws:sagemaker:us-west-2:111122223333:cluster/x"},
        "InstanceGroups": groups.map(group),
    })
    .to_string()
}

const PARAMETERS: &str = r#"{"version": "1.0.0", "workload_manager": "slurm",
    "controller_group": "controller-machine",
    "worker_groups": [{"instance_group_name": "worker-group-1", "partition_name": "dev"}]}"#;

#[test]
fn groups_have_roles_types_partitions_and_the_efa_devices_of_a_node() {
    let dir = folder(&[
        ("resource_config.json", &resources(|it| it)),
        ("provisioning_parameters.json", PARAMETERS),
    ]);
    let output = show(&dir, &["resource_config.json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    let words: Vec<Vec<&str>> = text
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert!(words.contains(&vec!["cluster", "ml-cluster"]), "{text}");
    for row in [
        [
            "controller-machine",
            "controller",
            "-",
            "ml.m5.xlarge",
            "1",
            "0",
        ],
        [
            "worker-group-1",
            "compute",
            "dev",
            "ml.p5.48xlarge",
            "2",
            "32",
        ],
    ] {
        assert!(words.contains(&row.to_vec()), "{row:?}: {text}");
    }
    let node = ["w-2", "worker-group-1", "10.1.1.2", "i-w-2"];
    assert!(words.contains(&node.to_vec()), "{text}");
}

#[test]
fn the_json_document_has_the_same() {
    let dir = folder(&[
        ("resource_config.json", &resources(|it| it)),
        ("provisioning_parameters.json", PARAMETERS),
    ]);
    let output = show(&dir, &["resource_config.json", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["version"], &json["cluster"]),
        (&json!(1), &json!("ml-cluster"))
    );
    let worker = &json["groups"][1];
    assert_eq!(worker["role"], "compute");
    assert_eq!(
        (&worker["efa_expected"], &worker["efa_max"]),
        (&json!(32), &json!(32))
    );
    assert_eq!(worker["partitions"], json!(["dev"]));
    assert_eq!(worker["nodes"][0]["address"], "10.1.1.1");
}

#[test]
fn without_parameters_the_groups_node_types_are_shown() {
    let text = resources(|mut group| {
        let is_head = group["Name"] == "controller-machine";
        let kind = if is_head { "Controller" } else { "Compute" };
        group["SlurmConfig"] = json!({"NodeType": kind, "PartitionNames": ["train"]});
        group
    });
    let dir = folder(&[("resource_config.json", &text)]);
    let output = show(&dir, &["resource_config.json", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["groups"][0]["role"], "controller");
    assert_eq!(json["groups"][1]["partitions"], json!(["train"]));
}

#[test]
fn a_role_that_nothing_names_is_unknown_and_not_compute() {
    let dir = folder(&[("resource_config.json", &resources(|it| it))]);
    let output = show(&dir, &["resource_config.json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = stdout(&output);
    assert!(
        !text.contains("compute") && text.contains("unknown: group worker-group-1"),
        "{text}"
    );
    let json: Value =
        serde_json::from_slice(&show(&dir, &["resource_config.json", "--json"]).stdout).unwrap();
    assert_eq!(json["groups"][1]["role"], Value::Null);
}

#[test]
fn nodeinfo_says_what_its_node_is() {
    let text = r#"{"node_type": "worker", "instance_group_name": "worker-group-1"}"#;
    let dir = folder(&[("nodeinfo.json", text)]);
    let output = show(&dir, &["nodeinfo.json"]);
    assert_eq!(
        stdout(&output),
        "this node: compute, group worker-group-1\n"
    );
    let json: Value =
        serde_json::from_slice(&show(&dir, &["nodeinfo.json", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["role"], &json["group"]),
        (&json!("compute"), &json!("worker-group-1"))
    );
}

#[test]
fn a_file_that_is_not_understood_is_named_with_line_and_column() {
    for (text, code, said) in [
        ("{\n \"InstanceGroups\": 1}", 65, "line 2, column 20"),
        ("", 65, "the file is empty"),
        (
            "{\"InstanceGroups\": [{\"Name\": \"a\", \"Name\": \"b\"}]}",
            65,
            "comes twice",
        ),
    ] {
        let dir = folder(&[("resource_config.json", text)]);
        let output = show(&dir, &["resource_config.json"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(said), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    let dir = folder(&[]);
    assert_eq!(show(&dir, &["nowhere.json"]).status.code(), Some(74));
}

#[test]
fn names_of_a_hostile_file_do_not_steer_the_terminal() {
    let text = resources(|mut group| {
        group["Name"] = json!("\u{1b}[2Jx\u{202e}\n");
        group
    });
    let dir = folder(&[("resource_config.json", &text)]);
    let text = stdout(&show(&dir, &["resource_config.json"]));
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}
