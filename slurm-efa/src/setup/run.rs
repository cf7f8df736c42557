//! Programs of others, which root runs only where [`host::trust`] believes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::exec::{Call, Said};
use host::printable;
use slurm::{Program, programs};

use super::discover::Site;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Its last complaint, for a sentence.
#[must_use]
pub fn complaint(said: &Said) -> String {
    let mut lines = said.stderr.lines().filter(|line| !line.trim().is_empty());
    match lines.next_back() {
        Some(line) => printable(line, 300),
        None => match said.status.and_then(|status| status.code()) {
            Some(code) => format!("exit code {code}"),
            None => format!("it was ended by a signal or after {} s", LIMIT.as_secs()),
        },
    }
}

/// Where a program is that is not Slurm's.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    programs::find(name, None)
}

/// Runs a program to its end.
///
/// # Errors
/// Others may change it, or it cannot be started; for a person.
pub fn run(program: &Path, arguments: &[&str]) -> Result<Said, String> {
    let call = Call::to(program).map_err(|error| error.to_string())?;
    to_its_end(call.env("PATH", programs::FOLDERS.join(":")), arguments)
}

/// Runs one of Slurm's programs to its end, with the site's slurm.conf.
///
/// # Errors
/// As [`run`], or there is none.
pub fn slurms(site: &Site, program: Program, arguments: &[&str]) -> Result<Said, String> {
    let call = site
        .slurm
        .call(program)
        .map_err(|error| error.to_string())?;
    to_its_end(call, arguments)
}

fn to_its_end(call: Call, arguments: &[&str]) -> Result<Said, String> {
    let said = call.args(arguments).run(LIMIT);
    said.map_err(|error| error.to_string())
}
