//! What a look means for each user, by [`logins::policy`].

use host::Uid;
use logins::clock::BootTime;
use logins::membership::User;
use logins::policy::{self, Notice, Seen, SessionAction};
use logins::session::Session;
use logins::settings::Leftovers;
use logins::terminate::{Ending, PendingTermination};
use logins::user_jobs::{Jobs, Presence};

use super::knowledge::{Daemon, Pending};
use super::notices::holds;
use super::telling::{list, named, shown};

impl Daemon {
    pub(super) fn judge(&mut self, uid: Uid, jobs: &Jobs) -> Option<BootTime> {
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

    pub(super) fn warn(
        &mut self,
        uid: Uid,
        notice: Notice,
        subject: &[Session],
        others: &[Session],
    ) {
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

    pub(super) fn end(
        &mut self,
        uid: Uid,
        notice: Notice,
        sessions: Vec<Session>,
    ) -> Option<BootTime> {
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

    pub(super) fn start(
        &mut self,
        uid: Uid,
        sessions: Vec<Session>,
        leftovers: Leftovers,
        idle: bool,
    ) {
        let user = User::look_up(uid, sessions.first().map_or("", |it| &it.user));
        self.endings.push(Pending {
            termination: PendingTermination::new(Ending::new(user, sessions, leftovers)),
            idle,
        });
    }
}
