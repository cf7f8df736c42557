//! Several files changed together: all as wished, or all as they were.
//!
//! Everything that can fail for want of space or rights is done first, under
//! names that nobody reads. Then each new file takes its place by a rename, so
//! a reader sees the old text or the new one. The old file is kept beside it
//! until the outcome is judged: to put it back needs one rename and no space.
//! A process that is killed leaves each file old or new, and a `.slurm-efa-…`
//! file that the next run removes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use host::Uid;
use host::sysroot::shown;
use host::trust::{self, TrustError};

use super::wrapper::Wrapper;

/// Largest file that is edited, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// What a path shall be, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with this text.
    Text(String),
    /// An executable file with this text.
    Script(String),
    /// A symbolic link.
    Link(PathBuf),
    /// Nothing.
    Nothing,
}

/// A path and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Without links on the way.
    pub path: PathBuf,
    /// What is there.
    pub before: Content,
    /// What shall be.
    pub after: Content,
}

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused, or the content is wrong.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Others could have put it there.
    #[error("{}: not edited, because {}", shown(path), error.reason(path))]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TrustError,
    },
}

fn about(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io {
        action,
        path,
        source,
    }
}

/// What is at `path` to be edited, and where that is without links. Root edits
/// only what [`host::trust`] believes: in a folder of another user, a file
/// could be anything by the time it is replaced.
///
/// # Errors
/// Others could have put it there, it is not text, or it cannot be read.
pub fn read(path: &Path) -> Result<(PathBuf, Content), FileError> {
    read_of(path, None)
}

/// As [`read`], where `owner` is believed, too: SlurmUser, to whom some sites
/// give slurm.conf and its folder.
///
/// # Errors
/// As [`read`].
pub fn read_of(path: &Path, owner: Option<Uid>) -> Result<(PathBuf, Content), FileError> {
    let (real, file) = match trust::resolve_file(path, owner) {
        Ok(found) => found,
        Err(TrustError::Missing { .. }) => return Ok((resolved(path), Content::Nothing)),
        Err(TrustError::Io { source, .. }) => return Err(about("read", path)(source)),
        Err(error) => {
            let path = path.to_owned();
            return Err(FileError::Untrusted { path, error });
        }
    };
    let text = text_of(&real, file)?;
    Ok((real, Content::Text(text)))
}

/// The text of a file that an administrator names, wherever it lies.
///
/// # Errors
/// It is missing, not text, or cannot be read.
pub fn read_named(path: &Path) -> Result<String, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(about("read", path))?;
    text_of(path, file)
}

fn text_of(path: &Path, file: File) -> Result<String, FileError> {
    let invalid = |why: &str| about("edit", path)(io::Error::new(io::ErrorKind::InvalidData, why));
    let meta = file.metadata().map_err(about("look at", path))?;
    if !meta.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(about("read", path))?;
    if text.len() as u64 > LARGEST {
        return Err(invalid("it is larger than 4 MiB"));
    }
    Ok(text)
}

/// `path` without links on the way to it, also where it is not there yet: the
/// same file must have the same name before and after it is made.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let real = |folder: &Path| {
        let real = fs::canonicalize(folder).ok()?;
        Some(real.join(path.strip_prefix(folder).ok()?))
    };
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let mut above = path.ancestors().skip(1);
    above.find_map(real).unwrap_or_else(|| path.to_owned())
}

/// What is at `path` itself, if it is a link, or a script that setup made.
#[must_use]
pub fn program(path: &Path) -> Content {
    if let Ok(target) = fs::read_link(path) {
        return Content::Link(target);
    }
    match read(path) {
        Ok((_, Content::Text(text))) if Wrapper::of(&text, "").is_some() => Content::Script(text),
        _ => Content::Nothing,
    }
}

/// Changes that have been made and can be taken back.
#[derive(Debug)]
#[must_use]
pub struct Made {
    changes: Vec<Change>,
}

/// Makes all changes, or none.
///
/// # Errors
/// The first that could not be made; all others are as before.
pub fn make(changes: Vec<Change>) -> Result<Made, FileError> {
    let prepared = changes.iter().try_for_each(prepare);
    if let Err(error) = prepared {
        changes.iter().for_each(sweep);
        return Err(error);
    }
    let mut made = Made {
        changes: Vec::new(),
    };
    for change in &changes {
        let path = &change.path;
        let done = match change.after {
            Content::Nothing => fs::remove_file(path),
            _ => fs::rename(beside(path, "new"), path),
        };
        if let Err(error) = done {
            let error = about("replace", path)(error);
            let _ = made.put_back();
            changes.iter().for_each(sweep);
            return Err(error);
        }
        sync_folder(path);
        made.changes.push(change.clone());
    }
    Ok(made)
}

