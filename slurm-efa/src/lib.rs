//! The parts of `slurm-efa` that change and examine a node's set-up, and that
//! judge a cluster before it is made; a library for its program and for the
//! fuzz targets.

pub mod configuration;
pub mod doctor;
pub mod preflight;
pub mod setup;
