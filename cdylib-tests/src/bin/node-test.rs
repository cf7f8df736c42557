//! The package on whole machines; see `make node-test`.

use std::process::ExitCode;

use cdylib_tests::node_test::{Selection, in_own_namespaces, run};
use clap::Parser;

/// Install the package on a virtual cluster of three machines (QEMU, no KVM
/// needed), and look at what it does there.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only the scenes whose name contains this, besides those that all others need.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave the machines on at the end, and say how to get in.
    #[arg(long)]
    hold: bool,
    /// Set for the program in its own namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let Arguments { only, hold, inside } = Arguments::parse();
    let outcome = if inside {
        run(&Selection { only, hold })
    } else {
        let own = std::env::args_os().skip(1);
        let arguments: Vec<_> = own.chain(["--inside".into()]).collect();
        in_own_namespaces(&arguments)
            .map(|status| status.success())
            .map_err(Into::into)
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("node-test: {error}");
            ExitCode::FAILURE
        }
    }
}
