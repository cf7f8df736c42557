//! `efa-check completions`, for packages.

use clap::Command;
use clap_complete::Shell;

use super::output::print;

pub fn run(shell: Shell, mut command: Command) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "efa-check", &mut script);
    print(&String::from_utf8_lossy(&script));
    0
}
