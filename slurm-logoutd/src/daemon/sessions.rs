//! The records of sessions, and the processes whose end is awaited.

use std::collections::{BTreeMap, BTreeSet};

use host::{Uid, printable};
use logins::clock::BootTime;
use logins::group;
use logins::membership::{Evidence, User};
use logins::process::Process;
use logins::session::Session;
use logins::settings::Leftovers;
use logins::terminate;
use logins::user_jobs::Jobs;
use slurm::JobId;

use super::knowledge::Daemon;

impl Daemon {
    /// Reads the records; when to look again at the latest.
    pub(super) fn read_sessions(&mut self) -> Option<BootTime> {
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
    pub(super) fn prune(&mut self) -> Option<BootTime> {
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

    pub(super) fn remove(&mut self, session: &Session) {
        if let Err(error) = self.records.remove(session.leader) {
            self.say_once(error.to_string());
        }
        self.sessions.remove(&session.file_name());
    }

    /// The sessions of a user that may be ended, and those that stay.
    pub(super) fn of_user(&self, uid: Uid) -> (Vec<Session>, Vec<Session>) {
        let all = self.sessions.values().filter(|it| it.uid == uid).cloned();
        all.partition(|it| self.may_end(it))
    }

    pub(super) fn may_end(&self, session: &Session) -> bool {
        let had_job = self.had_job.get(&session.uid).copied();
        !session.is_exempt(&self.settings) && session.is_bound(&self.settings, had_job)
    }

    /// A slurmstepd that is killed leaves its socket behind, and nothing in
    /// the spool directory tells of its end; its process does.
    pub(super) fn watch_stepds(&mut self, jobs: &Jobs) {
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
}
