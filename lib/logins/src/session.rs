//! The records of logins: `sessions/<pid>-<start>.json` in the state
//! directory, written by the module when a session opens, never changed.
//!
//! A record stays after its session as long as processes of that session may
//! be left; the daemon removes it when none is.

use std::fmt;
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::printable;
use host::process::ProcessIdentity;
use host::state_dir::{StateDir, StateError, Store};
use host::state_layout::login::{DAEMON_LOCK, SESSION_VERSION, SESSIONS};
use host::{Pid, Uid};
use serde::{Deserialize, Serialize};
use slurm::JobId;

use crate::clock::BootTime;
use crate::process::AuditSession;
use crate::settings::Settings;

/// Longest text that is kept of PAM's items, in characters.
const LONGEST: usize = 128;

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    version: u32,
    /// The boot during which it was opened.
    pub boot: BootId,
    /// The user.
    pub uid: Uid,
    /// The user's name; safe to print.
    pub user: String,
    /// The process that opened it (sshd's privileged one), of which
    /// everything in it descends.
    pub leader: ProcessIdentity,
    /// When it was opened.
    pub opened: BootTime,
    /// PAM's service; safe to print.
    pub service: String,
    /// PAM's terminal, `ssh` for sshd; safe to print.
    pub tty: Option<String>,
    /// PAM's remote host; safe to print.
    pub remote: Option<String>,
    /// The kernel's login session.
    pub audit: Option<AuditSession>,
    /// The cgroup that logind made for it, as the kernel names it; it tells
    /// logind's session, too. No variable does: users may set those.
    pub scope: Option<String>,
    /// It is never ended.
    pub exempt: bool,
    /// The user's jobs at the time.
    pub jobs: Vec<JobId>,
}

/// What PAM tells about a login; any of it may be hostile.
#[derive(Debug, Clone, Default)]
pub struct PamItems {
    /// `PAM_SERVICE`.
    pub service: String,
    /// `PAM_TTY`.
    pub tty: Option<String>,
    /// `PAM_RHOST`.
    pub remote: Option<String>,
}

impl Session {
    /// A session of the process `leader`.
    #[must_use]
    pub fn new(
        boot: BootId,
        uid: Uid,
        user: &str,
        leader: ProcessIdentity,
        told: PamItems,
    ) -> Self {
        let short = |text: String| printable(&text, LONGEST);
        Self {
            version: SESSION_VERSION,
            boot,
            uid,
            user: printable(user, LONGEST),
            leader,
            opened: BootTime::now(),
            service: short(told.service),
            tty: told.tty.map(short),
            remote: told.remote.map(short),
            audit: None,
            scope: None,
            exempt: false,
            jobs: Vec::new(),
        }
    }

    /// Whether it is never ended: root's, and those of exempt users.
    #[must_use]
    pub fn is_exempt(&self, settings: &Settings) -> bool {
        self.exempt || self.uid.is_root() || settings.exempt_users.contains(&self.user)
    }

    /// Whether it ends when its user has no job: where logins need none, only
    /// if the user has had one since it was opened (`had_job`, as far as seen).
    #[must_use]
    pub fn is_bound(&self, settings: &Settings, had_job: Option<BootTime>) -> bool {
        settings.require_job
            || !self.jobs.is_empty()
            || had_job.is_some_and(|then| then >= self.opened)
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(self.leader)
    }

    /// Reads a file of this name; the reason if it is not a session's record.
    ///
    /// # Errors
    /// For a person to read; safe to print.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let identity = identity_of(name).ok_or("not the name of a session")?;
        let session: Self =
            serde_json::from_slice(bytes).map_err(|error| printable(&error.to_string(), 200))?;
        if session.version != SESSION_VERSION {
            return Err(format!(
                "version {} of the format, not {SESSION_VERSION}",
                session.version
            ));
        }
        if session.leader != identity {
            return Err("its content speaks of another process".to_owned());
        }
        let texts = [Some(&session.user), Some(&session.service)]
            .into_iter()
            .chain([&session.tty, &session.remote].map(Option::as_ref));
        for text in texts.flatten() {
            if printable(text, LONGEST) != *text {
                return Err("a text in it is not one that is safe to print".to_owned());
            }
        }
        Ok(session)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.remote.as_deref().unwrap_or("this node");
        let (user, service, pid) = (&self.user, &self.service, self.leader.pid.0);
        write!(f, "{user}'s {service} session from {from} (process {pid})")
    }
}

/// The file of the session that this process leads.
#[must_use]
pub fn file_name(leader: ProcessIdentity) -> String {
    format!("{}-{}.json", leader.pid.0, leader.start)
}

/// The process whose session's file has this name.
#[must_use]
pub fn identity_of(name: &str) -> Option<ProcessIdentity> {
    let (pid, start) = name.strip_suffix(".json")?.split_once('-')?;
    let identity = ProcessIdentity {
        pid: Pid(pid.parse().ok()?),
        start: start.parse().ok()?,
    };
    (file_name(identity) == name).then_some(identity)
}

