//! `cargo xtask bindings`: the raw SPANK bindings in the tree, and the proof
//! that they hold for another release.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

#[cfg(feature = "bindgen")]
mod check;
#[cfg(feature = "bindgen")]
mod compare;
#[cfg(feature = "bindgen")]
mod generate;

/// Writes the bindings, or with `check` compares those in the tree with what
/// the headers give.
///
/// # Errors
/// When generating fails; with `check` also when an item that we use means
/// something else in that release.
#[cfg(feature = "bindgen")]
pub fn bindings(headers: &Path, check: bool) -> Result<()> {
    let version = SlurmVersion::of_headers(headers)?;
    let generated = generate::generate(headers, version)?;
    let file = crate::command::workspace().join(generate::FILE);
    if check {
        let kept = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        check::check(&kept, &generated, version)
    } else {
        std::fs::write(&file, generated)
            .with_context(|| format!("{} cannot be written", file.display()))?;
        println!(
            "{}: written from the headers of Slurm {version}",
            generate::FILE
        );
        Ok(())
    }
}

/// Builds xtask once more with bindgen in it and lets that do the work.
///
/// # Errors
/// When the build or the work fails.
#[cfg(not(feature = "bindgen"))]
pub fn bindings(headers: &Path, check: bool) -> Result<()> {
    // A missing header is the usual mistake: say so before the long build.
    SlurmVersion::of_headers(headers)?;
    let mut cargo = crate::command::cargo();
    cargo
        .args(["run", "--quiet", "--package", "xtask"])
        .args(["--features", "bindgen"])
        // Apart from the ordinary build, which would otherwise be rebuilt at
        // every change between the two.
        .arg("--target-dir")
        .arg(crate::command::target().join("bindings"))
        .args(["--", "bindings", "--headers"])
        .arg(headers);
    if check {
        cargo.arg("--check");
    }
    if !cargo
        .status()
        .context("cargo could not be started")?
        .success()
    {
        anyhow::bail!("the bindings could not be made or do not fit; the reason is above");
    }
    Ok(())
}

/// A Slurm version as in the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SlurmVersion {
    /// Major and minor number: what Slurm calls a release.
    release: (u8, u8),
    micro: u8,
}

impl SlurmVersion {
    /// Reads `SLURM_VERSION_NUMBER` from the headers under `headers`:
    /// slurm_version.h has it since 21.08, slurm.h had it before.
    ///
    /// # Errors
    /// When neither file has the number.
    fn of_headers(headers: &Path) -> Result<Self> {
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
