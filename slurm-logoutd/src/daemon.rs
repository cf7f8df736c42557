//! `slurm-logoutd`: waits for events, looks, decides by [`policy`], acts.
//!
//! It waits without a time limit unless somebody's deadline is near: events
//! come from the spool directory of slurmd, the registry, and the records of
//! sessions. What it must not forget (who was warned, and the deadline) lies
//! in the state directory, so it may be killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::printable;
use host::process::ProcessIdentity;
use host::state_dir::{Lock, StateDir, StateError, Store};
use host::state_layout::job;
use host::state_layout::login::{DAEMON_LOCK, NOTICES};
use host::{Pid, Uid};
use jobs::registry::Registry;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use slurm::JobId;

use logins::clock::BootTime;
use logins::group;
use logins::idle;
use logins::idle::Activity;
use logins::membership::{Evidence, User};
use logins::policy;
use logins::policy::{AGAIN, Notice, Seen, SessionAction};
use logins::process::{Process, Processes};
use logins::session::{Records, Session};
use logins::settings::{Leftovers, Settings};
use logins::terminate;
use logins::terminate::{Ending, PendingTermination, Progress};
use logins::tty;
use logins::user_jobs::{Jobs, Presence};

/// Longest that one look for jobs may wait for slurmstepds that do not answer.
const LOOK: Duration = Duration::from_secs(2);

/// After an event, others that follow within this time are taken together:
/// a flood of them costs 50 looks a second at most.
const TOGETHER: Duration = Duration::from_millis(20);

/// How long a second daemon waits for the first one to end, at a restart.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// How often the jobs are looked at again while a doubt remains and nobody
/// has been warned.
const DOUBT: Duration = Duration::from_secs(60);

/// Whether a session is used is not asked again so soon.
const FRESH: Duration = Duration::from_millis(250);

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

