//! What the daemon says, to users and to its log.

use std::io::Write as _;
use std::time::Duration;

use host::Uid;
use logins::session::Session;
use logins::terminate;
use logins::tty;
use logins::user_jobs::Jobs;

use super::knowledge::Daemon;

impl Daemon {
    pub(super) fn tell(&mut self, sessions: &[Session], text: &str) {
        let Some(first) = sessions.first() else {
            return;
        };
        if let Some(all) = self.processes() {
            let terminals = terminate::terminals(sessions, &all);
            tty::tell(&terminals, first.uid, text);
        }
    }

    pub(super) fn tell_doubts(&mut self, jobs: &Jobs) {
        if jobs.doubts() != self.last_doubts {
            for doubt in jobs.doubts() {
                self.log(&format!("{doubt}; no session ends because of this"));
            }
            self.last_doubts = jobs.doubts().to_vec();
        }
    }

    pub(super) fn log(&self, text: &str) {
        // A log that nobody reads any more is no reason to end.
        let _ = writeln!(std::io::stderr(), "slurm-logoutd: {text}");
    }

    pub(super) fn debug(&self, text: &str) {
        if self.settings.debug {
            self.log(text);
        }
    }

    pub(super) fn say_once(&mut self, text: String) {
        // Bounded: what is said depends on files that only root writes.
        if self.said.len() < 1000 && self.said.insert(text.clone()) {
            self.log(&text);
        }
    }
}

pub(super) fn named(sessions: &[Session], uid: Uid) -> String {
    match sessions.first() {
        Some(session) => session.user.clone(),
        None => format!("uid {uid}"),
    }
}

pub(super) fn list(sessions: &[Session]) -> String {
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
pub(super) fn shown(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds >= 120 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
