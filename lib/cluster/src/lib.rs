//! AWS's files about a cluster: how it is to be made, and what it is. Only
//! programs read them.

#![forbid(unsafe_code)]

pub mod json;
pub mod role;

pub use role::Role;
