//! How values are written in the configuration and on command lines: one
//! grammar for each kind of value.

pub mod duration;
pub mod path;
pub mod size;
