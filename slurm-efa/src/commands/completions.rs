//! `slurm-efa completions`, for packages.

use clap::Command;
use clap_complete::Shell;

use super::output::print;

pub fn run(shell: Shell, mut command: Command) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "slurm-efa", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
