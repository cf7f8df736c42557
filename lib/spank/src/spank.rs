//! The handle that Slurm passes to every hook.

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::{fmt, ptr};

use crate::SpankError;
use crate::bindings::{self, spank_item_t, spank_t};
use crate::host::host;
use crate::option::OptionSpec;

/// Which program the plugin runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// srun, as the user.
    Local,
    /// slurmstepd: root, or a task's user after the fork.
    Remote,
    /// sbatch or salloc (and scrontab), as the user.
    Allocator,
    /// slurmd, root.
    Slurmd,
    /// `slurmstepd spank prolog|epilog`, root.
    JobScript,
}

impl Context {
    /// Asks Slurm; `None` if it cannot tell or there is no Slurm.
    pub fn current() -> Option<Self> {
        let function = host().spank_context().ok()?;
        // SAFETY: spank_context(void) reads a global of the host and has no preconditions.
        let context = unsafe { function() };
        Some(match context {
            bindings::S_CTX_LOCAL => Self::Local,
            bindings::S_CTX_REMOTE => Self::Remote,
            bindings::S_CTX_ALLOCATOR => Self::Allocator,
            bindings::S_CTX_SLURMD => Self::Slurmd,
            bindings::S_CTX_JOB_SCRIPT => Self::JobScript,
            _ => return None,
        })
    }

    /// Whether this is srun, sbatch or salloc: a client that the user started.
    pub fn is_client(self) -> bool {
        matches!(self, Self::Local | Self::Allocator)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A Slurm job id. A requeued job keeps it.
    JobId
);
number!(
    /// A user id.
    Uid
);
number!(
    /// A group id.
    Gid
);

/// A step of a job. The special values are those of `slurm.h`, equal from 20.11 to 26.05.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepId {
    /// A step that srun started.
    Number(u32),
    /// The batch script (`SLURM_BATCH_SCRIPT`).
    Batch,
    /// The step of `PrologFlags=Contain` that has no tasks (`SLURM_EXTERN_CONT`).
    Extern,
    /// salloc's shell (`SLURM_INTERACTIVE_STEP`).
    Interactive,
}

impl From<u32> for StepId {
    fn from(id: u32) -> Self {
        match id {
            0xffff_fffc => Self::Extern,
            0xffff_fffb => Self::Batch,
            0xffff_fffa => Self::Interactive,
            number => Self::Number(number),
        }
    }
}

/// Whether an existing variable is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it.
    Yes,
    /// Leave it and return [`SpankError::EnvExists`].
    No,
}

/// Values longer than this are not read: the kernel's limit for one string of
/// an environment is 128 KiB (`MAX_ARG_STRLEN`), but a job's environment
/// travels by RPC and is not bound by it.
const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;

/// Slurm's handle, valid during one hook.
pub struct Spank<'hook> {
    raw: spank_t,
    hook: PhantomData<&'hook ()>,
}

