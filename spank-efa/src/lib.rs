//! `spank_efa.so`: `sbatch --efa-profile=p5`, for every supported Slurm release.
//!
//! [`plugin`] holds the hooks, each a switch on the program that it runs in;
//! [`client`] is what happens in srun, sbatch and salloc as the user, and
//! [`components`] which component of a job or step an option belongs to;
//! [`slurmstepd`] is what happens in slurmstepd as root. Both only carry out what
//! `lib/profiles` decides. The plugin has no hook for prolog and epilog: slurmd
//! would start a slurmstepd for each of them. `slurm-efa-job` does what is done then.

// Stricter than the workspace: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::exit,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::allow_attributes_without_reason
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_macros,
        reason = "a test runs in a process of its own"
    )
)]

mod arguments;
mod client;
mod components;
mod options;
mod plugin;
mod slurmstepd;

use plugin::Efa;

/// The release, for `slurm-efa doctor`, which reads it from the file.
#[used]
static RELEASE: &str = concat!("slurm-efa-release=", env!("CARGO_PKG_VERSION"), "=");

spank::plugin! {
    name: "spank_efa",
    plugin: Efa,
    hooks: [
        init_post_opt,
        user_init,
        task_init_privileged,
        task_init,
        task_exit,
    ],
}