/// A user's notice, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NoticeRecord {
    boot: BootId,
    uid: Uid,
    pub(crate) notice: Notice,
    /// Given by a dry run, which told nobody.
    #[serde(default)]
    dry: bool,
    /// When the user was seen with a job last.
    #[serde(default)]
    pub(crate) had_job: Option<BootTime>,
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

    // ------------------------------------------------------------ sessions

    /// Reads the records; when to look again at the latest.
    fn read_sessions(&mut self) -> Option<BootTime> {
        let names = match self.records.names() {
            Ok(names) => names,
            Err(error) => {
                self.say_once(format!("{error}; no session ends until this is fixed"));
                return None;
            }
        };
        let present: BTreeSet<String> = names.into_iter().collect();
        self.sessions.retain(|name, _| present.contains(name));
        for name in present {
            if self.sessions.contains_key(&name) {
                continue;
            }
            match self.records.get(&name) {
                Ok(Some(session)) if session.boot == self.boot => {
                    self.debug(&format!("noticed {session}"));
                    self.sessions.insert(name, session);
                }
                // Of another boot: its processes are long gone.
                Ok(Some(session)) => drop(self.records.remove(session.leader)),
                Ok(None) => {}
                Err(reason) => self.say_once(format!(
                    "sessions/{}: {reason}; it is left alone",
                    printable(&name, 80)
                )),
            }
        }
        self.prune()
    }

    /// Removes the records of sessions of which nothing is left; when to look
    /// again.
    fn prune(&mut self) -> Option<BootTime> {
        let ended: Vec<Session> = self
            .sessions
            .values()
            .filter(|it| !it.leader.is_alive())
            .cloned()
            .collect();
        if ended.is_empty() {
            self.gone.clear();
            return None;
        }
        let all = self.processes()?;
        let others = |it: &&Process| !it.zombie && !it.uids.real().is_root();
        let all: Vec<Evidence> = all.iter().filter(others).map(Evidence::of).collect();
        let mut users: BTreeMap<Uid, User> = BTreeMap::new();
        let mut gone = BTreeMap::new();
        for session in ended {
            let user = users
                .entry(session.uid)
                .or_insert_with(|| User::look_up(session.uid, &session.user));
            let leftovers = self.settings.leftovers;
            let exempt = session.is_exempt(&self.settings);
            let sure =
                exempt || leftovers == Leftovers::None || terminate::group_of(&session).is_some();
            if !exempt && terminate::is_left(&session, user, leftovers, &all) {
                continue;
            }
            // One look misses a process that forks and ends at once.
            let looks = self.gone.get(&session.leader).map_or(1, |it| it + 1);
            if sure || looks >= terminate::LOOKS {
                self.remove(&session);
            } else {
                gone.insert(session.leader, looks);
            }
        }
        group::sweep();
        self.gone = gone;
        (!self.gone.is_empty()).then(|| BootTime::now().after(terminate::BETWEEN))
    }

    fn remove(&mut self, session: &Session) {
        if let Err(error) = self.records.remove(session.leader) {
            self.say_once(error.to_string());
        }
        self.sessions.remove(&session.file_name());
    }

    /// The sessions of a user that may be ended, and those that stay.
    fn of_user(&self, uid: Uid) -> (Vec<Session>, Vec<Session>) {
        let all = self.sessions.values().filter(|it| it.uid == uid).cloned();
        all.partition(|it| self.may_end(it))
    }

    fn may_end(&self, session: &Session) -> bool {
        let had_job = self.had_job.get(&session.uid).copied();
        !session.is_exempt(&self.settings) && session.is_bound(&self.settings, had_job)
    }

    /// A slurmstepd that is killed leaves its socket behind, and nothing in
    /// the spool directory tells of its end; its process does.
    fn watch_stepds(&mut self, jobs: &Jobs) {
        let users: BTreeSet<Uid> = self.sessions.values().map(|it| it.uid).collect();
        let ids: BTreeSet<JobId> = users
            .iter()
            .flat_map(|uid| jobs.list(*uid))
            .map(|job| job.id)
            .collect();
        // Each question makes a slurmstepd start a thread: only when the jobs
        // have changed, or one of the processes that are known has ended.
        if ids != self.watched_jobs || self.watches.lost {
            let stepds = jobs.stepds(&users);
            self.debug(&format!(
                "waiting for the end of {} slurmstepds",
                stepds.len()
            ));
            self.watches.follow(&stepds);
            self.watched_jobs = ids;
        }
    }

    // ------------------------------------------------------------ deciding

    fn judge(&mut self, uid: Uid, jobs: &Jobs) -> Option<BootTime> {
        if self
            .endings
            .iter()
            .any(|it| it.termination.ending.uid() == uid && !it.idle)
        {
            return None;
        }
        let (mut subject, mut others) = self.of_user(uid);
        let presence = jobs.of(uid);
        let mut notice = self.notices.get(&uid).copied();
        if presence == Presence::None && notice.is_some_and(|it| !holds(it, &subject)) {
            self.forget(uid);
            notice = None;
        }
        // Sessions of after the notice have not been told. They get a notice of
        // their own once this one is done, and none is put off by a later login.
        if let Some(notice) = notice {
            let (told, later) = subject
                .into_iter()
                .partition(|it| it.opened <= notice.since);
            subject = told;
            others.extend::<Vec<Session>>(later);
        }
        let mut seen = Seen {
            jobs: presence,
            sessions: !subject.is_empty(),
            used: self.last_use(&subject),
        };
        let now = BootTime::now();
        let mut verdict = policy::decide(now, &self.settings, notice, seen);
        if self.settings.spare_active && matches!(verdict, SessionAction::End(_)) {
            self.refresh(&subject);
            seen.used = self.last_use(&subject);
            verdict = policy::decide(now, &self.settings, notice, seen);
        }
        match verdict {
            SessionAction::Nothing => {
                if !seen.sessions {
                    self.forget(uid);
                }
                None
            }
            SessionAction::Warn(notice) => {
                self.warn(uid, notice, &subject, &others);
                Some(notice.deadline)
            }
            SessionAction::Cancel => {
                let name = self.settings.node_name();
                let text =
                    format!("slurm-efa: you have a job on {name} again, so this login stays.");
                if !self.settings.dry_run {
                    self.tell(&subject, &text);
                }
                self.log(&format!(
                    "{}: a new job; the sessions stay",
                    named(&subject, uid)
                ));
                self.forget(uid);
                None
            }
            SessionAction::Wait(notice, until) => {
                if seen.jobs == Presence::None && now >= notice.deadline {
                    self.say_once(format!(
                        "{}: no job is left, but the sessions are in use; they stay until idle",
                        named(&subject, uid)
                    ));
                }
                Some(until)
            }
            SessionAction::End(notice) => self.end(uid, notice, subject),
        }
    }

    fn warn(&mut self, uid: Uid, notice: Notice, subject: &[Session], others: &[Session]) {
        self.keep(uid, notice);
        let seconds = self.settings.grace.as_secs();
        let would = if self.settings.dry_run {
            "would end"
        } else {
            "end"
        };
        self.log(&format!(
            "{}: no job is left here; {} of {} sessions {would} in {seconds} s",
            named(subject, uid),
            subject.len(),
            subject.len() + others.len(),
        ));
        if self.settings.dry_run {
            return;
        }
        let name = self.settings.node_name();
        let spared = if self.settings.spare_active {
            "\nA login in use stays until it has been idle for a while."
        } else {
            ""
        };
        let text = format!(
            "slurm-efa: your last job on {name} has ended, so this login ends in {}.\n\
             Save your work, or start a job on {name} (sbatch, srun) to stay.{spared}",
            shown(self.settings.grace)
        );
        self.tell(subject, &text);
    }

    fn end(&mut self, uid: Uid, notice: Notice, sessions: Vec<Session>) -> Option<BootTime> {
        let who = named(&sessions, uid);
        if self.settings.dry_run {
            self.keep(uid, notice);
            self.say_once(format!(
                "dry run: {who}: would end now: {}",
                list(&sessions)
            ));
            return None;
        }
        self.keep(uid, notice);
        self.log(&format!("{who}: ending {}", list(&sessions)));
        let name = self.settings.node_name();
        let text = format!("slurm-efa: your last job on {name} has ended; this login ends now.");
        self.tell(&sessions, &text);
        self.start(uid, sessions, self.settings.leftovers, false);
        None
    }

    fn start(&mut self, uid: Uid, sessions: Vec<Session>, leftovers: Leftovers, idle: bool) {
        let user = User::look_up(uid, sessions.first().map_or("", |it| &it.user));
        self.endings.push(Pending {
            termination: PendingTermination::new(Ending::new(user, sessions, leftovers)),
            idle,
        });
    }

    // -------------------------------------------------------------- ending

    /// Goes on with what is being ended; when to go on again.
    fn carry_on(&mut self, jobs: &Jobs) -> Option<BootTime> {
        let mut rest = Vec::new();
        let mut done = Vec::new();
        for mut pending in std::mem::take(&mut self.endings) {
            if BootTime::now() < pending.termination.next || self.step(&mut pending, jobs) {
                rest.push(pending);
            } else {
                done.push(pending.termination.ending.uid());
            }
        }
        self.endings = rest;
        // Now it is the turn of sessions that were opened meanwhile.
        let mut next = None;
        for uid in done {
            next = next.into_iter().chain(self.judge(uid, jobs)).min();
        }
        let steps = self.endings.iter().map(|it| it.termination.next);
        next.into_iter().chain(steps).min()
    }

    /// One step of one ending; whether it goes on.
    fn step(&mut self, pending: &mut Pending, jobs: &Jobs) -> bool {
        let uid = pending.termination.ending.uid();
        match jobs.of(uid) {
            _ if pending.idle => {}
            Presence::None => {}
            Presence::Has => {
                self.log(&format!("uid {uid}: a new job; what is left stays"));
                self.forget(uid);
                return false;
            }
            Presence::Unknown => {
                pending.termination.next = BootTime::now().after(AGAIN);
                return true;
            }
        }
        let Some(all) = self.processes() else {
            pending.termination.next = BootTime::now().after(AGAIN);
            return true;
        };
        let sessions = pending.termination.ending.sessions.clone();
        let ended: BTreeSet<ProcessIdentity> = sessions.iter().map(|it| it.leader).collect();
        let others: Vec<Session> = self
            .sessions
            .values()
            .filter(|it| !ended.contains(&it.leader))
            .cloned()
            .collect();
        let no_job = jobs.of(uid) == Presence::None;
        let progress = pending.termination.go_on(&all, &others, no_job);
        if let Progress::Step(step, processes, problems) = progress {
            self.debug(&format!("uid {uid}: {step:?} for {processes} processes"));
            problems.into_iter().for_each(|it| self.say_once(it));
            if pending.termination.outruns() {
                self.say_once(format!(
                    "uid {uid}: processes start as fast as they are killed; slurm-logoutd keeps \
                     killing them"
                ));
            }
            return true;
        }
        let count = sessions.len();
        let survived = matches!(progress, Progress::Survived(_));
        self.log(&match progress {
            Progress::Survived(pids) => format!(
                "uid {uid}: of {count} sessions, processes {} survive SIGKILL and are left; \
                 `ps -o pid,stat,wchan` shows what they wait for",
                terminate::named(&pids)
            ),
            Progress::Unseen(reason) => format!(
                "uid {uid}: nothing of {count} sessions is found any more, but they could not be \
                 killed at once: {reason}"
            ),
            Progress::Ended | Progress::Step(..) => {
                format!("uid {uid}: {count} sessions ended")
            }
        });
        if pending.idle && !survived {
            // What left them ends with the user's last job.
            return false;
        }
        for session in sessions {
            self.remove(&session);
        }
        group::sweep();
        if !pending.idle {
            self.forget(uid);
        }
        false
    }

    // ---------------------------------------------------------------- idle

    /// Looks which sessions are used, where that matters; when to look again.
    fn sample(&mut self) -> Option<BootTime> {
        let ends_idle = self.settings.idle_after.is_some();
        let spares = self.settings.spare_active && !self.notices.is_empty();
        if !ends_idle && !spares {
            self.next_sample = None;
            return None;
        }
        let now = BootTime::now();
        let waits = self.next_sample.filter(|next| now < *next);
        let sessions = self.sessions.values();
        // A new one at once, or nothing would be known of it until then.
        let wanted: Vec<Session> = sessions
            .filter(|it| waits.is_none() || !self.used.contains_key(&it.leader))
            .cloned()
            .collect();
        self.take_samples(&wanted);
        let interval = idle::interval(self.settings.idle_window());
        self.next_sample = waits.or(Some(now.after(interval)));
        self.next_sample
    }

    fn take_samples(&mut self, sessions: &[Session]) {
        if sessions.is_empty() {
            return;
        }
        let Some(all) = self.processes() else {
            return;
        };
        for session in sessions {
            let user = User::look_up(session.uid, &session.user);
            let sample = idle::sample(&all, session, &user);
            let used = self.activity.note(session.leader, sample);
            self.used.insert(session.leader, used);
        }
    }

    /// Looks again at sessions that are about to end: the last sample may be
    /// minutes old, and whoever came back since stays.
    fn refresh(&mut self, sessions: &[Session]) {
        let now = BootTime::now();
        let old = |it: &&Session| {
            let looked = self.activity.looked(it.leader);
            looked.is_none_or(|then| then.after(FRESH) <= now)
        };
        let old: Vec<Session> = sessions.iter().filter(old).cloned().collect();
        self.take_samples(&old);
    }

    /// When one of these was used last, as far as that is known.
    fn last_use(&self, sessions: &[Session]) -> Option<BootTime> {
        let used = sessions.iter().filter_map(|it| self.used.get(&it.leader));
        used.max().copied()
    }

    /// Warns and ends idle sessions while jobs run.
    fn idle_sessions(&mut self) -> Option<BootTime> {
        let limit = self.settings.idle_after?;
        let mut next = None;
        for session in self.sessions.values().cloned().collect::<Vec<_>>() {
            let leader = session.leader;
            let pending = |it: &Pending| {
                it.termination
                    .ending
                    .sessions
                    .iter()
                    .any(|s| s.leader == leader)
            };
            let ended = !leader.is_alive();
            if ended || session.is_exempt(&self.settings) || self.endings.iter().any(pending) {
                continue;
            }
            let one = [session.clone()];
            let now = BootTime::now();
            let warned = self.idle_warned.get(&leader).copied();
            let due = match warned {
                Some(warned) => Some(warned.after(self.settings.grace)),
                None => self.used.get(&leader).map(|used| used.after(limit)),
            };
            if due.is_some_and(|due| due <= now) {
                self.refresh(&one);
            }
            let Some(used) = self.used.get(&leader).copied() else {
                continue;
            };
            let warn_at = used.after(limit);
            if now < warn_at {
                if self.idle_warned.remove(&leader).is_some() {
                    self.debug(&format!("{session}: used again, it stays"));
                }
                next = next.into_iter().chain([warn_at]).min();
                continue;
            }
            // The whole grace, however late the warning is.
            let end_at = warned.unwrap_or(now).after(self.settings.grace);
            if warned.is_none() {
                self.idle_warned.insert(leader, now);
                let text = format!(
                    "slurm-efa: this login has been idle for {} and ends in {} unless it is used.",
                    shown(limit),
                    shown(self.settings.grace)
                );
                self.log(&format!("{session}: idle for {}", shown(limit)));
                if !self.settings.dry_run {
                    self.tell(&one, &text);
                }
            }
            if now >= end_at && !self.settings.dry_run {
                self.log(&format!("{session}: still idle, ending it"));
                self.start(session.uid, one.to_vec(), Leftovers::None, true);
            } else if now < end_at {
                next = next.into_iter().chain([end_at]).min();
            }
        }
        next
    }

    // ------------------------------------------------------------- keeping

    fn keep(&mut self, uid: Uid, notice: Notice) {
        if self.notices.insert(uid, notice) == Some(notice) {
            return;
        }
        let kept = NoticeRecord {
            boot: self.boot.clone(),
            uid,
            notice,
            dry: self.settings.dry_run,
            had_job: self.had_job.get(&uid).copied(),
        };
        let written = serde_json::to_vec(&kept)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let name = notice_name(uid);
                self.notices_dir
                    .write(&name, &bytes)
                    .map_err(|error| error.to_string())
            });
        // The deadline is then known to this daemon only: a later one gives a
        // new grace, which ends nobody too early.
        if let Err(reason) = written {
            self.say_once(reason);
        }
    }

    fn forget(&mut self, uid: Uid) {
        if self.notices.remove(&uid).is_some()
            && let Err(error) = self.notices_dir.remove(&notice_name(uid))
        {
            self.say_once(error.to_string());
        }
    }

    // ------------------------------------------------------------- telling

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

