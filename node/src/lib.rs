//! What this node is: its EC2 instance type, its EFA devices, the communication
//! stack installed on it, and what the site's configuration file says; which
//! jobs run on it, the hugepages that they have, and what their devices counted.
//!
//! What looks at hardware and software only reads, and takes a [`Sysroot`], a
//! directory that stands for `/`, so that a whole node can be simulated by a
//! directory tree. What changes the machine is [`hugepages`] (the kernel's
//! pools and the ledger), [`registry`] and [`state`] (root's own files),
//! [`usage`] (records), and [`scontrol`]: it acts on the real machine only. All
//! input is treated as hostile: reads are bounded, opening never blocks,
//! programs are [`bounded`] in time, nothing panics, and text that reaches a
//! message passes through [`printable`].

#![forbid(unsafe_code)]

pub mod bounded;
pub mod called;
pub mod cgroup;
pub mod config;
pub mod counters;
pub mod counters_at_start;
pub mod efa;
pub mod hugepages;
pub mod instance;
mod interleaving;
pub mod late;
pub mod name;
mod printable;
pub mod process;
pub mod registry;
pub mod scontrol;
pub mod slurm_conf;
pub mod stack;
pub mod state;
pub mod stepd;
pub mod syslog;
pub mod sysroot;
pub mod textfile;
pub mod usage;
pub mod version;

pub use config::Config;
pub use instance::InstanceType;
pub use name::NodeName;
pub use printable::printable;
pub use stack::Stack;
pub use sysroot::{ReadError, Sysroot};
pub use version::Version;
