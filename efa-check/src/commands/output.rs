//! Where a command's words go.

use std::io::{self, Write as _};

/// To standard output; who closed it wants no more.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => complain(&error.to_string()),
    }
}

pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "efa-check: {text}");
}
