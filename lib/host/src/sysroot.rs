//! Bounded, non-blocking reads below a directory that stands for `/`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::printable;

/// Most bytes that [`Sysroot::read_small`] takes: one page, the most that a
/// sysfs attribute can hold.
pub const SMALL: usize = 4096;

/// Most names that [`Sysroot::list`] returns.
pub const MOST_NAMES: usize = 4096;

/// Why something below a [`Sysroot`] could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is nothing at this path (or a link there leads nowhere).
    #[error("{}: no such file", shown(path))]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// There is something, but not a regular file: a directory, FIFO, device.
    #[error("{}: not a regular file", shown(path))]
    NotRegular {
        /// What was looked for.
        path: PathBuf,
    },
    /// The file, or the number of names in the directory, exceeds the limit.
    #[error("{}: larger than the limit of {limit} {unit}", shown(path))]
    TooLarge {
        /// What was read.
        path: PathBuf,
        /// The limit, in `unit`.
        limit: usize,
        /// `bytes` or `names`.
        unit: &'static str,
    },
    /// The content is not UTF-8.
    #[error("{}: not UTF-8 text", shown(path))]
    NotText {
        /// What was read.
        path: PathBuf,
    },
    /// The content is text, but not what this file holds on a healthy node.
    #[error(
        "{}: expected {expected}, found `{}`",
        shown(path),
        printable(found, 80)
    )]
    Unexpected {
        /// What was read.
        path: PathBuf,
        /// What the file should hold, for a person.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// The system refused.
    #[error("{}: {source}", shown(path))]
    Io {
        /// What was read.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ReadError {
    /// Whether the reason is that nothing is there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// The system refused to read this file.
    #[must_use]
    pub fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing { path },
            _ => Self::Io { path, source },
        }
    }
}

/// A path as a message may show it.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 512)
}

/// The text of a file that a person names, also by a path from the working folder;
/// as [`Sysroot::read_bounded`].
///
/// # Errors
/// See [`ReadError`].
pub fn read_named(path: &Path, max: usize) -> Result<String, ReadError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Sysroot::real().read_bounded(&absolute.to_string_lossy(), max)
}

/// A directory that stands for `/` when hardware and installed software are
/// read. Symbolic links inside it are followed by the kernel as usual, so a
/// simulated tree uses relative links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysroot(PathBuf);

impl Sysroot {
    /// A tree that stands for `/`. It must come from configuration that only
    /// root can write, never from a user's environment.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// The machine itself.
    #[must_use]
    pub fn real() -> Self {
        Self(PathBuf::from("/"))
    }

    /// Where `rel` (with or without a leading `/`) lies.
    #[must_use]
    pub fn path(&self, rel: &str) -> PathBuf {
        self.0.join(rel.trim_start_matches('/'))
    }

    /// The trimmed text of a small file, at most [`SMALL`] bytes.
    ///
    /// # Errors
    /// See [`ReadError`]; never blocks on a FIFO or a terminal.
    pub fn read_small(&self, rel: &str) -> Result<String, ReadError> {
        Ok(self.read_bounded(rel, SMALL)?.trim().to_owned())
    }

