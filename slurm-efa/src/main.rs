//! `slurm-efa`: see `slurm-efa --help` and slurm-efa(8).

mod commands;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use slurm_efa::setup::login;

use crate::commands::exit::{EX_USAGE, exit_code};
use crate::commands::{
    cluster, completions, config, doctor, preflight, reconcile, report, revert, setup,
};

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
    Report(report::Arguments),
    /// Give back the hugepages of jobs that are gone, and tell what is wrong
    Reconcile(reconcile::Arguments),
    /// Set this node up: Slurm's files, prolog, health check, logins
    Setup(setup::Arguments),
    /// Take out what set-up put in, and nothing else
    Revert(revert::Arguments),
    /// Is the set-up complete, and does it work?
    Doctor(doctor::Arguments),
    /// Check or show slurm-efa.toml, or print its schema
    #[command(subcommand)]
    Config(config::Command),
    /// Check a HyperPod cluster before it is created: its files, its scripts and its network
    Preflight(Box<preflight::Arguments>),
    /// Show the cluster that this node is in, from HyperPod's own files
    Cluster(cluster::Arguments),
    #[command(name = login::COMMAND, hide = true)]
    PamCheck {
        service: String,
        user: String,
        folder: Option<String>,
    },
    #[command(name = login::NVML, hide = true)]
    NvmlCheck,
    /// The shell's completions, for packages
    #[command(hide = true)]
    Completions { shell: Shell },
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
        Command::Report(arguments) => report::run(&arguments),
        Command::Reconcile(arguments) => reconcile::run(arguments),
        Command::Setup(arguments) => setup::run(arguments),
        Command::Revert(arguments) => revert::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Config(command) => config::run(command),
        Command::Preflight(arguments) => preflight::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
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
        Command::Completions { shell } => completions::run(shell, &Arguments::command()),
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
