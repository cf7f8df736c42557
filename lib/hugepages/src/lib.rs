//! Hugepages for each job, exact to the page whatever crashes.
//!
//! The kernel keeps *how many* hugepages it sets aside, not for whom. What it
//! should have is a **baseline**, which is the administrator's, plus what the
//! [`ledger`] says each job was granted. [`reconcile()`] computes that sum anew
//! every time, under one lock, and makes it so: no step adds or subtracts, so
//! whatever was missed, repeated or half done is right again after the next one.
//!
//! - [`config::size`]: what a user or an administrator writes, in pages.
//! - [`pool`]: the kernel's side.
//! - [`ledger`]: the files.
//! - [`mod@reconcile`]: the rule.
//! - [`settings`]: what the site says.
//! - [`isolate`]: the kernel's own fence around a job's pages.
//! - [`machine`]: the rule, on the running kernel.
//! - [`rehearsal`]: the rule, without its effects.

#![forbid(unsafe_code)]

pub mod isolate;
pub mod ledger;
pub mod machine;
pub mod pool;
pub mod reconcile;
pub mod rehearsal;

#[cfg(test)]
mod model;

pub use config::sections::hugepages::{OnShortfall, Settings};
pub use config::size::{Bytes, HugePages, PageSize, Request};
pub use ledger::{Grant, Spread, Wish};
pub use pool::{KernelPools, NumaNode, Pool, Pools};
pub use reconcile::{Claim, ReconcileError, Report, reconcile};
