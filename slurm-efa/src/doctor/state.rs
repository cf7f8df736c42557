//! The state directory, and what an interrupted setup left.

use std::path::{Path, PathBuf};

use host::state_dir::StateDir;

use super::look::{Look, fatal, shown, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::files;

pub(super) const NO_STATE_DIR: &str = "state_dir was not looked at: the configuration cannot be read, or its \
                            place depends on the node's name";

pub(super) fn state_dir(site: &Site) -> Option<PathBuf> {
    let config = site.config.as_ref().ok()?;
    let path = config.state_dir(None).ok()?;
    let default = path == Path::new(config::DEFAULT_STATE_DIR);
    Some(if default {
        site.place(config::DEFAULT_STATE_DIR)
    } else {
        path
    })
}

/// Whether root's files can be believed.
pub(super) fn state(site: &Site) -> Look {
    let Some(path) = state_dir(site) else {
        return unknown(
            NO_STATE_DIR,
            "correct the configuration, and look by hand at a state_dir with %n: root's alone",
        );
    };
    match StateDir::open_existing(&path) {
        Ok(Some(_)) => Ok(format!("{} is root's alone", shown(&path))),
        Ok(None) => Ok(format!("{} is made with the first job", shown(&path))),
        Err(error) => fatal(
            error.to_string(),
            format!("chown root: {0}; chmod 755 {0}", shown(&path)),
        ),
    }
}

pub(super) fn left_over(site: &Site) -> Look {
    let edited = site.edited(site.role().ok());
    let mut edited = edited.iter().map(|it| files::resolved(it));
    match edited.find(|path| files::is_left(path)) {
        Some(path) => warning(
            format!("a set-up was interrupted while it changed {}", shown(&path)),
            "run `slurm-efa setup` again",
        ),
        None => Ok("no set-up was interrupted".to_owned()),
    }
}
