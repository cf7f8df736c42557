//! This machine: files that root may believe, hardware and software read below a
//! [`Sysroot`], processes, programs that are run, clocks.
//!
//! All input is treated as hostile: reads are bounded, opening never blocks,
//! programs are bounded in time ([`exec`]), nothing panics, and text that
//! reaches a message passes through [`printable()`].

#![forbid(unsafe_code)]

pub mod boot;
pub mod clock;
pub mod daemons;
pub mod date;
pub mod exec;
mod gather;
pub mod ids;
pub mod interleaving;
pub mod late;
pub mod net_namespace;
mod printable;
pub mod process;
pub mod state_dir;
pub mod state_layout;
pub mod sysroot;
pub mod textfile;
pub mod trust;

pub use boot::BootId;
pub use clock::Deadline;
pub use gather::Gather;
pub use ids::{Gid, Pid, Uid};
pub use printable::printable;
pub use sysroot::{ReadError, Sysroot};