    /// The text of a file of at most `max` bytes, without trailing white space;
    /// leading lines stay, so that line numbers hold.
    ///
    /// # Errors
    /// See [`ReadError`]; a longer file is an error, never a silent cut.
    pub fn read_bounded(&self, rel: &str, max: usize) -> Result<String, ReadError> {
        let path = self.path(rel);
        let file = self.open(rel)?;
        // Most of what is read here fits at once: no growing from nothing.
        let mut bytes = Vec::with_capacity(max.min(SMALL) + 1);
        file.take(max as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::io(&path, source))?;
        if bytes.len() > max {
            return Err(ReadError::TooLarge {
                path,
                limit: max,
                unit: "bytes",
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(_) => Err(ReadError::NotText { path }),
        }
    }

    /// The names in a directory, sorted by bytes, at most [`MOST_NAMES`].
    /// Names that are not UTF-8 are left out: nothing that this crate looks
    /// for has such a name.
    ///
    /// # Errors
    /// [`ReadError::Missing`] also where `rel` is not a directory.
    pub fn list(&self, rel: &str) -> Result<Vec<String>, ReadError> {
        let path = self.path(rel);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|source| ReadError::io(&path, source))? {
            let entry = entry.map_err(|source| ReadError::io(&path, source))?;
            if names.len() == MOST_NAMES {
                return Err(ReadError::TooLarge {
                    path,
                    limit: MOST_NAMES,
                    unit: "names",
                });
            }
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The last component that the symbolic link at `rel` points to.
    pub fn link_target_name(&self, rel: &str) -> Option<String> {
        let target = fs::read_link(self.path(rel)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Opens a regular file without ever blocking, becoming a controlling
    /// terminal or leaking the descriptor to a child.
    pub fn open(&self, rel: &str) -> Result<File, ReadError> {
        let path = self.path(rel);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&path)
            .map_err(|source| ReadError::io(&path, source))?;
        let kind = file
            .metadata()
            .map_err(|source| ReadError::io(&path, source))?;
        if kind.is_file() {
            Ok(file)
        } else {
            Err(ReadError::NotRegular { path })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn tree() -> (tempfile::TempDir, Sysroot) {
        let dir = tempfile::tempdir().unwrap();
        let root = Sysroot::new(dir.path().to_owned());
        (dir, root)
    }

    #[test]
    fn a_small_file_comes_back_trimmed_whether_the_path_starts_with_a_slash_or_not() {
        let (dir, root) = tree();
        fs::write(dir.path().join("v"), "0x1d0f\n").unwrap();
        assert_eq!(root.read_small("v").unwrap(), "0x1d0f");
        assert_eq!(root.read_small("/v").unwrap(), "0x1d0f");
    }

    #[test]
    fn leading_lines_of_a_longer_file_stay_so_that_line_numbers_hold() {
        let (dir, root) = tree();
        fs::write(dir.path().join("f"), "\n\nthird\n\n").unwrap();
        assert_eq!(root.read_bounded("f", 16).unwrap(), "\n\nthird");
        assert_eq!(root.read_small("f").unwrap(), "third");
    }

    #[test]
    fn a_missing_file_a_dead_link_and_a_path_through_a_file_are_missing() {
        let (dir, root) = tree();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dead")).unwrap();
        for rel in ["none", "dead", "file/below"] {
            assert!(root.read_small(rel).unwrap_err().is_missing(), "{rel}");
        }
    }

    #[test]
    fn a_fifo_nobody_writes_to_is_an_error_at_once() {
        let (dir, root) = tree();
        let fifo = dir.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert!(matches!(
            root.read_small("fifo"),
            Err(ReadError::NotRegular { .. })
        ));
    }

    #[test]
    fn a_directory_and_a_device_are_not_files() {
        let (dir, root) = tree();
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(matches!(
            root.read_small("dir"),
            Err(ReadError::NotRegular { .. })
        ));
        assert!(matches!(
            Sysroot::real().read_small("dev/zero"),
            Err(ReadError::NotRegular { .. })
        ));
    }

    #[test]
    fn one_byte_above_the_limit_is_an_error_and_not_a_cut() {
        let (dir, root) = tree();
        fs::write(dir.path().join("fits"), vec![b'x'; SMALL]).unwrap();
        fs::write(dir.path().join("not"), vec![b'x'; SMALL + 1]).unwrap();
        assert_eq!(root.read_small("fits").unwrap().len(), SMALL);
        assert!(matches!(
            root.read_small("not"),
            Err(ReadError::TooLarge { limit: SMALL, .. })
        ));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_a_typed_error() {
        let (dir, root) = tree();
        fs::write(dir.path().join("bin"), b"\xff\xfe").unwrap();
        assert!(matches!(
            root.read_small("bin"),
            Err(ReadError::NotText { .. })
        ));
    }

    #[test]
    fn names_come_sorted_and_those_that_are_not_utf8_are_left_out() {
        let (dir, root) = tree();
        for name in [b"b".as_slice(), b"a", b"\xff"] {
            fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        }
        assert_eq!(root.list("/").unwrap(), ["a", "b"]);
        assert!(root.list("none").unwrap_err().is_missing());
    }

    #[test]
    fn a_directory_with_too_many_names_is_an_error() {
        let (dir, root) = tree();
        for n in 0..=MOST_NAMES {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(matches!(
            root.list(""),
            Err(ReadError::TooLarge { unit: "names", .. })
        ));
    }

    #[test]
    fn messages_never_echo_an_escape_sequence() {
        let error = Sysroot::new("/\x1b[2J".into()).read_small("x").unwrap_err();
        assert_eq!(error.to_string(), "/\\u{1b}[2J/x: no such file");
    }
}
