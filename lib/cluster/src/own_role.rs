//! What this node is in its cluster, from HyperPod's own files.
//!
//! `resource_config.json` names every instance by group and address. The role of
//! a group is its `SlurmConfig.NodeType` there, or what
//! `provisioning_parameters.json` says (AWS's base lifecycle scripts).
//! `nodeinfo.json`, which their extensions write, has the type of this very node
//! (`node_type`). No file is believed in part: what does not fit together is an
//! error, never "compute".

use std::net::IpAddr;

use crate::role::{Role, RoleError};
use crate::roster::{Roster, node_info, parameters};

/// The role of the node to which `is_own` ascribes its addresses. Without
/// `provisioning`, the groups' own `SlurmConfig.NodeType` says it.
///
/// # Errors
/// See [`RoleError`].
pub fn from_resource_config(
    resource_config: &str,
    provisioning: Option<&str>,
    is_own: impl FnMut(IpAddr) -> bool,
) -> Result<Role, RoleError> {
    let roster = Roster::parse(resource_config)?;
    let parameters = provisioning.map(parameters).transpose()?;
    roster.group_of(is_own)?.role(parameters.as_ref())
}

/// The role that `nodeinfo.json` names.
///
/// # Errors
/// [`RoleError::File`].
pub fn from_node_info(text: &str) -> Result<Role, RoleError> {
    node_info(text).map(|it| it.role)
}

