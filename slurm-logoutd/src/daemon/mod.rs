//! `slurm-logoutd`: waits for events, looks, decides by [`logins::policy`], acts.
//!
//! It waits without a time limit unless somebody's deadline is near: events
//! come from the spool directory of slurmd, the registry, and the records of
//! sessions. What it must not forget (who was warned, and the deadline) lies
//! in the state directory, so it may be killed at any moment.

mod decide;
mod ending;
mod idle_sessions;
mod notices;
mod sessions;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use host::process::ProcessIdentity;
use host::state_dir::{Lock, StateDir, StateError, Store};
use host::state_layout::job;
use host::state_layout::login::{DAEMON_LOCK, NOTICES};
use host::{BootId, Deadline, Uid};
use jobs::registry::Registry;
use logins::clock::BootTime;
use logins::group;
use logins::idle::Activity;
use logins::policy::Notice;
use logins::process::Processes;
use logins::session::{Records, Session};
use logins::settings::Settings;
use logins::terminate::{self, PendingTermination};
use logins::tty;
use logins::user_jobs::Jobs;
use slurm::JobId;

pub(crate) use notices::kept;
use notices::read_notices;
use watches::{RECORDS, SPOOL, Watches};

/// Longest that one look for jobs may wait for slurmstepds that do not answer.
const LOOK: Duration = Duration::from_secs(2);

/// How long a second daemon waits for the first one to end, at a restart.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// How often the jobs are looked at again while a doubt remains and nobody
/// has been warned.
const DOUBT: Duration = Duration::from_secs(60);

/// Why the daemon cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The state directory, or another daemon that holds its lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// Which boot this is.
    #[error(transparent)]
    Boot(#[from] host::ReadError),
    /// inotify.
    #[error("cannot wait for events: {0}; see fs.inotify.max_user_instances in inotify(7)")]
    Events(std::io::Error),
}

/// Sessions that are being ended.
#[derive(Debug)]
struct Pending {
    termination: PendingTermination,
    /// They end because they are idle, whether the user has a job or not.
    idle: bool,
}

/// The daemon's knowledge.
pub struct Daemon {
    settings: Settings,
    boot: BootId,
    records: Records,
    notices_dir: StateDir,
    sessions: BTreeMap<String, Session>,
    notices: BTreeMap<Uid, Notice>,
    endings: Vec<Pending>,
    /// Of sessions without a group whose leader has ended: how many looks in a
    /// row have found nothing of them.
    gone: BTreeMap<ProcessIdentity, u32>,
    /// When users were seen with a job last.
    had_job: BTreeMap<Uid, BootTime>,
    activity: Activity,
    used: BTreeMap<ProcessIdentity, BootTime>,
    idle_warned: BTreeMap<ProcessIdentity, BootTime>,
    next_sample: Option<BootTime>,
    watches: Watches,
    watched_jobs: BTreeSet<JobId>,
    last_doubts: Vec<String>,
    said: BTreeSet<String>,
    /// The processes as this turn saw them, once it needed to.
    processes: Option<Rc<Processes>>,
    _lock: Lock,
}

