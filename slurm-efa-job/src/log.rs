//! What the administrator should know.

use cli::called::SLURM_EFA_JOB;
use cli::syslog;

/// Into the system's log: slurmd shows the output of a prolog that failed only, and
/// this one never does.
pub fn log(text: &str) {
    syslog::warn(SLURM_EFA_JOB.name, text);
    eprintln!("{}: {text}", SLURM_EFA_JOB.name);
}

/// The same, about something.
pub fn complain(what: &str, reason: &str) {
    log(&format!("{what}: {reason}"));
}
