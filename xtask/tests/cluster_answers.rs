//! The answers of AWS that lib/cluster reads have the service's shape: moto, a
//! simulation of AWS's services, makes them. Needs python3 with venv and, the
//! first time, the package registry. moto has no quotas.

#[path = "../src/command.rs"]
#[allow(dead_code)]
mod command;
#[path = "../src/venv.rs"]
mod venv;

use std::fs;
use std::process::Command;

use cluster::answers::Answers;
use serde_json::Value;

#[test]
fn answers_that_moto_makes_are_understood() {
    let place = command::cache().join("tools/moto");
    let programs = venv::programs(&place, "requirements-moto.txt");
    let python = programs.expect("moto for the answers").join("python3");
    let dir = tempfile::tempdir().unwrap();
    let mut made = Command::new(python);
    made.args(["-c", include_str!("cluster_answers/network.py")])
        .arg(dir.path());
    let ids: Value = serde_json::from_str(&command::output(&mut made).unwrap()).unwrap();
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
    assert!(group.egress.iter().any(|it| it.is_anywhere()));
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
    assert_eq!(
        interfaces[0].groups[0].group_id.as_deref(),
        Some(id("group"))
    );
    let systems = answers.file_systems.unwrap();
    assert!(systems[0].dns_name.starts_with("fs-") && systems[0].subnet_ids == [id("subnet")]);
    assert!(
        answers.vpc_quotas.is_err(),
        "moto has learnt quotas: use them here"
    );
}
