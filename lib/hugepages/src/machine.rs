//! The rule of [`crate::reconcile()`] on this machine: its kernel, its jobs.

use std::path::PathBuf;

use crate::isolate::Controller;
use crate::ledger::Ledger;
use crate::pool::{KernelPools, Pools};
use crate::reconcile::{Claim, ReconcileError, Report, reconcile};
use crate::rehearsal::PaperPools;
use host::BootId;
use host::Deadline;
use host::Sysroot;
use host::state_dir::{StateDir, Store};
use jobs::registry::Registry;
use jobs::{Existence, JobIndex};

/// Reconciles the running kernel with the ledger in `state`, and grants `claim`
/// what can be had.
///
/// `default_spool` is slurmd's `SlurmdSpoolDir`, for jobs whose files cannot
/// tell theirs. `deadline` bounds waiting for the lock, asking the jobs and
/// looking for pages, together.
///
/// # Errors
/// See [`reconcile()`]; also where the lock was not to be had, and then nothing
/// changed.
pub fn settle(
    state: &StateDir,
    default_spool: Option<PathBuf>,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let ledger = Ledger::open(state, deadline)?;
    let kernel = KernelPools::new(Sysroot::real())?;
    let spool = default_spool;
    let report = apply(ledger, kernel, Some(state), spool, claim, deadline)?;
    // A prolog or an epilog that was killed may have left an empty group.
    if let (Ok(Some(controller)), Ok(Some(registry))) =
        (Controller::find(), Registry::open_existing(state))
    {
        controller.sweep(&registry);
    }
    Ok(report)
}

/// What [`settle`] would do now without a claim, had the kernel all the memory
/// that is asked of it. Neither the files nor the kernel change. `state` is
/// `None` where there is no such directory.
///
/// # Errors
/// As [`settle`].
pub fn rehearse(
    state: Option<&StateDir>,
    default_spool: Option<PathBuf>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let ledger = Ledger::rehearse(state, deadline)?;
    let kernel = PaperPools::over(KernelPools::new(Sysroot::real())?);
    apply(ledger, kernel, state, default_spool, None, deadline)
}

/// The registry is read here, *after* the lock was taken: a prolog records its
/// job before it claims pages, so every job in the locked ledger is in the
/// registry by now. Read before, a job that started in between would look gone
/// and lose its pages.
fn apply<S: Store, P: Pools>(
    mut ledger: Ledger<S>,
    mut kernel: P,
    state: Option<&StateDir>,
    default_spool: Option<PathBuf>,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let boot = BootId::current()?;
    let registry = match state {
        Some(state) => Registry::open_existing(state)?,
        None => None,
    };
    let mut known =
        registry.map(|registry| JobIndex::read(&registry, boot.clone(), default_spool, deadline));
    reconcile(
        &mut ledger,
        &mut kernel,
        &boot,
        &mut |key, entry| match &mut known {
            Some(known) => {
                known.existence(key, entry.map(|entry| (&entry.start, &*entry.spool_dir)))
            }
            // A ledger without a registry: somebody removed it.
            None => Existence::Unknown,
        },
        claim,
        deadline,
    )
}
