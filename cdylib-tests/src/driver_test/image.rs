//! What the guests boot from: one disk for all, made of the Debian of
//! `cargo xtask roots driver`, and one of each run with what was just built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::machines::Verdict;
use crate::machines::command::shell;
use crate::machines::image::Recipe;
use crate::modules;

/// Where QEMU, which runs in the Debian, and this program both see the files.
pub const HERE: &str = "/run";

/// The Debian that QEMU runs in, and the files that it reads.
#[derive(Debug)]
pub struct Image {
    pub root: PathBuf,
}

impl Image {
    /// The image, made if it is not there, and a folder that is the same inside of
    /// QEMU's root as outside. `scratch` is seen in this mount namespace only.
    ///
    /// # Errors
    /// As [`Recipe::get`], or something is not built.
    pub fn get(scratch: &Path) -> Verdict<Self> {
        let (dir, root) = Recipe {
            root: "driver",
            kept_in: "driver-test",
            script: include_str!("image.sh"),
            environment: &[
                ("INIT_BOOT", include_str!("boot.sh")),
                ("INIT_GUEST", include_str!("init.sh")),
            ],
        }
        .get()?;
        shell(
            "mkdir \"$2/image\" && mount --bind \"$1\" \"$2/image\" && mount --rbind \"$2\" \"$3$2\"",
            &[&dir, scratch, &root],
        )?;
        own(scratch)?;
        Ok(Self { root })
    }
}

/// The disk of this run, which lies over the image's: the programs, the plugin, the
/// cluster's files.
fn own(scratch: &Path) -> Verdict {
    let stage = scratch.join("stage");
    let at = |path: &str| stage.join(path.trim_start_matches('/'));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    shell(
        "cp -R \"$1\" \"$2\"",
        &[&here.join("src/driver_test/files"), &stage],
    )?;
    for (name, place) in [
        ("efa-check", "/usr/sbin/efa-check"),
        ("slurm-efa", "/usr/bin/slurm-efa"),
        ("slurm-efa-job", "/usr/lib/slurm-efa/slurm-efa-job"),
        ("libspank_efa.so", "/usr/lib/slurm-efa/spank_efa.so"),
        (
            "efa-counter-reader",
            "/usr/lib/slurm-efa/efa-counter-reader",
        ),
    ] {
        let place = at(place);
        fs::create_dir_all(place.parent().ok_or("no folder")?)?;
        fs::copy(modules::released(name), place)?;
    }
    let links = [
        ("prolog", "efa-check-prolog", "/usr/sbin/efa-check"),
        (
            "prolog",
            "slurm-efa-job-prolog",
            "/usr/lib/slurm-efa/slurm-efa-job",
        ),
        (
            "epilog",
            "slurm-efa-job-epilog",
            "/usr/lib/slurm-efa/slurm-efa-job",
        ),
    ];
    for (command, name, program) in links {
        let folder = at(&format!("/etc/slurm-efa/{command}.d"));
        fs::create_dir_all(&folder)?;
        symlink(program, folder.join(name))?;
    }
    shell(
        "chown -R 0:0 \"$1\" && truncate -s 64M \"$2\" && \
         mkfs.ext4 -q -F -m 0 -O ^has_journal -d \"$1\" \"$2\" && rm -r \"$1\"",
        &[&stage, &scratch.join("own")],
    )
}
