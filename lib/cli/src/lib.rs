//! What every program of the suite has in common: how it was called, where it logs,
//! how shells complete it.

#![forbid(unsafe_code)]

pub mod called;
pub mod completions;
pub mod syslog;
