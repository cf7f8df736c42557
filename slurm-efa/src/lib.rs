//! The parts of `slurm-efa` that change and examine a node's set-up; a library
//! for its program and for the fuzz targets.

pub mod doctor;
pub mod setup;
