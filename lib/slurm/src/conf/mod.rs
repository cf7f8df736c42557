//! Slurm's configuration files: one reader of their grammar, and what each of
//! them says.

pub mod glob;
pub mod gres_conf;
pub mod plugstack;
pub mod reader;
pub mod slurm_conf;

pub use gres_conf::GresConf;
pub use plugstack::Plugstack;
pub use reader::{Disk, Files, Overlay};
pub use slurm_conf::SlurmConf;
