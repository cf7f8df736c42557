//! The disk that every machine boots from, made once from the Debian of
//! `cargo xtask roots machine` and kept until its recipe changes.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::common::{ADDRESSES, Verdict, tail};
use crate::matrix;

/// Makes the files of an [`Image`].
const RECIPE: &str = include_str!("image.sh");

/// Users of the cluster. The last one administers it.
pub const USERS: [&str; 3] = ["alice", "bob", "ubuntu"];

/// What a machine is started with, all of it read only.
#[derive(Debug)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    pub fn disk(&self) -> PathBuf {
        self.dir.join("DISK")
    }

    pub fn kernel(&self) -> PathBuf {
        self.dir.join("KERNEL")
    }

    pub fn initrd(&self) -> PathBuf {
        self.dir.join("INITRD")
    }

    /// The secret key that opens every account.
    pub fn key(&self) -> PathBuf {
        self.dir.join("KEY")
    }

    /// The image of this recipe, made if it is not there.
    ///
    /// # Errors
    /// The Debian is missing, or the recipe fails; then with its last words.
    pub fn get() -> Verdict<Self> {
        let (_, root) = matrix::root("machine")?;
        let packages = fs::read_to_string(root.join("slurm-efa-root")).map_err(|error| {
            format!("no Debian to boot: {error}; run `cargo xtask roots machine`")
        })?;
        let cache = root.ancestors().nth(2).ok_or("no cache")?.join("node-test");
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join(".lock"))?;
        // SAFETY: flock(2) takes an open descriptor, which `lock` is, and waits.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let mut hasher = DefaultHasher::new();
        (packages, RECIPE, USERS, hosts()).hash(&mut hasher);
        let dir = cache.join(format!("{:016x}", hasher.finish()));
        if !dir.is_dir() {
            make(&cache, &root, &dir)?;
        }
        Ok(Self { dir })
    }
}

fn hosts() -> String {
    let line = |(name, address): &(&str, &str)| format!("{address} {name}\n");
    ADDRESSES.iter().map(line).collect()
}

/// Makes it under another name, so that what bears its own is complete, and
/// removes images of earlier recipes.
fn make(cache: &Path, root: &Path, dir: &Path) -> Verdict {
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
        .args(["--mount", "--propagation", "private", "sh", "-c", RECIPE])
        .env("ROOT", root)
        .env("OUT", &new)
        .env("USERS", USERS.join(" "))
        .env("HOSTS", hosts())
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
