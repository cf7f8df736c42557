//! Why the daemon cannot work.

use host::state_dir::StateError;

/// Why the daemon cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The state directory, or another daemon that holds its lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// Which boot this is.
    #[error(transparent)]
    Boot(#[from] host::ReadError),
    /// inotify.
    #[error("cannot wait for events: {0}; see fs.inotify.max_user_instances in inotify(7)")]
    Events(std::io::Error),
}
