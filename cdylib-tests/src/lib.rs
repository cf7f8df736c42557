//! Test hosts: what the suite's plugins and programs are tested against.
//!
//! - [`testbed`]: a private, *real* Slurm (munged, slurmctld, any number of
//!   slurmd) that boots in about a second, shares nothing with the machine it
//!   runs on and leaves nothing behind, however the test ends.
//! - [`simnode`]: directory trees that look like AWS instances with EFA, for
//!   every reader that takes a sysroot.

pub mod simnode;
pub mod testbed;
