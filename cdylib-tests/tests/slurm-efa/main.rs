//! `slurm-efa` on a real Slurm.

mod setup;
