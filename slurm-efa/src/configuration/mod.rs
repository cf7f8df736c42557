//! slurm-efa.toml as a whole: what is wrong with it, what holds, and what may be
//! written.

pub mod check;
pub mod schema;
pub mod show;
