//! What each job holds now.

use std::collections::{BTreeMap, BTreeSet};

use gpu::inventory::Machine;
use gpu::shares::Record;
use host::Pid;
use host::process::ProcessIdentity;
use slurm::job_cgroup;
use slurm::job_cgroup::Place;

/// Which job each process belongs to, remembered as long as it lives.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<Pid, (ProcessIdentity, Option<Place>)>);

impl Places {
    fn of(&mut self, pid: Pid) -> Option<(ProcessIdentity, Place)> {
        let identity = ProcessIdentity::of(pid).ok()??;
        let known = self.0.get(&pid).filter(|(same, _)| *same == identity);
        let place = match known {
            Some((_, place)) => place.clone(),
            None => {
                let place = job_cgroup::of_process(identity);
                self.0.insert(pid, (identity, place.clone()));
                place
            }
        };
        Some((identity, place?))
    }

    pub(super) fn forget(&mut self, machine: &Machine) {
        let now: BTreeSet<Pid> = machine
            .gpus
            .iter()
            .flat_map(|gpu| &gpu.processes)
            .map(|it| it.pid)
            .collect();
        self.0.retain(|pid, _| now.contains(pid));
    }
}

/// A job's processes on GPUs.
#[derive(Debug, Default, Clone)]
pub struct Held {
    /// MiB of all of them.
    pub mib: u64,
    /// Those that may be ended.
    pub plain: Vec<ProcessIdentity>,
    /// Those that are clients of MPS.
    pub mps: BTreeSet<Pid>,
}

/// What each job holds now, by job number.
#[must_use]
pub fn held(machine: &Machine, records: &[Record], places: &mut Places) -> BTreeMap<u32, Held> {
    let mut held: BTreeMap<u32, Held> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let all = machine.gpus.iter().flat_map(|gpu| &gpu.processes);
    let clients: BTreeSet<Pid> = all.filter(|it| it.mps).map(|it| it.pid).collect();
    // A process of a job on eight GPUs is listed eight times.
    let mut looked = BTreeMap::new();
    for (gpu, process) in machine
        .gpus
        .iter()
        .flat_map(|gpu| gpu.processes.iter().map(move |process| (gpu, process)))
    {
        let Some((identity, place)) = looked
            .entry(process.pid)
            .or_insert_with(|| places.of(process.pid))
        else {
            continue;
        };
        let record = records.iter().find(|record| match place {
            Place::Job(job) => record.job == *job,
            Place::Sluid(name) => record.sluid.as_ref() == Some(name),
        });
        let Some(record) = record else { continue };
        let held = held.entry(record.job.0).or_default();
        // NVML may list a process among both kinds on one GPU.
        if seen.insert((gpu.index, process.pid)) {
            held.mib += process.used_mib.unwrap_or(0);
        }
        if clients.contains(&process.pid) {
            held.mps.insert(process.pid);
        } else if !held.plain.contains(identity) {
            held.plain.push(*identity);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::fixtures::record;
    use gpu::inventory::Machine;
    use slurm::JobId;

    #[test]
    fn a_number_that_was_used_again_is_looked_at_anew() {
        let own = ProcessIdentity::of(Pid::own()).unwrap().unwrap();
        let of_job = Some(Place::Job(JobId(1)));
        let mut places = Places(BTreeMap::from([(own.pid, (own, of_job.clone()))]));
        assert_eq!(places.of(own.pid), of_job.clone().map(|place| (own, place)));
        let earlier = ProcessIdentity {
            start: own.start - 1,
            ..own
        };
        places.0.insert(own.pid, (earlier, of_job));
        assert_eq!(places.of(own.pid), None, "this test is in no job");
    }

    #[test]
    fn a_process_that_nvml_lists_as_a_client_of_mps_too_is_one() {
        use gpu::inventory::{Gpu, Process};
        let own = ProcessIdentity::of(Pid::own()).unwrap().unwrap();
        let mut places = Places(BTreeMap::from([(
            own.pid,
            (own, Some(Place::Job(JobId(1)))),
        )]));
        let process = |mps| Process {
            pid: own.pid,
            used_mib: Some(100),
            mps,
        };
        let gpu = Gpu {
            processes: vec![process(false), process(true)],
            ..Gpu::default()
        };
        let machine = Machine {
            driver: String::new(),
            can_limit: false,
            gpus: vec![gpu],
        };
        let held = held(&machine, &[record(1, 1)], &mut places);
        assert_eq!((held[&1].mib, held[&1].mps.len()), (100, 1));
        assert!(held[&1].plain.is_empty());
    }
}
