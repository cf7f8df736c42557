//! The epilog: reports what the job moved, forgets it and gives its hugepages back.

use efa::instance_types;
use hugepages::machine::{Due, Pages};
use jobs::registry::{self, Job, Registry};
use slurm::hostlist;
use usage::counting::{self, Before, Books};

use crate::called_for::CalledFor;
use crate::log::{complain, log};
use crate::node::{Here, outcome, said};

/// After the job's last step on this node; also where no prolog ran.
pub fn epilog(called: &CalledFor) -> Result<(), String> {
    let here = Here::new(called)?;
    let mut registry = Registry::open(&here.state).map_err(said)?;
    // Whatever of this fails, the rest is tried: a later one repairs it.
    let ended = match registry.get(&here.key) {
        Ok(Some(job)) => {
            if let Err(reason) = report(&here, &job) {
                complain("the job's report", &reason);
            }
            registry.end(&here.state, &job)
        }
        Ok(None) => Ok(()),
        Err(problem) => {
            complain("registry", &problem.to_string());
            registry.end_unreadable(&here.state, &here.key)
        }
    };
    let mut pages = Pages::of(&here.state, Due::IfGranted);
    here.give_back(&registry, &mut pages);
    if let Some(Err(reason)) = outcome(pages) {
        complain("hugepages", &reason);
    }
    ended.map_err(said)
}

/// Writes the record of the whole job on this node, if its prolog counted.
fn report(here: &Here, job: &Job) -> Result<(), String> {
    if !job.counting {
        return Ok(());
    }
    let books = Books::of(&here.config, here.node())?;
    let mut record = counting::blank(job.job.0, here.node(), job.uid.0);
    record.profile.clone_from(&job.profile);
    record.start_id = Some(job.start.nonce.clone());
    record.instance_type = instance_types::detect(&here.sysroot)
        .ok()
        .map(|instance| instance.to_string());
    // slurmd's, not the user's: only SPANK_… comes from there.
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    record.restart = number("SLURM_JOB_RESTART_COUNT").or_else(|| number("SLURM_RESTART_COUNT"));
    record.node_list = std::env::var("SLURM_NODELIST")
        .or_else(|_| std::env::var("SLURM_JOB_NODELIST"))
        .ok();
    let names = record.node_list.as_deref().and_then(hostlist::expand);
    if let Some(names) = names {
        record.nodes = u32::try_from(names.len()).ok();
        let place = names.iter().position(|name| name == here.node());
        record.node_index = place.and_then(|place| u32::try_from(place).ok());
    }
    record.shared = registry::shared(&here.state, job);
    record.lustre = counting::lustre(&here.sysroot);
    let before = Before::Kept(&here.state, &here.key);
    let start_ns = job.start.since_boot_ms.saturating_mul(1_000_000);
    let silent = here.counters(job).close(&mut record, before, start_ns);
    let failed = books.write(&record);
    silent.iter().chain(&failed).for_each(|text| log(text));
    Ok(())
}
