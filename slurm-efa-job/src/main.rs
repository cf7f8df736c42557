//! `slurm-efa-job prolog` and `epilog`: root, once for each job on each node, as
//! Slurm's Prolog= and Epilog=.
//!
//! The prolog records the job, has the counters read and reserves its hugepages;
//! the epilog reports, forgets the job and gives back. Neither ever ends with an
//! error: that would drain the node. What is wrong with a *job* is written into
//! its record, and its tasks end with that sentence (`spank_efa.so` in their
//! step); what is wrong with the *node* is logged, and the job runs as it would
//! without slurm-efa.
//!
//! Every job waits for this program, so it starts as fast as one can: no thread,
//! no library but libc, no parser of command lines.

mod called_for;
mod epilog;
mod log;
mod node;
mod prolog;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use cli::called::{self, SLURM_EFA_JOB};

use called_for::CalledFor;
use log::log;

/// sysexits(3): the command line is wrong.
const EX_USAGE: u8 = 64;

/// Seconds after which slurmd goes on without the rest. What waits has limits of
/// its own, all of them shorter.
const LONGEST: u32 = 300;

const HELP: &str = "\
Record a job, reserve its hugepages and report what it moved over EFA

Usage: slurm-efa-job prolog [--config FILE]
       slurm-efa-job epilog [--config FILE]
       slurm-efa-job --help | --version

Slurm calls it as Prolog= and Epilog=, by links named slurm-efa-job-prolog and
slurm-efa-job-epilog, which `slurm-efa setup` makes. With another configuration
than the default one, scripts of these names call it by their first line:
#!/usr/lib/slurm-efa/slurm-efa-job --config=FILE
It never fails a prolog or an epilog: what is wrong with the node is in the
system's log.
";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let by_slurm = called::by_slurm(args.len(), |name| std::env::var_os(name));
    let linked = SLURM_EFA_JOB.command(&program);
    let command = match Command::of(linked, args) {
        Some(command) => command,
        None if by_slurm => {
            log(&SLURM_EFA_JOB.misuse(&program, None));
            return ExitCode::SUCCESS;
        }
        None => {
            eprint!("{HELP}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let (work, config): (Work, _) = match command {
        Command::Help => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Command::Version => {
            println!("{} {}", SLURM_EFA_JOB.name, env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Command::Prolog(config) => (prolog::prolog, config),
        Command::Epilog(config) => (epilog::epilog, config),
    };
    end_in_time();
    let done = guard::guard("the job's program", log, || {
        let job = CalledFor::of(config, |name| std::env::var_os(name))?;
        work(&job)
    });
    if let Some(Err(reason)) = done {
        log(&reason);
    }
    // Any other code would drain the node.
    ExitCode::SUCCESS
}

type Work = fn(&CalledFor) -> Result<(), String>;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Prolog(Option<PathBuf>),
    Epilog(Option<PathBuf>),
    Help,
    Version,
}

impl Command {
    /// By the name of the link, if that says it, and the command line; `None`
    /// where that is wrong.
    fn of(linked: Option<&str>, args: Vec<OsString>) -> Option<Self> {
        let mut args = args.into_iter();
        let first = args.next();
        let given = first
            .as_ref()
            .and_then(|it| it.as_bytes().strip_prefix(OPTION));
        let (command, config) = match (linked, given) {
            // A script whose first line names this program: the kernel hands on what
            // that line says and the script's path.
            (_, Some(file)) => {
                let command = SLURM_EFA_JOB.command(&args.next()?)?;
                (
                    OsString::from(command),
                    Some(OsStr::from_bytes(file).into()),
                )
            }
            (Some(command), None) => (command.into(), config(first, &mut args)?),
            (None, None) => {
                let option = args.next();
                (first?, config(option, &mut args)?)
            }
        };
        if args.next().is_some() {
            return None;
        }
        match (command.to_str()?, config) {
            ("prolog", config) => Some(Self::Prolog(config)),
            ("epilog", config) => Some(Self::Epilog(config)),
            ("--help" | "-h", None) => Some(Self::Help),
            ("--version" | "-V", None) => Some(Self::Version),
            _ => None,
        }
    }
}

/// The option in the first line of a script.
const OPTION: &[u8] = b"--config=";

/// The value of `--config`; `None` within where there is no option.
fn config(
    option: Option<OsString>,
    args: &mut impl Iterator<Item = OsString>,
) -> Option<Option<PathBuf>> {
    match option {
        None => Some(None),
        Some(option) if option == "--config" => Some(Some(args.next()?.into())),
        Some(_) => None,
    }
}

/// A job is not kept waiting for ever, and being late is no fault of the node.
fn end_in_time() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit(2) may be called in a signal handler.
        unsafe { libc::_exit(0) }
    }
    let end: extern "C" fn(libc::c_int) = end;
    // SAFETY: signal(2) takes a function of this signature, which does only what a
    // handler may.
    unsafe { libc::signal(libc::SIGALRM, end as libc::sighandler_t) };
    // SAFETY: alarm(2) takes a number.
    unsafe { libc::alarm(LONGEST) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(linked: Option<&str>, args: &[&str]) -> Option<Command> {
        Command::of(linked, args.iter().map(OsString::from).collect())
    }

    #[test]
    fn a_link_says_what_to_do_and_a_script_by_which_configuration() {
        assert_eq!(of(Some("epilog"), &[]), Some(Command::Epilog(None)));
        let config = Some(PathBuf::from("/srv/a.toml"));
        let args = ["prolog", "--config", "/srv/a.toml"];
        assert_eq!(of(None, &args), Some(Command::Prolog(config)));
    }

    #[test]
    fn a_script_names_this_program_and_its_configuration_in_its_first_line() {
        let args = ["--config=/srv/a b.toml", "/site/50-slurm-efa-job-epilog"];
        let config = Some(PathBuf::from("/srv/a b.toml"));
        assert_eq!(of(None, &args), Some(Command::Epilog(config)));
        assert_eq!(of(None, &["--config=/a", "/site/other"]), None);
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for args in [
            &[][..],
            &["prologue"],
            &["prolog", "--config"],
            &["prolog", "--config", "/a", "b"],
            &["--help", "--config", "/a"],
        ] {
            assert_eq!(of(None, args), None, "{args:?}");
        }
    }
}
