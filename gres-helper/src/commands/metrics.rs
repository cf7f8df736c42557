//! `gres-helper metrics`.

use std::path::Path;

use gpu::settings::Settings;
use gres_helper::EX_CANTCREAT;
use gres_helper::status;
use host::textfile;

use super::output::complain;
use super::status::collect;

pub fn run(settings: &Settings, file: &Path) -> Result<u8, String> {
    let text = status::metrics(&collect(settings)?);
    match textfile::write(file, &text) {
        Ok(()) => Ok(0),
        Err(error) => {
            complain(&format!("{}: {error}", file.display()));
            Ok(EX_CANTCREAT)
        }
    }
}
