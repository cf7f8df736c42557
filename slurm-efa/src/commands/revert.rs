//! `slurm-efa revert`.

use clap::Args;
use cluster::Role;
use slurm_efa::setup::{apply, removal, revert, verify};

use super::arguments::EditArguments;
use super::edit;
use super::exit::REFUSED;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    edit: EditArguments,
    /// Change nothing while something would still need slurm-efa, and say what; removal of the
    /// package does this
    #[arg(long, conflicts_with = "only")]
    all_or_nothing: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let edit = arguments.edit;
    if let Some(code) = edit::not_root(edit.changes_nothing()) {
        return Ok(code);
    }
    let site = edit.place.look();
    let _lock = (!edit.changes_nothing())
        .then(|| apply::lock(&site))
        .transpose()?;
    let plan = revert::plan_revert(&site, edit.only())?;
    if arguments.all_or_nothing {
        let needed = removal::still_needed(&site, &plan);
        for sentence in &needed {
            eprintln!("slurm-efa: {sentence}");
        }
        if !needed.is_empty() {
            eprintln!("slurm-efa: nothing was changed");
            return Ok(REFUSED);
        }
    }
    // Whose files are changed is the one to have them read anew; a package that
    // is removed does not know its role.
    let role = if verify::changes_slurm(&site, &plan) {
        Role::Controller
    } else {
        Role::Login
    };
    let next = match role {
        Role::Controller => "run `slurm-efa revert` on each node",
        Role::Login | Role::Compute => "nothing; the package can be removed from this node",
    };
    edit::carry_out(&site, role, &plan, &edit, next)
}
