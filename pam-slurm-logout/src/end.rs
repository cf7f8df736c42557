//! Ending sessions: which processes belong to them, and which signal each gets
//! when.
//!
//! No process is chosen by its name, and each is signalled as one life of its
//! number ([`Life::signal`]). Chosen is what descends from the process that
//! opened the session, and, by [`Leftovers`], what left it. Never chosen is
//! another user's process (but for sshd's own that leads the session) or one
//! in a Slurm job's cgroup.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use node::cgroup;
use node::process::{Life, Pid, read};
use rustix::process::Signal;

use crate::process::{self, Audit, Process, Processes};
use crate::session::Session;
use crate::settings::Leftovers;

/// What is done, in order. Each step looks at the processes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// logind is asked, programs are hung up.
    HangUp,
    /// The connection and whatever is left is told to end.
    Terminate,
    /// What is left is killed, again and again.
    Kill,
}

impl Step {
    /// How long it has before the next one.
    #[must_use]
    pub fn lasts(self) -> Duration {
        match self {
            // A shell writes its history and ends in milliseconds.
            Self::HangUp => Duration::from_millis(50),
            Self::Terminate => Duration::from_secs(2),
            Self::Kill => Duration::from_millis(200),
        }
    }

    /// What comes then.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::HangUp => Self::Terminate,
            Self::Terminate | Self::Kill => Self::Kill,
        }
    }
}

/// How often processes are killed before it is given up and said so: one that
/// waits for a dead file server cannot end.
pub const MOST_KILLS: u32 = 50;

/// Whether it is given up: killed often enough, and nothing is left but what
/// was left before. New processes each time are something that forks, which is
/// killed as long as it does.
#[must_use]
pub fn is_stuck(kills: u32, left: &BTreeSet<Life>, before: &BTreeSet<Life>) -> bool {
    kills >= MOST_KILLS && left.is_subset(before)
}

/// What is to end of a user.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Whose.
    pub uid: u32,
    /// The sessions, as they were when it was decided: one that opens later is
    /// not touched.
    pub sessions: Vec<Session>,
    /// See [`Leftovers`].
    pub leftovers: Leftovers,
}

/// A process that is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Which.
    pub life: Life,
    /// sshd's own process of the session, not the user's program.
    pub connection: bool,
}

impl Ending {
    /// The processes that are left of it. `others` are the sessions that stay.
    #[must_use]
    pub fn targets(&self, all: &Processes, others: &[Session]) -> Vec<Target> {
        let spared: BTreeSet<Pid> = others
            .iter()
            .flat_map(|session| all.tree(session.leader))
            .collect();
        let mut members = BTreeSet::new();
        let mut connections = BTreeSet::new();
        for session in &self.sessions {
            let tree = all.tree(session.leader);
            // The leader is root's; sshd's process for the user is its child.
            connections.extend(tree.iter().copied().filter(|pid| {
                *pid == session.leader.pid
                    || all
                        .get(*pid)
                        .is_some_and(|it| it.parent == session.leader.pid)
            }));
            members.extend(tree);
        }
        let leader = |pid: Pid| self.sessions.iter().any(|it| it.leader.pid == pid);
        let chosen = |it: &&Process| {
            let pid = it.life.pid;
            let ours = it.uid == self.uid || (leader(pid) && members.contains(&pid));
            // Nobody ends init, or the daemon itself.
            ours && !it.zombie
                && pid.0 > 1
                && pid.0 != std::process::id()
                && !spared.contains(&pid)
                && (members.contains(&pid) || self.left(it, others))
        };
        let mut targets: Vec<Target> = all
            .iter()
            .filter(chosen)
            .filter(|it| leader(it.life.pid) || !in_job(it.life.pid))
            .map(|it| Target {
                life: it.life,
                connection: connections.contains(&it.life.pid),
            })
            .collect();
        targets.sort_unstable();
        targets
    }

    /// Whether a process of this user, outside of the trees, left one of them.
    fn left(&self, it: &Process, others: &[Session]) -> bool {
        if it.uid != self.uid || self.leftovers == Leftovers::None {
            return false;
        }
        let trace = Trace::of(it);
        match self.leftovers {
            Leftovers::None => false,
            Leftovers::Session => self.sessions.iter().any(|one| trace.belongs_to(one)),
            Leftovers::User => !others.iter().any(|one| trace.belongs_to(one)),
        }
    }

    /// The scopes that end as a whole, and logind's names of their sessions.
    /// None if only descendants end, since more than those is in a scope.
    /// Looked at again here, whatever wrote the record: a wrong one would end
    /// others.
    fn scopes(&self) -> impl Iterator<Item = (&str, &str)> {
        let whole = self.leftovers != Leftovers::None;
        let sessions = self.sessions.iter().filter(move |_| whole);
        sessions.filter_map(|session| {
            let scope = session.scope.as_deref()?;
            Some((scope, process::logind_id(scope, session.uid)?))
        })
    }

