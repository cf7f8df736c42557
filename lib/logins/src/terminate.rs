//! Ending sessions: which processes belong to them, and which signal each gets
//! when.
//!
//! No process is chosen by its name, and each is signalled as one process of its
//! number ([`ProcessIdentity::signal`]). Chosen is what descends from the process that
//! opened the session, and, by [`Leftovers`], what left it; whose a process is,
//! [`membership`](crate::membership) answers. Never chosen is another user's process, root's (but
//! for sshd's own that leads the session) or one in a Slurm job's cgroup.
//!
//! A process that forks and ends at once is missed by a reading of `/proc`, so
//! an ending is done only after everything has been killed at once, in the
//! session's scope or its own [`group`](crate::group), and several looks have
//! found nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use host::process::{ProcessIdentity, read, stat};
use host::{Pid, Uid};
use rustix::process::Signal;
use slurm::job_cgroup;

use crate::clock::BootTime;
use crate::group::{Frozen, Group};
use crate::killall;
use crate::membership::{Evidence, User, Whole, belongs, process_belongs};
use crate::process;
use crate::process::{Process, Processes};
use crate::session::Session;
use crate::settings::Leftovers;

/// What is done, in order. Each step looks at the processes again.
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

/// How many looks in a row must find nothing before sessions have ended.
pub const LOOKS: u32 = 5;

/// The time between two of them.
pub const BETWEEN: Duration = Duration::from_millis(20);

/// How long groups of processes may take to stand still before they are killed.
const FREEZE: Duration = Duration::from_millis(200);

/// Whether it is given up: killed often enough, and nothing is left but what
/// was left before. New processes each time are something that forks, which is
/// killed as long as it does.
#[must_use]
pub fn is_stuck(
    kills: u32,
    left: &BTreeSet<ProcessIdentity>,
    before: &BTreeSet<ProcessIdentity>,
) -> bool {
    kills >= MOST_KILLS && left.is_subset(before)
}

/// What is to end of a user.
#[derive(Debug, Clone)]
pub struct Ending {
    user: User,
    /// The sessions, as they were when it was decided: one that opens later is
    /// not touched.
    pub sessions: Vec<Session>,
    leftovers: Leftovers,
    /// Each has a group or a scope that can be killed as a whole.
    all_held: bool,
}

/// A process that is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Which.
    pub identity: ProcessIdentity,
    /// sshd's own process of the session, not the user's program.
    pub connection: bool,
}

impl Ending {
    /// Sessions of this user.
    #[must_use]
    pub fn new(user: User, sessions: Vec<Session>, leftovers: Leftovers) -> Self {
        let all_held = sessions.iter().all(|it| group_of(it).is_some());
        Self {
            user,
            sessions,
            leftovers,
            all_held,
        }
    }

