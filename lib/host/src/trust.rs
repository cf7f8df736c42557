//! Whether root may believe a path: the one answer for every file that root
//! reads, every program that it runs and every library that it loads.
//!
//! A path is believed if nobody could have put something else there: every
//! folder from `/` down belongs to root or to the user this process acts as
//! (its effective user), and nobody else may write it. A sticky folder such as
//! `/tmp` may be writable on the way, because nobody can rename or remove in it
//! what belongs to another user. The last file or folder must belong to one of
//! these users, too, and nobody else may write it.
//!
//! The walk goes by descriptors, one name at a time, so what was judged is what
//! is used. Links are refused ([`Folder::open`]) or followed one by one under
//! the same rule ([`open_linked_file`], [`program`], [`library`]):
//! each link must belong to a believed user, and so must every folder and file
//! on the way that it leads. So a path without links that was found in this way
//! is stable: only root and this user can change what it leads to.
//!
//! What a program itself reads, loads or runs (its interpreter, its libraries)
//! is its own business and is not judged here.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::ids::Uid;
use crate::sysroot::shown;

/// The kernel's own limit for one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Nothing is there, or a folder above it is missing.
    #[error("{}: no such file or directory", shown(path))]
    Missing {
        /// What is missing.
        path: PathBuf,
    },
    /// Someone else could have put it there or could change it.
    #[error("{}", flaw.sentence(&shown(path)))]
    Untrusted {
        /// The folder, link or file that is wrong.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// `open`, `make`, …
        action: &'static str,
        /// The folder, link or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl TrustError {
    /// What is wrong, for a sentence that begins with the path that was asked
    /// about: "`asked`: not read, because …".
    #[must_use]
    pub fn reason(&self, asked: &Path) -> String {
        match self {
            Self::Untrusted { path, flaw } if path == asked => {
                flaw.advise("it", &shown(path), path == Path::new("/"))
            }
            _ => self.to_string(),
        }
    }
}

/// What is wrong with a folder, link or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// The path is relative or contains `..`.
    NotWhole,
    /// It belongs to this uid.
    Owner(Uid),
    /// It is a link that belongs to this uid.
    LinkOwner(Uid),
    /// It belongs to a user that this process' user namespace does not have.
    OwnerUnknownHere,
    /// Users other than its owner may write it; its mode.
    Writable(u32),
    /// It is a link, and links are not followed here.
    Link,
    /// It is one link too many, most likely in a circle.
    Circle,
    /// It is no regular file.
    NotRegular,
}

impl Flaw {
    fn sentence(self, path: &str) -> String {
        self.advise(path, path, path == "/")
    }

    fn advise(self, subject: &str, path: &str, is_root_folder: bool) -> String {
        match self {
            Self::NotWhole => {
                format!("the path of {subject} is relative or contains `..`; give the full path")
            }
            // Whoever owns `/` made this system so, or only this process sees it so.
            Self::Owner(uid) if is_root_folder => {
                format!("{subject} belongs to uid {uid}, {}", not_to())
            }
            Self::Owner(uid) => {
                format!(
                    "{subject} belongs to uid {uid}, {}; run: chown root {path}",
                    not_to()
                )
            }
            Self::LinkOwner(uid) => format!(
                "{subject} is a symbolic link that belongs to uid {uid}, {}; run: chown -h root \
                 {path}",
                not_to()
            ),
            Self::OwnerUnknownHere => format!(
                "{subject} belongs to a user that this user namespace does not have, so the path \
                 cannot be judged in this namespace"
            ),
            Self::Writable(mode) => format!(
                "others than its owner may write {subject} (mode {:04o}); run: chmod go-w {path}",
                mode & 0o7777
            ),
            Self::Link => format!("{subject} is a symbolic link; name what it leads to"),
            Self::Circle => format!("{subject} is a symbolic link in a circle"),
            Self::NotRegular => format!("{subject} is not a regular file"),
        }
    }
}

fn not_to() -> impl fmt::Display {
    match Uid::effective() {
        Uid::ROOT => "not to root".to_owned(),
        own => format!("neither to root nor to uid {own}"),
    }
}

/// Opens a regular file to read. Links are followed that belong to root or this
/// user: for files in places that a site links, such as HyperPod's `/opt/slurm`.
///
/// # Errors
/// Nothing is there, or others could have put it there. It blocks for no FIFO.
pub fn open_linked_file(path: &Path) -> Result<File, TrustError> {
    resolve_file(path, None).map(|(_, file)| file)
}