    /// The terminals of these sessions, by device number.
    #[must_use]
    pub fn terminals(&self, all: &Processes) -> BTreeSet<u32> {
        terminals(&self.sessions, all)
    }
}

/// The terminals of sessions, by device number.
#[must_use]
pub fn terminals(sessions: &[Session], all: &Processes) -> BTreeSet<u32> {
    let members = sessions.iter().flat_map(|session| {
        let uid = session.uid;
        let tree = all.tree(session.leader).into_iter();
        tree.filter_map(|pid| all.get(pid))
            .filter(move |it| it.uid == uid)
    });
    members.filter_map(|it| it.tty).collect()
}

/// What tells to which session a process belongs that does not descend from it.
#[derive(Debug)]
pub struct Trace {
    /// Its real uid.
    pub uid: u32,
    audit: Option<Audit>,
    cgroup: Vec<u8>,
}

impl Trace {
    /// Looks at a process.
    #[must_use]
    pub fn of(it: &Process) -> Self {
        let pid = it.life.pid;
        Self {
            uid: it.uid,
            audit: process::audit_session(pid),
            cgroup: read(pid, "cgroup").ok().flatten().unwrap_or_default(),
        }
    }

    /// Whether it belongs to this session.
    #[must_use]
    pub fn belongs_to(&self, session: &Session) -> bool {
        let audit = session.audit.is_some() && session.audit == self.audit;
        let scope = session.scope.as_ref();
        let scope = scope.is_some_and(|scope| process::in_cgroup(&self.cgroup, scope));
        self.uid == session.uid && (audit || scope)
    }
}

