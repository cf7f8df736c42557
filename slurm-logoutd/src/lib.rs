//! `slurm-logoutd`, the daemon that ends logins, and `slurm-logout`, the command
//! that reports and sweeps.

pub mod daemon;
pub mod report;
