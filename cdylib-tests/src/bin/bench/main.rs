//! `make bench`: what the plugin costs a job and its steps.
//!
//! Nothing here asserts a time; it reports what it measured and how.

mod instructions;
mod jobs;
mod logins;
mod pam;
mod plugin_host;
mod steps;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a measurement ends.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Measure what the plugin costs a job step.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How often each of the four ways runs a step.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Only count the instructions of the plugin's hooks; needs no root and no Slurm.
    #[arg(long)]
    instructions_only: bool,
    /// Only measure what is done once for each job: prolog, epilog, hugepages.
    #[arg(long, conflicts_with = "instructions_only")]
    jobs_only: bool,
    /// Only measure job steps, without and with the plugin.
    #[arg(long, conflicts_with = "instructions_only")]
    steps_only: bool,
    /// Measure this plugin instead of the release build beside this program.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Only measure logins, against pam_slurm_adopt and pam_slurm.
    #[arg(long)]
    logins_only: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program does as a part of itself.
#[derive(Subcommand)]
enum Part {
    /// Loads a plugin as Slurm would and calls its hooks.
    #[command(hide = true)]
    Host {
        plugin: PathBuf,
        /// The program that is played.
        role: plugin_host::Role,
        /// The plugin's argument in plugstack.conf.
        word: String,
        /// The value of --efa-profile.
        #[arg(long)]
        profile: Option<String>,
    },
    /// Logs in through libpam and prints microseconds: account, open, close.
    #[command(hide = true)]
    Pam {
        /// Folder of the service's file.
        confdir: PathBuf,
        service: String,
        user: String,
        rounds: u32,
    },
    /// Runs a command and prints its wall and CPU time in microseconds.
    #[command(hide = true)]
    Time {
        #[arg(trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome {
    match arguments.part {
        Some(Part::Host {
            plugin,
            role,
            word,
            profile,
        }) => return plugin_host::run(&plugin, role, &word, profile.as_deref()),
        Some(Part::Pam {
            confdir,
            service,
            user,
            rounds,
        }) => return pam::run(&confdir, &service, &user, rounds),
        Some(Part::Time { command }) => return steps::time(&command),
        None => {}
    }
    if arguments.logins_only {
        return logins::measure();
    }
    let plugin = match arguments.plugin {
        Some(plugin) => plugin,
        None => release_build()?,
    };
    if arguments.jobs_only {
        return jobs::measure(&plugin);
    }
    if arguments.steps_only {
        return steps::measure(&plugin, arguments.rounds);
    }
    instructions::measure(&plugin)?;
    if !arguments.instructions_only {
        jobs::measure(&plugin)?;
        steps::measure(&plugin, arguments.rounds)?;
        logins::measure()?;
    }
    Ok(())
}

/// The plugin that `make bench` has built.
fn release_build() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent);
    let plugin = target
        .ok_or("this program lies in no target directory")?
        .join("release/libspank_efa.so");
    if plugin.is_file() {
        Ok(plugin)
    } else {
        Err(format!("{} is not built; run `make bench`", plugin.display()).into())
    }
}
