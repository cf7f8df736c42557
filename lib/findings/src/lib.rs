//! What the checks of every program find, and each form in which it leaves the
//! program: exit code, text, JSON, Prometheus, Slurm's drain reason.
//!
//! Only a fatal finding drains a node. An observation that could not be made is
//! [`Severity::Unknown`], which ranks above a warning but never drains.

#![forbid(unsafe_code)]

mod document;
mod finding;
pub mod prometheus;
mod reason;
mod severity;

pub use document::{Body, Document, Envelope, VERSION};
pub use finding::{Finding, Findings, Remedies, Show};
pub use reason::{Domain, LONGEST_REASON};
pub use severity::Severity;