/// As [`open_linked_file`], with the file's path without links. Where it is
/// [`TrustError::Missing`], the folders above it that exist are believed.
///
/// # Errors
/// As [`open_linked_file`].
///
/// One more user may be believed: SlurmUser for Slurm's own files, since Slurm
/// believes what that user writes there.
pub fn resolve_file(path: &Path, also: Option<Uid>) -> Result<(PathBuf, File), TrustError> {
    let mut walk = Walk::new(Links::Followed);
    walk.also = also;
    walk.file(path)
}

/// A program that only root or this process' user could have put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProgram {
    named: PathBuf,
    real: PathBuf,
}

impl TrustedProgram {
    /// Where it was asked for: what the program finds as its own name.
    #[must_use]
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// Where it is, without links.
    #[must_use]
    pub fn real(&self) -> &Path {
        &self.real
    }
}

/// Judges a program, following links (`/bin`, alternatives, `/opt/slurm`).
///
/// # Errors
/// It is missing, or others could have put it there.
pub fn program(path: &Path) -> Result<TrustedProgram, TrustError> {
    let named = path.to_owned();
    let real = Walk::new(Links::Followed).place(path)?;
    Ok(TrustedProgram { named, real })
}

/// Judges a library, following links, and returns its path without any.
///
/// # Errors
/// As [`program`].
pub fn library(path: &Path) -> Result<PathBuf, TrustError> {
    Walk::new(Links::Followed).place(path)
}

/// Judges an open file by its owner and mode alone: for a file whose folder is
/// a believed one.
///
/// # Errors
/// It is not regular, or others own it or may write it.
pub fn judge_file(path: &Path, file: impl AsFd) -> Result<Stat, TrustError> {
    judge_file_of(path, file, None)
}

fn judge_file_of(path: &Path, file: impl AsFd, also: Option<Uid>) -> Result<Stat, TrustError> {
    let stat = stat(path, file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(untrusted(path, Flaw::NotRegular));
    }
    judge_owner(path, &stat, also)?;
    judge_mode(path, &stat)?;
    Ok(stat)
}

/// What happens where a folder is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made, with mode 0755.
    Make,
    /// It is an error.
    Leave,
}