impl Made {
    /// Puts everything back as it was.
    ///
    /// # Errors
    /// The first that could not be; all others are tried.
    pub fn put_back(self) -> Result<(), FileError> {
        let mut result = Ok(());
        for change in self.changes.iter().rev() {
            let path = &change.path;
            let done = match change.before {
                Content::Nothing => fs::remove_file(path),
                _ => fs::rename(beside(path, "old"), path),
            };
            if let Err(error) = done
                && result.is_ok()
            {
                result = Err(about("put back", path)(error));
            }
            sync_folder(path);
        }
        result
    }

    /// Lets everything stay.
    pub fn keep(self) {
        self.changes.iter().for_each(sweep);
    }
}

/// Removes what a killed run left beside `path`.
pub fn sweep_path(path: &Path) {
    for suffix in ["new", "old"] {
        // It may not be there, and the next run tries again.
        let _ = fs::remove_file(beside(path, suffix));
    }
}

/// Whether a killed run left something beside `path`.
#[must_use]
pub fn is_left(path: &Path) -> bool {
    ["new", "old"]
        .iter()
        .any(|suffix| beside(path, suffix).symlink_metadata().is_ok())
}

fn sweep(change: &Change) {
    sweep_path(&change.path);
}

fn prepare(change: &Change) -> Result<(), FileError> {
    let path = &change.path;
    let (new, old) = (beside(path, "new"), beside(path, "old"));
    sweep(change);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(about("make", folder))?;
    }
    match &change.after {
        Content::Text(text) => {
            write_new(path, &new, text, None).map_err(about("write", &new))?;
        }
        Content::Script(text) => {
            write_new(path, &new, text, Some(0o755)).map_err(about("write", &new))?;
        }
        Content::Link(target) => symlink(target, &new).map_err(about("make", &new))?,
        Content::Nothing => {}
    }
    if change.before == Content::Nothing {
        // To put it back means to remove it, so it must not be somebody else's.
        if path.symlink_metadata().is_ok() {
            let there = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(about("make", path)(there));
        }
    } else {
        // Hard links to links are links: nothing is followed here.
        fs::hard_link(path, &old).map_err(about("keep", &old))?;
    }
    Ok(())
}

