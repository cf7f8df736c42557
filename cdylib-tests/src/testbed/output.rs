//! What a command on a testbed printed.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Standard output, byte for byte.
    pub stdout_bytes: Vec<u8>,
    /// Wall-clock time from start to end.
    pub took: Duration,
}

impl Output {
    /// Did the command exit with 0?
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code, or 128 + n after death by signal n, as a shell counts.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n--- stdout ---\n{}\n--- stderr ---\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}
