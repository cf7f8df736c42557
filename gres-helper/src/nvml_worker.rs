//! The child process that calls NVML; see [`gpu::nvml_worker`].

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use gpu::inventory::{Answer, Ask};

use crate::nvml::Library;

/// The child: `nvml-agent LIBRARY`.
#[must_use]
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    // Without its parent nobody reads what it says.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let Some(library) = args.next() else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let library = Library::open(&PathBuf::from(library));
    let mut events = None;
    for line in io::stdin().lock().lines() {
        let Some(ask) = line
            .ok()
            .and_then(|line| serde_json::from_str::<Ask>(&line).ok())
        else {
            return ExitCode::FAILURE;
        };
        let answer = match &library {
            Err(reason) => Answer::NoNvml(reason.clone()),
            Ok(library) => {
                if matches!(ask, Ask::Xids(_)) && events.is_none() {
                    events = library.events().ok();
                }
                library.answer(&ask, &mut events)
            }
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else {
            return ExitCode::FAILURE;
        };
        text.push(b'\n');
        let mut out = io::stdout().lock();
        if out.write_all(&text).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
