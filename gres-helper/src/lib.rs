//! What `gres-helper` does: GPUs that jobs share, and what holds each job to its
//! share.
//!
//! ```text
//! main.rs ── commands/       one file for each command
//!         ── nvml_worker.rs ── nvml.rs   a child speaks with NVML: it may hang
//!         ── generate.rs, verify.rs     gres.conf ── slurm_files.rs   where it is
//!         ── job/            prolog, epilog, fence
//!         ── drain.rs        who gives a drain its reason
//!         ── watch/          pid → job → share
//!         ── mig/            layouts, and the way back
//!         ── status.rs       who is where, text, JSON, metrics
//! ```

pub mod drain;
pub mod generate;
pub mod job;
pub mod kinds;
pub mod mig;
mod nvml;
pub mod nvml_worker;
pub mod slurm_files;
pub mod status;
pub mod verify;
pub mod watch;

/// sysexits(3): the command line is wrong.
pub const EX_USAGE: u8 = 64;
/// sysexits(3): a file cannot be written.
pub const EX_CANTCREAT: u8 = 73;
/// sysexits(3): the configuration is wrong.
pub const EX_CONFIG: u8 = 78;
