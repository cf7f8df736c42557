//! The answers of AWS that lib/cluster reads have the service's shape: moto, a
//! simulation of AWS's services, makes them, and `slurm-efa preflight --aws` is
//! run on them. moto lists no quotas: botocore's stub makes those, and refuses
//! what has not the service's shape. Needs python3 with venv and, the first time,
//! the package registry.

#[path = "../src/command.rs"]
#[allow(dead_code)]
mod command;
#[path = "../src/venv.rs"]
mod venv;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use cluster::answers::Answers;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with moto's answers, and the ids of what it made.
fn made() -> (TempDir, Value) {
    let place = command::cache().join("tools/moto");
    let programs = venv::programs(&place, "requirements-moto.txt");
    let python = programs.expect("moto for the answers").join("python3");
    let dir = tempfile::tempdir().unwrap();
    let mut made = Command::new(python);
    made.args(["-c", include_str!("cluster_answers/network.py")])
        .arg(dir.path());
    let ids = serde_json::from_str(&command::output(&mut made).unwrap());
    (dir, ids.unwrap())
}

/// What `slurm-efa preflight --aws` finds in moto's answers about four p5 nodes
/// in this subnet and this security group: each check that is not ok, with its
/// severity.
fn preflight(
    (dir, ids): &(TempDir, Value),
    subnet: &str,
    group: &str,
    more: &[&str],
) -> BTreeSet<(String, String)> {
    let group_of = |name: &str, kind: &str, node_type: &str, count: u64| {
        json!({"InstanceGroupName": name, "InstanceType": kind, "InstanceCount": count,
            "ExecutionRole": "arn:aws:iam::111122223333:role/nodes",
            "SlurmConfig": {"NodeType": node_type}})
    };
    let cluster = json!({
        "ClusterName": "ml-cluster",
        "Orchestrator": {"Slurm": {"SlurmConfigStrategy": "Managed"}},
        "InstanceGroups": [
            group_of("head", "ml.m5.xlarge", "Controller", 1),
            group_of("workers", "ml.p5.48xlarge", "Compute", 4),
        ],
        "VpcConfig": {"SecurityGroupIds": [ids[group]], "Subnets": [ids[subnet]]},
    });
    let file = dir.path().join("create_cluster.json");
    fs::write(&file, cluster.to_string()).unwrap();
    let mut program = command::cargo();
    program
        .args([
            "run",
            "--quiet",
            "--package",
            "slurm-efa",
            "--",
            "preflight",
        ])
        .args(["--json", "--aws"])
        .arg(dir.path())
        .arg("--cluster")
        .arg(file)
        .args(more)
        .current_dir(command::workspace());
    // Its exit status says what it found.
    let output = program.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().unwrap().iter();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    findings
        .filter(|it| it["severity"] != "ok")
        // Nothing is given of the scripts.
        .filter(|it| !text(it, "sentence").contains("(--lifecycle)"))
        .map(|it| (text(it, "id"), text(it, "severity")))
        .collect()
}

#[test]
fn preflight_judges_a_network_that_moto_made() {
    let mut build = command::cargo();
    build.args(["build", "--quiet", "--package", "slurm-efa"]);
    command::output(build.current_dir(command::workspace())).unwrap();
    let made = made();
    let set = |all: &[(&str, &str)]| -> BTreeSet<(String, String)> {
        let all = all
            .iter()
            .map(|(id, severity)| ((*id).to_owned(), (*severity).to_owned()));
        all.collect()
    };
    assert_eq!(preflight(&made, "subnet", "group", &[]), set(&[]));
    // A /28 less the five addresses of AWS has 11, and 129 are needed.
    assert_eq!(
        preflight(&made, "small", "ssh", &[]),
        set(&[
            ("addresses", "fatal"),
            ("sg-self-ingress", "fatal"),
            ("sg-self-egress", "fatal"),
        ])
    );
    // EC2 gives a new security group the rule for 0.0.0.0/0, which is not enough.
    assert_eq!(
        preflight(&made, "subnet", "new", &[]),
        set(&[
            ("sg-self-ingress", "fatal"),
            ("sg-self-egress", "fatal"),
            ("sg-open-egress", "warning"),
        ])
    );
    // 7 × 32 + 1 addresses are there, but the quota allows 6 nodes.
    assert_eq!(
        preflight(&made, "subnet", "group", &["--planned", "workers=7"]),
        set(&[("quota-planned", "warning")])
    );
    assert_eq!(
        preflight(&made, "subnet", "group", &["--planned", "workers=8"]),
        set(&[
            ("quota-planned", "warning"),
            ("addresses-planned", "warning")
        ])
    );
}

#[test]
fn answers_that_moto_makes_are_understood() {
    let (dir, ids) = made();
    let id = |key: &str| ids[key].as_str().unwrap();
    let answers = Answers::read(|question| {
        let text = fs::read_to_string(dir.path().join(question.file()));
        text.map_err(|error| error.to_string())
    });
    let subnets = answers.subnets.unwrap();
    let subnet = subnets.iter().find(|it| it.id == id("subnet")).unwrap();
    // A /24 less the five addresses of AWS and the one of the interface.
    assert_eq!(subnet.available_ip_address_count, 250);
    assert_eq!(subnet.availability_zone, "us-west-2a");
    let groups = answers.security_groups.unwrap();
    let group = groups.iter().find(|it| it.id == id("group")).unwrap();
    for rules in [&group.ingress, &group.egress] {
        let mut rules = rules.iter();
        assert!(rules.any(|it| it.is_all_traffic() && it.names(&group.id)));
    }
    // EC2 gives a new group a rule that lets everything out.
    let new = groups.iter().find(|it| it.id == id("new")).unwrap();
    let mut rules = new.egress.iter();
    assert!(rules.any(|it| it.is_all_traffic() && it.is_anywhere()));
    let offers = answers.offerings.unwrap();
    assert!(offers.iter().any(|it| it.instance_type == "p5.48xlarge"));
    let tables = answers.route_tables.unwrap();
    let table = tables.iter().find(|it| it.id == id("table")).unwrap();
    assert!(table.associations.iter().any(|it| it.main) && !table.routes.is_empty());
    let endpoints = answers.endpoints.unwrap();
    assert_eq!(endpoints[0].route_table_ids, [id("table")]);
    assert_eq!(
        (
            endpoints[0].state.as_str(),
            endpoints[0].vpc_endpoint_type.as_str()
        ),
        ("available", "Gateway")
    );
    let interfaces = answers.network_interfaces.unwrap();
    let mut groups = interfaces.iter().flat_map(|it| &it.groups);
    assert!(groups.any(|it| it.group_id.as_deref() == Some(id("group"))));
    let systems = answers.file_systems.unwrap();
    assert!(systems[0].dns_name.starts_with("fs-") && systems[0].subnet_ids == [id("subnet")]);
    let quotas = answers.sagemaker_quotas.unwrap();
    assert!(
        quotas
            .iter()
            .any(|it| it.quota_name == "ml.p5.48xlarge for cluster usage")
    );
    assert_eq!(answers.vpc_quotas.unwrap()[0].quota_code, "L-DF5E4CA3");
}
