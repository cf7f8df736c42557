//! The program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    efa_check::command::main(std::env::args_os())
}
