//! The jobs of this node: a record for each start of a job, what is kept for its
//! end, and the rule that says whether a job still exists.

#![forbid(unsafe_code)]

pub mod counters_at_start;
pub mod index;
pub mod registry;
pub mod sweep;

#[cfg(test)]
mod tests;

pub use index::{Existence, JobIndex};
