//! Slurm's configuration files: one reader of their grammar, and what each of
//! them says.

pub mod glob;
pub mod plugstack;
pub mod reader;

pub use plugstack::Plugstack;
pub use reader::{Disk, Files, Overlay};
