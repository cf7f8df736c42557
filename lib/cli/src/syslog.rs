//! The system's log, by the crate `syslog`.
//!
//! Two of the crate's own ways are not used. Its connections wait: a prolog would
//! hang with a full or dead `/dev/log`. Its RFC 3164 lines carry the time in UTC,
//! where a syslog daemon reads local time; without one, the daemon writes its own.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use host::printable;
use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};

/// Where a syslog daemon or journald listens.
const SOCKET: &str = "/dev/log";

/// Longest text, in bytes.
const LONGEST: usize = 900;

/// Sends one warning to the system's log, if there is one that accepts it at once.
pub fn warn(program: &str, text: &str) {
    // Nothing is left to do where it fails.
    let _ = warn_at(Path::new(SOCKET), program, text);
}

fn warn_at(socket: &Path, program: &str, text: &str) -> syslog::Result<()> {
    let connection = UnixDatagram::unbound()?;
    connection.set_nonblocking(true)?;
    connection.connect(socket)?;
    let format = Line {
        program: program.to_owned(),
        pid: std::process::id(),
    };
    Logger::new(LoggerBackend::Unix(connection), format).warning(printable(text, LONGEST))
}

/// A line of RFC 3164 without time and host name, as local sockets accept it.
#[derive(Debug, Clone)]
struct Line {
    program: String,
    pid: u32,
}

impl LogFormat<String> for Line {
    fn format<W: Write>(
        &self,
        to: &mut W,
        severity: Severity,
        message: String,
    ) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let Self { program, pid } = self;
        write!(to, "<{priority}>{program}[{pid}]: {message}").map_err(syslog::Error::Write)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Runs `body` elsewhere, so that a test of something that hangs fails instead.
    fn at_once(body: impl FnOnce() + Send + 'static) {
        let (done, wait) = mpsc::channel();
        thread::spawn(move || {
            body();
            let _ = done.send(());
        });
        wait.recv_timeout(Duration::from_secs(20))
            .expect("the log must not be waited for");
    }

    #[test]
    fn a_warning_is_one_line_with_the_program_its_process_and_priority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = UnixDatagram::bind(&path).unwrap();
        warn_at(&path, "efa-check", "device\n<0>kernel: gone").unwrap();
        let mut line = [0; 200];
        let length = log.recv(&mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..length]);
        let pid = std::process::id();
        // daemon.warning
        let head = format!("<28>efa-check[{pid}]: device");
        assert!(line.starts_with(&head) && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_log_that_is_full_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let _never_read = UnixDatagram::bind(&path).unwrap();
        at_once(move || while warn_at(&path, "efa-check", "again").is_ok() {});
    }

    #[test]
    fn a_log_that_accepts_no_connection_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let _never_accepts = UnixListener::bind(&path).unwrap();
        at_once(move || {
            for _ in 0..10_000 {
                assert!(warn_at(&path, "efa-check", "again").is_err());
            }
        });
    }

    #[test]
    fn a_log_whose_daemon_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(warn_at(&path, "efa-check", "gone").is_err());
    }
}
