//! What `setup` and `revert` have in common: showing a plan and carrying it out.

use cluster::Role;
use slurm_efa::setup::Plan;
use slurm_efa::setup::apply::{self, Followed};
use slurm_efa::setup::discover::Site;

use super::arguments::EditArguments;
use super::exit::*;
use super::output::print;

pub fn carry_out(
    site: &Site,
    role: Role,
    plan: &Plan,
    edit: &EditArguments,
    next: &str,
) -> anyhow::Result<u8> {
    print(&plan.diff())?;
    let steps = apply::steps(site, role, plan, !edit.no_reconfigure);
    for step in &steps {
        print(&format!("will run: {step}\n"))?;
    }
    let mut followed = Followed::default();
    if !edit.changes_nothing() {
        apply::apply(site, plan)?;
        followed = apply::follow_up(site, plan, &steps);
    }
    for sentence in plan
        .notes
        .iter()
        .chain(&followed.notes)
        .chain(&followed.failures)
    {
        eprintln!("slurm-efa: {sentence}");
    }
    let changes = !plan.changes.is_empty();
    let next = match (edit.changes_nothing(), changes) {
        (true, true) => "run the same without --dry-run or --check to make these changes",
        (true, false) => "nothing; no file would change",
        (false, _) => next,
    };
    print(&format!("next: {next}\n"))?;
    Ok(if edit.check {
        u8::from(changes)
    } else if edit.dry_run {
        0
    } else if !followed.failures.is_empty() {
        REFUSED
    } else if !plan.notes.is_empty() || !followed.notes.is_empty() {
        ATTENTION
    } else {
        0
    })
}

/// Anybody may look.
pub fn not_root(looks_only: bool) -> Option<u8> {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if root || looks_only {
        return None;
    }
    eprintln!(
        "slurm-efa: only root can change this node's setup; --dry-run shows what would change"
    );
    Some(EX_NOPERM)
}
