//! Programs of others, run with a time limit and an environment of ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use host::exec;
use host::exec::Said;
use host::printable;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where programs are looked for: root's environment is not asked.
const FOLDERS: [&str; 8] = [
    "/opt/slurm/bin",
    "/opt/slurm/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

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

/// Where a program is, looked for first beside the configuration of Slurm: that
/// in `/opt/slurm-24.11/etc` has its programs in `/opt/slurm-24.11/bin`.
#[must_use]
pub fn find(name: &str, slurm_conf: Option<&Path>) -> Option<PathBuf> {
    let folder = slurm_conf.and_then(Path::parent);
    // Any other place says nothing about programs.
    let prefix = folder
        .filter(|it| it.ends_with("etc"))
        .and_then(Path::parent);
    let own = prefix
        .into_iter()
        .flat_map(|prefix| [prefix.join("bin"), prefix.join("sbin")]);
    own.chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started, for a person.
pub fn run(program: &Path, arguments: &[&str], slurm_conf: Option<&Path>) -> Result<Said, String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/");
    if let Some(path) = slurm_conf {
        command.env("SLURM_CONF", path);
    }
    exec::run(&mut command, LIMIT).map_err(|error| {
        let shown = printable(&program.to_string_lossy(), 200);
        format!("{shown} cannot be run: {error}")
    })
}
