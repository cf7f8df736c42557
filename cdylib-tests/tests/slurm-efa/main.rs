//! `slurm-efa` on a real Slurm.

mod setup;
mod setup_parts;
