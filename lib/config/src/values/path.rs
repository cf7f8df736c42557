//! Absolute paths that may contain Slurm's name of the node.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use host::printable;
use slurm::NodeName;
use slurm::node_name::{NameError, expand};

/// An absolute path in which `%n` stands for the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePath(String);

/// Why a text is not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Relative, or with `..` or control characters.
    #[error("`{text}` is not usable: give an absolute path without `..` or control characters")]
    Unusable {
        /// What was written, safe to print.
        text: String,
    },
    /// A placeholder that does not exist.
    #[error(transparent)]
    Placeholder(NameError),
}

impl NodePath {
    /// A path of this program's, which is usable.
    #[must_use]
    pub(crate) fn constant(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// The path on the node of this name.
    ///
    /// # Errors
    /// It contains `%n` and `node` is `None`.
    pub fn on(&self, node: Option<&NodeName>) -> Result<PathBuf, NameError> {
        expand(&self.0, node)
    }

    /// The path with its placeholders.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let upwards = Path::new(text)
            .components()
            .any(|part| part == Component::ParentDir);
        if !text.starts_with('/') || upwards || text.chars().any(char::is_control) {
            return Err(PathError::Unusable {
                text: printable(text, 200),
            });
        }
        // Any name does: only the placeholders are of interest here.
        let expanded = "n".parse().and_then(|node| expand(text, Some(&node)));
        expanded
            .map(|_| Self(text.to_owned()))
            .map_err(PathError::Placeholder)
    }
}

impl<'de> Deserialize<'de> for NodePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The value of a key that names one file or folder, and so not `/`.
///
/// # Errors
/// It is not a string, not a [`NodePath`], or `/`.
pub fn named<'de, D: Deserializer<'de>>(from: D) -> Result<NodePath, D::Error> {
    let path = NodePath::deserialize(from)?;
    match Path::new(path.as_str()).file_name() {
        Some(_) => Ok(path),
        None => Err(serde::de::Error::custom(PathError::Unusable {
            text: path.0,
        })),
    }
}

/// The value of a key that names a program or a file of the whole cluster.
///
/// # Errors
/// It is not a string or not an absolute path.
pub fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        return Ok(path);
    }
    let shown = printable(&path.to_string_lossy(), 200);
    Err(serde::de::Error::custom(format!(
        "`{shown}` is not an absolute path"
    )))
}
