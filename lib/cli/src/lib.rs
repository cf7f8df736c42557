//! What every program of the suite has in common on its command line.

#![forbid(unsafe_code)]

pub mod called;
