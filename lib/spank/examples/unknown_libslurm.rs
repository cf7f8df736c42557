//! The libslurm of a release that is not in `release::SUPPORTED`, as far as a
//! plugin looks at it; to be preloaded into a Slurm program.

use std::ffi::c_long;

/// What libslurm exports under this name: the API number and two more bytes.
#[unsafe(no_mangle)]
pub extern "C" fn slurm_api_version() -> c_long {
    999 << 16
}
