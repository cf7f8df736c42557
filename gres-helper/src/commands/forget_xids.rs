//! `gres-helper forget-xids`.

use gpu::settings::Settings;
use gres_helper::job;

pub fn run(settings: &Settings, gpu: Option<&str>) -> Result<u8, String> {
    job::forget_xids(settings, gpu).map(|()| 0)
}
