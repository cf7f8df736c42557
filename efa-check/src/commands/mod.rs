//! One file for each command, and what several of them need.

pub mod baseline;
pub mod completions;
pub mod explain;
pub mod healthcheck;
pub mod list;
pub mod node;
pub mod output;
pub mod pingpong;
pub mod place;
pub mod prolog;
pub mod rebind;
pub mod round;
pub mod slurm;
