//! EFA on this node: what its instance type has, which devices are there, the
//! software that is installed for them, and what they count.
//!
//! Everything is read below a [`host::Sysroot`], so that a whole node can be
//! simulated by a directory tree.

#![deny(unsafe_code)]

pub mod counter_reader;
pub mod counters;
pub mod devices;
pub mod dma_buf;
pub mod instance_types;
pub mod reader_locks;
pub mod software;
pub mod version;

pub use instance_types::InstanceType;
pub use software::Stack;
pub use version::Version;
