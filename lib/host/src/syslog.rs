//! One line to the system's log.

use std::os::unix::net::UnixDatagram;

use crate::printable;

/// daemon.warning of RFC 3164.
const PRIORITY: u32 = 3 * 8 + 4;

/// Sends one line to the system's log, if there is one that accepts it at once.
pub fn warn(program: &str, text: &str) {
    let line = format!("<{PRIORITY}>{program}: {}", printable(text, 900));
    if let Ok(socket) = UnixDatagram::unbound() {
        // Nothing is left to do where it fails.
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(line.as_bytes(), "/dev/log");
    }
}
