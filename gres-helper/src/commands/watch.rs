//! `gres-helper watch`.

use gpu::settings::Settings;
use gres_helper::watch;

pub fn run(settings: &Settings, once: bool) -> Result<u8, String> {
    watch::run(settings, once).map(|()| 0)
}