/// What cannot be found out counts as a job's.
fn in_job(pid: Pid) -> bool {
    match read(pid, "cgroup") {
        Ok(Some(text)) => cgroup::is_slurms(&text),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// Carries out a step; the reasons of what did not work.
pub fn carry_out(step: Step, ending: &Ending, targets: &[Target]) -> Vec<String> {
    let mut problems = Vec::new();
    if step == Step::HangUp {
        ending.scopes().for_each(|(_, id)| ask_logind(id));
    }
    if step == Step::Kill {
        ending.scopes().for_each(|(scope, _)| kill_scope(scope));
    }
    for target in targets {
        let signals: &[Signal] = match step {
            // A stopped program does not notice a signal until it goes on.
            Step::HangUp if target.connection => &[],
            Step::HangUp => &[Signal::HUP, Signal::CONT],
            Step::Terminate => &[Signal::TERM, Signal::HUP, Signal::CONT],
            Step::Kill => &[Signal::KILL],
        };
        for signal in signals {
            if let Err(error) = target.life.signal(*signal) {
                problems.push(format!("process {}: {error}", target.life.pid.0));
            }
        }
    }
    problems
}

/// logind ends a session with everything in its scope; where there is none,
/// nothing happens. Not waited for: the next steps do not rely on it.
fn ask_logind(id: &str) {
    let loginctl = ["/usr/bin/loginctl", "/bin/loginctl"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let (Some(loginctl), true) = (loginctl, Path::new("/run/systemd/system").exists()) else {
        return;
    };
    // `timeout` bounds it, and `sh` in the background leaves no zombie here.
    let _ = Command::new("/bin/sh")
        .args(["-c", "timeout -k 1 5 \"$0\" terminate-session \"$1\" &"])
        .args([loginctl, id])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Kills a session's own scope as a whole, where cgroup v2 has it: nothing in
/// it can outrun that by forking.
fn kill_scope(scope: &str) {
    let _ = std::fs::write(format!("/sys/fs/cgroup{scope}/cgroup.kill"), "1");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Told;
    use node::registry::BootId;

    const ALICE: u32 = 20_001;

    fn life(pid: u32) -> Life {
        Life {
            pid: Pid(pid),
            start: 1,
        }
    }

    /// A process that does not exist: numbers above the kernel's limit.
    fn process(pid: u32, parent: u32, uid: u32) -> Process {
        Process {
            life: life(BASE + pid),
            parent: Pid(if parent == 0 { 1 } else { BASE + parent }),
            tty: None,
            cpu: 0,
            zombie: false,
            uid,
        }
    }

    const BASE: u32 = 1 << 30;

    fn session(leader: u32) -> Session {
        let boot = BootId::current().unwrap();
        Session::new(boot, ALICE, "alice", life(BASE + leader), Told::default())
    }

    fn processes(all: &[(u32, u32, u32)]) -> Processes {
        let mut found = Processes::default();
        for (pid, parent, uid) in all {
            found.add(process(*pid, *parent, *uid));
        }
        found
    }

    fn ended(leftovers: Leftovers, all: &Processes, others: &[Session]) -> Vec<u32> {
        let ending = Ending {
            uid: ALICE,
            sessions: vec![session(10)],
            leftovers,
        };
        let targets = ending.targets(all, others);
        targets.iter().map(|it| it.life.pid.0 - BASE).collect()
    }

    #[test]
    fn the_leader_and_the_users_descendants_end_and_nobody_elses() {
        let all = processes(&[
            (5, 0, 0),       // sshd itself
            (10, 5, 0),      // its process for the session, root's
            (11, 10, ALICE), // the same, as the user
            (12, 11, ALICE),
            (13, 12, 0),      // sudo
            (14, 13, 20_002), // su bob
            (20, 5, 0),       // another session, of bob
            (21, 20, 20_002),
            (30, 0, ALICE), // elsewhere
        ]);
        assert_eq!(ended(Leftovers::None, &all, &[]), [10, 11, 12]);
        assert_eq!(ended(Leftovers::Session, &all, &[]), [10, 11, 12]);
        assert_eq!(ended(Leftovers::User, &all, &[]), [10, 11, 12, 30]);
    }

    #[test]
    fn a_session_that_stays_is_not_touched_by_whatever_policy() {
        let all = processes(&[(10, 0, 0), (11, 10, ALICE), (20, 0, 0), (21, 20, ALICE)]);
        assert_eq!(ended(Leftovers::User, &all, &[session(20)]), [10, 11]);
    }

    #[test]
    fn a_record_of_a_process_that_is_gone_ends_nobody() {
        let all = processes(&[(11, 0, ALICE)]);
        assert!(ended(Leftovers::Session, &all, &[]).is_empty());
        let mut reused = Processes::default();
        let mut other = process(10, 0, 0);
        other.life.start = 2;
        reused.add(other);
        reused.add(process(11, 10, ALICE));
        assert!(ended(Leftovers::None, &reused, &[]).is_empty());
    }

    fn scopes(leftovers: Leftovers, scope: &str) -> Vec<String> {
        let mut session = session(10);
        session.scope = Some(scope.to_owned());
        let ending = Ending {
            uid: ALICE,
            sessions: vec![session],
            leftovers,
        };
        ending.scopes().map(|(_, id)| id.to_owned()).collect()
    }

    #[test]
    fn a_record_that_names_anothers_scope_asks_logind_nothing_and_kills_nothing() {
        let own = "/user.slice/user-20001.slice/session-7.scope";
        assert_eq!(scopes(Leftovers::Session, own), ["7"]);
        for other in [
            "/user.slice/user-0.slice/session-1.scope",
            "/user.slice/user-20001.slice/../user-0.slice/session-1.scope",
            "/user.slice/user-20001.slice",
            "/",
            "",
        ] {
            assert!(scopes(Leftovers::Session, other).is_empty(), "{other}");
        }
    }

    #[test]
    fn where_only_descendants_end_the_scope_with_tmux_in_it_stays() {
        let own = "/user.slice/user-20001.slice/session-7.scope";
        assert!(scopes(Leftovers::None, own).is_empty());
        assert_eq!(scopes(Leftovers::User, own), ["7"]);
    }

    #[test]
    fn what_a_record_of_an_older_module_calls_loginds_session_is_not_read() {
        let old = serde_json::to_string(&session(10)).unwrap();
        let old = old.replace("\"scope\":null", "\"logind\":\"1\",\"scope\":null");
        assert!(old.contains("logind"));
        let name = session(10).file_name();
        let ending = Ending {
            uid: ALICE,
            sessions: vec![Session::parse(&name, old.as_bytes()).unwrap()],
            leftovers: Leftovers::Session,
        };
        assert_eq!(ending.scopes().count(), 0);
    }

    #[test]
    fn what_forks_anew_each_time_is_never_given_up_and_what_does_not_end_is() {
        let left = |pids: &[u32]| pids.iter().map(|pid| life(*pid)).collect();
        assert!(is_stuck(MOST_KILLS, &left(&[1]), &left(&[1, 2])));
        assert!(!is_stuck(MOST_KILLS - 1, &left(&[1]), &left(&[1])));
        assert!(!is_stuck(MOST_KILLS, &left(&[3]), &left(&[1, 2])));
        assert!(!is_stuck(u32::MAX, &left(&[1, 3]), &left(&[1, 2])));
    }

    #[test]
    fn programs_are_hung_up_before_their_connection_is_cut() {
        let all = processes(&[(10, 0, 0), (11, 10, ALICE), (12, 11, ALICE)]);
        let ending = Ending {
            uid: ALICE,
            sessions: vec![session(10)],
            leftovers: Leftovers::None,
        };
        let connections: Vec<bool> = ending
            .targets(&all, &[])
            .iter()
            .map(|it| it.connection)
            .collect();
        assert_eq!(connections, [true, true, false]);
    }
}