/// A folder, by its descriptor (which may be good for nothing but as the start
/// of a path) and its path.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder that only root or this user may write, without following
    /// any link. It must not be writable by others even if it is sticky.
    ///
    /// # Errors
    /// It is missing, or others could have put it there or may write it.
    pub fn open(path: &Path, missing: Missing) -> Result<Self, TrustError> {
        let mut walk = Walk::new(Links::Refused);
        walk.missing = missing;
        match walk.go(path)? {
            End::Folder(folder) => folder.judged_as_last(),
            End::Other { folder, name, .. } => {
                let path = folder.path.join(name);
                Err(io_error("open", &path, Errno::NOTDIR))
            }
        }
    }

    /// A folder in this one, under the rule of [`Folder::open`].
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn folder(&self, name: &OsStr, missing: Missing) -> Result<Self, TrustError> {
        let path = self.path.join(name);
        match self.entry(name, missing)? {
            Entry::Folder(fd) => Self { fd, path }.judged_as_last(),
            Entry::Other(other) => {
                let stat = stat(&path, &other)?;
                Err(match is_link(&stat) {
                    true => untrusted(&path, Flaw::Link),
                    false => io_error("open", &path, Errno::NOTDIR),
                })
            }
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn root() -> Result<Self, TrustError> {
        let path = PathBuf::from("/");
        match rustix::fs::open(&path, FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(errno) => Err(io_error("open", &path, errno)),
        }
    }

    fn parent(mut self) -> Result<Self, TrustError> {
        // Nobody but a believed user can have moved this folder elsewhere.
        self.fd = rustix::fs::openat(&self.fd, "..", FOLDER, Mode::empty())
            .map_err(|errno| io_error("open", &self.path.join(".."), errno))?;
        self.path.pop();
        Ok(self)
    }

    fn entry(&self, name: &OsStr, missing: Missing) -> Result<Entry, TrustError> {
        let path = || self.path.join(name);
        // Asked for as a folder first: only so does the kernel mount what
        // autofs mounts on demand.
        let folder = || rustix::fs::openat(&self.fd, name, FOLDER, Mode::empty());
        match folder() {
            Ok(fd) => return Ok(Entry::Folder(fd)),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return match rustix::fs::openat(&self.fd, name, ANYTHING, Mode::empty()) {
                    Ok(fd) => Ok(Entry::Other(fd)),
                    Err(errno) => Err(open_error(&path(), errno)),
                };
            }
            Err(Errno::NOENT) if missing == Missing::Make => {}
            Err(errno) => return Err(open_error(&path(), errno)),
        }
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io_error("make", &path(), errno)),
        }
        match folder() {
            Ok(fd) => Ok(Entry::Folder(fd)),
            Err(errno) => Err(open_error(&path(), errno)),
        }
    }

    fn judge_on_the_way(&self, also: Option<Uid>) -> Result<(), TrustError> {
        let stat = stat(&self.path, &self.fd)?;
        judge_owner(&self.path, &stat, also)?;
        let sticky = stat.st_mode & 0o1000 != 0;
        if sticky {
            return Ok(());
        }
        judge_mode(&self.path, &stat)
    }

    fn judged_as_last(self) -> Result<Self, TrustError> {
        let stat = stat(&self.path, &self.fd)?;
        judge_owner(&self.path, &stat, None)?;
        judge_mode(&self.path, &stat)?;
        Ok(self)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

enum Entry {
    Folder(OwnedFd),
    Other(OwnedFd),
}

/// Where a walk ends.
enum End {
    Folder(Folder),
    Other {
        folder: Folder,
        name: OsString,
        object: OwnedFd,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Refused,
    Followed,
}

struct Walk {
    links: Links,
    missing: Missing,
    /// A user who is believed besides root and this process' own.
    also: Option<Uid>,
}

impl Walk {
    fn new(links: Links) -> Self {
        Self {
            links,
            missing: Missing::Leave,
            also: None,
        }
    }

    /// Walks to the end of a path and judges everything but the end itself.
    fn go(&self, path: &Path) -> Result<End, TrustError> {
        let dots = path.components().any(|part| part == Component::ParentDir);
        if !path.is_absolute() || dots {
            return Err(untrusted(path, Flaw::NotWhole));
        }
        let mut followed = 0;
        let mut here = Folder::root()?;
        let mut ahead = names(path);
        while let Some(name) = ahead.pop() {
            here.judge_on_the_way(self.also)?;
            if name == ".." {
                here = here.parent()?;
                continue;
            }
            let object = match here.entry(&name, self.missing)? {
                Entry::Folder(fd) => {
                    here.fd = fd;
                    here.path.push(&name);
                    continue;
                }
                Entry::Other(object) => object,
            };
            let path = here.path.join(&name);
            let stat = stat(&path, &object)?;
            if !is_link(&stat) {
                if ahead.is_empty() {
                    let folder = here;
                    return Ok(End::Other {
                        folder,
                        name,
                        object,
                    });
                }
                return Err(io_error("open", &path, Errno::NOTDIR));
            }
            if self.links == Links::Refused {
                return Err(untrusted(&path, Flaw::Link));
            }
            judge_link(&path, &stat, self.also)?;
            followed += 1;
            if followed > MOST_LINKS {
                return Err(untrusted(&path, Flaw::Circle));
            }
            // By the descriptor: this is the link that was judged.
            let target = rustix::fs::readlinkat(&object, "", Vec::new())
                .map_err(|errno| io_error("read", &path, errno))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                here = Folder::root()?;
            }
            ahead.extend(names(&target));
        }
        Ok(End::Folder(here))
    }

    /// The folder and the name of a regular file that is believed.
    fn regular(&self, path: &Path) -> Result<(Folder, OsString), TrustError> {
        match self.go(path)? {
            End::Folder(_) => Err(untrusted(path, Flaw::NotRegular)),
            End::Other {
                folder,
                name,
                object,
            } => {
                judge_file_of(&folder.path.join(&name), &object, self.also)?;
                Ok((folder, name))
            }
        }
    }

    fn place(&self, path: &Path) -> Result<PathBuf, TrustError> {
        let (folder, name) = self.regular(path)?;
        Ok(folder.path.join(name))
    }

    fn file(&self, path: &Path) -> Result<(PathBuf, File), TrustError> {
        let (folder, name) = self.regular(path)?;
        let path = folder.path.join(&name);
        let file = rustix::fs::openat(&folder.fd, &name, OFlags::RDONLY | ALWAYS, Mode::empty())
            .map_err(|errno| open_error(&path, errno))?;
        // In a sticky folder another file may have come in its place.
        judge_file_of(&path, &file, self.also)?;
        Ok((path, File::from(file)))
    }
}

/// Never follows a link, leaks to a child, waits for a FIFO's other end or
/// becomes a controlling terminal.
pub(crate) const ALWAYS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// `O_PATH` needs no right to read, and touches no FIFO or device.
const ANYTHING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const FOLDER: OFlags = ANYTHING.union(OFlags::DIRECTORY);

/// The names of a path, the first one last; `..` stays, `.` and `/` go.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn untrusted(path: &Path, flaw: Flaw) -> TrustError {
    let path = path.to_owned();
    TrustError::Untrusted { path, flaw }
}

