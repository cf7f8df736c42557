//! What users must be able to read: their srun reads Slurm's files, the plugins
//! and slurm-efa.toml as themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::exec::Call;
use slurm::conf::{Disk, Plugstack};

use super::look::{Look, fatal, shown, unknown};
use crate::setup::discover::Site;
use crate::setup::run;

/// Files that are looked at; plugstack.conf may include any number.
const MOST: usize = 500;

/// For all files together.
const LIMIT: Duration = Duration::from_secs(10);

/// Prints each of its arguments that cannot be read.
const UNREADABLE: &str = r#"for file; do [ -r "$file" ] || printf '%s\n' "$file"; done"#;

pub(super) fn users_read(site: &Site) -> Look {
    let mut files = files(site);
    if files.len() > MOST {
        files.truncate(MOST);
    }
    let count = files.len();
    let call = match Call::to(Path::new("/bin/sh")) {
        Ok(call) => run::as_user(call),
        Err(error) => return unknown(error.to_string(), "look again"),
    };
    let said = call.args(["-c", UNREADABLE, "sh"]).args(&files).run(LIMIT);
    match said {
        Ok(said) if said.success() => match said.stdout.lines().next().map(Path::new) {
            None => Ok(format!(
                "users can read {count} files of plugins and settings"
            )),
            Some(file) => fatal(
                format!(
                    "users cannot read {}, so their srun and sbatch fail or have no profile",
                    shown(file)
                ),
                remedy(file),
            ),
        },
        _ => unknown(
            "whether users can read Slurm's files was not found out in 10 s",
            "look at the file systems of plugstack.conf and the plugins",
        ),
    }
}

/// What srun and sbatch read.
fn files(site: &Site) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = site.slurm.slurm_conf.iter().cloned().collect();
    if let Some(path) = site.plugstack()
        && let Ok(stack) = Plugstack::read(&Disk, &path)
    {
        files.push(path);
        files.extend(stack.includes.into_iter().flat_map(|it| it.files));
        let plugins = stack.plugins.into_iter().map(|it| PathBuf::from(it.path));
        files.extend(plugins.filter(|it| it.is_absolute()));
    }
    if let Ok(config) = &site.config {
        files.push(config.path.clone());
    }
    // What is missing is another finding's.
    files.retain(|file| file.exists());
    files
}

/// The command that lets users read a file.
fn remedy(file: &Path) -> String {
    let closed = |folder: &&Path| {
        let mode = fs::metadata(folder).map(|it| it.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o001 == 0)
    };
    let mut folders: Vec<&Path> = file.ancestors().skip(1).collect();
    folders.reverse();
    match folders.into_iter().find(closed) {
        Some(folder) => format!("chmod o+x {}", shown(folder)),
        None => format!("chmod o+r {}", shown(file)),
    }
}
