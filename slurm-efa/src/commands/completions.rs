//! `slurm-efa completions`, for packages.

use clap::Command;
use clap_complete::Shell;
use cli::completions;

use super::output::print;

pub fn run(shell: Shell, command: &Command) -> anyhow::Result<u8> {
    let script = completions::script(shell, command, "slurm-efa");
    print(&script)?;
    Ok(0)
}
