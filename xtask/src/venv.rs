//! Private Python environments that hold pinned tools.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// The directory of programs of an environment at `place` that has exactly
/// what `requirements` (a file of this crate) pins. It is made when missing,
/// when half made, and when the file has changed.
///
/// # Errors
/// When Python lacks venv, or a tool cannot be had or has another hash.
pub fn programs(place: &Path, requirements: &str) -> Result<PathBuf> {
    let requirements = command::workspace().join("xtask").join(requirements);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("{} cannot be read", requirements.display()))?;
    // Two tests that want the same one must not make it side by side.
    let lock_path = place.with_extension("lock");
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let lock = File::create(&lock_path).with_context(|| format!("{}", lock_path.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("{}", lock_path.display()))?;
    // Written last: what lacks it is half made.
    let stamp = place.join("made-from.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return Ok(place.join("bin"));
    }
    if command::find("python3").is_none() {
        bail!("python3 was not found; run `cargo xtask setup --for test`");
    }
    println!(
        "installing the tools of {} into {}",
        requirements.display(),
        place.display()
    );
    command::output(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(place),
    )
    .context("python3 could not make a venv; run `cargo xtask setup --for test`")?;
    command::output(
        Command::new(place.join("bin/python3"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args([
                "--no-deps",
                "--only-binary",
                ":all:",
                "--require-hashes",
                "--requirement",
            ])
            .arg(&requirements),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("{}", stamp.display()))?;
    Ok(place.join("bin"))
}
