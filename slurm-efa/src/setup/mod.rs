//! `slurm-efa setup` and `slurm-efa revert`: this node's part of the set-up, and
//! back. What is wished for depends on the role; see docs/hyperpod.md.
//!
//! Look, plan, show; then change all files together, judge the result by the
//! programs that read them, and put everything back if one refuses.
//!
//! ```text
//! parts.rs      what --only chooses, and what belongs to it
//! discover.rs   which Slurm, which files, which role ── lib/cluster
//! desired.rs    what setup wants ── slurm_conf.rs, nhc.rs, pam.rs, edit.rs   text to text
//!               ── prologs.rs          what slurmd calls, by which link ── wrapper.rs
//! revert.rs     what goes again
//!               ── removal.rs          what would still need the package
//! print.rs      the lines, for files that another tool owns
//! plan.rs       the changes, and how they are shown
//! apply.rs      all of them or none ── files.rs
//!               ── verify.rs            judged by those who read them ── login.rs
//!               ── units.rs             daemons
//! ```

pub mod apply;
pub mod desired;
pub mod discover;
pub mod edit;
pub mod error;
pub mod files;
pub mod login;
pub mod nhc;
pub mod pam;
pub mod parts;
pub mod paths;
pub mod plan;
pub mod print;
pub mod prologs;
pub mod removal;
pub mod revert;
pub mod run;
pub mod slurm_conf;
pub mod units;
pub mod verify;
pub mod wrapper;

pub use error::SetupError;
pub use plan::Plan;
