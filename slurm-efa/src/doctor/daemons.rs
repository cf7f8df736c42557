//! The suite's daemons: each holds a lock while it runs.

use std::time::Duration;

use host::Deadline;
use host::state_dir::{StateDir, StateError};
use host::state_layout::gres;
use host::state_layout::login::DAEMON_LOCK;

use super::look::{Look, fatal, unknown, warning};
use super::state::{NO_STATE_DIR, state_dir};
use crate::setup::discover::Site;

pub(super) fn logoutd(site: &Site) -> Look {
    const START: &str = "systemctl enable --now slurm-logoutd";
    const DEAD: &str = "slurm-logoutd does not run, so no login is ended";
    match lives(site, "", DAEMON_LOCK) {
        Ok(true) => Ok("slurm-logoutd holds its lock".to_owned()),
        Ok(false) => fatal(DEAD, START),
        Err(error) => unknown(error, START),
    }
}

pub(super) fn gres_watch(site: &Site) -> Look {
    const START: &str = "systemctl enable --now gres-helper-watch";
    const DEAD: &str = "gres-helper watch does not run: a job over its share is not noticed, and \
                        XID errors are not remembered";
    match lives(site, gres::FOLDER, gres::WATCH_LOCK) {
        Ok(true) => Ok("gres-helper watch holds its lock".to_owned()),
        Ok(false) => warning(DEAD, START),
        Err(error) => unknown(error, START),
    }
}

/// Whether a daemon lives: it holds a lock in this folder of the state directory.
fn lives(site: &Site, folder: &str, lock: &str) -> Result<bool, String> {
    let Some(place) = state_dir(site) else {
        return Err(NO_STATE_DIR.to_owned());
    };
    let dir = match StateDir::open_existing(&place.join(folder)) {
        Ok(Some(dir)) if dir.path().join(lock).exists() => dir,
        _ => return Ok(false),
    };
    match dir.lock(lock, Deadline::after(Duration::ZERO)) {
        Err(StateError::Busy { .. }) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}
