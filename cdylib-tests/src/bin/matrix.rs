//! The shipped files under every supported Slurm release; see `make matrix`.

use std::process::ExitCode;

use cdylib_tests::matrix::{Selection, run};
use clap::Parser;

/// Run the plugin as it is shipped under every supported Slurm release, and
/// print a table, behaviour by release.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only this release.
    #[arg(long, value_name = "RELEASE")]
    only: Option<String>,
    /// Only the behaviours whose name contains this.
    #[arg(long, value_name = "NAME")]
    row: Option<String>,
}

fn main() -> ExitCode {
    let Arguments { only, row } = Arguments::parse();
    match run(&Selection { release: only, row }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("matrix: {error}");
            ExitCode::FAILURE
        }
    }
}