fn io_error(action: &'static str, path: &Path, errno: Errno) -> TrustError {
    TrustError::Io {
        action,
        path: path.to_owned(),
        source: errno.into(),
    }
}

pub(crate) fn open_error(path: &Path, errno: Errno) -> TrustError {
    match errno {
        Errno::NOENT => TrustError::Missing {
            path: path.to_owned(),
        },
        Errno::LOOP => untrusted(path, Flaw::Link),
        _ => io_error("open", path, errno),
    }
}

fn stat(path: &Path, fd: impl AsFd) -> Result<Stat, TrustError> {
    rustix::fs::fstat(fd).map_err(|errno| io_error("look at", path, errno))
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn judge_owner(path: &Path, stat: &Stat, also: Option<Uid>) -> Result<(), TrustError> {
    match Uid(stat.st_uid) {
        uid if uid.is_root() || uid == Uid::effective() || Some(uid) == also => Ok(()),
        uid if is_unknown_here(uid) => Err(untrusted(path, Flaw::OwnerUnknownHere)),
        uid => Err(untrusted(path, Flaw::Owner(uid))),
    }
}

/// The mode of a link means nothing; whose it is decides where it leads.
fn judge_link(path: &Path, stat: &Stat, also: Option<Uid>) -> Result<(), TrustError> {
    judge_owner(path, stat, also).map_err(|error| match error {
        TrustError::Untrusted {
            flaw: Flaw::Owner(uid),
            ..
        } => untrusted(path, Flaw::LinkOwner(uid)),
        other => other,
    })
}

/// An access control list that lets others write shows in the group's bits
/// (acl(5)).
fn judge_mode(path: &Path, stat: &Stat) -> Result<(), TrustError> {
    if stat.st_mode & 0o022 != 0 {
        return Err(untrusted(path, Flaw::Writable(stat.st_mode)));
    }
    Ok(())
}

/// Whether this uid is what the kernel shows for every user that this process'
/// user namespace does not have (user_namespaces(7)).
fn is_unknown_here(uid: Uid) -> bool {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    let overflow = overflow.ok().as_deref().and_then(number).unwrap_or(65_534);
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return false;
    };
    let has_all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    uid.0 == overflow && !has_all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
    use std::process::Command;

    /// A user who is neither root nor the one who runs the tests.
    const ALICE: Uid = Uid(20_001);

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `bin/tool`, `lib/bin` below a folder that passes.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for folder in ["bin", "lib", "lib/bin"] {
            fs::create_dir(root.join(folder)).unwrap();
            set_mode(&root.join(folder), 0o755);
        }
        for file in ["bin/tool", "lib/bin/tool"] {
            fs::write(root.join(file), "content").unwrap();
            set_mode(&root.join(file), 0o755);
        }
        (dir, root)
    }

    fn flaw<T: fmt::Debug>(result: Result<T, TrustError>) -> (PathBuf, Flaw) {
        match result {
            Err(TrustError::Untrusted { path, flaw }) => (path, flaw),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_only_root_or_this_user_can_have_put_there_is_read() {
        let (_dir, root) = place();
        let mut text = String::new();
        let (path, mut file) = resolve_file(&root.join("bin/./tool"), None).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, path), ("content", root.join("bin/tool")));
    }

    #[test]
    fn as_root_what_others_could_have_put_there_is_refused_by_every_entrance() {
        type Spoil = fn(&Path);
        let spoils: [(&str, Spoil, &str, Flaw); 7] = [
            (
                "bin/tool",
                |it| set_mode(it, 0o775),
                "bin/tool",
                Flaw::Writable(0o100_775),
            ),
            (
                "bin/tool",
                |it| set_mode(it, 0o757),
                "bin/tool",
                Flaw::Writable(0o100_757),
            ),
            (
                "bin/tool",
                |it| chown(it, Some(ALICE.0), None).unwrap(),
                "bin/tool",
                Flaw::Owner(ALICE),
            ),
            (
                "bin",
                |it| set_mode(it, 0o777),
                "bin",
                Flaw::Writable(0o40_777),
            ),
            (
                "bin",
                |it| set_mode(it, 0o775),
                "bin",
                Flaw::Writable(0o40_775),
            ),
            (
                "bin",
                |it| chown(it, Some(ALICE.0), None).unwrap(),
                "bin",
                Flaw::Owner(ALICE),
            ),
            ("", |it| set_mode(it, 0o777), "", Flaw::Writable(0o40_777)),
        ];
        for (spoilt, spoil, blamed, expected) in spoils {
            let (_dir, root) = place();
            let file = root.join("bin/tool");
            assert!(program(&file).is_ok());
            spoil(&root.join(spoilt));
            // Not `root/`, which a join with nothing makes.
            let blamed: PathBuf = root.join(blamed).components().collect();
            let expected = (blamed, expected);
            assert_eq!(flaw(open_linked_file(&file)), expected);
            assert_eq!(flaw(program(&file)), expected);
            assert_eq!(flaw(library(&file)), expected);
        }
    }

    #[test]
    fn as_root_a_sticky_folder_that_all_may_write_is_fine_on_the_way_but_not_as_the_last() {
        let (_dir, root) = place();
        set_mode(&root.join("bin"), 0o1777);
        assert!(open_linked_file(&root.join("bin/tool")).is_ok());
        let last = Folder::open(&root.join("bin"), Missing::Leave);
        assert_eq!(flaw(last), (root.join("bin"), Flaw::Writable(0o41_777)));
        chown(root.join("bin/tool"), Some(ALICE.0), None).unwrap();
        assert_eq!(flaw(program(&root.join("bin/tool"))).1, Flaw::Owner(ALICE));
    }

    #[test]
    fn a_program_is_found_through_links_as_distributions_and_sites_make_them() {
        let (_dir, root) = place();
        let link = |target: &str, name: &str| symlink(target, root.join(name)).unwrap();
        link("lib/bin", "usr-bin");
        link("../bin/tool", "lib/alternative");
        link("../lib/./alternative", "bin/linked");
        let absolute = root.join("lib/alternative");
        symlink(&absolute, root.join("bin/absolute")).unwrap();
        for (named, real) in [
            ("usr-bin/tool", "lib/bin/tool"),
            ("lib/alternative", "bin/tool"),
            ("bin/linked", "bin/tool"),
            ("bin/absolute", "bin/tool"),
            ("bin/tool", "bin/tool"),
        ] {
            let found = program(&root.join(named)).unwrap();
            assert_eq!(found.real(), root.join(real), "{named}");
            assert_eq!(found.named(), root.join(named), "{named}");
            assert_eq!(library(&root.join(named)).unwrap(), root.join(real));
            assert!(open_linked_file(&root.join(named)).is_ok());
        }
        for linked in ["usr-bin", "bin/linked"] {
            let path = root.join(linked);
            let refused = Folder::open(&path, Missing::Leave);
            assert_eq!(flaw(refused), (path, Flaw::Link));
        }
    }

    #[test]
    fn as_root_a_link_of_another_user_is_not_followed_even_in_a_sticky_folder() {
        let (_dir, root) = place();
        set_mode(&root.join("lib"), 0o1777);
        symlink("../bin/tool", root.join("lib/theirs")).unwrap();
        lchown(root.join("lib/theirs"), Some(ALICE.0), None).unwrap();
        assert_eq!(
            flaw(program(&root.join("lib/theirs"))),
            (root.join("lib/theirs"), Flaw::LinkOwner(ALICE))
        );
    }

    #[test]
    fn what_a_link_of_roots_leads_to_is_judged_like_everything_else() {
        let (_dir, root) = place();
        symlink("lib/bin", root.join("usr-bin")).unwrap();
        set_mode(&root.join("lib"), 0o777);
        assert_eq!(
            flaw(program(&root.join("usr-bin/tool"))),
            (root.join("lib"), Flaw::Writable(0o40_777))
        );
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (_dir, root) = place();
        symlink("there", root.join("here")).unwrap();
        symlink("here", root.join("there")).unwrap();
        assert_eq!(flaw(program(&root.join("here"))).1, Flaw::Circle);
        // Each name doubles what is ahead, as long as links are counted.
        symlink("twice/twice/tool", root.join("twice")).unwrap();
        assert_eq!(flaw(program(&root.join("twice"))).1, Flaw::Circle);
    }

    #[test]
    fn what_is_no_regular_file_is_neither_read_nor_run() {
        let (_dir, root) = place();
        let fifo = root.join("fifo");
        let made = Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&fifo)
            .status();
        assert!(made.unwrap().success());
        for path in [
            &fifo,
            &root.join("bin"),
            Path::new("/dev/null"),
            Path::new("/"),
        ] {
            assert_eq!(
                flaw(open_linked_file(path)).1,
                Flaw::NotRegular,
                "{}",
                path.display()
            );
            assert_eq!(
                flaw(program(path)).1,
                Flaw::NotRegular,
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_path_that_is_not_whole_is_refused() {
        for path in ["", "tool", "./tool", "/bin/../bin/sh", "/.."] {
            assert_eq!(flaw(program(Path::new(path))).1, Flaw::NotWhole, "{path:?}");
            assert_eq!(
                flaw(open_linked_file(Path::new(path))).1,
                Flaw::NotWhole,
                "{path:?}"
            );
        }
    }

    #[test]
    fn as_root_a_missing_file_below_a_folder_that_others_may_write_is_untrusted() {
        let (_dir, root) = place();
        set_mode(&root.join("bin"), 0o777);
        let expected = (root.join("bin"), Flaw::Writable(0o40_777));
        assert_eq!(flaw(resolve_file(&root.join("bin/none"), None)), expected);
    }

    #[test]
    fn a_missing_file_is_missing_and_not_untrusted() {
        let (_dir, root) = place();
        symlink("nowhere", root.join("dangling")).unwrap();
        for path in ["bin/none", "none/tool", "dangling"] {
            let error = program(&root.join(path)).unwrap_err();
            assert!(matches!(error, TrustError::Missing { .. }), "{error}");
        }
        let below = open_linked_file(&root.join("bin/tool/below")).unwrap_err();
        assert!(below.to_string().contains("Not a directory"), "{below}");
    }

    #[test]
    fn a_refusal_says_what_is_wrong_whose_it_is_or_what_to_do() {
        let sentence = |path: &str, flaw| untrusted(Path::new(path), flaw).to_string();
        let owner = sentence("/opt/slurm", Flaw::Owner(Uid(1000)));
        assert!(
            owner.starts_with("/opt/slurm belongs to uid 1000, "),
            "{owner}"
        );
        assert!(owner.ends_with("; run: chown root /opt/slurm"), "{owner}");
        let writable = sentence("/opt/slurm", Flaw::Writable(0o40_775));
        assert!(
            writable.contains("(mode 0775); run: chmod go-w /opt/slurm"),
            "{writable}"
        );
        let link = sentence("/opt/slurm", Flaw::LinkOwner(Uid(1000)));
        assert!(link.contains("chown -h root /opt/slurm"), "{link}");
        let slash = sentence("/", Flaw::Owner(Uid(1000)));
        assert!(
            slash.contains("uid 1000") && !slash.contains("chown"),
            "{slash}"
        );
        let error = untrusted(Path::new("/a/b"), Flaw::NotRegular);
        assert_eq!(error.reason(Path::new("/a/b")), "it is not a regular file");
        assert_eq!(error.reason(Path::new("/a")), "/a/b is not a regular file");
    }

    /// Runs as another process, in a user namespace that has no root of the
    /// machine's: see the test below.
    #[test]
    #[ignore = "a part of the test below"]
    fn inside_a_user_namespace() {
        if let Err(error) = open_linked_file(Path::new("/etc/passwd")) {
            println!("refused: {error}");
        }
    }

    #[test]
    fn in_a_user_namespace_without_root_the_refusal_says_so_and_advises_no_chown() {
        let (_dir, root) = place();
        set_mode(&root, 0o755);
        let own = root.join("tests");
        fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
        let unshared = || {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=20001", "--regid=20001", "--clear-groups"]);
            command.args(["unshare", "--user", "--map-root-user"]);
            command
        };
        if !unshared().arg("true").status().is_ok_and(|it| it.success()) {
            eprintln!("not tested: this machine gives users no namespaces of their own");
            return;
        }
        let output = unshared()
            .arg(own)
            .args(["--exact", "trust::tests::inside_a_user_namespace"])
            .args(["--include-ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("refused: / belongs to a user"), "{text}");
        assert!(
            text.contains("cannot be judged in this namespace"),
            "{text}"
        );
        assert!(!text.contains("chown"), "{text}");
    }
}
