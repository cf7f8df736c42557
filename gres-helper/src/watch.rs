//! `watch`: what jobs take of their GPUs' memory against their shares.
//!
//! This sees and accounts; it protects nobody. A job that takes more than its
//! share has already done so when it is seen. It sleeps until a file in the
//! state directory changes while no job shares a GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use host::Deadline;
use host::process::{Life, Pid};
use host::state_dir::{StateDir, StateError, Store};
use host::state_layout::gres::{WATCH, WATCH_LOCK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use slurm::job_cgroup;
use slurm::job_cgroup::Place;

use crate::job;
use gpu::inventory::{Answer, Ask, Machine};
use gpu::nvml_worker::{Agent, AgentError};
use gpu::settings::{OnOver, Settings};
use gpu::shares;
use gpu::shares::Record;

/// What a job took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Taken {
    /// Its share, MiB.
    pub share_mib: u64,
    /// What it held at the last sample, MiB.
    pub used_mib: u64,
    /// The most it held at any sample, MiB.
    pub peak_mib: u64,
    /// Samples in a row at which it was over its share.
    pub over: u32,
    /// Samples at which it was, ever.
    pub over_all: u64,
}

/// What the last sample found, by job number.
pub type Account = BTreeMap<u32, Taken>;

/// What the watchdog wrote last; empty where it never ran.
#[must_use]
pub fn account(state: &StateDir) -> Account {
    let bytes = state.read(WATCH).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Whether a watchdog runs now.
///
/// # Errors
/// It cannot be told: only root may ask.
pub fn runs(state: &StateDir) -> Result<bool, StateError> {
    match state.lock(WATCH_LOCK, Deadline::after(Duration::ZERO)) {
        Ok(_) => Ok(false),
        Err(StateError::Busy { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Which job each process belongs to, remembered as long as it lives.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<u32, (Life, Option<Place>)>);

impl Places {
    fn of(&mut self, pid: u32) -> Option<(Life, Place)> {
        let life = Life::of(Pid(pid)).ok()??;
        let known = self.0.get(&pid).filter(|(same, _)| *same == life);
        let place = match known {
            Some((_, place)) => place.clone(),
            None => {
                let place = job_cgroup::of_process(life);
                self.0.insert(pid, (life, place.clone()));
                place
            }
        };
        Some((life, place?))
    }

    fn forget(&mut self, machine: &Machine) {
        let now: BTreeSet<u32> = machine
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
    pub plain: Vec<Life>,
    /// Those that are clients of MPS.
    pub mps: BTreeSet<u32>,
}

/// What each job holds now, by job number.
#[must_use]
pub fn held(machine: &Machine, records: &[Record], places: &mut Places) -> BTreeMap<u32, Held> {
    let mut held: BTreeMap<u32, Held> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let all = machine.gpus.iter().flat_map(|gpu| &gpu.processes);
    let clients: BTreeSet<u32> = all.filter(|it| it.mps).map(|it| it.pid).collect();
    // A process of a job on eight GPUs is listed eight times.
    let mut looked = BTreeMap::new();
    for (gpu, process) in machine
        .gpus
        .iter()
        .flat_map(|gpu| gpu.processes.iter().map(move |process| (gpu, process)))
    {
        let Some((life, place)) = looked
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
        } else if !held.plain.contains(life) {
            held.plain.push(*life);
        }
    }
    held
}

/// Takes a sample into the account: who is over its share now, with the
/// samples in a row.
pub fn judge(
    account: &mut Account,
    held: &BTreeMap<u32, Held>,
    records: &[Record],
    over_percent: u64,
) -> Vec<u32> {
    account.retain(|job, _| records.iter().any(|record| record.job.0 == *job));
    let mut over = Vec::new();
    for record in records {
        let Some(share) = record.share_mib() else {
            continue;
        };
        let taken = account.entry(record.job.0).or_default();
        taken.share_mib = share;
        taken.used_mib = held.get(&record.job.0).map_or(0, |held| held.mib);
        taken.peak_mib = taken.peak_mib.max(taken.used_mib);
        let limit = u128::from(share) * u128::from(over_percent) / 100;
        if u128::from(taken.used_mib) > limit {
            taken.over = taken.over.saturating_add(1);
            taken.over_all += 1;
            over.push(record.job.0);
        } else {
            taken.over = 0;
        }
    }
    over
}

/// Runs until it is ended; with `once`, takes one sample.
///
/// # Errors
/// It cannot begin; for a person.
pub fn run(settings: &Settings, once: bool) -> Result<(), String> {
    let mut state = settings.state()?;
    let limit = Deadline::after(Duration::ZERO);
    let _alone = state.lock(WATCH_LOCK, limit).map_err(|_| {
        "another watchdog runs on this node already; stop it first, or leave this to it".to_owned()
    })?;
    let node = settings.named()?.clone();
    let events = changes(&state)?;
    let mut agent = Agent::new(settings.library.clone(), settings.nvml_limit);
    let mut watchdog = Watchdog::default();
    loop {
        let records: Vec<Record> = match shares::all(&state, &node) {
            Ok((records, problems)) => {
                problems.iter().for_each(|problem| say(problem));
                records
                    .into_iter()
                    .filter(|record| record.share_mib().is_some())
                    .collect()
            }
            Err(reason) => return Err(reason),
        };
        let due = watchdog.next(settings);
        if !records.is_empty() {
            // An XID error or a change of a file ends the wait, and is no sample:
            // those are counted, each for its time.
            if due.is_zero() {
                watchdog.sample(settings, &mut state, &mut agent, &records);
            }
        } else if !watchdog.account.is_empty() {
            watchdog.account.clear();
            watchdog.write(&mut state);
        }
        if once {
            return Ok(());
        }
        if records.is_empty() {
            wait(&events, None);
        } else {
            listen(&mut state, &mut agent, &events, watchdog.next(settings));
        }
    }
}

/// Waits for XID errors, or for the next sample.
fn listen(state: &mut StateDir, agent: &mut Agent, events: &OwnedFd, limit: Duration) {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    let started = Instant::now();
    match agent.ask(&Ask::Xids(milliseconds)) {
        Ok(Answer::Xids(xids)) => {
            for (uuid, xid) in &xids {
                say(&format!("{uuid}: Xid {xid}"));
            }
            if !xids.is_empty()
                && let Err(reason) = job::note_xids(state, &xids)
            {
                say(&reason);
            }
        }
        Ok(_) | Err(_) => {
            wait(events, Some(limit.saturating_sub(started.elapsed())));
        }
    }
    drain(events);
}

#[derive(Default)]
struct Watchdog {
    account: Account,
    places: Places,
    /// Jobs that were told to end, and when.
    told: BTreeMap<u32, Instant>,
    /// When the last sample was taken.
    last: Option<Instant>,
    silent: bool,
}

impl Watchdog {
    fn sample(
        &mut self,
        settings: &Settings,
        state: &mut StateDir,
        agent: &mut Agent,
        records: &[Record],
    ) {
        self.last = Some(Instant::now());
        let machine = match agent.usage() {
            Ok(machine) => machine,
            Err(error) => {
                // Once, not at every sample.
                if !std::mem::replace(&mut self.silent, true) {
                    say(&format!("no sample: {error}"));
                }
                if matches!(error, AgentError::Hangs { .. }) {
                    say("the prolog of the next job will find the GPU unfit");
                }
                return;
            }
        };
        self.silent = false;
        self.places.forget(&machine);
        let held = held(&machine, records, &mut self.places);
        let before = self.account.clone();
        let over = judge(&mut self.account, &held, records, settings.over_percent);
        self.told.retain(|job, _| over.contains(job));
        for job in over {
            let Some(taken) = self.account.get(&job).copied() else {
                continue;
            };
            if taken.over == 1 {
                say(&format!(
                    "job {job} holds {} MiB of GPU memory, its share is {} MiB",
                    taken.used_mib, taken.share_mib
                ));
            }
            if settings.on_over == OnOver::End && taken.over >= settings.samples {
                let processes = held.get(&job).cloned().unwrap_or_default();
                self.end(settings, job, &processes);
            }
        }
        if self.account != before {
            self.write(state);
        }
    }

    fn end(&mut self, settings: &Settings, job: u32, held: &Held) {
        if !held.mps.is_empty() && held.plain.is_empty() {
            // Ending a client in mid-work can take the server, and with it the
            // other clients, down.
            if self.told.insert(job, Instant::now()).is_none() {
                say(&format!(
                    "job {job} is over its share but a client of MPS, which is not ended; \
                     `terminate_client` of the MPS control program can"
                ));
            }
            return;
        }
        let signal = match self.told.get(&job) {
            None => {
                self.told.insert(job, Instant::now());
                say(&format!(
                    "job {job} was over its share at {} samples: its processes on GPUs get SIGTERM, \
                     and SIGKILL after {} s",
                    settings.samples,
                    settings.grace.as_secs()
                ));
                Signal::TERM
            }
            Some(told) if told.elapsed() >= settings.grace => {
                say(&format!(
                    "job {job} is still over its share: its processes on GPUs get SIGKILL"
                ));
                Signal::KILL
            }
            Some(_) => return,
        };
        for process in &held.plain {
            let _ = process.signal(signal);
        }
    }

    /// How long until the next sample: then it is time for it, or for the end of
    /// a grace.
    fn next(&self, settings: &Settings) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        let graces = self
            .told
            .values()
            .map(|told| *told + settings.grace)
            .filter(|end| *end > last);
        let next = graces.chain([last + settings.sample_every]).min();
        next.map_or(Duration::ZERO, |it| {
            it.saturating_duration_since(Instant::now())
        })
    }

    fn write(&self, state: &mut StateDir) {
        let bytes = serde_json::to_vec(&self.account).unwrap_or_default();
        if let Err(error) = state.write(WATCH, &bytes) {
            say(&error.to_string());
        }
    }
}

/// A line for whoever runs this: systemd puts it into the journal.
fn say(text: &str) {
    let text = host::printable(text, 500);
    let _ = writeln!(std::io::stderr().lock(), "gres-helper watch: {text}");
}

fn changes(state: &StateDir) -> Result<OwnedFd, String> {
    let failed = |errno: rustix::io::Errno| format!("{}: {errno}", state.path().display());
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(failed)?;
    let flags = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE;
    inotify::add_watch(&events, state.path(), flags).map_err(failed)?;
    Ok(events)
}

fn wait(events: &OwnedFd, limit: Option<Duration>) {
    let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut polled = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
    // Interrupted or not, whoever waits looks again.
    let _ = poll(&mut polled, timeout.as_ref());
    drain(events);
}

fn drain(events: &OwnedFd) {
    let mut bytes = [0; 4096];
    while matches!(rustix::io::read(events, &mut bytes), Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::BootId;
    use jobs::registry::Start;
    use slurm::{JobId, JobKey};

    fn record(job: u32, shards: u64) -> Record {
        let key = JobKey {
            job: JobId(job),
            node: "n1".parse().unwrap(),
        };
        let start = Start::now(BootId::current().unwrap()).unwrap();
        let mut record = Record::new(&key, start, 1000);
        (record.shards, record.shard_mib) = (Some(shards), Some(1000));
        record
    }

    fn takes(mib: u64) -> Held {
        Held {
            mib,
            ..Held::default()
        }
    }

    #[test]
    fn a_number_that_was_used_again_is_looked_at_anew() {
        let own = Life::of(Pid(std::process::id())).unwrap().unwrap();
        let of_job = Some(Place::Job(JobId(1)));
        let mut places = Places(BTreeMap::from([(own.pid.0, (own, of_job.clone()))]));
        assert_eq!(
            places.of(own.pid.0),
            of_job.clone().map(|place| (own, place))
        );
        let earlier = Life {
            start: own.start - 1,
            ..own
        };
        places.0.insert(own.pid.0, (earlier, of_job));
        assert_eq!(places.of(own.pid.0), None, "this test is in no job");
    }

    #[test]
    fn a_process_that_nvml_lists_as_a_client_of_mps_too_is_one() {
        use gpu::inventory::{Gpu, Process};
        let own = Life::of(Pid(std::process::id())).unwrap().unwrap();
        let mut places = Places(BTreeMap::from([(
            own.pid.0,
            (own, Some(Place::Job(JobId(1)))),
        )]));
        let process = |mps| Process {
            pid: own.pid.0,
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

    #[test]
    fn whatever_ends_the_wait_the_next_sample_has_its_time() {
        let config = config::parse("[gres]\nsample_every = \"10s\"\n", "x".as_ref()).unwrap();
        let settings = Settings::of(&config, None).unwrap();
        let mut watchdog = Watchdog::default();
        assert!(
            watchdog.next(&settings).is_zero(),
            "the first is due at once"
        );
        let now = Instant::now();
        watchdog.last = Some(now);
        let next = watchdog.next(&settings);
        assert!(next > Duration::from_secs(1) && next <= Duration::from_secs(10));
        // A grace that ends before is waited for; one that is over, and was seen
        // to be at the last sample, is not.
        let grace = settings.grace;
        watchdog
            .told
            .insert(1, now.checked_sub(grace).unwrap() + Duration::from_secs(1));
        assert!(watchdog.next(&settings) <= Duration::from_secs(1));
        watchdog.told.insert(1, now.checked_sub(grace * 2).unwrap());
        assert!(watchdog.next(&settings) > Duration::from_secs(1));
    }

    #[test]
    fn samples_over_the_share_are_counted_in_a_row_and_neighbours_are_not() {
        let records = [record(1, 3), record(2, 1)];
        let mut account = Account::new();
        let mut sample = |first: u64| {
            let held = BTreeMap::from([(1, takes(first)), (2, takes(900))]);
            judge(&mut account, &held, &records, 105)
        };
        // 3000 MiB and 5 % are the limit.
        assert_eq!(sample(3150), [] as [u32; 0]);
        assert_eq!(sample(3151), [1]);
        assert_eq!(sample(4000), [1]);
        assert_eq!(account[&1].over, 2);
        let held = BTreeMap::from([(1, takes(100))]);
        judge(&mut account, &held, &records, 105);
        assert_eq!(
            (account[&1].over, account[&1].over_all, account[&1].peak_mib),
            (0, 2, 4000)
        );
        judge(&mut account, &held, &records[1..], 105);
        assert_eq!(account.keys().collect::<Vec<_>>(), [&2]);
    }
}
