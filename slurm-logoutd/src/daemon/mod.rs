//! `slurm-logoutd`: waits for events, looks, decides by [`logins::policy`], acts.
//!
//! It waits without a time limit unless somebody's deadline is near: events
//! come from the spool directory of slurmd, the registry, and the records of
//! sessions. What it must not forget (who was warned, and the deadline) lies
//! in the state directory, so it may be killed at any moment.

mod decide;
mod ending;
mod error;
mod idle_sessions;
mod knowledge;
mod notices;
mod sessions;
mod telling;
mod watches;

use std::collections::BTreeSet;
use std::time::Duration;

use host::Uid;
use logins::clock::BootTime;
use logins::user_jobs::Jobs;

pub use error::DaemonError;
pub use knowledge::Daemon;
pub(crate) use notices::kept;
use watches::SPOOL;

/// Longest that one look for jobs may wait for slurmstepds that do not answer.
const LOOK: Duration = Duration::from_secs(2);

/// How often the jobs are looked at again while a doubt remains and nobody
/// has been warned.
const DOUBT: Duration = Duration::from_secs(60);

impl Daemon {
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
}
