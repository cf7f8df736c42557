//! What a node is for, and why that is not known.

use std::str::FromStr;

use host::printable;

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
    /// Nothing says what a group is for.
    #[error(
        "group {} of resource_config.json has no SlurmConfig.NodeType, and there is no \
         provisioning_parameters.json",
        printable(_0, 80)
    )]
    NoRole(String),
    /// Two files say different things of a group.
    #[error(
        "group {} is {node_type} by its SlurmConfig.NodeType in resource_config.json, but \
         {parameters} by provisioning_parameters.json",
        printable(group, 80)
    )]
    Contradiction {
        /// The group.
        group: String,
        /// What `SlurmConfig.NodeType` says.
        node_type: Role,
        /// What the parameters say.
        parameters: Role,
    },
}