/// The folder of records.
#[derive(Debug)]
pub struct Records {
    dir: StateDir,
}

impl Records {
    /// Opens it; makes what is missing.
    ///
    /// # Errors
    /// See [`StateDir::open`].
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let dir = state.folder(SESSIONS)?;
        Ok(Self { dir })
    }

    /// Opens it to read; `None`: nobody ever logged in.
    ///
    /// # Errors
    /// See [`StateDir::open`].
    pub fn open_existing(state: &StateDir) -> Result<Option<Self>, StateError> {
        Ok(state.existing_folder(SESSIONS)?.map(|dir| Self { dir }))
    }

    /// Writes a session's record.
    ///
    /// # Errors
    /// There is none then.
    pub fn put(&mut self, session: &Session) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(session).map_err(|error| StateError::Io {
            action: "write",
            path: session.file_name().into(),
            source: error.into(),
        })?;
        self.dir.write(&session.file_name(), &bytes)
    }

    /// Removes one; fine if there is none.
    ///
    /// # Errors
    /// It stays.
    pub fn remove(&mut self, leader: ProcessIdentity) -> Result<(), StateError> {
        self.dir.remove(&file_name(leader))
    }

    /// The names of all that are there.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> Result<Vec<String>, StateError> {
        self.dir.names()
    }

    /// The record of this name, `None` if it is gone, or what is wrong with it.
    ///
    /// # Errors
    /// For a person to read; safe to print.
    pub fn get(&self, name: &str) -> Result<Option<Session>, String> {
        match self.dir.read(name) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Session::parse(name, &bytes).map(Some),
            Err(error) => Err(error.to_string()),
        }
    }

    /// All sessions that can be read, and what is wrong with the others.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> Result<(Vec<Session>, Vec<String>), StateError> {
        let mut sessions = Vec::new();
        let mut problems = Vec::new();
        for name in self.names()? {
            match self.get(&name) {
                Ok(Some(session)) => sessions.push(session),
                Ok(None) => {}
                Err(reason) => problems.push(format!("{}: {reason}", printable(&name, 80))),
            }
        }
        Ok((sessions, problems))
    }

    /// Removes what writers left that were killed.
    ///
    /// # Errors
    /// Some may be left.
    pub fn sweep(&mut self) -> Result<(), StateError> {
        self.dir.sweep()
    }

    /// Where they lie.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Whether a daemon runs that takes care of records.
#[must_use]
pub fn daemon_runs(state: &StateDir) -> bool {
    state
        .lock(DAEMON_LOCK, Deadline::after(Duration::ZERO))
        .is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> Session {
        let identity = ProcessIdentity {
            pid: Pid(42),
            start: 123,
        };
        let told = PamItems {
            service: "sshd".to_owned(),
            tty: Some("ssh".to_owned()),
            remote: Some("10.0.0.1\x1b[2J\n".to_owned()),
        };
        Session::new(
            BootId::current().unwrap(),
            Uid(20_001),
            "alice",
            identity,
            told,
        )
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut records = Records::open(&state).unwrap();
        records.put(&session()).unwrap();
        assert_eq!(records.list().unwrap().0, [session_opened(&records)]);
        records.remove(session().leader).unwrap();
        assert!(records.names().unwrap().is_empty());
    }

    fn session_opened(records: &Records) -> Session {
        records.get("42-123.json").unwrap().unwrap()
    }

    #[test]
    fn odd_items_of_pam_cannot_steer_a_terminal_or_name_a_path() {
        let session = session();
        assert_eq!(session.remote.as_deref(), Some("10.0.0.1\\u{1b}[2J\\n"));
        let told = PamItems {
            remote: Some("x".repeat(1 << 20)),
            ..PamItems::default()
        };
        let long = Session::new(session.boot.clone(), Uid(1), "a", session.leader, told);
        assert!(serde_json::to_vec(&long).unwrap().len() < 4096);
    }

    #[test]
    fn a_file_that_speaks_of_another_process_or_version_is_not_believed() {
        let good = serde_json::to_string(&session()).unwrap();
        assert!(Session::parse("42-123.json", good.as_bytes()).is_ok());
        for name in [
            "43-123.json",
            "42-124.json",
            "+42-123.json",
            "042-123.json",
            "x",
        ] {
            assert!(Session::parse(name, good.as_bytes()).is_err(), "{name}");
        }
        let other = good.replace("\"version\":1", "\"version\":2");
        assert!(Session::parse("42-123.json", other.as_bytes()).is_err());
        let raw = good.replace("\"alice\"", "\"\\u001b[2J\"");
        assert!(Session::parse("42-123.json", raw.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(name in "[0-9-]{0,9}(.json)?", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Session::parse(&name, &bytes);
        }
    }
}
