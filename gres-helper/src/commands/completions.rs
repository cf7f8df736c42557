//! `gres-helper completions`, for packages.

use clap::Command;
use clap_complete::Shell;
use cli::completions;

use super::output::print;

pub fn run(shell: Shell, command: &Command) -> u8 {
    let script = completions::script(shell, command, "gres-helper");
    print(&script);
    0
}
