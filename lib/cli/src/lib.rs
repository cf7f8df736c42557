//! What every program of the suite has in common: how it was called, where it logs.

#![forbid(unsafe_code)]

pub mod called;
pub mod syslog;
