//! What is wrong with a configuration.

use std::io;
use std::path::PathBuf;

use host::sysroot::shown;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file does not exist.
    #[error("{}: no such file", shown(path))]
    Missing {
        /// The configuration file.
        path: PathBuf,
    },
    /// Someone else could have written or swapped the file.
    #[error("{}: not read, because {reason}", shown(path))]
    Untrusted {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong and how to put it right.
        reason: String,
    },
    /// The system refused.
    #[error("{}: {source}", shown(path))]
    Io {
        /// The configuration file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The content is wrong.
    #[error("{}:{line}: {reason}", shown(path))]
    Invalid {
        /// The configuration file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong; safe to print.
        reason: String,
    },
}

impl ConfigError {
    /// The line of what is wrong, from 1, if it has one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Invalid { line, .. } => Some(*line),
            _ => None,
        }
    }
}
