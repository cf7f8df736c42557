//! The plugin: its line in plugstack.conf, its file, and whether Slurm loads it.

use std::io::Read;
use std::path::{Path, PathBuf};

use host::printable;
use host::trust::{self, TrustError};
use slurm::conf::{Disk, Plugstack};

use slurm::Program;

use super::look::{Look, REINSTALL, SETUP_CONTROLLER, fatal, shown, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::paths::PLUGIN;
use crate::setup::run;

/// plugstack.conf as it is here.
///
/// # Errors
/// Why it cannot be read; for a person.
pub(super) fn read_plugstack(site: &Site) -> Result<(PathBuf, Plugstack), String> {
    let path = site.plugstack().ok_or("there is no slurm.conf")?;
    match Plugstack::read(&Disk, &path) {
        Ok(stack) => Ok((path, stack)),
        Err(error) => Err(error.to_string()),
    }
}

/// The path of our plugin in plugstack.conf.
pub(super) fn plugin_path(site: &Site) -> Option<PathBuf> {
    path_of(site, "spank_efa.so")
}

/// The path of a plugin in plugstack.conf, by its file's name.
pub(super) fn path_of(site: &Site, file: &str) -> Option<PathBuf> {
    let (_, stack) = read_plugstack(site).ok()?;
    Some(PathBuf::from(&stack.plugin(file)?.path))
}

pub(super) fn plugstack(site: &Site) -> Look {
    let path = match read_plugstack(site) {
        Ok((path, _)) => path,
        Err(reason) => return fatal(reason, SETUP_CONTROLLER),
    };
    let copy = path.components().any(|it| it.as_os_str() == "conf-cache");
    match plugin_path(site) {
        Some(plugin) if plugin.is_absolute() => {
            Ok(format!("{} in {}", shown(&plugin), shown(&path)))
        }
        Some(plugin) => warning(
            format!("{} is a relative path in {}", shown(&plugin), shown(&path)),
            "give the whole path: Slurm looks for a relative one in its own PluginDir",
        ),
        None if copy => fatal(
            format!(
                "no line for spank_efa.so in {}, slurmd's copy",
                shown(&path)
            ),
            "run `slurm-efa setup` on the controller, and there `scontrol reconfigure`",
        ),
        None => fatal(
            format!("no line for spank_efa.so in {}", shown(&path)),
            SETUP_CONTROLLER,
        ),
    }
}

pub(super) fn plugin_file(site: &Site) -> Look {
    let Some(path) = plugin_path(site) else {
        return unknown("plugstack.conf names no plugin of ours", SETUP_CONTROLLER);
    };
    let mut file = match trust::open_linked_file(&path) {
        Ok(file) => file,
        Err(error @ TrustError::Untrusted { .. }) => {
            return fatal(
                error.to_string(),
                "do so: until then others can change what root loads",
            );
        }
        Err(error) => return fatal(error.to_string(), missing_plugin(site)),
    };
    let mut start = [0; 4];
    if file.read_exact(&mut start).is_err() || start != *b"\x7fELF" {
        return fatal(
            format!("{} is not a shared library", shown(&path)),
            REINSTALL,
        );
    }
    let length = file.metadata().map_or(0, |meta| meta.len());
    Ok(format!("{}, {length} bytes", shown(&path)))
}

/// What to do where the plugin of plugstack.conf is missing: where the package's
/// lies in its own place, the line is wrong.
fn missing_plugin(site: &Site) -> String {
    let packaged = site.place(PLUGIN);
    match packaged.is_file() {
        true => format!(
            "name {} in plugstack.conf, where the package has it",
            shown(&packaged)
        ),
        false => REINSTALL.to_owned(),
    }
}

/// The proof that this Slurm, of this release, loads it: its own help names the
/// option.
pub(super) fn plugin_loaded(site: &Site) -> Look {
    if site.slurm.programs.find(Program::Srun).is_none() {
        return unknown("there is no srun", "install Slurm's client programs");
    }
    // As a user: what only root can read fails every other srun.
    let ran = match run::slurms_as_user(site, Program::Srun, &["--help"]) {
        Ok(ran) => ran,
        Err(error) => return unknown(error, "look again"),
    };
    let spank = ran
        .stderr
        .lines()
        .find(|line| line.contains("plugin") || line.contains("spank"));
    let why = spank.map_or_else(|| run::complaint(&ran), |line| printable(line, 300));
    if !ran.stdout.contains("--efa-profile") {
        return fatal(
            format!("srun --help does not name --efa-profile: {why}"),
            "see what Slurm says; `Incompatible plugin version` wants a newer package",
        );
    }
    if let Some(line) = spank {
        return warning(
            format!("srun complains of a plugin: {}", printable(line, 300)),
            "correct or remove that line of plugstack.conf",
        );
    }
    Ok("srun --help names --efa-profile".to_owned())
}

/// Slurm ignores an include that matches nothing, without a word. One of an empty
/// folder is what distributions ship.
pub(super) fn plugstack_includes(site: &Site) -> Look {
    let stack = match read_plugstack(site) {
        Ok((_, stack)) => stack,
        Err(reason) => return unknown(reason, SETUP_CONTROLLER),
    };
    let mut includes = stack.includes.iter();
    let empty = includes.find(|include| {
        let folder = Path::new(&include.pattern).parent();
        include.files.is_empty() && !folder.is_some_and(|it| it.is_absolute() && it.is_dir())
    });
    match empty {
        Some(include) => warning(
            format!(
                "`include {}` matches no file, which Slurm ignores in silence",
                printable(&include.pattern, 200)
            ),
            "put the plugin's own line into plugstack.conf: configless nodes do not get included files",
        ),
        None => Ok("each include matches a file".to_owned()),
    }
}
