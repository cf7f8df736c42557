//! Where a command's words go.

use std::io::{self, Write as _};

use host::printable;

/// A sentence for the caller; slurmd logs a prolog's words when it fails.
pub fn complain(text: &str) {
    let text = printable(text, 2000);
    let _ = writeln!(io::stderr().lock(), "gres-helper: {text}");
}

pub fn print(text: &str) {
    // A closed pipe: the reader has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
