//! Which sessions are used, and those that end because they are not.

use std::time::Duration;

use logins::clock::BootTime;
use logins::idle;
use logins::membership::User;
use logins::session::Session;
use logins::settings::Leftovers;

use super::knowledge::{Daemon, Pending};
use super::telling::shown;

/// Whether a session is used is not asked again so soon.
const FRESH: Duration = Duration::from_millis(250);

impl Daemon {
    /// Looks which sessions are used, where that matters; when to look again.
    pub(super) fn sample(&mut self) -> Option<BootTime> {
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

    pub(super) fn take_samples(&mut self, sessions: &[Session]) {
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
    /// minutes old, and a user who came back since stays.
    pub(super) fn refresh(&mut self, sessions: &[Session]) {
        let now = BootTime::now();
        let old = |it: &&Session| {
            let looked = self.activity.looked(it.leader);
            looked.is_none_or(|then| then.after(FRESH) <= now)
        };
        let old: Vec<Session> = sessions.iter().filter(old).cloned().collect();
        self.take_samples(&old);
    }

    /// When one of these was used last, as far as that is known.
    pub(super) fn last_use(&self, sessions: &[Session]) -> Option<BootTime> {
        let used = sessions.iter().filter_map(|it| self.used.get(&it.leader));
        used.max().copied()
    }

    /// Warns and ends idle sessions while jobs run.
    pub(super) fn idle_sessions(&mut self) -> Option<BootTime> {
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
}
