//! Slurm's name of a node, and paths that contain it.

use std::ffi::{CStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use host::printable;

/// Why a node name or a path with placeholders is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a name that can be one path component.
    #[error(
        "`{}` is not a node name: use 1 to 255 letters, digits, `.`, `_` or `-`, \
         without `..`, not starting with `-` or `.`",
        printable(name, 80)
    )]
    Invalid {
        /// What was given.
        name: String,
    },
    /// The path needs the node's name and the caller has none.
    #[error(
        "`{}` contains %n, but the name of this node is not known here",
        printable(path, 200)
    )]
    NameUnknown {
        /// The path with its placeholder.
        path: String,
    },
    /// A `%` that is neither `%n` nor `%%`.
    #[error(
        "`{}`: only %n (node name) and %% (a percent sign) may follow `%`",
        printable(path, 200)
    )]
    Placeholder {
        /// The path with its placeholder.
        path: String,
    },
}

/// A Slurm `NodeName`, checked so that it is safe as one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let fits = (1..=255).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !name.starts_with(['-', '.'])
            && !name.contains("..");
        if fits {
            Ok(Self(name.to_owned()))
        } else {
            // A name of megabytes is not kept: a message shows its start.
            Err(NameError::Invalid {
                name: name.chars().take(256).collect(),
            })
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// slurmd's `SLURMD_NODENAME`, which prologs, epilogs and health checks have;
/// for a person's command the machine's name up to the first dot, as slurmd
/// itself does. `None` where either is not a node's name.
#[must_use]
pub fn of_this_process() -> Option<NodeName> {
    of(
        std::env::var_os("SLURMD_NODENAME"),
        rustix::system::uname().nodename(),
    )
}

/// The machine's name up to the first dot, whatever slurmd calls the node.
/// `None` where that is not a node's name.
#[must_use]
pub fn of_this_machine() -> Option<NodeName> {
    of(None, rustix::system::uname().nodename())
}

fn of(given: Option<OsString>, machine: &CStr) -> Option<NodeName> {
    match given {
        Some(name) => name.into_string().ok()?.parse().ok(),
        None => machine.to_str().ok()?.split('.').next()?.parse().ok(),
    }
}

/// Replaces `%n` by the node's name and `%%` by `%`, as slurm.conf does.
///
/// # Errors
/// `%n` without a known name, or any other `%`.
pub fn expand(path: &str, node: Option<&NodeName>) -> Result<PathBuf, NameError> {
    let mut expanded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        expanded.push_str(before);
        if let Some(tail) = after.strip_prefix('n') {
            let node = node.ok_or_else(|| NameError::NameUnknown {
                path: path.to_owned(),
            })?;
            expanded.push_str(node.as_str());
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('%') {
            expanded.push('%');
            rest = tail;
        } else {
            return Err(NameError::Placeholder {
                path: path.to_owned(),
            });
        }
    }
    expanded.push_str(rest);
    Ok(PathBuf::from(expanded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_slurm_uses_are_accepted() {
        for name in ["n1", "ip-10-1-2-3", "p5-st-gpu_1", "node.example.com", "0"] {
            assert_eq!(name.parse::<NodeName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_or_pass_for_an_option_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "", ".", "..", "a..b", "-n", ".hidden", "a/b", "a\0", "a\n", "n[1-2]", "ä", &long,
        ] {
            assert!(name.parse::<NodeName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn slurmds_word_counts_before_the_name_of_the_machine() {
        let name = |given: Option<&str>| of(given.map(OsString::from), c"ip-10-0-0-1.ec2.internal");
        assert_eq!(name(Some("n1")), "n1".parse().ok());
        assert_eq!(name(None), "ip-10-0-0-1".parse().ok());
        assert_eq!(name(Some("../n1")), None);
    }

    #[test]
    fn percent_n_becomes_the_name_and_two_percent_signs_one() {
        let node: NodeName = "n7".parse().unwrap();
        assert_eq!(
            expand("/sim/%n/%%n/x", Some(&node)).unwrap(),
            PathBuf::from("/sim/n7/%n/x")
        );
        assert_eq!(expand("/plain", None).unwrap(), PathBuf::from("/plain"));
    }

    #[test]
    fn a_placeholder_that_cannot_be_filled_is_an_error() {
        let node: NodeName = "n7".parse().unwrap();
        assert!(matches!(
            expand("/a/%n", None),
            Err(NameError::NameUnknown { .. })
        ));
        for path in ["/a/%h", "/a/%", "/a/%ñ"] {
            assert!(
                matches!(
                    expand(path, Some(&node)),
                    Err(NameError::Placeholder { .. })
                ),
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_always_one_ordinary_path_component(name in any::<String>()) {
            if let Ok(name) = name.parse::<NodeName>() {
                let path = PathBuf::from(name.as_str());
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts[..], [std::path::Component::Normal(_)]));
            }
        }

        #[test]
        fn expanding_never_panics(path in any::<String>()) {
            let _ = expand(&path, None);
        }
    }
}
