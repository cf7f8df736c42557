//! `slurm-efa` on a real Slurm.

mod setup;
mod setup_config;
mod setup_parts;
mod setup_print;
mod silence;
