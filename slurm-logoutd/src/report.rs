//! What `slurm-logout status` shows.

use std::time::Duration;

use host::state_dir::{StateDir, StateError};
use host::{Pid, Uid};
use serde::Serialize;
use slurm::JobId;

use crate::daemon;
use logins::clock::BootTime;
use logins::session::{Records, Session, daemon_runs};
use logins::settings::Settings;
use logins::user_jobs::{Jobs, Presence};

/// The node's logins.
#[derive(Debug, Serialize)]
pub struct Status {
    /// This node, as far as its name is known; in JSON a key of the envelope.
    #[serde(skip)]
    pub node: String,
    /// A slurm-logoutd runs.
    pub daemon: bool,
    /// Nothing is ended, only said.
    pub dry_run: bool,
    /// Why it is not certain which users have jobs.
    pub doubts: Vec<String>,
    /// Records that cannot be read.
    pub problems: Vec<String>,
    /// The sessions.
    pub sessions: Vec<Line>,
}

/// A session.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its user.
    pub user: String,
    /// Its user.
    pub uid: Uid,
    /// The process that leads it.
    pub pid: Pid,
    /// PAM's service.
    pub service: String,
    /// From where.
    pub remote: Option<String>,
    /// For how long it has been open, in seconds.
    pub open_s: u64,
    /// Its connection is there; if not, only processes are left of it.
    pub connected: bool,
    /// It is never ended.
    pub exempt: bool,
    /// It ends if its user has no job, by [`Session::is_bound`].
    #[serde(skip)]
    pub bound: bool,
    /// The user's jobs, oldest first.
    pub jobs: Vec<JobId>,
    /// `has`, `none` or `unknown`.
    pub presence: &'static str,
    /// When it ends, in seconds from now, if that has been said.
    pub ends_in_s: Option<u64>,
}

impl Status {
    /// Looks.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn look(settings: &Settings) -> Result<Self, StateError> {
        let mut status = Self {
            node: settings.node_name().to_owned(),
            daemon: false,
            dry_run: settings.dry_run,
            doubts: Vec::new(),
            problems: Vec::new(),
            sessions: Vec::new(),
        };
        let jobs = Jobs::look(settings, Duration::from_secs(2));
        status.doubts = jobs.doubts().to_vec();
        let Some(state) = StateDir::open_existing(&settings.state_dir)? else {
            return Ok(status);
        };
        status.daemon = daemon_runs(&state);
        let kept = daemon::kept(&state)?;
        let Some(records) = Records::open_existing(&state)? else {
            return Ok(status);
        };
        let (sessions, problems) = records.list()?;
        status.problems = problems;
        let now = BootTime::now();
        status.sessions = sessions
            .iter()
            .map(|session| {
                let kept = kept.get(&session.uid);
                // A later session gets a notice of its own.
                let told = kept.filter(|it| session.opened <= it.notice.since);
                Line {
                    ends_in_s: told.map(|it| now.until(it.notice.deadline).as_secs()),
                    bound: session.is_bound(settings, kept.and_then(|it| it.had_job)),
                    ..Line::of(session, &jobs, now, settings)
                }
            })
            .collect();
        Ok(status)
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {} sessions, slurm-logoutd {}{}\n",
            self.node,
            self.sessions.len(),
            if self.daemon { "runs" } else { "does not run" },
            if self.dry_run { " (dry run)" } else { "" },
        );
        for reason in self.doubts.iter().chain(&self.problems) {
            text.push_str(&format!("  ! {reason}\n"));
        }
        for line in &self.sessions {
            let jobs = match (line.presence, &line.jobs[..]) {
                ("unknown", _) => "jobs unknown".to_owned(),
                (_, []) => "no job".to_owned(),
                (_, jobs) => {
                    let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
                    format!("job {}", ids.join(", "))
                }
            };
            let fate = match line.ends_in_s {
                _ if line.exempt => "exempt".to_owned(),
                Some(seconds) => format!("ends in {seconds} s"),
                None => "stays".to_owned(),
            };
            text.push_str(&format!(
                "  {:<16} {:>8}  {:<8} {:<24} {jobs}; {fate}{}\n",
                line.user,
                line.pid,
                line.service,
                line.remote.as_deref().unwrap_or("-"),
                if line.connected { "" } else { " (left behind)" },
            ));
        }
        text
    }
}

impl Line {
    fn of(session: &Session, jobs: &Jobs, now: BootTime, settings: &Settings) -> Self {
        Self {
            user: session.user.clone(),
            uid: session.uid,
            pid: session.leader.pid,
            service: session.service.clone(),
            remote: session.remote.clone(),
            open_s: session.opened.until(now).as_secs(),
            connected: session.leader.is_alive(),
            exempt: session.is_exempt(settings),
            bound: session.is_bound(settings, None),
            jobs: jobs.list(session.uid).iter().map(|job| job.id).collect(),
            presence: match jobs.of(session.uid) {
                Presence::Has => "has",
                Presence::None => "none",
                Presence::Unknown => "unknown",
            },
            ends_in_s: None,
        }
    }
}
