//! efa-check under a real Slurm.

mod health;
