//! `efa-check`: whether a node's EFA devices are fit for the next job.
//!
//! ```text
//! main.rs ── commands/        one file for each command
//!         ── site.rs          where: configuration, node name, directories
//!         ── observe.rs       what is seen ── probe_worker.rs   counters, by a child that may hang
//!         ── baseline.rs      what should be there
//!         ── history.rs       what changed since the last round
//!         ── checks/          the table, and each check's judgement (pure)
//!         ── report.rs        text, JSON, drain reason ── metrics.rs
//!         ── rebind.rs        brings back a device whose admin queue is closed
//!         ── drain.rs         who asks Slurm (slurm::drain_policy: for what)
//! ```
//!
//! It runs as root in slurmd's prolog and health check. It starts no thread,
//! opens nothing below `/sys` that could block it, and ends in a bounded time.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod checks;
pub mod counters;
pub mod drain;
pub mod history;
pub mod metrics;
pub mod observe;
pub mod pingpong;
pub mod probe_worker;
pub mod rebind;
pub mod report;
pub mod settings;
pub mod site;

/// sysexits(3): the command line is wrong.
pub const EX_USAGE: u8 = 64;
/// sysexits(3): a file cannot be written.
pub const EX_CANTCREAT: u8 = 73;
/// sysexits(3): the configuration is wrong.
pub const EX_CONFIG: u8 = 78;

/// This very program, even if its file was replaced or removed meanwhile.
fn own_program() -> &'static str {
    "/proc/self/exe"
}