fn write_new(path: &Path, new: &Path, text: &str, mode: Option<u32>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(text.as_bytes())?;
    let mode = match (mode, fs::symlink_metadata(path)) {
        (Some(mode), _) => mode,
        (None, Ok(meta)) => {
            // By the open file: nobody can put another one in its place.
            fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
            meta.mode() & 0o7777
        }
        (None, Err(_)) => 0o644,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Hidden from PAM, from Slurm's globs, and from `*` of a shell.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.slurm-efa-{suffix}"))
}

fn sync_folder(path: &Path) {
    // A file system that cannot sync a folder keeps its order by itself.
    let _ = path
        .parent()
        .and_then(|folder| File::open(folder).ok())
        .map(|folder| folder.sync_all());
}

/// Keeps copies of what is about to change, for people; `revert` does not need
/// them.
///
/// # Errors
/// Not all could be kept.
pub fn back_up(folder: &Path, changes: &[Change]) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(about("make", folder))?;
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(folder, private).map_err(about("protect", folder))?;
    for change in changes {
        if let Content::Text(text) | Content::Script(text) = &change.before {
            let name = change.path.to_string_lossy().replace('/', "-");
            let copy = folder.join(name.trim_start_matches('-'));
            fs::write(&copy, text).map_err(about("write", &copy))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path, after: &str) -> Change {
        let (path, before) = read(path).unwrap();
        Change {
            path,
            before,
            after: Content::Text(after.to_owned()),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_made_can_be_put_back_and_nothing_is_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (
            dir.path().join("a"),
            dir.path().join("b"),
            dir.path().join("c"),
        );
        fs::write(&a, "old").unwrap();
        fs::set_permissions(&a, fs::Permissions::from_mode(0o440)).unwrap();
        symlink("x", &c).unwrap();
        let changes = || {
            let link = Change {
                path: c.clone(),
                before: program(&c),
                after: Content::Nothing,
            };
            vec![text(&a, "new"), text(&b, "made"), link]
        };
        make(changes()).unwrap().put_back().unwrap();
        assert_eq!(fs::read_to_string(&a).unwrap(), "old");
        assert_eq!(program(&c), Content::Link("x".into()));
        assert_eq!(names(dir.path()), ["a", "c"]);
        make(changes()).unwrap().keep();
        assert_eq!(fs::read_to_string(&a).unwrap(), "new");
        assert_eq!(fs::metadata(&a).unwrap().mode() & 0o777, 0o440);
        assert_eq!(fs::metadata(&b).unwrap().mode() & 0o777, 0o644);
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn one_that_cannot_be_made_leaves_all_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let a = dir.path().join("a");
        fs::write(&a, "old").unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let impossible = Change {
            path: dir.path().join("file/below"),
            before: Content::Nothing,
            after: Content::Text("x".to_owned()),
        };
        let error = make(vec![text(&a, "new"), impossible]).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(fs::read_to_string(&a).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a", "file"]);
    }

    #[test]
    fn a_rename_that_fails_takes_back_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "old").unwrap();
        fs::write(&b, "b").unwrap();
        let gone = Change {
            after: Content::Nothing,
            ..text(&b, "")
        };
        // The second time there is nothing to remove.
        let error = make(vec![text(&a, "new"), gone.clone(), gone]).unwrap_err();
        assert!(error.to_string().contains("replace"), "{error}");
        assert_eq!(fs::read_to_string(&a).unwrap(), "old");
        assert_eq!(fs::read_to_string(&b).unwrap(), "b");
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn what_is_there_although_nothing_was_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (a, wrapper, dangling) = (
            dir.path().join("a"),
            dir.path().join("wrapper"),
            dir.path().join("dangling"),
        );
        fs::write(&a, "old").unwrap();
        fs::write(&wrapper, "theirs").unwrap();
        symlink("nowhere", &dangling).unwrap();
        for path in [&wrapper, &dangling] {
            let onto = Change {
                path: path.clone(),
                before: Content::Nothing,
                after: Content::Link("x".into()),
            };
            assert!(make(vec![text(&a, "new"), onto]).is_err());
        }
        assert_eq!(fs::read_to_string(&a).unwrap(), "old");
        assert_eq!(fs::read_to_string(&wrapper).unwrap(), "theirs");
        assert_eq!(program(&dangling), Content::Link("nowhere".into()));
        assert_eq!(names(dir.path()), ["a", "dangling", "wrapper"]);
    }

    #[test]
    fn a_new_file_below_a_linked_folder_has_one_name_before_and_after_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(root.join("slurm-24.11")).unwrap();
        symlink("slurm-24.11", root.join("slurm")).unwrap();
        for below in ["plugstack.conf", "etc/plugstack.conf"] {
            let path = root.join("slurm").join(below);
            let (before, content) = read(&path).unwrap();
            assert_eq!(content, Content::Nothing);
            assert_eq!(before, root.join("slurm-24.11").join(below));
            make(vec![text(&path, "new")]).unwrap().keep();
            assert_eq!(read(&path).unwrap().0, before);
            assert_eq!(resolved(&path), before);
        }
    }

    #[test]
    fn the_file_behind_a_link_is_changed_and_the_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("slurm-24.11")).unwrap();
        fs::write(dir.path().join("slurm-24.11/slurm.conf"), "old").unwrap();
        symlink("slurm-24.11", dir.path().join("slurm")).unwrap();
        let path = dir.path().join("slurm/slurm.conf");
        make(vec![text(&path, "new")]).unwrap().keep();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(dir.path().join("slurm").is_symlink());
    }

    #[test]
    fn what_others_may_write_is_not_edited() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc");
        let file = folder.join("slurm.conf");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&folder, 0o755);
        set_mode(&file, 0o644);
        assert!(read(&file).is_ok());
        for spoilt in [file.as_path(), &folder, dir.path()] {
            let before = fs::metadata(spoilt).unwrap().permissions();
            set_mode(spoilt, 0o777);
            for path in [&file, &folder.join("new.conf")] {
                if spoilt == file && path != &file {
                    continue;
                }
                let reason = read(path).unwrap_err().to_string();
                assert!(reason.contains("not edited, because "), "{reason}");
                let advice = format!("chmod go-w {}", spoilt.display());
                assert!(reason.contains(&advice), "{reason}");
            }
            fs::set_permissions(spoilt, before).unwrap();
        }
    }

    #[test]
    fn as_root_slurms_files_may_belong_to_slurm_user_but_to_nobody_else() {
        let (slurm, other) = (Uid(20_002), Uid(20_003));
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc");
        let file = folder.join("slurm.conf");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "old").unwrap();
        for path in [&folder, &file] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(path, Some(slurm.0), None).unwrap();
        }
        assert!(read_of(&file, Some(slurm)).is_ok());
        for owner in [None, Some(other)] {
            let reason = read_of(&file, owner).unwrap_err().to_string();
            assert!(reason.contains("belongs to uid 20002"), "{reason}");
        }
        let (path, before) = read_of(&file, Some(slurm)).unwrap();
        let after = Content::Text("new".to_owned());
        let change = Change {
            path,
            before,
            after,
        };
        make(vec![change]).unwrap().keep();
        let meta = fs::metadata(&file).unwrap();
        assert_eq!(meta.uid(), slurm.0, "the file stays SlurmUser's");
    }

    #[test]
    fn what_is_no_text_is_not_edited() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("binary"), b"\xff\xfe").unwrap();
        for name in ["binary", "."] {
            assert!(read(&dir.path().join(name)).is_err(), "{name}");
        }
    }
}