    /// Whose sessions they are.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.user.uid
    }

    /// The processes that are left of it. `others` are the sessions that stay.
    #[must_use]
    pub fn targets(&self, all: &Processes, others: &[Session]) -> Vec<Target> {
        let spared: BTreeSet<Pid> = others
            .iter()
            .flat_map(|session| all.tree(session.leader))
            .collect();
        let mut members: BTreeMap<Pid, &Session> = BTreeMap::new();
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
            members.extend(tree.into_iter().map(|pid| (pid, session)));
        }
        let own = Pid::own();
        let leaders: BTreeSet<ProcessIdentity> = self.sessions.iter().map(|it| it.leader).collect();
        let leads = |it: &Process| leaders.contains(&it.identity);
        let chosen = |it: &&Process| {
            let pid = it.identity.pid;
            // Nobody ends init, or the daemon itself.
            let may_end = !it.zombie && pid.0 > 1 && pid != own && !spared.contains(&pid);
            may_end
                && (leads(it)
                    || match members.get(&pid) {
                        Some(session) => self.holds(it, session),
                        None => self.left(it, others),
                    })
        };
        let mut targets: Vec<Target> = all
            .iter()
            .filter(chosen)
            .filter(|it| leads(it) || !in_job(it.identity.pid))
            .map(|it| Target {
                identity: it.identity,
                connection: connections.contains(&it.identity.pid),
            })
            .collect();
        targets.sort_unstable();
        targets
    }

    /// Whether what descends from a session's leader belongs to the session.
    fn holds(&self, it: &Process, session: &Session) -> bool {
        let descends = true;
        process_belongs(it, &self.user, Whole::Session { session, descends })
    }

    /// Whether a process of this user, outside of the trees, left one of them.
    fn left(&self, it: &Process, others: &[Session]) -> bool {
        if it.uids.real().is_root() || self.leftovers == Leftovers::None {
            return false;
        }
        let evidence = Evidence::of(it);
        let in_one = |sessions: &[Session]| {
            let descends = false;
            sessions
                .iter()
                .any(|session| belongs(&evidence, &self.user, Whole::Session { session, descends }))
        };
        in_one(&self.sessions)
            || (self.leftovers == Leftovers::User
                && !in_one(others)
                && belongs(&evidence, &self.user, Whole::User))
    }

    /// Whether more ends than what descends from the leaders: only then may a
    /// scope or a group end as a whole.
    fn is_whole(&self) -> bool {
        self.leftovers != Leftovers::None
    }

    /// Whether a group or scope still holds a process that no look has found.
    fn is_hidden(&self) -> bool {
        let mut groups = self.sessions.iter().filter_map(group_of);
        self.is_whole() && groups.any(|group| !group.is_empty())
    }

    /// Kills everything at once, so that nothing can outrun it by forking. What
    /// does not belong to the sessions leaves their groups and continues.
    ///
    /// # Errors
    /// A session has no group, and its user's processes cannot be killed at
    /// once either; for a person to read.
    fn kill_at_once(&self, others: &[Session], no_job: bool) -> Result<(), String> {
        if !self.is_whole() {
            return Ok(());
        }
        let groups: Vec<Group> = self.sessions.iter().filter_map(group_of).collect();
        let frozen = Frozen::new(groups, FREEZE);
        let all = Processes::scan().map_err(|error| format!("/proc: {error}"))?;
        let targets = self.targets(&all, others);
        let pids: BTreeSet<Pid> = targets.iter().map(|it| it.identity.pid).collect();
        for target in &targets {
            // One that cannot be signalled is seen by the next look.
            let _ = target.identity.signal(Signal::KILL);
        }
        frozen.kill(|pid| !pids.contains(&pid));
        drop(frozen);
        if self.all_held {
            return Ok(());
        }
        if !no_job || others.iter().any(|it| it.uid == self.uid()) {
            return Err("the user has a job or another session here".to_owned());
        }
        killall::of_user(&self.user, &all, &pids)
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
            .filter(move |it| it.uids.real() == uid)
    });
    members.filter_map(|it| it.tty).collect()
}

/// Whether anything is left of a session whose leader has ended. `all` is what
/// runs as somebody but root.
#[must_use]
pub fn is_left(session: &Session, user: &User, leftovers: Leftovers, all: &[Evidence]) -> bool {
    if leftovers == Leftovers::None {
        return false;
    }
    if group_of(session).is_some_and(|group| !group.is_empty()) {
        return true;
    }
    let descends = false;
    all.iter().any(|it| {
        belongs(it, user, Whole::Session { session, descends })
            || (leftovers == Leftovers::User && belongs(it, user, Whole::User))
    })
}

/// The group or scope in which a session can be killed as a whole.
#[must_use]
pub fn group_of(session: &Session) -> Option<Group> {
    let scope = session.scope.as_deref();
    // Whatever wrote the record: a wrong one would end others.
    let scope = scope.filter(|scope| process::logind_id(scope, session.uid).is_some());
    Group::of(session.leader).or_else(|| Group::of_scope(scope?))
}

