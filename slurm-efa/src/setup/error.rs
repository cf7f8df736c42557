//! Why a setup did not succeed.

use super::files;

/// Why nothing was changed, or everything put back.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// The configuration cannot be read.
    #[error("{0}")]
    Config(String),
    /// Nothing was changed.
    #[error("{0}; nothing was changed")]
    File(#[from] files::FileError),
    /// A program refused what was written.
    #[error("{0}; everything was put back")]
    Refused(String),
    /// The same, and it could not be put back.
    #[error("{0}; it could not be put back: {1}; the files before are in {2}")]
    Stuck(String, String, String),
    /// Another one is at work.
    #[error("{0}")]
    Busy(String),
}
