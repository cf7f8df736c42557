//! What `lib/slurm` and `lib/jobs` know, held against a real Slurm.

mod differential;
mod node_state;
