//! Options that every command has.

use std::path::PathBuf;

use clap::Args;
use slurm::NodeName;

#[derive(Debug, Args)]
pub struct Place {
    /// The configuration [default: /etc/slurm-efa/slurm-efa.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Slurm's name of this node [default: SLURMD_NODENAME, else the host's].
    #[arg(long, global = true, value_name = "NAME")]
    pub node_name: Option<NodeName>,
}
