//! What this node is in its cluster, from HyperPod's own files.
//!
//! `resource_config.json` names every instance by group and address,
//! `provisioning_parameters.json` which groups are the controller's and the
//! login nodes' (AWS's base lifecycle scripts), and `nodeinfo.json`, which
//! their extensions write, the type of this very node (`node_type`). No file is
//! believed in part: what does not fit together is an error, never "compute".

use std::net::IpAddr;
use std::str::FromStr;

use host::printable;
use serde::Deserialize;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// slurmctld runs here.
    Controller,
    /// Users log in here and submit.
    Login,
    /// Jobs run here.
    Compute,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Login => "login",
            Self::Compute => "compute",
        })
    }
}

impl Role {
    /// The role that SageMaker's `SlurmConfig.NodeType` names. Its enum has
    /// `Compute`; its text, and some files, say `Worker`.
    #[must_use]
    pub fn of_node_type(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "controller" => Some(Self::Controller),
            "login" => Some(Self::Login),
            "compute" | "worker" => Some(Self::Compute),
            _ => None,
        }
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        match text {
            "controller" => Ok(Self::Controller),
            "login" => Ok(Self::Login),
            "compute" => Ok(Self::Compute),
            _ => Err(InvalidRole),
        }
    }
}

/// The text names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected controller, login or compute")]
pub struct InvalidRole;

/// Why the role is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Not what the file should be.
    #[error("{file} is not understood: {}", printable(reason, 200))]
    File {
        /// Which.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// No address in the file is this node's.
    #[error(
        "none of the {0} addresses in resource_config.json is this node's; it may be older than \
         the node"
    )]
    NotListed(usize),
    /// Two groups have an address of this node.
    #[error(
        "both {} and {} have an address of this node",
        printable(one, 80),
        printable(other, 80)
    )]
    Ambiguous {
        /// A group.
        one: String,
        /// Another.
        other: String,
    },
}

#[derive(Deserialize)]
struct ResourceConfig {
    #[serde(rename = "InstanceGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Instances", default)]
    instances: Option<Vec<Instance>>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(rename = "CustomerIpAddress", default)]
    address: Option<String>,
}

#[derive(Deserialize)]
struct Provisioning {
    controller_group: String,
    /// Absent, null or empty where there are no login nodes.
    #[serde(default)]
    login_group: Option<String>,
}

#[derive(Deserialize)]
struct NodeInfo {
    node_type: String,
}

fn parse<'t, T: Deserialize<'t>>(file: &'static str, text: &'t str) -> Result<T, RoleError> {
    serde_json::from_str(text).map_err(|error| RoleError::File {
        file,
        reason: error.to_string(),
    })
}

/// The role of the node to which `is_own` ascribes its addresses.
///
/// # Errors
/// See [`RoleError`].
pub fn from_resource_config(
    resource_config: &str,
    provisioning: &str,
    mut is_own: impl FnMut(IpAddr) -> bool,
) -> Result<Role, RoleError> {
    let resources: ResourceConfig = parse("resource_config.json", resource_config)?;
    let provisioning: Provisioning = parse("provisioning_parameters.json", provisioning)?;
    let mut listed = 0;
    let mut mine: Option<&str> = None;
    for group in &resources.groups {
        let instances = group.instances.iter().flatten();
        for address in instances.filter_map(|it| it.address.as_deref()) {
            listed += 1;
            let Ok(address) = IpAddr::from_str(address.trim()) else {
                continue;
            };
            let real = !address.is_unspecified() && !address.is_loopback();
            if !real || !is_own(address) {
                continue;
            }
            match mine {
                Some(other) if other != group.name => {
                    return Err(RoleError::Ambiguous {
                        one: other.to_owned(),
                        other: group.name.clone(),
                    });
                }
                _ => mine = Some(&group.name),
            }
        }
    }
    let mine = mine.ok_or(RoleError::NotListed(listed))?;
    if mine == provisioning.controller_group {
        return Ok(Role::Controller);
    }
    let login = provisioning.login_group.filter(|name| !name.is_empty());
    if login.is_some_and(|name| name == mine) {
        return Ok(Role::Login);
    }
    Ok(Role::Compute)
}

/// The role that `nodeinfo.json` names.
///
/// # Errors
/// [`RoleError::File`].
pub fn from_node_info(text: &str) -> Result<Role, RoleError> {
    let info: NodeInfo = parse("nodeinfo.json", text)?;
    info.node_type.parse().map_err(|_| RoleError::File {
        file: "nodeinfo.json",
        reason: format!("`{}` is no node_type known here", info.node_type),
    })
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
        from_resource_config(&resources(CLUSTER), provisioning, |it| own.contains(&it))
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
        let role = from_resource_config(&text, USUAL, |_| true);
        assert_eq!(role, Err(RoleError::NotListed(4)));
    }

    #[test]
    fn node_info_names_the_type_itself() {
        let text = r#"{"node_type": "compute", "instance_group_name": "worker-group-1"}"#;
        assert_eq!(from_node_info(text), Ok(Role::Compute));
        for text in ["", "{}", r#"{"node_type": "worker"}"#] {
            assert!(from_node_info(text).is_err(), "{text}");
        }
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
            let _ = from_resource_config(&one, &other, |_| true);
            let _ = from_node_info(&one);
        }
    }
}
