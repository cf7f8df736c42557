//! Slurm without libslurm: its names and numbers, its files, its daemons'
//! sockets and control groups, `scontrol`, and drains.

#![forbid(unsafe_code)]

pub mod conf;
pub mod drain_policy;
pub mod drain_worker;
pub mod hostlist;
pub mod ids;
pub mod installation;
pub mod job_cgroup;
pub mod job_control;
pub mod node_name;
pub mod programs;
pub mod release;
pub mod scontrol;
pub mod slurmstepd;
pub mod stepd_sockets;

pub use ids::{JobId, JobKey};
pub use installation::Installation;
pub use node_name::NodeName;
pub use programs::Program;
pub use release::Release;
