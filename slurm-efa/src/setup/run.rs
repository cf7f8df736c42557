//! Programs of others, which root runs only where [`host::trust`] believes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::exec::{Call, Said};
use host::{Gid, Uid, printable};
use slurm::{Program, programs};

use super::discover::Site;

/// The user that owns nothing, on Debian and RHEL.
const NOBODY: (Uid, Gid) = (Uid(65534), Gid(65534));

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Its complaint, for a sentence: the first error, which names the mistake, where
/// it says so; else its last line.
#[must_use]
pub fn complaint(said: &Said) -> String {
    let mut lines = said.stderr.lines().filter(|line| !line.trim().is_empty());
    let error = lines.clone().find(|line| line.contains("error: "));
    match error.or_else(|| lines.next_back()) {
        Some(line) => printable(line, 300),
        None => match said.status.and_then(|status| status.code()) {
            Some(code) => format!("exit code {code}"),
            None => format!("it was ended by a signal or after {} s", LIMIT.as_secs()),
        },
    }
}

/// All that it wrote.
#[must_use]
pub fn said(said: &Said) -> String {
    format!("{}{}", said.stdout, said.stderr)
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
    run_for(program, arguments, LIMIT)
}

/// The same with a time limit of the caller's.
///
/// # Errors
/// As [`run`].
pub fn run_for(program: &Path, arguments: &[&str], limit: Duration) -> Result<Said, String> {
    let call = Call::to(program).map_err(|error| error.to_string())?;
    let call = call.env("PATH", programs::FOLDERS.join(":"));
    let said = call.args(arguments).run(limit);
    said.map_err(|error| error.to_string())
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

/// The same as a user runs it, where root asks.
///
/// # Errors
/// As [`slurms`].
pub fn slurms_as_user(site: &Site, program: Program, arguments: &[&str]) -> Result<Said, String> {
    let call = site
        .slurm
        .call(program)
        .map_err(|error| error.to_string())?;
    to_its_end(as_user(call), arguments)
}

/// A program as a user who owns nothing runs it; only root can become another.
#[must_use]
pub fn as_user(call: Call) -> Call {
    match uzers::get_current_uid() {
        0 => call.user(NOBODY.0, NOBODY.1),
        _ => call,
    }
}

fn to_its_end(call: Call, arguments: &[&str]) -> Result<Said, String> {
    let said = call.args(arguments).run(LIMIT);
    said.map_err(|error| error.to_string())
}
