//! A node's GPUs: what NVML says of them, their health, the jobs' shares, and
//! the tiers that hold a job to its share. NVML itself is called by a child
//! process of `gres-helper` only, which [`nvml_worker`] speaks with.

#![forbid(unsafe_code)]

pub mod health;
pub mod inventory;
pub mod mps;
pub mod nvml_worker;
pub mod settings;
pub mod shares;
