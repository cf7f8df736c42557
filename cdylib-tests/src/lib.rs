//! Test hosts: what the suite's plugins and programs are tested against.
//!
//! - [`testbed`]: a private, *real* Slurm (munged, slurmctld, any number of
//!   slurmd) that boots in about a second, shares nothing with the machine it
//!   runs on and leaves nothing behind, however the test ends.
//! - [`simnode`]: directory trees that look like AWS instances with EFA, for
//!   every reader that takes a sysroot.
//! - [`modules`]: where the built plugin is; [`efa`]: a cluster that loads it;
//!   [`panics`]: a panic forced in each of its hooks.
//! - [`health`]: a cluster that efa-check looks after.
//! - [`kernel_pages`]: the machine's hugepages, for one test at a time;
//!   [`pages`]: a node whose jobs take and return them;
//!   [`sigkill`]: a program killed after each of its system calls;
//!   [`stuck`]: a file that hangs its readers in the kernel; [`load`]: a CPU
//!   that others keep to themselves.
//! - [`logins`]: a real sshd with the PAM module inside a testbed; [`libpam`]: the
//!   machine's libpam without sshd.
//! - [`gres`]: a cluster with made-up GPUs that jobs share.
//! - [`completions`]: what bash, zsh and fish offer for a program's command line.
//! - [`differential`]: Slurm's files as Slurm reads them, on generated trees.
//! - [`documents`]: the commands that documents name, which the programs must accept.
//! - [`comparison`]: programs measured side by side; [`statistics`]: what the
//!   measurements say.
//! - [`matrix`]: the shipped files under every supported Slurm release.
//! - [`node_test`]: the package on whole machines; [`driver_test`]: the kernel's own
//!   efa driver on emulated devices.

pub mod comparison;
pub mod completions;
pub mod differential;
pub mod documents;
pub mod driver_test;
pub mod efa_cluster;
pub mod gres;
pub mod health;
pub mod kernel_pages;
pub mod libpam;
pub mod load;
pub mod logins;
mod machines;
pub mod matrix;
pub mod modules;
pub mod node_test;
pub mod pages;
pub mod panics;
pub mod sigkill;
pub mod simnode;
pub mod statistics;
pub mod stuck;
pub mod testbed;
