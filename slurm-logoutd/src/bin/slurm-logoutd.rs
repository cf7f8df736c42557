//! `slurm-logoutd`: ends logins on this node when their users' jobs end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use logins::settings::Settings;
use slurm_logoutd::daemon::Daemon;

/// Wrong use (sysexits).
const USAGE: u8 = 64;
/// Wrong configuration (sysexits).
const CONFIG: u8 = 78;
/// Something that this needs cannot be had (sysexits).
const UNAVAILABLE: u8 = 69;

/// Ends logins on this node when their users' jobs end.
///
/// Runs in the foreground and logs to standard error. See slurm-logoutd(8).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what would be done, do nothing
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            let code = if error.use_stderr() { USAGE } else { 0 };
            return ExitCode::from(code);
        }
    };
    let mut settings = match Settings::load(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return failed(CONFIG, &error),
    };
    settings.dry_run |= arguments.dry_run;
    match Daemon::new(settings).and_then(Daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(UNAVAILABLE, &error),
    }
}

fn failed(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("slurm-logoutd: {error}");
    ExitCode::from(code)
}
