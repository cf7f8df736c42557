//! One file for each command, and what several of them need.

pub mod arguments;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod edit;
pub mod exit;
pub mod output;
pub mod preflight;
pub mod preflight_init;
pub mod reconcile;
pub mod report;
pub mod revert;
pub mod setup;
pub mod table;
