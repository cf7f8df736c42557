//! The plugin of shared GPUs, and gres-helper, under a real Slurm.

mod shares;
