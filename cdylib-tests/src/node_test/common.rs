//! What the parts of the virtual cluster share.

use std::error::Error;
use std::fs;
use std::path::Path;

/// How something ends.
pub(super) type Verdict<T = ()> = Result<T, Box<dyn Error>>;

/// The machines and their addresses. No other machine is on their network.
pub(super) const ADDRESSES: [(&str, &str); 3] = [
    ("controller", "10.77.0.1"),
    ("login", "10.77.0.2"),
    ("compute", "10.77.0.3"),
];

/// The last bytes of a file.
pub(super) fn tail(file: &Path, bytes: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let from = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[from..]).into_owned()
}
