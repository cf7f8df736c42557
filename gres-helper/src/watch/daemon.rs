//! The loop: it sleeps until a file in the state directory changes while no job
//! shares a GPU.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gpu::inventory::{Answer, Ask};
use gpu::nvml_worker::{Agent, AgentError};
use gpu::settings::{OnOver, Settings};
use gpu::shares;
use gpu::shares::Record;
use host::Deadline;
use host::state_dir::{StateDir, StateError, Store};
use host::state_layout::gres::{WATCH, WATCH_LOCK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::Signal;

use super::account::{Account, judge};
use super::held::{Held, Places, held};
use crate::job;

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
    let mut agent = Agent::new(settings.library.clone(), settings.gres.nvml_limit);
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
        let over = judge(
            &mut self.account,
            &held,
            records,
            settings.gres.over_percent,
        );
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
            if settings.gres.on_over == OnOver::End && taken.over >= settings.gres.samples {
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
                    settings.gres.samples,
                    settings.gres.grace.as_secs()
                ));
                Signal::TERM
            }
            Some(told) if told.elapsed() >= settings.gres.grace => {
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
            .map(|told| *told + settings.gres.grace)
            .filter(|end| *end > last);
        let next = graces.chain([last + settings.gres.sample_every]).min();
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
        let grace = settings.gres.grace;
        watchdog
            .told
            .insert(1, now.checked_sub(grace).unwrap() + Duration::from_secs(1));
        assert!(watchdog.next(&settings) <= Duration::from_secs(1));
        watchdog.told.insert(1, now.checked_sub(grace * 2).unwrap());
        assert!(watchdog.next(&settings) > Duration::from_secs(1));
    }
}
