//! What every part of a package says alike: name, licence, format, time.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, dist};

/// How often this version was packaged: the packages' versions end with it.
pub(super) const RELEASE: &str = "1";
pub(super) const NAME: &str = "slurm-efa";
pub(super) const LICENCE: &str = "MIT OR Apache-2.0";

/// When everything in the packages was made, as far as they tell.
pub(super) struct BuildTime {
    pub(super) seconds: u64,
    /// The same as RFC 3339.
    pub(super) text: String,
}

impl BuildTime {
    pub(super) fn get() -> Result<Self> {
        let seconds = dist::source_date().context(
            "the packages' time cannot be told: this is no git checkout, and SOURCE_DATE_EPOCH \
             is not set",
        )?;
        let text = command::output(Command::new("date").args([
            "--utc",
            "--date",
            &format!("@{seconds}"),
            "+%Y-%m-%dT%H:%M:%SZ",
        ]))?;
        Ok(Self {
            seconds: seconds
                .parse()
                .with_context(|| format!("SOURCE_DATE_EPOCH is {seconds:?}, not seconds"))?,
            text: text.trim().to_owned(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Deb,
    Rpm,
}

impl Format {
    /// What nfpm calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    pub(super) fn file_name(self, version: &str, arch: &str) -> String {
        match self {
            Self::Deb => format!("{NAME}_{version}-{RELEASE}_{}.deb", go_arch(arch)),
            Self::Rpm => format!("{NAME}-{version}-{RELEASE}.{arch}.rpm"),
        }
    }
}

/// Debian and nfpm have one name for an architecture, Rust and rpm the other.
pub(super) fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
