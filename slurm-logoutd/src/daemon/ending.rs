//! Sessions that are being ended, step by step.

use std::collections::BTreeSet;

use host::process::ProcessIdentity;
use logins::clock::BootTime;
use logins::group;
use logins::policy::AGAIN;
use logins::session::Session;
use logins::terminate::{self, Progress};
use logins::user_jobs::{Jobs, Presence};

use super::knowledge::{Daemon, Pending};

impl Daemon {
    /// Goes on with what is being ended; when to go on again.
    pub(super) fn carry_on(&mut self, jobs: &Jobs) -> Option<BootTime> {
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

    /// One step of one ending; whether more follow.
    pub(super) fn step(&mut self, pending: &mut Pending, jobs: &Jobs) -> bool {
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
        let progress = pending.termination.advance(&all, &others, no_job);
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
}
