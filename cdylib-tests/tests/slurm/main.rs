//! What `lib/slurm` and `lib/jobs` know, held against a real Slurm.

mod node_state;