fn notice_name(uid: Uid) -> String {
    format!("{uid}.json")
}

/// Whether a notice still holds for these sessions of a user without a job:
/// one that it told is there, and no later one had a job, which would have
/// cancelled it while no daemon looked.
fn holds(notice: Notice, sessions: &[Session]) -> bool {
    let later = |it: &Session| it.opened > notice.since;
    let had_job = |it: &Session| later(it) && !it.jobs.is_empty();
    !sessions.iter().all(later) && !sessions.iter().any(had_job)
}

/// By uid: what was said, and when a job was seen last.
type Earlier = (BTreeMap<Uid, Notice>, BTreeMap<Uid, BootTime>);

/// The notices of this boot; the others are removed, and so are those of a dry
/// run, of which no user knows, unless this is one.
fn read_notices(dir: &mut StateDir, boot: &BootId, dry_run: bool) -> Result<Earlier, StateError> {
    let mut notices = BTreeMap::new();
    let mut had_job = BTreeMap::new();
    for name in dir.names()? {
        let kept = dir.read(&name)?;
        let kept = kept.and_then(|bytes| serde_json::from_slice::<NoticeRecord>(&bytes).ok());
        match kept {
            Some(kept) if kept.boot == *boot && name == notice_name(kept.uid) => {
                had_job.extend(kept.had_job.map(|then| (kept.uid, then)));
                if kept.dry && !dry_run {
                    dir.remove(&name)?;
                } else {
                    notices.insert(kept.uid, kept.notice);
                }
            }
            _ => dir.remove(&name)?,
        }
    }
    Ok((notices, had_job))
}

