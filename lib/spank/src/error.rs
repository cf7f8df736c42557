//! SPANK's error codes, the same for every release.

use crate::bindings::spank_err_t;

/// What a SPANK call answered, other than success.
///
/// Slurm 20.11 numbers these 1 to 11; 21.08 moved them to 3000 and up. The two
/// ranges do not overlap, so one table serves both (source: `spank.h` and
/// `slurm_errno.h` of 20.11 to 26.05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpankError {
    /// `ESPANK_ERROR`
    #[error("generic SPANK error")]
    Generic,
    /// `ESPANK_BAD_ARG`
    #[error("bad argument")]
    BadArgument,
    /// `ESPANK_NOT_TASK`
    #[error("not in task context")]
    NotTask,
    /// `ESPANK_ENV_EXISTS`
    #[error("environment variable exists")]
    EnvExists,
    /// `ESPANK_ENV_NOEXIST`
    #[error("no such environment variable")]
    EnvNotFound,
    /// `ESPANK_NOSPACE`
    #[error("buffer too small")]
    NoSpace,
    /// `ESPANK_NOT_REMOTE`
    #[error("only valid in slurmstepd")]
    NotRemote,
    /// `ESPANK_NOEXIST`
    #[error("no such item on this node")]
    NotFound,
    /// `ESPANK_NOT_EXECD`
    #[error("task has not been executed yet")]
    NotExecuted,
    /// `ESPANK_NOT_AVAIL`
    #[error("item not available from this callback")]
    NotAvailable,
    /// `ESPANK_NOT_LOCAL`
    #[error("only valid in srun, sbatch or salloc")]
    NotLocal,
    /// `ESPANK_NODE_FAILURE` (25.05 and later)
    #[error("node failure")]
    NodeFailure,
    /// `ESPANK_JOB_FAILURE` (25.05 and later)
    #[error("job failure")]
    JobFailure,
    /// A code that no supported release defines.
    #[error("unknown SPANK error {0}")]
    Unknown(i64),
    /// This Slurm does not export the function; see [`crate::host`].
    #[error("this Slurm does not export {0}")]
    MissingSymbol(&'static str),
    /// The text to pass contains a NUL byte, which C cannot carry.
    #[error("text contains a NUL byte")]
    NulByte,
}

impl SpankError {
    /// Turns a return code of any supported release into a `Result`.
    pub(crate) fn check(code: spank_err_t) -> Result<(), Self> {
        Err(match i64::from(code) {
            0 => return Ok(()),
            1 | 3000 => Self::Generic,
            2 | 3001 => Self::BadArgument,
            3 | 3002 => Self::NotTask,
            4 | 3003 => Self::EnvExists,
            5 | 3004 => Self::EnvNotFound,
            6 | 3005 => Self::NoSpace,
            7 | 3006 => Self::NotRemote,
            8 | 3007 => Self::NotFound,
            9 | 3008 => Self::NotExecuted,
            10 | 3009 => Self::NotAvailable,
            11 | 3010 => Self::NotLocal,
            3011 => Self::NodeFailure,
            3012 => Self::JobFailure,
            other => Self::Unknown(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_has_the_same_name_before_and_after_21_08() {
        for (old, new) in (1..=11).zip(3000..=3010) {
            assert_eq!(SpankError::check(old), SpankError::check(new));
        }
        assert_eq!(SpankError::check(0), Ok(()));
        assert_eq!(SpankError::check(4), Err(SpankError::EnvExists));
        assert_eq!(SpankError::check(3012), Err(SpankError::JobFailure));
    }

    #[test]
    fn a_code_from_the_future_is_an_error_that_keeps_its_number() {
        assert_eq!(SpankError::check(3999), Err(SpankError::Unknown(3999)));
    }
}
