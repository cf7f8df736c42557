//! `efa-check`: see `efa-check --help` and efa-check(8).

#![forbid(unsafe_code)]

mod commands;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use cli::called;
use cli::called::EFA_CHECK;
use efa_check::checks::Check;
use efa_check::site::{Named, Site};
use efa_check::{EX_CONFIG, EX_USAGE, drain, pingpong, probe_worker, rebind};

use crate::commands::output::complain;
use crate::commands::place::Place;
use crate::commands::{baseline, completions, explain, healthcheck, list, node, prolog};

/// Checks a node's EFA devices.
#[derive(Debug, Parser)]
#[command(name = "efa-check", version, about, after_help = EXIT_CODES)]
struct Line {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 healthy, 1 warnings, 2 fatal, 3 could not tell; 64 and up: \
wrong use.\n`prolog` exits with 2 for a fatal finding, and with 0 otherwise, whatever happens: any \
other code would drain the node.\nCalled by a link named efa-check-prolog or efa-check-healthcheck, it \
does what the link says; a number in front (50-efa-check-prolog) and an extension do not matter.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check this node, for a person or a program.
    Node {
        /// The whole report as JSON.
        #[arg(long)]
        json: bool,
        /// Show the checks that found nothing, too.
        #[arg(long, short)]
        verbose: bool,
        /// Write counters and results for node_exporter.
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// For slurm.conf's Prolog=.
    Prolog,
    /// For slurm.conf's HealthCheckProgram=.
    Healthcheck(healthcheck::Arguments),
    /// Write down which devices this healthy node has.
    Baseline(baseline::Arguments),
    /// The old name of `healthcheck`.
    #[command(hide = true)]
    Watch(healthcheck::Arguments),
    /// The old name of `baseline`.
    #[command(hide = true)]
    Record(baseline::Arguments),
    /// Show every check.
    List {
        /// As JSON.
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
        /// As a table for the manual.
        #[arg(long)]
        markdown: bool,
    },
    /// Say what a check proves, why, and what to do about a finding.
    Explain {
        /// The check, as `list` shows it.
        #[arg(value_name = "ID", value_parser = explain::checks(), hide_possible_values = true)]
        check: &'static Check,
    },
    /// The shell's completions, for packages.
    #[command(hide = true)]
    Completions { shell: Shell },
    /// Bring back a device whose admin queue is closed; only on an idle node.
    Rebind(commands::rebind::Arguments),
    /// Send packets from each device to itself; only on an idle node.
    Pingpong {
        /// Only this device.
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// The results as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    match args.first().and_then(|arg| arg.to_str()) {
        Some(probe_worker::READER) => return probe_worker::reader_main(args.into_iter().skip(1)),
        Some(drain::SPEAKER) => return drain::speaker_main(args.into_iter().skip(1)),
        Some(pingpong::TESTER) => return pingpong::tester_main(args.into_iter().skip(1)),
        Some(rebind::REBINDER) => return rebind::rebinder_main(args.into_iter().skip(1)),
        Some(pingpong::PAIR) => return pingpong::pair_main(args.into_iter().skip(1)),
        _ => {}
    }
    // Slurm's Prolog= and HealthCheckProgram= take a path and no arguments.
    let typed = if called::is_of_script(&args) {
        0
    } else {
        args.len()
    };
    let by_slurm = called::by_slurm(typed, |name| std::env::var_os(name));
    let linked = EFA_CHECK.command(&program);
    let mut is_link = linked.is_some();
    if let Some(command) = linked {
        args.insert(0, command.into());
    } else if let Some(of_script) = EFA_CHECK.of_script(&args) {
        args = of_script.into();
        is_link = true;
    }
    let is_prolog = args.iter().any(|arg| arg == "prolog");
    let parsed = Line::try_parse_from(std::iter::once("efa-check".into()).chain(args));
    let code = match parsed {
        Ok(mut line) => {
            line.command = line.command.current();
            run(&line)
        }
        Err(error) if by_slurm && error.use_stderr() => {
            wrong_use(&program, &error);
            0
        }
        Err(error) => {
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            if error.use_stderr() { EX_USAGE } else { 0 }
        }
    };
    // Any other code of a prolog drains the node, for a slip of the site's: also
    // where the link of the health check is among the prologs.
    let forgive = is_prolog || by_slurm && (is_link || code >= EX_USAGE);
    ExitCode::from(if forgive && code != 2 { 0 } else { code })
}

/// In a prolog wrong use is the site's fault: it is logged, and drains nothing.
fn wrong_use(program: &OsStr, error: &clap::Error) {
    let without_command = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let reason = (!without_command).then(|| error.to_string());
    let text = EFA_CHECK.misuse(program, reason.as_deref());
    complain(&text);
    drain::log(&text);
}

impl Command {
    /// The command, by its name of today; a person who typed the old one is told.
    fn current(self) -> Self {
        let (old, current) = match self {
            Self::Watch(arguments) => ("watch", Self::Healthcheck(arguments)),
            Self::Record(arguments) => ("record", Self::Baseline(arguments)),
            current => return current,
        };
        if let Some(new) = EFA_CHECK.current(old)
            && !called::under_slurm(|name| std::env::var_os(name))
        {
            complain(&format!(
                "`{old}` is the old name of `{new}`, which the next release will refuse; write \
                 `efa-check {new}`"
            ));
        }
        current
    }
}

fn run(line: &Line) -> u8 {
    match &line.command {
        Command::List { json, markdown } => return list::run(*json, *markdown),
        Command::Explain { check } => return explain::run(check),
        Command::Completions { shell } => return completions::run(*shell, &Line::command()),
        _ => {}
    }
    let config = line.place.config.as_deref();
    let site = match Site::load(config, line.place.node_name.clone(), Named::Yes) {
        Ok(site) => site,
        Err(reason) => {
            complain(&reason);
            if matches!(line.command, Command::Prolog | Command::Healthcheck(_)) {
                drain::log(&reason);
            }
            return EX_CONFIG;
        }
    };
    // slurmd logs them when it starts; each job and each health check need not.
    if !matches!(line.command, Command::Prolog | Command::Healthcheck(_)) {
        site.warnings.iter().for_each(|text| complain(text));
    }
    match &line.command {
        Command::Node {
            json,
            verbose,
            metrics,
        } => node::run(&site, *json, *verbose, metrics.as_deref()),
        Command::Prolog => prolog::run(&site),
        Command::Healthcheck(arguments) => healthcheck::run(&site, arguments),
        Command::Baseline(arguments) => baseline::run(&site, &line.place, arguments),
        Command::Rebind(arguments) => commands::rebind::run(&site, arguments),
        Command::Pingpong { device, json } => {
            commands::pingpong::run(&site, device.as_deref(), *json)
        }
        Command::List { .. }
        | Command::Explain { .. }
        | Command::Completions { .. }
        // Their names of today came before.
        | Command::Watch(_)
        | Command::Record(_) => 0,
    }
}