impl Daemon {
    /// Takes the daemon's lock and reads what an earlier daemon left.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn new(settings: Settings) -> Result<Self, DaemonError> {
        let state = StateDir::open(&settings.state_dir)?;
        let lock = state.lock(DAEMON_LOCK, Deadline::after(TAKE_OVER))?;
        let mut records = Records::open(&state)?;
        records.sweep()?;
        // Made here so that it can be watched before the first job.
        Registry::open(&state)?;
        let mut watches = Watches::new()?;
        watches.add(records.path(), RECORDS);
        watches.add(&settings.state_dir.join(job::RECORDS), RECORDS);
        let mut notices_dir = state.folder(NOTICES)?;
        notices_dir.sweep()?;
        group::thaw_all();
        group::sweep();
        let boot = BootId::current()?;
        let (notices, had_job) = read_notices(&mut notices_dir, &boot, settings.dry_run)?;
        Ok(Self {
            settings,
            boot,
            records,
            notices_dir,
            sessions: BTreeMap::new(),
            notices,
            endings: Vec::new(),
            gone: BTreeMap::new(),
            had_job,
            activity: Activity::default(),
            used: BTreeMap::new(),
            idle_warned: BTreeMap::new(),
            next_sample: None,
            watches,
            watched_jobs: BTreeSet::new(),
            last_doubts: Vec::new(),
            said: BTreeSet::new(),
            processes: None,
            _lock: lock,
        })
    }

    /// Works until it is killed.
    ///
    /// # Errors
    /// Waiting for events failed.
    pub fn run(mut self) -> Result<(), DaemonError> {
        loop {
            let next = self.turn();
            self.watches.wait(next).map_err(DaemonError::Events)?;
        }
    }

    /// Works until nobody without a job is left, for `slurm-logout sweep`.
    ///
    /// # Errors
    /// As [`Daemon::run`].
    pub fn run_once(mut self) -> Result<(), DaemonError> {
        loop {
            let next = self.turn();
            if self.notices.is_empty() && self.endings.is_empty() {
                return Ok(());
            }
            self.watches.wait(next).map_err(DaemonError::Events)?;
        }
    }

    /// One look and what follows from it; when to look again at the latest.
    pub fn turn(&mut self) -> Option<BootTime> {
        let next = self.look();
        self.processes = None;
        next
    }

    fn look(&mut self) -> Option<BootTime> {
        let mut next: Vec<BootTime> = Vec::new();
        next.extend(self.read_sessions());
        let leaders = self.sessions.values().map(|it| it.leader).collect();
        self.activity.keep(&leaders);
        self.used.retain(|leader, _| leaders.contains(leader));
        self.idle_warned
            .retain(|leader, _| leaders.contains(leader));
        if self.sessions.is_empty() && self.endings.is_empty() {
            let gone: Vec<Uid> = self.notices.keys().copied().collect();
            gone.into_iter().for_each(|uid| self.forget(uid));
            // The spool directory is watched even so, for the first login.
            return None;
        }
        // What is seen now was there after this moment, and so after the
        // sessions that have been read were opened.
        let now = BootTime::now();
        let jobs = Jobs::look(&self.settings, LOOK);
        self.had_job.extend(jobs.users().map(|(uid, _)| (uid, now)));
        for spool in jobs.spools() {
            self.watches.add(spool, SPOOL);
        }
        self.watch_stepds(&jobs);
        self.tell_doubts(&jobs);
        if !jobs.doubts().is_empty() {
            next.push(BootTime::now().after(DOUBT));
        }
        next.extend(self.sample());
        next.extend(self.idle_sessions());
        let mut users: BTreeSet<Uid> = self.sessions.values().map(|it| it.uid).collect();
        users.extend(self.notices.keys());
        for uid in users {
            next.extend(self.judge(uid, &jobs));
        }
        // Whoever has just been warned is looked at from now on.
        next.extend(self.sample());
        next.extend(self.carry_on(&jobs));
        next.into_iter().min()
    }

    /// All processes, looked at once in a turn however many users it is about.
    /// Whoever sends a signal makes sure that the process is still the same.
    fn processes(&mut self) -> Option<Rc<Processes>> {
        if self.processes.is_none() {
            self.processes = Processes::scan().ok().map(Rc::new);
        }
        self.processes.clone()
    }

    fn tell(&mut self, sessions: &[Session], text: &str) {
        let Some(first) = sessions.first() else {
            return;
        };
        if let Some(all) = self.processes() {
            let terminals = terminate::terminals(sessions, &all);
            tty::tell(&terminals, first.uid, text);
        }
    }

    fn tell_doubts(&mut self, jobs: &Jobs) {
        if jobs.doubts() != self.last_doubts {
            for doubt in jobs.doubts() {
                self.log(&format!("{doubt}; no session ends because of this"));
            }
            self.last_doubts = jobs.doubts().to_vec();
        }
    }

    fn log(&self, text: &str) {
        // A log that nobody reads any more is no reason to end.
        let _ = writeln!(std::io::stderr(), "slurm-logoutd: {text}");
    }

    fn debug(&self, text: &str) {
        if self.settings.debug {
            self.log(text);
        }
    }

    fn say_once(&mut self, text: String) {
        // Bounded: what is said depends on files that only root writes.
        if self.said.len() < 1000 && self.said.insert(text.clone()) {
            self.log(&text);
        }
    }
}

fn named(sessions: &[Session], uid: Uid) -> String {
    match sessions.first() {
        Some(session) => session.user.clone(),
        None => format!("uid {uid}"),
    }
}

fn list(sessions: &[Session]) -> String {
    let texts: Vec<String> = sessions.iter().take(8).map(Session::to_string).collect();
    let more = sessions.len().saturating_sub(texts.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    texts.join(", ") + &more
}

/// `60 s`, `5 min`.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds >= 120 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
