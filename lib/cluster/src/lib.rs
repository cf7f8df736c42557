//! AWS's files about a cluster: how it is to be made, and what it is. Only
//! programs read them.

#![forbid(unsafe_code)]

pub mod json;
pub mod model;
pub mod role;
pub mod shape;

pub use role::Role;
