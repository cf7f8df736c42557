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
//! - [`hugetlb_cgroup`]: the kernel's own fence around a job's pages.
//! - [`machine`]: the rule, on the running kernel.
//! - [`dry_run`]: the rule, without its effects.

#![forbid(unsafe_code)]

pub mod dry_run;
pub mod hugetlb_cgroup;
pub mod ledger;
pub mod machine;
pub mod pool;
pub mod reconcile;

#[cfg(test)]
mod model;

pub use config::sections::hugepages::{OnShortfall, Settings};
pub use config::size::{Bytes, HugePages, PageSize, Request};
pub use ledger::{Grant, PageClaim, Spread};
pub use pool::{KernelPools, NumaNode, Pool, Pools};
pub use reconcile::{Claim, ReconcileError, Report, reconcile};
