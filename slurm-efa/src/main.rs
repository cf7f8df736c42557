//! `slurm-efa`: see `slurm-efa --help` and slurm-efa(8).

mod node_setup;
mod reconcile;
mod report;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use config::{ConfigError, DEFAULT_PATH, MissingIs};
use hugepages::ReconcileError;
use slurm::NodeName;
use slurm::node_name::NameError;

use slurm_efa::setup::{SetupError, login};

use crate::reconcile::{Mode, Reconciled};

/// Nothing is known of the job, or the pages could not be reconciled.
const COULD_NOT_TELL: u8 = 3;
/// Wrong use; this and the next two as in sysexits.h.
const EX_USAGE: u8 = 64;
/// Something could not be read or written.
const EX_IOERR: u8 = 74;
/// The configuration is wrong.
const EX_CONFIG: u8 = 78;

/// What jobs did with EFA, the hugepages of this node, and its set-up.
#[derive(Debug, Parser)]
#[command(name = "slurm-efa", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Did a job use EFA? Adds up what its nodes recorded when it ended
    Report(ReportArguments),
    /// Give back the hugepages of jobs that are gone, and tell what is wrong
    Reconcile(ReconcileArguments),
    /// Set this node up: Slurm's files, prolog, health check, logins
    Setup(node_setup::SetupArguments),
    /// Take out what set-up put in, and nothing else
    Revert(node_setup::RevertArguments),
    /// Is the set-up complete, and does it work?
    Doctor(node_setup::DoctorArguments),
    #[command(name = slurm_efa::setup::login::COMMAND, hide = true)]
    PamCheck {
        service: String,
        user: String,
        folder: Option<String>,
    },
    #[command(name = slurm_efa::setup::login::NVML, hide = true)]
    NvmlCheck,
    /// The shell's completions, for packages
    #[command(hide = true)]
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
struct ReportArguments {
    /// The job's number
    #[arg(value_name = "JOBID", value_parser = clap::value_parser!(u32).range(1..))]
    job: u32,
    /// Print the records and their sums as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArguments,
}

#[derive(Debug, Args)]
struct ReconcileArguments {
    /// Change nothing, and tell what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Print every pool and all that was done as JSON
    #[arg(long)]
    json: bool,
    /// slurmd's SlurmdSpoolDir, to look for jobs whose files are damaged
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
    #[command(flatten)]
    site: SiteArguments,
}

/// Which node and which site.
#[derive(Debug, Args)]
struct SiteArguments {
    /// This node's name in Slurm, where the configuration's paths contain %n
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// The configuration, instead of /etc/slurm-efa/slurm-efa.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SiteArguments {
    fn load(&self) -> Result<config::Config, ConfigError> {
        match &self.config {
            Some(path) => {
                // The configuration's own rule; a relative path is a convenience.
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                config::Config::load(&path, MissingIs::Error)
            }
            None => config::Config::load(DEFAULT_PATH.as_ref(), MissingIs::Default),
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to hear that it could not be printed.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EX_USAGE),
            };
        }
    };
    let result = match arguments.command {
        Command::Report(arguments) => run_report(&arguments),
        Command::Reconcile(arguments) => run_reconcile(arguments),
        Command::Setup(arguments) => node_setup::setup(arguments),
        Command::Revert(arguments) => node_setup::revert(arguments),
        Command::Doctor(arguments) => node_setup::doctor(arguments),
        Command::PamCheck {
            service,
            user,
            folder,
        } => {
            let code = login::child(&service, &user, folder.as_deref());
            return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
        }
        Command::NvmlCheck => {
            return ExitCode::from(u8::try_from(login::nvml_child()).unwrap_or(u8::MAX));
        }
        Command::Completions { shell } => run_completions(shell),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Each error says its cause itself.
            eprintln!("slurm-efa: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run_report(arguments: &ReportArguments) -> anyhow::Result<u8> {
    let config = arguments.site.load()?;
    let report = report::Report::gather(&config, arguments.site.node.as_ref(), arguments.job)?;
    if arguments.json {
        print(&report.to_json()?)?;
    } else if report.is_known() {
        print(&report.to_text())?;
    }
    if report.is_known() {
        return Ok(0);
    }
    for sentence in report.why_nothing() {
        eprintln!("slurm-efa: {sentence}");
    }
    Ok(COULD_NOT_TELL)
}

fn run_reconcile(arguments: ReconcileArguments) -> anyhow::Result<u8> {
    let config = arguments.site.load()?;
    let mode = if arguments.dry_run {
        Mode::DryRun
    } else {
        Mode::Apply
    };
    let node = arguments.site.node.as_ref();
    let reconciled = Reconciled::run(&config, node, arguments.spool_dir, mode)?;
    if arguments.json {
        print(&reconciled.to_json()?)?;
    } else {
        let lines = reconciled.done();
        print(
            &lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )?;
    }
    for sentence in reconciled.complaints() {
        eprintln!("slurm-efa: {sentence}");
    }
    Ok(reconciled.outcome() as u8)
}

fn run_completions(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "slurm-efa", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// To stdout; a reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<NameError>() {
        EX_CONFIG
    } else if let Some(error) = error.downcast_ref::<SetupError>() {
        node_setup::exit_code(error)
    } else if error.is::<ReconcileError>() {
        COULD_NOT_TELL
    } else {
        EX_IOERR
    }
}
