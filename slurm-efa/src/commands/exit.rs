//! Exit codes: those of conventions, and sysexits.h's for wrong use.

use config::ConfigError;
use hugepages::ReconcileError;
use slurm::node_name::NameError;
use slurm_efa::setup::SetupError;

/// Nothing is known of the job, or the pages could not be reconciled.
pub const COULD_NOT_TELL: u8 = 3;

/// Something was left as it is.
pub const ATTENTION: u8 = 1;

/// A program refused what was written.
pub const REFUSED: u8 = 2;

/// Wrong use; this and all that follow as in sysexits.h.
pub const EX_USAGE: u8 = 64;

/// A file is not what it should be.
pub const EX_DATAERR: u8 = 65;

/// Something that must be there is not.
pub const EX_UNAVAILABLE: u8 = 69;

/// A file cannot be written.
pub const EX_CANTCREAT: u8 = 73;

/// Something could not be read or written.
pub const EX_IOERR: u8 = 74;

/// Another one is at work.
pub const EX_TEMPFAIL: u8 = 75;

/// Not root.
pub const EX_NOPERM: u8 = 77;

/// The configuration is wrong.
pub const EX_CONFIG: u8 = 78;

/// A file that is not what it should be, with its name and place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadData(pub String);

/// A file that is not to be replaced is there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Exists(pub String);

/// Wrong use that the command line alone does not show.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<NameError>() {
        EX_CONFIG
    } else if let Some(error) = error.downcast_ref::<SetupError>() {
        of_setup(error)
    } else if error.is::<BadData>() {
        EX_DATAERR
    } else if error.is::<Exists>() {
        EX_CANTCREAT
    } else if error.is::<WrongUse>() {
        EX_USAGE
    } else if error.is::<ReconcileError>() {
        COULD_NOT_TELL
    } else {
        EX_IOERR
    }
}

fn of_setup(error: &SetupError) -> u8 {
    match error {
        SetupError::Missing(_) => EX_UNAVAILABLE,
        SetupError::Config(_) => EX_CONFIG,
        SetupError::File(_) => EX_CANTCREAT,
        SetupError::Refused(_) | SetupError::Stuck(..) => REFUSED,
        SetupError::Busy(_) => EX_TEMPFAIL,
    }
}
