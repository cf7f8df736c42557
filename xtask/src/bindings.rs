//! `cargo xtask bindings`: the raw SPANK bindings in the tree, and the proof
//! that they hold for another release.

use std::path::Path;

use anyhow::{Context, Result};

#[cfg(feature = "bindgen")]
mod check;
#[cfg(feature = "bindgen")]
mod compare;
#[cfg(feature = "bindgen")]
mod generate;
mod version;

use version::SlurmVersion;

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
