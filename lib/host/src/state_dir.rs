//! `/run/slurm-efa`: files that root writes and root believes.
//!
//! What lies here decides which memory root takes from the machine and whose
//! login it ends. So a directory is used only if nobody but root (or the user
//! this process acts as) could have put anything into it, every path is walked
//! without following a link, every later operation is relative to the open
//! directory, and a file appears or changes by one rename: a reader sees the
//! old text or the new one, and needs no lock.
//!
//! A process that changes a directory holds its lock meanwhile ([`StateDir::hold`]).
//! So a temporary file that is seen under the lock was left by a writer that
//! was killed, which is what [`StateDir::sweep`] relies on, and nobody can
//! change or remove a file between another's reading and writing it.
//!
//! Nothing is synced to a disk: state is void after a reboot anyway (see
//! [`BootId`](crate::BootId)).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Deadline;
use crate::interleaving;
use crate::sysroot::shown;
use crate::trust;
use crate::trust::{ALWAYS, Folder, Missing, TrustError};

/// Largest file that is read or written, in bytes.
pub const LARGEST: usize = 64 * 1024;

/// Most names that [`Store::names`] returns.
pub const MOST_NAMES: usize = 64 * 1024;

/// What the name of a file starts with that is not complete yet.
const TEMPORARY: &str = ".tmp.";

/// The file inside a directory that is locked while the directory changes.
/// Names that start with a dot are never those of data.
const CHANGING: &str = ".lock";

/// Longest wait for the lock of a directory. Every holder needs a fraction of a
/// millisecond, but waiting is not first come, first served: with 64 prologs at a
/// time on two busy CPUs some waited for 5 s.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

/// How soon a lock that another process holds is tried again: at first, and at
/// most.
const LOCK_POLL: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Someone else could have put it there or could change it.
    #[error("{}: not used, because {reason}", shown(path))]
    Untrusted {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and how to put it right.
        reason: String,
    },
    /// More bytes, or more names, than any file of slurm-efa has.
    #[error("{}: larger than the limit of {limit}", shown(path))]
    TooLarge {
        /// The directory or file.
        path: PathBuf,
        /// The limit, in bytes or names.
        limit: usize,
    },
    /// Another process kept the lock until the deadline.
    #[error(
        "{}: another process has held this lock for {} s; \
         `fuser -v` on it names that process",
        shown(path),
        waited.as_secs()
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// `open`, `write`, …
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Named files with atomic replacement: the effects that the ledger has on the
/// world besides the kernel's pages. A trait so that tests can end it between
/// any two of them.
pub trait Store {
    /// The file's bytes, at most [`LARGEST`]; `None` where there is no such file.
    ///
    /// # Errors
    /// Anything but a small regular file of a trusted owner. Nobody may read
    /// an error as "there is no such file".
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// Puts `bytes` there in one step, whatever was there before.
    ///
    /// # Errors
    /// The old content stays.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StateError>;

    /// Takes the file away; fine if there is none.
    ///
    /// # Errors
    /// The file stays.
    fn remove(&mut self, name: &str) -> Result<(), StateError>;

    /// The names of all files but incomplete ones, sorted; names that are not
    /// UTF-8 are not ours and left out.
    ///
    /// # Errors
    /// A part of the names is never returned as if it were all.
    fn names(&self) -> Result<Vec<String>, StateError>;

    /// Removes what writers left that were killed.
    ///
    /// # Errors
    /// Some may be left.
    fn sweep(&mut self) -> Result<(), StateError>;
}

/// A directory that only root (or the user this process acts as) can change.
#[derive(Debug)]
pub struct StateDir {
    folder: Folder,
}

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    file: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not by closing alone: a child that the host forked meanwhile has the
        // descriptor, too, until it runs another program.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        interleaving::released();
    }
}

/// A directory that nobody else changes while this lives.
#[derive(Debug)]
pub struct Held<'a> {
    dir: &'a StateDir,
    _lock: Lock,
}

