//! `gres-helper` and `spank_gres.so`.

pub mod agent;
pub mod cgroup;
pub mod generate;
pub mod gresconf;
pub mod health;
pub mod job;
pub mod machine;
pub mod mps;
mod nvml;
pub mod settings;
pub mod shares;
pub mod size;
pub mod verify;

/// sysexits(3): the command line is wrong.
pub const EX_USAGE: u8 = 64;
