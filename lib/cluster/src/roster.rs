//! Who is in a cluster that exists: `resource_config.json`, which HyperPod keeps
//! on every node, and `nodeinfo.json`, which describes one node.

use std::net::IpAddr;

use host::printable;

use crate::cursor::Cursor;
use crate::json::Document;
use crate::provisioning::Provisioning;
use crate::role::{Role, RoleError};
use crate::shape::{Kind, Shape, nullable, required, violations};

/// HyperPod's list of instances.
pub const RESOURCE_CONFIG: &str = "resource_config.json";

/// The groups' roles, as AWS's base lifecycle scripts read them.
pub const PARAMETERS: &str = "provisioning_parameters.json";

/// What the extensions of HyperPod write about their own node.
pub const NODE_INFO: &str = "nodeinfo.json";

/// What `resource_config.json` must have. Source: AWS's base lifecycle scripts.
static RESOURCES: Shape = Shape::Structure {
    union: false,
    members: &[
        nullable("ClusterConfig", &CLUSTER),
        required("InstanceGroups", &GROUPS),
    ],
};

static CLUSTER: Shape = Shape::Structure {
    union: false,
    members: &[
        nullable("ClusterArn", &TEXT),
        nullable("ClusterName", &TEXT),
    ],
};

static GROUPS: Shape = Shape::List {
    length: (0, u64::MAX),
    of: &GROUP,
};

static GROUP: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Name", &TEXT),
        nullable("InstanceType", &TEXT),
        nullable("SlurmConfig", &SLURM),
        nullable("Instances", &INSTANCES),
    ],
};

static SLURM: Shape = Shape::Structure {
    union: false,
    members: &[
        nullable("NodeType", &TEXT),
        nullable("PartitionNames", &TEXTS),
    ],
};

static INSTANCES: Shape = Shape::List {
    length: (0, u64::MAX),
    of: &INSTANCE,
};

static INSTANCE: Shape = Shape::Structure {
    union: false,
    members: &[
        nullable("InstanceName", &TEXT),
        nullable("CustomerIpAddress", &TEXT),
        nullable("InstanceId", &TEXT),
    ],
};

/// What `provisioning_parameters.json` must have, to name roles.
static ROLES: Shape = Shape::Structure {
    union: false,
    members: &[
        required("controller_group", &TEXT),
        nullable("login_group", &TEXT),
    ],
};

/// What `nodeinfo.json` must have.
static NODE: Shape = Shape::Structure {
    union: false,
    members: &[
        required("node_type", &TEXT),
        nullable("instance_group_name", &TEXT),
    ],
};

static TEXTS: Shape = Shape::List {
    length: (0, u64::MAX),
    of: &TEXT,
};

static TEXT: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &[],
};

/// A cluster that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// `ClusterName`.
    pub cluster: Option<String>,
    /// `ClusterArn`.
    pub arn: Option<String>,
    /// Its groups.
    pub groups: Vec<RosterGroup>,
}

/// An instance group of a cluster that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosterGroup {
    /// `Name`.
    pub name: String,
    /// `InstanceType`.
    pub instance_type: Option<String>,
    /// `SlurmConfig.NodeType`.
    pub node_type: Option<String>,
    /// `SlurmConfig.PartitionNames`.
    pub partitions: Vec<String>,
    /// Its instances.
    pub nodes: Vec<RosterNode>,
}

/// An instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosterNode {
    /// `InstanceName`.
    pub name: Option<String>,
    /// `CustomerIpAddress`, as it is written.
    pub address: Option<String>,
    /// `InstanceId`.
    pub id: Option<String>,
}

/// What `nodeinfo.json` says of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// `node_type`.
    pub role: Role,
    /// `instance_group_name`.
    pub group: Option<String>,
}

/// A text as a document that has what it must have. Keys that are not known are
/// no error: a later HyperPod has more of them.
fn document(file: &'static str, text: &str, shape: &'static Shape) -> Result<Document, RoleError> {
    let refuse = |reason: String| RoleError::File { file, reason };
    let document = Document::parse(text.to_owned()).map_err(|error| refuse(error.to_string()))?;
    let wrong = violations(&document.root, shape)
        .into_iter()
        .find(|it| matches!(it.kind, Kind::Required | Kind::Type));
    match wrong {
        None => Ok(document),
        Some(wrong) => {
            let place = document.place(wrong.offset);
            Err(refuse(format!("{place}: {}", wrong.sentence)))
        }
    }
}

