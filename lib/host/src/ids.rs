//! The kernel's numbers of users, groups and processes, each a type of its own:
//! whom to kill, to admit or to account is never decided by a number that was
//! meant for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A user's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub u32);

/// A group's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gid(pub u32);

/// A process' number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub u32);

impl Uid {
    /// The superuser.
    pub const ROOT: Self = Self(0);

    /// Whether this is the superuser.
    #[must_use]
    pub fn is_root(self) -> bool {
        self == Self::ROOT
    }

    /// The user this process acts as.
    #[must_use]
    pub fn effective() -> Self {
        Self(rustix::process::geteuid().as_raw())
    }
}

impl Pid {
    /// The calling process.
    #[must_use]
    pub fn own() -> Self {
        Self(std::process::id())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
