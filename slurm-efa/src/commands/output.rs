//! Standard output, and how paths look there.

use std::path::Path;

use host::printable;

/// To stdout; a reader that went away (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// A path as a person may see it.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 200)
}