impl Roster {
    /// Reads `resource_config.json`.
    ///
    /// # Errors
    /// [`RoleError::File`].
    pub fn parse(text: &str) -> Result<Self, RoleError> {
        let document = document(RESOURCE_CONFIG, text, &RESOURCES)?;
        let root = Cursor::root(&document.root);
        let cluster = root.get("ClusterConfig");
        let of_cluster = |key| Some(cluster.as_ref()?.text(key)?.value);
        let groups = root.list("InstanceGroups").into_iter();
        Ok(Self {
            cluster: of_cluster("ClusterName"),
            arn: of_cluster("ClusterArn"),
            groups: groups.map(|it| RosterGroup::of(&it)).collect(),
        })
    }

    /// Whether any group says what it is for.
    #[must_use]
    pub fn names_roles(&self) -> bool {
        self.groups.iter().any(|group| group.node_type.is_some())
    }

    /// The group of the node to which `is_own` ascribes its addresses.
    ///
    /// # Errors
    /// No address is this node's, or those of two groups are.
    pub fn group_of(
        &self,
        mut is_own: impl FnMut(IpAddr) -> bool,
    ) -> Result<&RosterGroup, RoleError> {
        let mut listed = 0;
        let mut mine: Option<&RosterGroup> = None;
        for group in &self.groups {
            for address in group.nodes.iter().filter_map(|it| it.address.as_deref()) {
                listed += 1;
                let Ok(address) = address.trim().parse::<IpAddr>() else {
                    continue;
                };
                let is_real = !address.is_unspecified() && !address.is_loopback();
                if !is_real || !is_own(address) {
                    continue;
                }
                match mine {
                    Some(other) if other.name != group.name => {
                        return Err(RoleError::Ambiguous {
                            one: other.name.clone(),
                            other: group.name.clone(),
                        });
                    }
                    _ => mine = Some(group),
                }
            }
        }
        mine.ok_or(RoleError::NotListed(listed))
    }
}

impl RosterGroup {
    fn of(cursor: &Cursor<'_>) -> Self {
        let slurm = cursor.get("SlurmConfig");
        let text = |key| cursor.text(key).map(|it| it.value);
        let partitions = slurm.as_ref().map(|it| it.texts("PartitionNames"));
        let nodes = cursor.list("Instances").into_iter();
        Self {
            name: text("Name").unwrap_or_default(),
            instance_type: text("InstanceType"),
            node_type: slurm
                .as_ref()
                .and_then(|it| Some(it.text("NodeType")?.value)),
            partitions: partitions
                .into_iter()
                .flatten()
                .map(|it| it.value)
                .collect(),
            nodes: nodes
                .map(|it| {
                    let text = |key| it.text(key).map(|it| it.value);
                    RosterNode {
                        name: text("InstanceName"),
                        address: text("CustomerIpAddress"),
                        id: text("InstanceId"),
                    }
                })
                .collect(),
        }
    }

    /// What its nodes are for: what `SlurmConfig.NodeType` and the parameters of
    /// the lifecycle scripts say, where both say something the same.
    ///
    /// # Errors
    /// Neither says anything, what one says is not understood, or they
    /// contradict each other.
    pub fn role(&self, parameters: Option<&Provisioning>) -> Result<Role, RoleError> {
        let by_parameters = parameters.map(|it| it.role_of(&self.name));
        let Some(node_type) = &self.node_type else {
            return by_parameters.ok_or_else(|| RoleError::NoRole(self.name.clone()));
        };
        let role = Role::of_node_type(node_type).ok_or_else(|| RoleError::File {
            file: RESOURCE_CONFIG,
            reason: format!(
                "group {} has the NodeType \"{}\", not Controller, Login or Compute",
                printable(&self.name, 80),
                printable(node_type, 40)
            ),
        })?;
        match by_parameters {
            Some(other) if other != role => Err(RoleError::Contradiction {
                group: self.name.clone(),
                node_type: role,
                parameters: other,
            }),
            _ => Ok(role),
        }
    }
}

/// Reads of `provisioning_parameters.json` which groups have which role.
///
/// # Errors
/// [`RoleError::File`].
pub fn parameters(text: &str) -> Result<Provisioning, RoleError> {
    Ok(Provisioning::of(&document(PARAMETERS, text, &ROLES)?))
}

/// Reads `nodeinfo.json`.
///
/// # Errors
/// [`RoleError::File`].
pub fn node_info(text: &str) -> Result<NodeInfo, RoleError> {
    let document = document(NODE_INFO, text, &NODE)?;
    let root = Cursor::root(&document.root);
    let node_type = root.text("node_type").map(|it| it.value);
    let node_type = node_type.unwrap_or_default();
    let role = Role::of_node_type(&node_type).ok_or_else(|| RoleError::File {
        file: NODE_INFO,
        reason: format!(
            "\"{}\" is not a node_type known here",
            printable(&node_type, 40)
        ),
    })?;
    Ok(NodeInfo {
        role,
        group: root.text("instance_group_name").map(|it| it.value),
    })
}
