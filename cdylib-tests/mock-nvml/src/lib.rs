//! `libnvidia-ml.so.1` for tests: NVML's C ABI over a machine that a file
//! describes, so that several processes see one machine.
//!
//! The file is `machine.json` beside the library *as it was loaded*: a test
//! makes a directory, puts both there with [`install`], and needs no
//! environment. A change takes an exclusive `flock` on the directory and
//! replaces the file in one step.
//!
//! - [`machine`]: what a machine is, and its models (8×H100, …).
//! - [`mig`]: NVIDIA's placement tables, and what is legal.
//! - `abi`: the exported functions; only those that `gres-helper` calls.

#[allow(missing_docs, non_snake_case)]
mod abi;
pub mod machine;
pub mod mig;
mod store;

pub use machine::{Fault, Gpu, Machine, Process};
pub use store::{FILE, Here, LIBRARY, install, install_without};