/// The notices that are in force, for `slurm-logout status`.
///
/// # Errors
/// They cannot be read.
pub(crate) fn kept(state: &StateDir) -> Result<BTreeMap<Uid, NoticeRecord>, StateError> {
    let mut notices = BTreeMap::new();
    let Some(dir) = state.existing_folder(NOTICES)? else {
        return Ok(notices);
    };
    for name in dir.names()? {
        let kept = dir.read(&name)?;
        if let Some(kept) =
            kept.and_then(|bytes| serde_json::from_slice::<NoticeRecord>(&bytes).ok())
        {
            notices.insert(kept.uid, kept);
        }
    }
    Ok(notices)
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

/// What happens to files that appear by rename and go by removal.
const RECORDS: WatchFlags = WatchFlags::MOVED_TO.union(WatchFlags::DELETE).union(COMMON);
/// Sockets are made in place.
const SPOOL: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_FROM)
    .union(RECORDS);
const COMMON: WatchFlags = WatchFlags::DELETE_SELF
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Directories that are watched.
struct Watches {
    inotify: OwnedFd,
    watched: BTreeMap<PathBuf, i32>,
    /// Processes whose end is an event.
    processes: BTreeMap<Pid, OwnedFd>,
    /// One of them has ended.
    lost: bool,
    /// When events were answered last.
    last: BootTime,
}

