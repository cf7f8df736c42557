//! `slurm-logout`: looks at the logins of this node and ends them by hand.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use findings::Envelope;
use host::BootId;
use host::state_dir::StateDir;
use logins::clock::BootTime;
use logins::membership::User;
use logins::process::Processes;
use logins::session::{Records, Session, daemon_runs};
use logins::settings::Settings;
use logins::terminate;
use logins::terminate::{Ending, PendingTermination, Progress};
use logins::user_jobs::{Jobs, Presence};
use slurm_logoutd::daemon::Daemon;
use slurm_logoutd::report::Status;

/// Wrong use (sysexits).
const USAGE: u8 = 64;
/// Something that this needs cannot be had (sysexits).
const UNAVAILABLE: u8 = 69;

/// How long slurmstepds that do not answer are waited for.
const LOOK: Duration = Duration::from_secs(2);

/// How long `end` keeps killing processes that start as fast as they are killed.
const LONGEST: Duration = Duration::from_secs(30);

/// Looks at the logins of this node, and ends them by hand.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show sessions, their users' jobs, and when they end
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Do once what slurm-logoutd does: warn, wait for the grace, end
    Sweep {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// End a user's sessions now, whether the user has a job or not
    End {
        /// Login name
        user: String,
    },
    /// The shell's completions, for packages
    #[command(hide = true)]
    Completions { shell: Shell },
}

type Failure = (u8, String);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, reason)) => {
            eprintln!("slurm-logout: {reason}");
            ExitCode::from(code)
        }
    }
}

fn unavailable(error: impl ToString) -> Failure {
    (UNAVAILABLE, error.to_string())
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Completions { shell } = arguments.command {
        return completions(shell);
    }
    let settings = Settings::load(arguments.config.as_deref()).map_err(unavailable)?;
    match arguments.command {
        Command::Status { json } => {
            let status = Status::look(&settings).map_err(unavailable)?;
            let text = if json {
                let document = Envelope::of_now(Some(&status.node), &status);
                serde_json::to_string_pretty(&document).map_err(unavailable)? + "\n"
            } else {
                status.text()
            };
            print(&text)
        }
        Command::Sweep { dry_run } => sweep(settings, dry_run),
        Command::End { user } => end_user(&settings, &user),
        Command::Completions { .. } => Ok(()),
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let script = cli::completions::script(shell, &Arguments::command(), "slurm-logout");
    print(&script)
}

/// A closed pipe is the reader's business.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unavailable(error)),
        _ => Ok(()),
    }
}

fn sweep(mut settings: Settings, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        let status = Status::look(&settings).map_err(unavailable)?;
        let mut text = String::new();
        for line in &status.sessions {
            let ends = line.presence == "none" && line.bound && !line.exempt;
            let word = if ends { "would end" } else { "stays" };
            text.push_str(&format!(
                "{word}: {} ({}, process {})\n",
                line.user, line.service, line.pid
            ));
        }
        for doubt in &status.doubts {
            text.push_str(&format!("not certain: {doubt}\n"));
        }
        return print(&text);
    }
    let state = StateDir::open(&settings.state_dir).map_err(unavailable)?;
    if daemon_runs(&state) {
        let reason = "slurm-logoutd runs and does this; `slurm-logout end USER` ends sessions now";
        return Err((USAGE, reason.to_owned()));
    }
    settings.dry_run = false;
    Daemon::new(settings)
        .and_then(Daemon::run_once)
        .map_err(unavailable)
}

fn end_user(settings: &Settings, user: &str) -> Result<(), Failure> {
    let state = StateDir::open_existing(&settings.state_dir).map_err(unavailable)?;
    let records = state
        .map(|state| Records::open(&state))
        .transpose()
        .map_err(unavailable)?;
    let Some(mut records) = records else {
        return Err((USAGE, no_session(user)));
    };
    let boot = BootId::current().map_err(unavailable)?;
    let (all, _) = records.list().map_err(unavailable)?;
    let (ours, others): (Vec<Session>, Vec<Session>) = all
        .into_iter()
        .filter(|it| it.boot == boot)
        .partition(|it| it.user == user);
    let Some(uid) = ours.first().map(|it| it.uid) else {
        return Err((USAGE, no_session(user)));
    };
    if uid.is_root() {
        return Err((USAGE, "root's sessions are never ended".to_owned()));
    }
    let no_job = Jobs::look(settings, LOOK).of(uid) == Presence::None;
    let user_of = User::look_up(uid, user);
    let mut pending = PendingTermination::new(Ending::new(user_of, ours, settings.leftovers));
    let until = BootTime::now().after(LONGEST);
    while BootTime::now() < until {
        let processes = Processes::scan().map_err(unavailable)?;
        match pending.advance(&processes, &others, no_job) {
            Progress::Step(_, _, problems) => {
                problems
                    .iter()
                    .for_each(|it| eprintln!("slurm-logout: {it}"));
                // There is nothing to wait for but the processes' own time.
                std::thread::sleep(BootTime::now().until(pending.next));
            }
            Progress::Survived(pids) => {
                let pids = terminate::named(&pids);
                let reason = format!("processes {pids} of {user} survive SIGKILL");
                return Err((UNAVAILABLE, reason));
            }
            done @ (Progress::Ended | Progress::Unseen(_)) => {
                let sessions = &pending.ending.sessions;
                for session in sessions {
                    records.remove(session.leader).map_err(unavailable)?;
                }
                let count = sessions.len();
                return match done {
                    Progress::Unseen(reason) => print(&format!(
                        "nothing of {count} sessions of {user} is found any more, but they could \
                         not be killed at once: {reason}\n"
                    )),
                    _ => print(&format!("{count} sessions of {user} ended\n")),
                };
            }
        }
    }
    let reason = format!("processes of {user} start as fast as they are killed");
    Err((UNAVAILABLE, reason))
}

fn no_session(user: &str) -> String {
    let user = host::printable(user, 80);
    format!("no session of {user} is recorded here; `slurm-logout status` shows all")
}
