//! What machines boot from, made once from one of xtask's roots and kept until its
//! recipe changes.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Verdict, tail};
use crate::matrix;

/// How an image is made.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// The root that it is made of, and where it is kept beside the roots.
    pub root: &'a str,
    pub kept_in: &'a str,
    /// Puts the image's files into `$OUT`, of the Debian in `$ROOT`.
    pub script: &'a str,
    /// The rest of the script's environment.
    pub environment: &'a [(&'a str, &'a str)],
}

impl Recipe<'_> {
    /// The folder of the image, made if it is not there, and its root.
    ///
    /// # Errors
    /// The Debian is missing, or the script fails; then with its last words.
    pub fn get(&self) -> Verdict<(PathBuf, PathBuf)> {
        let (_, root) = matrix::root(self.root)?;
        let packages = fs::read_to_string(root.join("slurm-efa-root")).map_err(|error| {
            format!(
                "no Debian to boot: {error}; run `cargo xtask roots {}`",
                self.root
            )
        })?;
        let cache = root
            .ancestors()
            .nth(2)
            .ok_or("no cache")?
            .join(self.kept_in);
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join(".lock"))?;
        // SAFETY: flock(2) takes an open descriptor, which `lock` is, and waits.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let mut hasher = DefaultHasher::new();
        (packages, self.script, self.environment).hash(&mut hasher);
        let dir = cache.join(format!("{:016x}", hasher.finish()));
        if !dir.is_dir() {
            self.make(&cache, &root, &dir)?;
        }
        Ok((dir, root))
    }

    /// Makes it under another name, so that what bears its own is complete, and
    /// removes images of earlier recipes.
    fn make(&self, cache: &Path, root: &Path, dir: &Path) -> Verdict {
        for old in fs::read_dir(cache)? {
            let old = old?.path();
            if old.is_dir() {
                fs::remove_dir_all(old)?;
            }
        }
        println!(
            "making the disk of the machines (kept in {})",
            cache.display()
        );
        let new = cache.join("new");
        fs::create_dir(&new)?;
        let log = cache.join("log");
        let output = File::create(&log)?;
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(self.script)
            .env("ROOT", root)
            .env("OUT", &new)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .status()?;
        if !status.success() {
            return Err(format!("no disk was made ({status}): {}", tail(&log, 2000)).into());
        }
        fs::rename(new, dir)?;
        Ok(())
    }
}
