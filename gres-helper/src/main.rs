//! The program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gres_helper::command::main(std::env::args_os())
}