/// What cannot be found out counts as a job's.
fn in_job(pid: Pid) -> bool {
    match read(pid, "cgroup") {
        Ok(Some(text)) => job_cgroup::is_slurms(&text),
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
    for target in targets {
        let signals: &[Signal] = match step {
            // A stopped program does not notice a signal until it is continued.
            Step::HangUp if target.connection => &[],
            Step::HangUp => &[Signal::HUP, Signal::CONT],
            Step::Terminate => &[Signal::TERM, Signal::HUP, Signal::CONT],
            Step::Kill => &[Signal::KILL],
        };
        for signal in signals {
            if let Err(error) = target.identity.signal(*signal) {
                problems.push(format!("process {}: {error}", target.identity.pid.0));
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

/// What one turn of an ending did.
#[derive(Debug)]
pub enum Progress {
    /// This step was carried out for this number of processes; what did not work.
    Step(Step, usize, Vec<String>),
    /// Nothing is left.
    Ended,
    /// Nothing was found, but it could not be killed at once; why.
    Unseen(String),
    /// These do not end although they were killed, each with its state.
    Survived(Vec<(Pid, char)>),
}

/// Sessions that are being ended.
#[derive(Debug)]
pub struct PendingTermination {
    /// Which.
    pub ending: Ending,
    /// When its next turn is due.
    pub next: BootTime,
    step: Step,
    kills: u32,
    /// What was left in the round before.
    before: BTreeSet<ProcessIdentity>,
    /// How many looks in a row have found nothing.
    empty: u32,
    /// What came of killing everything at once, since something was found last.
    at_once: Option<Result<(), String>>,
}

impl PendingTermination {
    /// The first step is due now.
    #[must_use]
    pub fn new(ending: Ending) -> Self {
        Self {
            ending,
            next: BootTime::now(),
            step: Step::HangUp,
            kills: 0,
            before: BTreeSet::new(),
            empty: 0,
            at_once: None,
        }
    }

    /// Whether it is still killed although it should have ended, since it
    /// forks: true once.
    #[must_use]
    pub fn outruns(&self) -> bool {
        self.kills == MOST_KILLS
    }

    /// Takes the next step. `others` are the sessions that stay, `no_job`: the user is
    /// known to have none here.
    pub fn advance(&mut self, all: &Processes, others: &[Session], no_job: bool) -> Progress {
        let step = self.step;
        let targets = self.ending.targets(all, others);
        let hidden = targets.is_empty() && self.ending.is_hidden();
        if targets.is_empty() && !hidden {
            return self.found_nothing(others, no_job);
        }
        self.empty = 0;
        self.at_once = None;
        let identities: BTreeSet<ProcessIdentity> = targets.iter().map(|it| it.identity).collect();
        if is_stuck(self.kills, &identities, &self.before) {
            return Progress::Survived(self.survivors(&identities));
        }
        self.before = identities;
        let problems = carry_out(step, &self.ending, &targets);
        if hidden || step == Step::Kill {
            // The looks that follow say whether it was enough.
            let _ = self.ending.kill_at_once(others, no_job);
            self.kills = self.kills.saturating_add(1);
        }
        self.next = BootTime::now().after(if hidden { BETWEEN } else { step.lasts() });
        if !hidden {
            self.step = step.next();
        }
        Progress::Step(step, targets.len(), problems)
    }

    fn found_nothing(&mut self, others: &[Session], no_job: bool) -> Progress {
        self.empty = self.empty.saturating_add(1);
        self.next = BootTime::now().after(BETWEEN);
        match &self.at_once {
            // Killed once more before it counts, and looked at after that.
            None => {
                self.at_once = Some(self.ending.kill_at_once(others, no_job));
                self.empty = 0;
            }
            Some(Ok(())) if self.empty >= LOOKS => return Progress::Ended,
            Some(Err(reason)) if self.empty >= LOOKS => return Progress::Unseen(reason.clone()),
            Some(_) => {}
        }
        Progress::Step(self.step, 0, Vec::new())
    }

    /// What is left, or the processes of the groups where no look has found any.
    fn survivors(&self, identities: &BTreeSet<ProcessIdentity>) -> Vec<(Pid, char)> {
        let groups = self.ending.sessions.iter().filter_map(group_of);
        let hidden = groups.flat_map(|group| group.members());
        let pids: BTreeSet<Pid> = identities.iter().map(|it| it.pid).chain(hidden).collect();
        let state = |pid: Pid| stat(pid).ok()?.map(|it| char::from(it.state));
        pids.into_iter()
            .map(|pid| (pid, state(pid).unwrap_or('?')))
            .collect()
    }
}

/// Names processes that do not end, for a log.
#[must_use]
pub fn named(survivors: &[(Pid, char)]) -> String {
    let texts: Vec<String> = survivors
        .iter()
        .take(20)
        .map(|(pid, state)| format!("{} (state {state})", pid.0))
        .collect();
    let more = survivors.len().saturating_sub(texts.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    texts.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Uids;
    use crate::session::PamItems;
    use host::BootId;

    const ALICE: u32 = 20_001;

    fn identity(pid: u32) -> ProcessIdentity {
        ProcessIdentity {
            pid: Pid(pid),
            start: 1,
        }
    }

    /// A process that does not exist: numbers above the kernel's limit.
    fn process(pid: u32, parent: u32, uid: u32) -> Process {
        Process {
            identity: identity(BASE + pid),
            parent: Pid(if parent == 0 { 1 } else { BASE + parent }),
            tty: None,
            cpu: 0,
            zombie: false,
            uids: Uids([Uid(uid); 4]),
        }
    }

    const BASE: u32 = 1 << 30;

    fn session(leader: u32) -> Session {
        let boot = BootId::current().unwrap();
        Session::new(
            boot,
            Uid(ALICE),
            "alice",
            identity(BASE + leader),
            PamItems::default(),
        )
    }

    fn processes(all: &[(u32, u32, u32)]) -> Processes {
        let mut found = Processes::default();
        for (pid, parent, uid) in all {
            found.add(process(*pid, *parent, *uid));
        }
        found
    }

    fn ended(leftovers: Leftovers, all: &Processes, others: &[Session]) -> Vec<u32> {
        let ending = Ending::new(User::new(Uid(ALICE)), vec![session(10)], leftovers);
        let targets = ending.targets(all, others);
        targets.iter().map(|it| it.identity.pid.0 - BASE).collect()
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
    fn a_subordinate_uid_of_the_users_ends_with_the_tree_and_another_users_stays() {
        let user = User::parse(
            Uid(ALICE),
            "alice",
            b"alice:100000:65536\nbob:165536:65536\n",
        );
        let all = processes(&[
            (10, 0, 0),
            (11, 10, ALICE),
            (12, 11, 100_006),
            (13, 12, 100_007),
            (14, 11, 165_536),
            (30, 0, 100_006), // nothing shows whose it is
        ]);
        for leftovers in [Leftovers::None, Leftovers::Session, Leftovers::User] {
            let ending = Ending::new(user.clone(), vec![session(10)], leftovers);
            let targets = ending.targets(&all, &[]);
            let pids: Vec<u32> = targets.iter().map(|it| it.identity.pid.0 - BASE).collect();
            assert_eq!(pids, [10, 11, 12, 13], "{leftovers:?}");
        }
    }

    #[test]
    fn a_session_within_another_one_ends_with_its_leader_whichever_is_named_first() {
        let all = processes(&[(10, 0, 0), (11, 10, ALICE), (12, 11, 0), (13, 12, ALICE)]);
        for sessions in [
            vec![session(10), session(12)],
            vec![session(12), session(10)],
        ] {
            let ending = Ending::new(User::new(Uid(ALICE)), sessions, Leftovers::None);
            assert_eq!(ending.targets(&all, &[]).len(), 4);
        }
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
        other.identity.start = 2;
        reused.add(other);
        reused.add(process(11, 10, ALICE));
        assert!(ended(Leftovers::None, &reused, &[]).is_empty());
    }

    fn scopes(leftovers: Leftovers, scope: &str) -> Vec<String> {
        let mut session = session(10);
        session.scope = Some(scope.to_owned());
        let ending = Ending::new(User::new(Uid(ALICE)), vec![session], leftovers);
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
        let ending = Ending::new(
            User::new(Uid(ALICE)),
            vec![Session::parse(&name, old.as_bytes()).unwrap()],
            Leftovers::Session,
        );
        assert_eq!(ending.scopes().count(), 0);
    }

    #[test]
    fn what_forks_anew_each_time_is_never_given_up_and_what_does_not_end_is() {
        let left = |pids: &[u32]| pids.iter().map(|pid| identity(*pid)).collect();
        assert!(is_stuck(MOST_KILLS, &left(&[1]), &left(&[1, 2])));
        assert!(!is_stuck(MOST_KILLS - 1, &left(&[1]), &left(&[1])));
        assert!(!is_stuck(MOST_KILLS, &left(&[3]), &left(&[1, 2])));
        assert!(!is_stuck(u32::MAX, &left(&[1, 3]), &left(&[1, 2])));
    }

    #[test]
    fn programs_are_hung_up_before_their_connection_is_cut() {
        let all = processes(&[(10, 0, 0), (11, 10, ALICE), (12, 11, ALICE)]);
        let ending = Ending::new(User::new(Uid(ALICE)), vec![session(10)], Leftovers::None);
        let connections: Vec<bool> = ending
            .targets(&all, &[])
            .iter()
            .map(|it| it.connection)
            .collect();
        assert_eq!(connections, [true, true, false]);
    }
}
