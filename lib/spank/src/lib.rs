//! Safe bindings to SPANK, Slurm's plugin interface for job launch.
//!
//! One shared object serves every supported Slurm release
//! ([`release::SUPPORTED`]). Three things make that possible:
//!
//! * every Slurm function is looked up in the host with `dlsym` ([`host`]);
//!   the plugin links nothing of Slurm, so no release can lack a symbol that
//!   the dynamic linker insists on;
//! * `plugin_version`, which Slurm compares with its own before it calls
//!   anything, is filled in when the object is loaded ([`release::announce`]);
//! * error codes, which 21.08 renumbered, are normalised ([`SpankError`]).
//!
//! A plugin implements [`Plugin`] and names the hooks it has in one call of
//! [`plugin!`]. Every hook runs behind [`guard::guard`]: a panic is logged through
//! Slurm and becomes the verdict that [`Hook::verdict_on_panic`] documents; it
//! never unwinds into the host.
//!
//! Who runs what, and as which user, is documented per hook in [`Hook`].

#[cfg(not(panic = "unwind"))]
compile_error!("a SPANK plugin must be built with panic = \"unwind\": an abort takes slurmd down");

#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, dead_code)]
#[rustfmt::skip]
mod bindings;

mod error;
pub mod host;
pub mod log;
mod option;
mod plugin;
pub mod release;
mod spank;

pub use error::SpankError;
pub use option::{Argument, OptionSpec, OptionValue, Origin};
pub use plugin::{Failure, Hook, Outcome, Plugin, State, call, end_task, option_callback};
pub use spank::{Context, Gid, JobId, Overwrite, Spank, StepId, Uid};

/// What the [`plugin!`] macro needs and nobody else should use.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::spank_t;
    pub use libc::{c_char, c_int};

    /// Copies a NUL-terminated literal into the array that Slurm reads through `dlsym`.
    pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let text = text.as_bytes();
        assert!(text.len() == N);
        let mut array = [0; N];
        let mut i = 0;
        while i < N {
            array[i] = text[i];
            i += 1;
        }
        array
    }
}
