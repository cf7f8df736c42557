//! Words to people, through Slurm's own log.
//!
//! A plugin never writes to stdout, stderr or syslog itself: those belong to
//! the host. Outside Slurm (unit tests) these functions do nothing.

use std::ffi::{CString, c_char};

use crate::host::host;

/// A message is cut here: Slurm's own buffers are of this order, and a hostile
/// value must not fill a disk.
const MAX_BYTES: usize = 8 * 1024;

type Printf = unsafe extern "C" fn(*const c_char, ...);

fn print(function: Result<Printf, crate::SpankError>, message: &str) {
    let Ok(function) = function else { return };
    let mut end = message.len().min(MAX_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let Ok(text) = CString::new(message[..end].replace('\0', "\\0")) else {
        return;
    };
    // SAFETY: the functions behind `Printf` are printf-like; the format is the
    // constant "%s" and its one argument a NUL-terminated string that outlives
    // the call. Slurm copies it.
    unsafe { function(c"%s".as_ptr(), text.as_ptr()) };
}

/// An error: to the daemon's log, and to the user's stderr in srun, sbatch, salloc and a step.
pub fn error(message: &str) {
    print(host().slurm_error(), message);
}

/// A line for the administrator at the default log level.
pub fn info(message: &str) {
    print(host().slurm_info(), message);
}

/// A line that shows at `SlurmdDebug=debug`.
pub fn debug(message: &str) {
    print(host().slurm_debug(), message);
}

/// A line for the user: on the stderr of srun, sbatch, salloc, and of the step
/// from `user_init`, `task_init_privileged`, `task_init` and `task_exit`.
pub fn user(message: &str) {
    print(host().slurm_spank_log(), message);
}
