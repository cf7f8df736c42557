//! `slurm-efa revert`.

use clap::Args;
use cluster::Role;
use slurm_efa::setup::{apply, revert, verify};

use super::arguments::EditArguments;
use super::edit;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    edit: EditArguments,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let edit = arguments.edit;
    if let Some(code) = edit::not_root(edit.dry_run) {
        return Ok(code);
    }
    let site = edit.place.look();
    let _lock = (!edit.dry_run).then(|| apply::lock(&site)).transpose()?;
    let plan = revert::plan_revert(&site)?;
    // Whose files are changed is the one to have them read anew; a package that
    // is removed does not know its role.
    let role = if verify::changes_slurm(&site, &plan) {
        Role::Controller
    } else {
        Role::Login
    };
    edit::carry_out(&site, role, &plan, &edit)
}