fn c_text(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<CString, SpankError> {
    CString::new(text.as_ref()).map_err(|_| SpankError::NulByte)
}

/// Calls a getenv-like function with a buffer that grows until the value fits.
fn read_variable(
    mut call: impl FnMut(*mut c_char, c_int) -> Result<(), SpankError>,
) -> Result<Option<Vec<u8>>, SpankError> {
    let mut buffer = vec![0_u8; 256];
    loop {
        let length = c_int::try_from(buffer.len()).map_err(|_| SpankError::NoSpace)?;
        match call(buffer.as_mut_ptr().cast(), length) {
            Ok(()) => {
                let end = buffer
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(buffer.len());
                buffer.truncate(end);
                return Ok(Some(buffer));
            }
            Err(SpankError::EnvNotFound) => return Ok(None),
            Err(SpankError::NoSpace) if buffer.len() < MAX_VALUE_BYTES => {
                buffer.resize(buffer.len() * 8, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

impl<'hook> Spank<'hook> {
    /// Wraps the handle of one hook.
    ///
    /// # Safety
    /// `raw` is the handle that Slurm passed to the hook that is running, and
    /// the value does not outlive the hook.
    pub(crate) unsafe fn new(raw: spank_t) -> Self {
        Self {
            raw,
            hook: PhantomData,
        }
    }

    fn u32_item(&self, item: spank_item_t) -> Result<u32, SpankError> {
        let function = host().spank_get_item()?;
        let mut value = 0_u32;
        // SAFETY: every item read through this function is documented in
        // spank.h to take one pointer to a 32-bit unsigned integer (uid_t and
        // gid_t are that on Linux); the handle is the running hook's.
        let code = unsafe { function(self.raw, item, ptr::from_mut(&mut value)) };
        SpankError::check(code)?;
        Ok(value)
    }

    /// The job's id. Not in srun before the allocation, nor in slurmd.
    pub fn job_id(&self) -> Result<JobId, SpankError> {
        self.u32_item(bindings::S_JOB_ID).map(JobId)
    }

    /// The job's user.
    pub fn uid(&self) -> Result<Uid, SpankError> {
        self.u32_item(bindings::S_JOB_UID).map(Uid)
    }

    /// The job's primary group.
    pub fn gid(&self) -> Result<Gid, SpankError> {
        self.u32_item(bindings::S_JOB_GID).map(Gid)
    }

    /// The step.
    pub fn step_id(&self) -> Result<StepId, SpankError> {
        self.u32_item(bindings::S_JOB_STEPID).map(StepId::from)
    }

    /// This node's position in the step, from 0.
    pub fn node_index(&self) -> Result<u32, SpankError> {
        self.u32_item(bindings::S_JOB_NODEID)
    }

    /// The number of nodes of the step.
    pub fn node_count(&self) -> Result<u32, SpankError> {
        self.u32_item(bindings::S_JOB_NNODES)
    }

    /// How many tasks the step has on this node.
    pub fn local_task_count(&self) -> Result<u32, SpankError> {
        self.u32_item(bindings::S_JOB_LOCAL_TASK_COUNT)
    }

    /// The task's number on this node, from 0; in the hooks of one task.
    pub fn local_task(&self) -> Result<u32, SpankError> {
        self.u32_item(bindings::S_TASK_ID)
    }

    /// How often the job was restarted (requeued).
    pub fn restart_count(&self) -> Result<u32, SpankError> {
        self.u32_item(bindings::S_SLURM_RESTART_COUNT)
    }

    /// A variable of the job's environment (slurmstepd only).
    pub fn env(&self, name: &str) -> Result<Option<Vec<u8>>, SpankError> {
        let function = host().spank_getenv()?;
        let name = c_text(name)?;
        read_variable(|buffer, length| {
            // SAFETY: the handle is the running hook's, the name NUL-terminated,
            // and the buffer has `length` writable bytes.
            SpankError::check(unsafe { function(self.raw, name.as_ptr(), buffer, length) })
        })
    }

    /// Sets a variable of the job's environment (slurmstepd only).
    pub fn set_env(
        &mut self,
        name: &str,
        value: &(impl AsRef<[u8]> + ?Sized),
        overwrite: Overwrite,
    ) -> Result<(), SpankError> {
        let function = host().spank_setenv()?;
        let (name, value) = (c_text(name)?, c_text(value)?);
        let overwrite = c_int::from(overwrite == Overwrite::Yes);
        // SAFETY: the handle is the running hook's, both strings are
        // NUL-terminated, and Slurm copies them.
        SpankError::check(unsafe { function(self.raw, name.as_ptr(), value.as_ptr(), overwrite) })
    }

    /// Removes a variable of the job's environment (slurmstepd only). A missing one is no error.
    pub fn unset_env(&mut self, name: &str) -> Result<(), SpankError> {
        let function = host().spank_unsetenv()?;
        let name = c_text(name)?;
        // SAFETY: the handle is the running hook's and the name NUL-terminated.
        match SpankError::check(unsafe { function(self.raw, name.as_ptr()) }) {
            Err(SpankError::EnvNotFound) => Ok(()),
            other => other,
        }
    }

    /// A variable of the job-control environment: what prolog and epilog will
    /// see as `SPANK_<name>` (clients only).
    pub fn job_control_env(&self, name: &str) -> Result<Option<Vec<u8>>, SpankError> {
        let function = host().spank_job_control_getenv()?;
        let name = c_text(name)?;
        read_variable(|buffer, length| {
            // SAFETY: as for `env`.
            SpankError::check(unsafe { function(self.raw, name.as_ptr(), buffer, length) })
        })
    }

    /// Sets a variable for prolog and epilog (clients only). The user can forge these.
    pub fn set_job_control_env(
        &mut self,
        name: &str,
        value: &(impl AsRef<[u8]> + ?Sized),
    ) -> Result<(), SpankError> {
        let function = host().spank_job_control_setenv()?;
        let (name, value) = (c_text(name)?, c_text(value)?);
        // SAFETY: as for `set_env`.
        SpankError::check(unsafe { function(self.raw, name.as_ptr(), value.as_ptr(), 1) })
    }

    pub(crate) fn register_option(
        &mut self,
        index: usize,
        option: &OptionSpec,
        callback: bindings::spank_opt_cb_f,
    ) -> Result<(), SpankError> {
        let function = host().spank_option_register()?;
        let mut c_option = option.as_c(index, callback);
        // SAFETY: the handle is that of `slurm_spank_init`, where registration
        // is allowed; Slurm copies the structure and its strings.
        SpankError::check(unsafe { function(self.raw, &raw mut c_option) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_longer_than_the_first_buffer_is_read_whole() {
        let long = vec![b'x'; 5000];
        let read = read_variable(|buffer, length| {
            if (length as usize) <= long.len() {
                return Err(SpankError::NoSpace);
            }
            // SAFETY: the buffer has `length` > `long.len()` writable bytes.
            unsafe { ptr::copy_nonoverlapping(long.as_ptr(), buffer.cast(), long.len()) };
            Ok(())
        });
        assert_eq!(read, Ok(Some(long)));
    }

    #[test]
    fn a_value_without_end_is_given_up() {
        let mut calls = 0;
        let read = read_variable(|_, _| {
            calls += 1;
            Err(SpankError::NoSpace)
        });
        assert_eq!(read, Err(SpankError::NoSpace));
        assert!(calls < 10);
    }

    #[test]
    fn without_slurm_every_call_names_the_missing_function() {
        // SAFETY: no host function exists in this process, so the handle is never used.
        let spank = unsafe { Spank::new(ptr::null_mut()) };
        assert_eq!(
            spank.job_id(),
            Err(SpankError::MissingSymbol("spank_get_item"))
        );
        assert_eq!(Context::current(), None);
    }

    #[test]
    fn the_special_steps_have_names() {
        assert_eq!(StepId::from(0xffff_fffb), StepId::Batch);
        assert_eq!(StepId::from(0xffff_fffc), StepId::Extern);
        assert_eq!(StepId::from(3), StepId::Number(3));
    }
}
