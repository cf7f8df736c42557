//! What can go wrong with a testbed, said so that the reader knows what to do.

use std::path::PathBuf;
use std::time::Duration;

use super::output::Output;

/// Any failure of a testbed or of a command run on it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that the testbed is built from is not installed.
    #[error(
        "{program} is not installed{place}, so no Slurm can be started. \
         Install it: {fix}", place = place(.root)
    )]
    Missing {
        /// The absolute path at which the program was looked for.
        program: &'static str,
        /// The root directory that was searched, if not `/`.
        root: Option<PathBuf>,
        /// The command that installs it.
        fix: String,
    },
    /// Namespaces need root and the caller is not root.
    #[error(
        "a testbed with several users and cgroups needs root, and this process runs as uid {uid}. \
         Run it with sudo, or ask for `Testbed::builder().unprivileged()`, \
         which has one user, no cgroups and no namespaces"
    )]
    NotRoot {
        /// The effective uid of the caller.
        uid: u32,
    },
    /// The wish cannot be met in the unprivileged mode.
    #[error("{what} needs root, and this testbed was asked to run unprivileged. {fix}")]
    NeedsRoot {
        /// What was asked for.
        what: String,
        /// What to do instead.
        fix: &'static str,
    },
    /// The kernel or the container refused a step of the set-up.
    #[error(
        "could not {step}: {source}. The testbed needs mount, PID, network, UTS, IPC and cgroup \
         namespaces; inside a container, start it with `--privileged`"
    )]
    Isolation {
        /// The step, as a verb phrase.
        step: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// `slurmd -V` printed something that is no Slurm release.
    #[error("`slurmd -V` printed {0:?}, in which no release number such as 22.05.8 was found")]
    Release(String),
    /// A daemon died or never became ready.
    #[error("{what}\n{logs}")]
    Boot {
        /// What was waited for and why it is given up.
        what: String,
        /// The tails of all logs.
        logs: String,
    },
    /// A command that had to succeed did not.
    #[error("`{command}` ended with {output}\n{logs}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status and output.
        output: Box<Output>,
        /// The tails of all logs.
        logs: String,
    },
    /// A command or a condition took too long.
    #[error("{what} took more than {after:?}; so far: {seen}\n{logs}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The limit that was exceeded.
        after: Duration,
        /// The last thing observed.
        seen: String,
        /// The tails of all logs.
        logs: String,
    },
    /// There is no such user, node or job on this testbed.
    #[error("this testbed has no {what}; it has: {known}")]
    Unknown {
        /// What was asked for.
        what: String,
        /// What there is.
        known: String,
    },
    /// A file or process operation failed.
    #[error("could not {what}: {source}")]
    Io {
        /// The operation, as a verb phrase.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The same text as `Display`: this is what `unwrap` shows, and logs on one
/// escaped line help nobody.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn place(root: &Option<PathBuf>) -> String {
    root.as_ref()
        .map(|root| format!(" in {}", root.display()))
        .unwrap_or_default()
}

/// Names the operation that an `io::Error` belongs to.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}
