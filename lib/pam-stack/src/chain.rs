//! The rules of one phase in the order in which libpam meets them, with those
//! of the files that are included.

use std::path::{Path, PathBuf};

use crate::Phase;
use crate::control::Control;
use crate::file::{self, NotUnderstood, Says};

/// How deep files are followed. libpam gives up at 32.
const DEEPEST: usize = 16;
/// How deep substacks are. libpam gives up at 16; nobody nests more than one.
const DEEPEST_SUBSTACK: usize = 4;
/// Most rules of one phase.
const MOST: usize = 4096;

/// Where texts come from: the disk, or a test's memory.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, for a person.
    fn text(&self, path: &Path) -> Result<String, String>;
}

/// A rule of a chain, and the file and line (from 1) that it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// How many substacks it is in.
    pub level: usize,
    /// What it does.
    pub kind: Kind,
}

/// What a link does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It opens a substack: the links after it that are in one more.
    Substack,
    /// It calls a module.
    Module {
        /// The control as it is written.
        written: String,
        /// What that says.
        control: Control,
        /// The module's path.
        module: String,
        /// What the module is given.
        arguments: String,
    },
}

impl Link {
    /// Whether it calls the module of this file name.
    #[must_use]
    pub fn calls(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Substack => false,
            Kind::Module { module, .. } => {
                Path::new(module).file_name().is_some_and(|it| it == name)
            }
        }
    }
}

/// Why a chain is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A file cannot be read. libpam then refuses everybody.
    #[error("{}: {reason}", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A line that libpam would not understand.
    #[error("{}: line {}, `{}`, is not understood", shown(path), at.line, host::printable(&at.text, 120))]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// The line.
        at: NotUnderstood,
    },
    /// Files that include each other, or more of them than anybody writes.
    #[error("{}: it includes itself, or files are included too deep", shown(path))]
    TooDeep {
        /// The file that is not followed any more.
        path: PathBuf,
    },
    /// More rules than anybody writes.
    #[error("{}: more than {MOST} rules", shown(path))]
    TooLong {
        /// The file at which it became too long.
        path: PathBuf,
    },
}

fn shown(path: &Path) -> String {
    host::printable(&path.to_string_lossy(), 200)
}

/// The chain of this phase of a service, whose file is `folder/service`.
///
/// # Errors
/// See [`ChainError`].
pub fn read(
    files: &dyn Files,
    folder: &Path,
    service: &str,
    phase: Phase,
) -> Result<Vec<Link>, ChainError> {
    let mut walk = Walk {
        files,
        folder,
        phase,
        links: Vec::new(),
    };
    walk.file(service, 0, 0)?;
    Ok(walk.links)
}

struct Walk<'a> {
    files: &'a dyn Files,
    folder: &'a Path,
    phase: Phase,
    links: Vec<Link>,
}

impl Walk<'_> {
    fn file(&mut self, name: &str, level: usize, depth: usize) -> Result<(), ChainError> {
        let path = self.folder.join(name);
        if depth > DEEPEST || level > DEEPEST_SUBSTACK {
            return Err(ChainError::TooDeep { path });
        }
        let text = self.files.text(&path).map_err(|reason| {
            let path = path.clone();
            ChainError::Unreadable { path, reason }
        })?;
        let rules = file::read(&text).map_err(|at| {
            let path = path.clone();
            ChainError::NotUnderstood { path, at }
        })?;
        for rule in rules {
            let line = rule.lines.start + 1;
            match rule.says {
                Says::IncludeAll(file) => self.file(&file, level, depth + 1)?,
                Says::Include(phase, file) if phase == self.phase => {
                    self.file(&file, level, depth + 1)?;
                }
                Says::Substack(phase, file) if phase == self.phase => {
                    self.push(&path, line, level, Kind::Substack)?;
                    self.file(&file, level + 1, depth + 1)?;
                }
                Says::Module {
                    phase,
                    written,
                    control,
                    module,
                    arguments,
                } if phase == self.phase => {
                    let kind = Kind::Module {
                        written,
                        control,
                        module,
                        arguments,
                    };
                    self.push(&path, line, level, kind)?;
                }
                Says::Include(..) | Says::Substack(..) | Says::Module { .. } => {}
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        file: &Path,
        line: usize,
        level: usize,
        kind: Kind,
    ) -> Result<(), ChainError> {
        let file = file.to_owned();
        if self.links.len() == MOST {
            return Err(ChainError::TooLong { path: file });
        }
        self.links.push(Link {
            file,
            line,
            level,
            kind,
        });
        Ok(())
    }
}
