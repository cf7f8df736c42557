//! Which Slurm a set of headers is of.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

/// A Slurm version as in the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlurmVersion {
    /// Major and minor number: what Slurm calls a release.
    pub(super) release: (u8, u8),
    pub(super) micro: u8,
}

impl SlurmVersion {
    /// Reads `SLURM_VERSION_NUMBER` from the headers under `headers`:
    /// slurm_version.h has it since 21.08, slurm.h had it before.
    ///
    /// # Errors
    /// When neither file has the number.
    pub(super) fn of_headers(headers: &Path) -> Result<Self> {
        ["slurm_version.h", "slurm.h"]
            .iter()
            .filter_map(|file| std::fs::read(headers.join("slurm").join(file)).ok())
            .find_map(|bytes| Self::in_header(&String::from_utf8_lossy(&bytes)))
            .with_context(|| {
                format!(
                    "{} has no SLURM_VERSION_NUMBER; install Slurm's headers (Debian: \
                     libslurm-dev) or name their directory with --headers",
                    headers.join("slurm").display()
                )
            })
    }

    fn in_header(text: &str) -> Option<Self> {
        let line = text
            .lines()
            .find(|line| line.starts_with("#define SLURM_VERSION_NUMBER"))?;
        let digits = line.split_whitespace().nth(2)?.strip_prefix("0x")?;
        let [_, major, minor, micro] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(Self {
            release: (major, minor),
            micro,
        })
    }
}

impl fmt::Display for SlurmVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release;
        write!(f, "{major}.{minor:02}.{}", self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_either_way_of_writing_it() {
        for line in [
            "#define SLURM_VERSION_NUMBER 0x160508",
            "#ifndef A\n#define SLURM_VERSION_NUMBER  0x160508\n",
        ] {
            let version = SlurmVersion::in_header(line).map(|version| version.to_string());
            assert_eq!(version.as_deref(), Some("22.05.8"));
        }
    }

    #[test]
    fn a_header_without_a_number_has_no_version() {
        for text in [
            "",
            "#define SLURM_VERSION_NUMBER",
            "#define SLURM_VERSION_NUMBER 22.05",
        ] {
            assert_eq!(SlurmVersion::in_header(text), None, "{text}");
        }
    }
}
