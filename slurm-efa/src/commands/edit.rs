//! What `setup` and `revert` have in common: showing a plan and carrying it out.

use cluster::Role;
use slurm_efa::setup::discover::Site;
use slurm_efa::setup::{Plan, apply};

use super::arguments::EditArguments;
use super::exit::*;
use super::output::print;

pub fn carry_out(site: &Site, role: Role, plan: &Plan, edit: &EditArguments) -> anyhow::Result<u8> {
    print(&plan.diff())?;
    let mut said = plan.notes.clone();
    if !edit.dry_run {
        apply::apply(site, plan)?;
        said.extend(apply::follow_up(site, role, plan, !edit.no_reconfigure));
    }
    for sentence in &said {
        eprintln!("slurm-efa: {sentence}");
    }
    let planned = edit.dry_run && !plan.changes.is_empty();
    Ok(if planned || !said.is_empty() {
        ATTENTION
    } else {
        0
    })
}

/// Anybody may look.
pub fn not_root(dry_run: bool) -> Option<u8> {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if root || dry_run {
        return None;
    }
    eprintln!(
        "slurm-efa: only root can change this node's set-up; --dry-run shows what it would be"
    );
    Some(EX_NOPERM)
}