impl Held<'_> {
    /// As [`Store::write`].
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let dir = self.dir;
        check_name(dir.path(), name)?;
        if bytes.len() > LARGEST {
            let (path, limit) = (dir.path().join(name), LARGEST);
            return Err(StateError::TooLarge { path, limit });
        }
        let temporary = dir.write_temporary(bytes)?;
        interleaving::step();
        rustix::fs::renameat(&dir.folder, &temporary, &dir.folder, name).map_err(|errno| {
            let _ = rustix::fs::unlinkat(&dir.folder, &temporary, AtFlags::empty());
            io_error("replace", &dir.path().join(name), errno)
        })
    }

    /// As [`Store::remove`].
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        check_name(self.dir.path(), name)?;
        interleaving::step();
        match rustix::fs::unlinkat(&self.dir.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(io_error("remove", &self.dir.path().join(name), errno)),
        }
    }

    /// As [`Store::sweep`].
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub fn sweep(&self) -> Result<(), StateError> {
        for name in self.dir.all_names()? {
            // Its writer would hold the lock.
            if name.starts_with(TEMPORARY) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl StateDir {
    /// Opens a directory, making what is missing of the path (mode 0755).
    ///
    /// It must pass [`Folder::open`]: no link on the way, and nobody but root
    /// or this process' effective user may write to it.
    ///
    /// # Errors
    /// [`StateError::Untrusted`] also for a symbolic link on the way.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let folder = Folder::open(path, Missing::Make);
        Ok(Self {
            folder: folder.map_err(|error| refused(path, error))?,
        })
    }

    /// As [`StateDir::open`], but makes nothing; `None` where it is missing.
    ///
    /// # Errors
    /// As [`StateDir::open`]; never read one as "it is missing".
    pub fn open_existing(path: &Path) -> Result<Option<Self>, StateError> {
        Self::existing(|| path.to_owned(), Folder::open(path, Missing::Leave))
    }

    /// A directory inside this one, made if it is missing.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn folder(&self, name: &str) -> Result<Self, StateError> {
        check_name(self.path(), name)?;
        let folder = self.folder.folder(OsStr::new(name), Missing::Make);
        Ok(Self {
            folder: folder.map_err(|error| refused(&self.path().join(name), error))?,
        })
    }

    /// As [`StateDir::folder`], but makes nothing; `None` where it is missing.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn existing_folder(&self, name: &str) -> Result<Option<Self>, StateError> {
        check_name(self.path(), name)?;
        let folder = self.folder.folder(OsStr::new(name), Missing::Leave);
        Self::existing(|| self.path().join(name), folder)
    }

    fn existing(
        path: impl Fn() -> PathBuf,
        folder: Result<Folder, TrustError>,
    ) -> Result<Option<Self>, StateError> {
        match folder {
            Ok(folder) => Ok(Some(Self { folder })),
            Err(TrustError::Missing { .. }) => Ok(None),
            Err(error) => Err(refused(&path(), error)),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes the lock of this name, alone, waiting until `deadline`. The
    /// kernel frees it when the holder ends, however it ends. The file is
    /// readable by root alone, so that nobody else can hold it, and never
    /// removed.
    ///
    /// # Errors
    /// [`StateError::Busy`] after the deadline.
    pub fn lock(&self, name: &str, deadline: Deadline) -> Result<Lock, StateError> {
        check_name(self.path(), name)?;
        self.lock_file(name, deadline)
    }

    /// Waits until nobody else changes this directory, and keeps others from
    /// changing it.
    ///
    /// # Errors
    /// [`StateError::Busy`] where another process has held the lock for
    /// seconds: it was stopped in the middle of a change.
    pub fn hold(&self) -> Result<Held<'_>, StateError> {
        let _lock = self.lock_file(CHANGING, Deadline::after(CHANGE_LIMIT))?;
        Ok(Held { dir: self, _lock })
    }

    fn lock_file(&self, name: &str, deadline: Deadline) -> Result<Lock, StateError> {
        let path = self.path().join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | ALWAYS;
        let file = rustix::fs::openat(&self.folder, name, flags, PRIVATE)
            .map_err(|errno| open_error(&path, errno))?;
        judge_file(&path, &file)?;
        let start = Instant::now();
        let (mut pause, longest) = LOCK_POLL;
        loop {
            interleaving::locking(&path);
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { file }),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if deadline.passed() => {
                    let waited = start.elapsed();
                    return Err(StateError::Busy { path, waited });
                }
                // flock has no time limit, and a signal to end a blocking one
                // would be the host process' business: ask again.
                Err(Errno::WOULDBLOCK) => {
                    interleaving::wait(pause.min(deadline.left()));
                    pause = longest.min(pause * 2);
                }
                Err(errno) => return Err(io_error("lock", &path, errno)),
            }
        }
    }

    /// Opens a file in it to read, if [`trust::judge_file`] believes it; `None`
    /// where there is no such file.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn open_file(&self, name: &str) -> Result<Option<File>, StateError> {
        Ok(self.opened(name)?.map(|(file, _)| file))
    }

    fn opened(&self, name: &str) -> Result<Option<(File, Stat)>, StateError> {
        check_name(self.path(), name)?;
        let flags = OFlags::RDONLY | ALWAYS;
        interleaving::step();
        let file = match rustix::fs::openat(&self.folder, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(open_error(&self.path().join(name), errno)),
        };
        let path = self.path().join(name);
        let status = judge_file(&path, &file)?;
        Ok(Some((file, status)))
    }

    /// Writes a temporary file and returns its name.
    fn write_temporary(&self, bytes: &[u8]) -> Result<String, StateError> {
        let name = format!("{TEMPORARY}{}", nonce(self.path())?);
        let path = || self.path().join(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | ALWAYS;
        let fd = rustix::fs::openat(&self.folder, &name, flags, PRIVATE)
            .map_err(|errno| open_error(&path(), errno))?;
        if let Err(source) = File::from(fd).write_all(bytes) {
            // Best effort: a sweep would remove it too.
            let _ = rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty());
            let action = "write";
            return Err(StateError::Io {
                action,
                path: path(),
                source,
            });
        }
        Ok(name)
    }

    fn all_names(&self) -> Result<Vec<String>, StateError> {
        let failed = |errno| io_error("list", self.path(), errno);
        let mut names = Vec::new();
        // The folder's own descriptor is none to read from.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | ALWAYS;
        let list = rustix::fs::openat(&self.folder, ".", flags, Mode::empty()).map_err(failed)?;
        for entry in Dir::new(list).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if names.len() == MOST_NAMES {
                return Err(StateError::TooLarge {
                    path: self.path().to_owned(),
                    limit: MOST_NAMES,
                });
            }
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl Store for StateDir {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let Some((file, status)) = self.opened(name)? else {
            return Ok(None);
        };
        let path = || self.path().join(name);
        // One byte more than there is, so that a single read meets the end.
        let expected = usize::try_from(status.st_size).unwrap_or(0).min(LARGEST) + 1;
        let mut bytes = Vec::with_capacity(expected);
        file.take(LARGEST as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| StateError::Io {
                action: "read",
                path: path(),
                source,
            })?;
        if bytes.len() > LARGEST {
            let (path, limit) = (path(), LARGEST);
            return Err(StateError::TooLarge { path, limit });
        }
        Ok(Some(bytes))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.hold()?.write(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), StateError> {
        self.hold()?.remove(name)
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        let mut names = self.all_names()?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    fn sweep(&mut self) -> Result<(), StateError> {
        self.hold()?.sweep()
    }
}

/// 64 random bits, in hexadecimal.
///
/// # Errors
/// The kernel's generator is not ready (only very early during boot).
pub fn nonce(path: &Path) -> Result<String, StateError> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK)
        .map_err(|errno| io_error("get random bytes for", path, errno))?;
    if got != bytes.len() {
        return Err(io_error("get random bytes for", path, Errno::AGAIN));
    }
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

fn io_error(action: &'static str, path: &Path, errno: Errno) -> StateError {
    StateError::Io {
        action,
        path: path.to_owned(),
        source: errno.into(),
    }
}

fn untrusted(path: &Path, reason: String) -> StateError {
    StateError::Untrusted {
        path: path.to_owned(),
        reason,
    }
}

/// What the one walker says, about the path that was asked for.
fn refused(asked: &Path, error: TrustError) -> StateError {
    match error {
        TrustError::Untrusted { .. } => untrusted(asked, error.reason(asked)),
        TrustError::Missing { path } => io_error("open", &path, Errno::NOENT),
        TrustError::Io {
            action,
            path,
            source,
        } => StateError::Io {
            action,
            path,
            source,
        },
    }
}

fn open_error(path: &Path, errno: Errno) -> StateError {
    refused(path, trust::open_error(path, errno))
}

fn judge_file(path: &Path, file: impl AsFd) -> Result<Stat, StateError> {
    trust::judge_file(path, file).map_err(|error| refused(path, error))
}

/// Names come from this crate; one that left the directory would be our fault.
fn check_name(dir: &Path, name: &str) -> Result<(), StateError> {
    let fits = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    // Temporary files are removed by name, too.
    if fits || (name.starts_with(TEMPORARY) && !name.contains('/')) {
        Ok(())
    } else {
        Err(untrusted(
            dir,
            "a name in it would lead elsewhere".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interleaving::{Actor, every_order};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        (dir, path)
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(50))
    }

    #[test]
    fn a_missing_directory_is_made_with_its_parents_for_its_owner_to_write_only() {
        let (_dir, path) = place();
        StateDir::open(&path).unwrap();
        for made in [path.parent().unwrap(), &path] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o022, 0);
        }
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn looking_for_a_missing_directory_makes_none() {
        let (_dir, path) = place();
        assert!(StateDir::open_existing(&path).unwrap().is_none());
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used_even_if_sticky() {
        let (_dir, path) = place();
        StateDir::open(&path).unwrap();
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = StateDir::open(&path).unwrap_err();
            assert!(matches!(error, StateError::Untrusted { .. }), "{error}");
        }
    }

    #[test]
    fn a_parent_that_others_may_write_to_is_trusted_only_if_sticky() {
        let (_dir, path) = place();
        StateDir::open(&path).unwrap();
        let parent = path.parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(StateDir::open(&path).is_err());
        fs::set_permissions(parent, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(StateDir::open(&path).is_ok());
    }

    #[test]
    fn as_root_a_directory_of_another_user_is_not_used() {
        let (_dir, path) = place();
        StateDir::open(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(20_001), None).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("uid 20001"), "{error}");
    }

    #[test]
    fn a_link_anywhere_on_the_way_is_refused_as_such() {
        let (dir, path) = place();
        StateDir::open(&path).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        symlink("state", dir.path().join("a/other")).unwrap();
        for linked in ["link/state", "a/other"] {
            let error = StateDir::open(&dir.path().join(linked)).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        assert!(StateDir::open(Path::new("relative")).is_err());
        assert!(StateDir::open(&path.join("../state")).is_err());
    }

    #[test]
    fn what_is_written_is_read_back_replaced_listed_and_removed() {
        let (_dir, path) = place();
        let mut state = StateDir::open(&path).unwrap();
        assert_eq!(state.read("f").unwrap(), None);
        state.write("f", b"one").unwrap();
        state.write("f", b"two").unwrap();
        assert_eq!(state.read("f").unwrap().unwrap(), b"two");
        assert_eq!(state.names().unwrap(), ["f"]);
        assert_eq!(fs::metadata(path.join("f")).unwrap().mode() & 0o777, 0o600);
        state.remove("f").unwrap();
        state.remove("f").unwrap();
        assert!(state.names().unwrap().is_empty());
    }

    #[test]
    fn as_root_a_file_is_read_only_if_it_is_regular_small_and_of_a_trusted_owner() {
        let (_dir, path) = place();
        let mut state = StateDir::open(&path).unwrap();
        fs::create_dir(path.join("dir")).unwrap();
        symlink("/etc/hostname", path.join("link")).unwrap();
        symlink("nowhere", path.join("dead")).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(path.join("fifo"))
                .status()
                .unwrap()
                .success()
        );
        for name in ["alien", "open"] {
            state.write(name, b"x").unwrap();
        }
        std::os::unix::fs::chown(path.join("alien"), Some(20_001), None).unwrap();
        fs::set_permissions(path.join("open"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(path.join("large"), vec![0; LARGEST + 1]).unwrap();
        fs::set_permissions(path.join("large"), fs::Permissions::from_mode(0o600)).unwrap();
        for name in ["dir", "link", "dead", "fifo", "alien", "open", "large"] {
            assert!(state.read(name).is_err(), "{name}");
        }
        assert!(state.write("more", &vec![0; LARGEST + 1]).is_err());
    }

    #[test]
    fn writing_over_a_link_replaces_the_link_and_not_what_it_leads_to() {
        let (dir, path) = place();
        let mut state = StateDir::open(&path).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, path.join("f")).unwrap();
        state.write("f", b"new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(state.read("f").unwrap().unwrap(), b"new");
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let (_dir, path) = place();
        let mut state = StateDir::open(&path).unwrap();
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"] {
            assert!(state.write(name, b"").is_err(), "{name:?}");
            assert!(state.read(name).is_err(), "{name:?}");
            assert!(state.folder(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_sweep_removes_what_a_killed_writer_left() {
        let (_dir, path) = place();
        let mut state = StateDir::open(&path).unwrap();
        let dead = state.write_temporary(b"half").unwrap();
        state.write("whole", b"").unwrap();
        assert_eq!(state.names().unwrap(), ["whole"]);
        state.sweep().unwrap();
        assert!(!path.join(dead).exists());
        assert!(path.join("whole").exists());
    }

    #[test]
    fn two_writers_and_a_sweep_in_any_order_lose_nothing_and_leave_nothing() {
        let orders = every_order(
            || {
                let (dir, path) = place();
                let open = StateDir::open(&path).unwrap();
                open.write_temporary(b"of a killed writer").unwrap();
                let state = || StateDir::open(&path).unwrap();
                let (mut first, mut second, mut sweeper) = (state(), state(), state());
                let actors: Vec<Actor> = vec![
                    Box::new(move || first.write("a", b"1").unwrap()),
                    Box::new(move || second.write("b", b"2").unwrap()),
                    Box::new(move || sweeper.sweep().unwrap()),
                ];
                ((dir, open), actors)
            },
            |(_dir, state), order| {
                assert_eq!(state.read("a").unwrap().unwrap(), b"1", "{order}");
                assert_eq!(state.read("b").unwrap().unwrap(), b"2", "{order}");
                let all = state.all_names().unwrap();
                assert_eq!(all, [CHANGING, "a", "b"], "{order}");
            },
        );
        println!("{orders} orders");
        // Each does everything under the lock.
        assert!(orders >= 6, "{orders}");
    }

    #[test]
    fn a_lock_is_held_by_one_and_waited_for_until_the_deadline_only() {
        let (_dir, path) = place();
        let state = StateDir::open(&path).unwrap();
        let held = state.lock("lock", soon()).unwrap();
        let error = state.lock("lock", soon()).unwrap_err();
        assert!(matches!(error, StateError::Busy { .. }), "{error}");
        drop(held);
        drop(state.lock("lock", soon()).unwrap());
        let passed = Deadline::after(Duration::ZERO);
        drop(state.lock("lock", passed).unwrap());
    }

    #[test]
    fn a_lock_file_swapped_for_a_link_or_a_fifo_is_refused() {
        let (_dir, path) = place();
        let state = StateDir::open(&path).unwrap();
        symlink("/etc/hostname", path.join("lock")).unwrap();
        assert!(state.lock("lock", soon()).is_err());
    }

    #[test]
    fn as_root_a_full_file_system_leaves_the_old_content_and_no_temporary_file() {
        // A limit on the file size fails a write as a full file system does,
        // but belongs to the whole process; a tmpfs of one page needs a mount.
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8k,mode=755", "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        let mut state = StateDir::open(dir.path()).unwrap();
        state.write("f", b"old").unwrap();
        let result = state.write("f", &[b'x'; 3 * 4096]);
        let names = state.all_names().unwrap();
        let content = state.read("f").unwrap().unwrap();
        drop(state);
        let unmounted = std::process::Command::new("umount")
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(unmounted.success());
        assert!(result.unwrap_err().to_string().contains("No space left"));
        assert_eq!(names, [CHANGING, "f"]);
        assert_eq!(content, b"old");
    }
}
