//! What the kernel allows a job: locked memory, other processes' memory, hugepages.

use super::facts::{CheckOutcome, Facts, found, has_efa};
use crate::observe::{HugePool, WantedBy};

pub(super) fn memlock(facts: &Facts<'_>) -> CheckOutcome {
    match facts.seen.memlock {
        Some(bytes) if bytes < facts.settings.memlock && has_efa(facts) => {
            CheckOutcome::Found(format!("slurmd may lock only {bytes} bytes of memory"))
        }
        Some(_) => CheckOutcome::Fine,
        None => CheckOutcome::NotApplicable,
    }
}

pub(super) fn ptrace_scope(facts: &Facts<'_>) -> CheckOutcome {
    match &facts.seen.ptrace_scope {
        None => CheckOutcome::NotApplicable,
        Some(_) if !has_efa(facts) => CheckOutcome::NotApplicable,
        Some(Ok(0)) => CheckOutcome::Fine,
        Some(Ok(scope)) => {
            CheckOutcome::Found(format!("kernel.yama.ptrace_scope is {scope}, not 0"))
        }
        Some(Err(reason)) => CheckOutcome::Unknown(reason.clone()),
    }
}

pub(super) fn hugepages(facts: &Facts<'_>) -> CheckOutcome {
    let pools = match &facts.seen.hugepages {
        Ok(pools) if pools.is_empty() => return CheckOutcome::NotApplicable,
        Ok(pools) => pools,
        Err(reason) => return CheckOutcome::Unknown(reason.clone()),
    };
    let short: Vec<String> = pools
        .iter()
        .filter(|pool| pool.have < pool.want)
        .map(|pool| {
            let who = match pool.wanted_by {
                WantedBy::Site => "that the site wants",
                WantedBy::Ledger => "of the jobs and the administrator",
            };
            let HugePool {
                have, want, size, ..
            } = pool;
            format!("{have} of {want} hugepages of {size} {who}")
        })
        .collect();
    found((!short.is_empty()).then(|| short.join(", ")))
}
