//! AWS's files about a cluster: how it is to be made, and what it is. Only
//! programs read them.
//!
//! ```text
//! create_cluster.rs   provisioning.rs   what is to be made
//! roster.rs           own_role.rs       what is there, and what this node is
//! role.rs                               what a node is for
//! answers.rs                            what the AWS CLI says of the account
//! shape.rs            model.rs          what a file may contain
//! json.rs             cursor.rs         values with their places
//! ```

#![forbid(unsafe_code)]

pub mod answers;
pub mod create_cluster;
mod cursor;
pub mod json;
pub mod model;
pub mod own_role;
pub mod provisioning;
pub mod role;
pub mod roster;
pub mod shape;

pub use create_cluster::{CreateCluster, Mode};
pub use cursor::{Found, FoundText, Spot};
pub use provisioning::Provisioning;
pub use role::Role;
pub use roster::Roster;