impl Watches {
    fn new() -> Result<Self, DaemonError> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|errno| DaemonError::Events(errno.into()))?;
        Ok(Self {
            inotify,
            watched: BTreeMap::new(),
            processes: BTreeMap::new(),
            lost: false,
            last: BootTime(0),
        })
    }

    /// Fine if it is watched already, or is not there: whoever needs it looks
    /// again in time.
    fn add(&mut self, dir: &Path, flags: WatchFlags) {
        if self.watched.contains_key(dir) {
            return;
        }
        if let Ok(watch) = inotify::add_watch(&self.inotify, dir, flags) {
            self.watched.insert(dir.to_owned(), watch);
        }
    }

    /// Waits for the end of these processes, and of no others. One that cannot
    /// be waited for (a kernel before 5.3) is left out.
    fn follow(&mut self, pids: &BTreeSet<Pid>) {
        self.lost = false;
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let raw = i32::try_from(pid.0).ok();
            let Some(process) = raw.and_then(rustix::process::Pid::from_raw) else {
                continue;
            };
            if !self.processes.contains_key(pid)
                && let Ok(fd) = pidfd_open(process, PidfdFlags::empty())
            {
                self.processes.insert(*pid, fd);
            }
        }
    }

    /// Waits for an event, or until then.
    fn wait(&mut self, until: Option<BootTime>) -> std::io::Result<()> {
        self.poll(until)?;
        // The first event is answered at once, a flood in portions.
        std::thread::sleep(BootTime::now().until(self.last.after(TOGETHER)));
        self.drain();
        self.last = BootTime::now();
        Ok(())
    }

    fn poll(&mut self, until: Option<BootTime>) -> std::io::Result<()> {
        let now = BootTime::now();
        let timeout = until
            .map(|until| now.until(until) + Duration::from_millis(1))
            .and_then(|left| Timespec::try_from(left).ok());
        let fds = std::iter::once(&self.inotify).chain(self.processes.values());
        let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended: Vec<bool> = polled
            .iter()
            .skip(1)
            .map(|it| !it.revents().is_empty())
            .collect();
        let before = self.processes.len();
        let mut ended = ended.into_iter();
        self.processes.retain(|_, _| !ended.next().unwrap_or(false));
        self.lost |= self.processes.len() < before;
        Ok(())
    }

    /// Takes all events. What they say does not matter, an overflow included:
    /// everything is looked at anew.
    fn drain(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        let mut gone = Vec::new();
        while let Ok(event) = events.next() {
            let over = ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
            if event.events().intersects(over) {
                gone.push(event.wd());
            }
        }
        self.watched.retain(|_, watch| !gone.contains(watch));
    }
}
