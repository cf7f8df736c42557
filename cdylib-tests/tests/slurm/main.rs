//! What `lib/slurm` and `lib/jobs` know, held against a real Slurm.

mod conf;
mod generated;
mod gres;
mod node_state;
mod plugstack;