/// Whether an address is this machine's: only then can a socket have it. With
/// `net.ipv4.ip_nonlocal_bind` every address can, and the file's groups
/// contradict each other, which [`from_resource_config`] refuses.
#[must_use]
pub fn is_own(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resources(groups: &[(&str, &[&str])]) -> String {
        let groups: Vec<_> = groups
            .iter()
            .map(|(name, addresses)| {
                let instances: Vec<_> = addresses
                    .iter()
                    .enumerate()
                    .map(|(n, address)| {
                        serde_json::json!({
                            "InstanceName": format!("{name}-{n}"),
                            "AgentIpAddress": "172.16.0.1",
                            "CustomerIpAddress": address,
                            "InstanceId": format!("i-{n:017}"),
                        })
                    })
                    .collect();
                serde_json::json!({
                    "Name": name, "InstanceType": "ml.p5.48xlarge", "Instances": instances,
                })
            })
            .collect();
        serde_json::json!({
            "ClusterConfig": {"ClusterArn": "arn:aws:sagemaker:us-west-2:111122223333:cluster/x",
                              "ClusterName": "ml"},
            "InstanceGroups": groups,
        })
        .to_string()
    }

    const CLUSTER: &[(&str, &[&str])] = &[
        ("controller-machine", &["10.1.0.10"]),
        ("my-login-group", &["10.1.0.20"]),
        ("worker-group-1", &["10.1.1.1", "10.1.1.2"]),
        ("worker-group-2", &["2600:1f13::7"]),
        ("empty", &[]),
    ];

    fn role(provisioning: &str, own: &[&str]) -> Result<Role, RoleError> {
        let own: Vec<IpAddr> = own.iter().map(|it| it.parse().unwrap()).collect();
        from_resource_config(&resources(CLUSTER), Some(provisioning), |it| {
            own.contains(&it)
        })
    }

    const USUAL: &str = r#"{"version": "1.0.0", "workload_manager": "slurm",
        "controller_group": "controller-machine", "login_group": "my-login-group",
        "worker_groups": [{"instance_group_name": "worker-group-1", "partition_name": "dev"}]}"#;

    #[test]
    fn each_node_is_what_its_groups_name_says() {
        assert_eq!(role(USUAL, &["10.1.0.10"]), Ok(Role::Controller));
        assert_eq!(role(USUAL, &["10.1.0.20"]), Ok(Role::Login));
        assert_eq!(role(USUAL, &["127.0.0.1", "10.1.1.2"]), Ok(Role::Compute));
    }

    #[test]
    fn a_second_worker_group_and_an_ipv6_address_however_written_are_found() {
        assert_eq!(role(USUAL, &["2600:1f13:0:0:0:0:0:7"]), Ok(Role::Compute));
    }

    #[test]
    fn without_a_login_group_a_worker_is_no_login_node() {
        for login in ["", r#", "login_group": "" "#, r#", "login_group": null"#] {
            let text = format!(r#"{{"controller_group": "controller-machine"{login}}}"#);
            assert_eq!(role(&text, &["10.1.1.1"]), Ok(Role::Compute), "{login}");
            assert_eq!(role(&text, &["10.1.0.10"]), Ok(Role::Controller), "{login}");
        }
    }

    #[test]
    fn renamed_groups_are_what_the_parameters_say_and_names_count_whole() {
        let text = r#"{"controller_group": "worker-group-1", "login_group": "worker-group"}"#;
        assert_eq!(role(text, &["10.1.1.1"]), Ok(Role::Controller));
        assert_eq!(role(text, &["2600:1f13::7"]), Ok(Role::Compute));
    }

    #[test]
    fn what_cannot_be_told_is_an_error_and_never_compute() {
        assert_eq!(role(USUAL, &["10.9.9.9"]), Err(RoleError::NotListed(5)));
        let two = role(USUAL, &["10.1.0.10", "10.1.1.1"]);
        assert!(matches!(two, Err(RoleError::Ambiguous { .. })));
        for text in ["", "{}", "[]", r#"{"controller_group": 1}"#] {
            assert!(
                matches!(role(text, &["10.1.1.1"]), Err(RoleError::File { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_that_every_node_has_identify_none() {
        let text = resources(&[(
            "controller-machine",
            &["127.0.0.1", "0.0.0.0", "::1", "none"],
        )]);
        let role = from_resource_config(&text, Some(USUAL), |_| true);
        assert_eq!(role, Err(RoleError::NotListed(4)));
    }

    #[test]
    fn node_info_names_the_type_itself() {
        let text = r#"{"node_type": "compute", "instance_group_name": "worker-group-1"}"#;
        assert_eq!(from_node_info(text), Ok(Role::Compute));
        for worker in ["worker", "Worker", "Compute"] {
            let text = format!(r#"{{"node_type": "{worker}"}}"#);
            assert_eq!(from_node_info(&text), Ok(Role::Compute));
        }
        for text in ["", "{}", r#"{"node_type": "gpu"}"#, r#"{"node_type": 1}"#] {
            assert!(from_node_info(text).is_err(), "{text}");
        }
    }

    /// A group for each NodeType.
    fn with_node_types(types: &[&str]) -> String {
        let groups: Vec<_> = types
            .iter()
            .enumerate()
            .map(|(n, node_type)| {
                serde_json::json!({"Name": format!("g{n}"), "SlurmConfig": {"NodeType": node_type},
                    "Instances": [{"CustomerIpAddress": format!("10.1.0.{n}")}]})
            })
            .collect();
        serde_json::json!({"InstanceGroups": groups}).to_string()
    }

    #[test]
    fn without_parameters_the_groups_node_type_is_the_role() {
        let text = with_node_types(&["Controller", "Login", "Compute", "Worker"]);
        let roles = [Role::Controller, Role::Login, Role::Compute, Role::Compute];
        for (n, role) in roles.into_iter().enumerate() {
            let own: IpAddr = format!("10.1.0.{n}").parse().unwrap();
            assert_eq!(from_resource_config(&text, None, |it| it == own), Ok(role));
        }
    }

    #[test]
    fn a_node_type_that_is_not_known_is_an_error_and_never_compute() {
        let text = with_node_types(&["Accelerated"]);
        let role = from_resource_config(&text, None, |_| true).unwrap_err();
        assert!(role.to_string().contains("\"Accelerated\""), "{role}");
        let role = from_resource_config(&resources(CLUSTER), None, |it| it.is_ipv6());
        assert_eq!(role, Err(RoleError::NoRole("worker-group-2".to_owned())));
    }

    #[test]
    fn files_that_contradict_each_other_name_no_role() {
        let text = with_node_types(&["Controller", "Compute"]);
        let parameters = r#"{"controller_group": "g1"}"#;
        let role = from_resource_config(&text, Some(parameters), |it| it.to_string() == "10.1.0.1");
        let error = role.unwrap_err();
        assert!(matches!(error, RoleError::Contradiction { .. }), "{error}");
        let agreed = r#"{"controller_group": "g0"}"#;
        let role = from_resource_config(&text, Some(agreed), |it| it.to_string() == "10.1.0.1");
        assert_eq!(role, Ok(Role::Compute));
    }

    #[test]
    fn a_file_of_another_shape_is_refused_with_its_line() {
        let role = from_resource_config("{\n \"InstanceGroups\": [{}]}", None, |_| true);
        let error = role.unwrap_err().to_string();
        assert!(error.contains("line 2, column 21"), "{error}");
    }

    #[test]
    fn the_machines_own_address_can_be_bound_and_another_cannot() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        // TEST-NET-1 (RFC 5737) is nobody's.
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_role_or_an_error(one in "\\PC*", other in "\\PC*") {
            let _ = from_resource_config(&one, Some(&other), |_| true);
            let _ = from_resource_config(&one, None, |_| true);
            let _ = from_node_info(&one);
        }
    }
}
