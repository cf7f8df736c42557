//! Which Slurm loaded us, and how we tell it that we fit.
//!
//! Slurm loads a plugin with `dlopen`, reads its `plugin_version` and refuses
//! it unless major and minor equal its own. A constant would therefore tie a
//! binary to one release. We write the variable when the object is loaded: a
//! constructor asks the host's libslurm for its API number, which is unique
//! for each release, and looks it up in [`SUPPORTED`].
//!
//! An unlisted release leaves `plugin_version` at zero, so that Slurm itself
//! refuses the plugin with its own words. SchedMD promises no stable SPANK ABI
//! between releases: the table is also the list of what has been tested.

use std::ffi::c_long;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::host;

/// A Slurm major release, for example 24.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlurmRelease {
    /// The year, `24` in 24.11.
    pub major: u32,
    /// The month, `11` in 24.11.
    pub minor: u32,
}

impl SlurmRelease {
    /// The encoding of `SLURM_VERSION_NUMBER`, with micro 0 (Slurm ignores it when it compares).
    pub const fn plugin_version(self) -> u32 {
        (self.major << 16) | (self.minor << 8)
    }
}

impl fmt::Display for SlurmRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.major, self.minor)
    }
}

/// libslurm API number (`slurm_api_version() >> 16`) and the release it stands for.
///
/// Source: the `META` file of each release's tag. Adding a release is one line
/// here and one in the matrix (`xtask`).
pub const SUPPORTED: &[(u32, SlurmRelease)] = &[
    (
        36,
        SlurmRelease {
            major: 20,
            minor: 11,
        },
    ),
    (
        37,
        SlurmRelease {
            major: 21,
            minor: 8,
        },
    ),
    (
        38,
        SlurmRelease {
            major: 22,
            minor: 5,
        },
    ),
    (
        39,
        SlurmRelease {
            major: 23,
            minor: 2,
        },
    ),
    (
        40,
        SlurmRelease {
            major: 23,
            minor: 11,
        },
    ),
    (
        41,
        SlurmRelease {
            major: 24,
            minor: 5,
        },
    ),
    (
        42,
        SlurmRelease {
            major: 24,
            minor: 11,
        },
    ),
    (
        43,
        SlurmRelease {
            major: 25,
            minor: 5,
        },
    ),
    (
        44,
        SlurmRelease {
            major: 25,
            minor: 11,
        },
    ),
    (
        45,
        SlurmRelease {
            major: 26,
            minor: 5,
        },
    ),
];

/// The release that a libslurm API version (as `slurm_api_version()` returns it) stands for.
///
/// `None` for a release that is not in [`SUPPORTED`].
pub fn from_api_version(version: c_long) -> Option<SlurmRelease> {
    let api = u32::try_from(version >> 16).ok()?;
    SUPPORTED
        .iter()
        .find(|(number, _)| *number == api)
        .map(|(_, release)| *release)
}

/// The release of the Slurm that loaded this plugin; `None` outside Slurm or in an unlisted one.
pub fn of_host() -> Option<SlurmRelease> {
    host::slurm_api_version().and_then(from_api_version)
}

/// Writes the host's release into a plugin's exported `plugin_version`.
///
/// Runs as a constructor, before Slurm looks at anything. It may run twice in
/// one process (Slurm peeks at a relative path before it loads it) and is
/// idempotent. It allocates nothing and cannot fail.
pub fn announce(plugin_version: &AtomicU32) {
    if let Some(release) = of_host() {
        plugin_version.store(release.plugin_version(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_number_names_the_release() {
        let release = from_api_version((38 << 16) | 5).unwrap();
        assert_eq!(release.to_string(), "22.05");
        assert_eq!(release.plugin_version(), 0x16_05_00);
    }

    #[test]
    fn an_unknown_release_stays_incompatible() {
        assert_eq!(from_api_version(35 << 16), None);
        assert_eq!(from_api_version(46 << 16), None);
        assert_eq!(from_api_version(-1), None);
        let version = AtomicU32::new(0);
        announce(&version);
        assert_eq!(version.into_inner(), 0, "no libslurm in this process");
    }

    #[test]
    fn the_table_is_ordered_and_has_no_duplicates() {
        assert!(
            SUPPORTED
                .windows(2)
                .all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1)
        );
    }
}
