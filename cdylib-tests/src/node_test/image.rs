//! The disk that every machine boots from, made once from the Debian of
//! `cargo xtask roots machine` and kept until its recipe changes.

use std::path::PathBuf;

use crate::machines::Verdict;
use crate::machines::image::Recipe;

/// The machines and their addresses. No other machine is on their network.
pub const ADDRESSES: [(&str, &str); 3] = [
    ("controller", "10.77.0.1"),
    ("login", "10.77.0.2"),
    ("compute", "10.77.0.3"),
];

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
    /// As [`Recipe::get`].
    pub fn get() -> Verdict<Self> {
        let (dir, _) = Recipe {
            root: "machine",
            kept_in: "node-test",
            script: include_str!("image.sh"),
            environment: &[("USERS", &USERS.join(" ")), ("HOSTS", &hosts())],
        }
        .get()?;
        Ok(Self { dir })
    }
}

fn hosts() -> String {
    let line = |(name, address): &(&str, &str)| format!("{address} {name}\n");
    ADDRESSES.iter().map(line).collect()
}
