//! The daemon's turns one by one, on a node of its own with real processes as
//! sessions: who is told, who is ended, and what a restart loses. Needs root.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant as Clock};

use host::BootId;
use host::process::ProcessIdentity;
use host::state_dir::StateDir;
use host::{Pid, Uid};
use logins::clock::BootTime;
use logins::killall;
use logins::membership::User;
use logins::process::Processes;
use logins::session::{PamItems, Records, Session};
use logins::settings::Settings;
use slurm::JobId;
use slurm_logoutd::daemon::Daemon;

/// No account: nobody else's processes are hers, and no other test's.
fn alice() -> u32 {
    500_000 + std::process::id() % 100_000
}

const MINUTE: &str = "grace = '60s'";

/// State, spool and configuration of a node.
struct Node(tempfile::TempDir);

/// A session, which is one process.
struct Login {
    leader: Child,
    opened: BootTime,
}

impl Login {
    fn is_alive(&mut self) -> bool {
        self.leader.try_wait().unwrap().is_none()
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        fs::create_dir(node.path("spool")).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, logout: &str) -> String {
        let here = self.0.path().display();
        format!(
            "state_dir = '{here}/state'\n[logout]\nnode_name = 'n1'\n\
             spool_dir = '{here}/spool'\n{logout}\n"
        )
    }

    fn daemon(&self, logout: &str) -> Daemon {
        let config = config::parse(&self.text(logout), Path::new("/x.toml")).unwrap();
        Daemon::new(Settings::of(&config).unwrap()).unwrap()
    }

    fn program(&self, logout: &str, arguments: &[&str]) -> Output {
        fs::write(self.path("slurm-efa.toml"), self.text(logout)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_slurm-logout"))
            .arg("--config")
            .arg(self.path("slurm-efa.toml"))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn login(&self, user: &str, jobs: &[u32]) -> Login {
        // Later than whatever has been decided so far.
        thread::sleep(Duration::from_millis(2));
        let leader = Command::new("sleep")
            .arg("86400")
            .uid(alice())
            .gid(alice())
            .spawn()
            .unwrap();
        let identity = ProcessIdentity::of(Pid(leader.id())).unwrap().unwrap();
        let boot = BootId::current().unwrap();
        let mut session = Session::new(boot, Uid(alice()), user, identity, PamItems::default());
        session.jobs = jobs.iter().map(|id| JobId(*id)).collect();
        let state = StateDir::open(&self.path("state")).unwrap();
        Records::open(&state).unwrap().put(&session).unwrap();
        Login {
            leader,
            opened: session.opened,
        }
    }

    fn notice_file(&self) -> PathBuf {
        self.path("state/logout").join(format!("{}.json", alice()))
    }

    /// Since when and until when alice's notice holds.
    fn notice(&self) -> Option<(BootTime, BootTime)> {
        let text = fs::read_to_string(self.notice_file()).ok()?;
        let number = |key: &str| {
            let rest = text.split_once(&format!("\"{key}\":")).unwrap().1;
            let digits = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap();
            BootTime(digits.parse().unwrap())
        };
        Some((number("since"), number("deadline")))
    }

    /// The grace of alice's notice passes while no daemon runs.
    fn let_the_grace_pass(&self) {
        let (since, deadline) = self.notice().unwrap();
        let text = fs::read_to_string(self.notice_file()).unwrap();
        let text = text.replace(
            &format!("\"deadline\":{}", deadline.0),
            &format!("\"deadline\":{}", since.0),
        );
        fs::write(self.notice_file(), text).unwrap();
    }

    fn job_socket(&self) -> PathBuf {
        self.path("spool/n1_7.4294967292")
    }

    /// A job of alice's, until its socket is removed.
    fn job(&self) {
        let listener = UnixListener::bind(self.job_socket()).unwrap();
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let _ = client.read_exact(&mut [0; 12]);
                for number in [40 << 8, alice(), 2] {
                    let _ = client.write_all(&number.to_ne_bytes());
                }
            }
        });
    }
}

/// Takes turns until something is so.
fn until(daemon: &mut Daemon, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Clock::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        daemon.turn();
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_dry_run_decided_told_nobody_so_a_real_daemon_gives_the_whole_grace() {
    let node = Node::new();
    let mut login = node.login("alice", &[]);
    let mut dry = node.daemon(&format!("{MINUTE}\ndry_run = true"));
    dry.turn();
    drop(dry);
    node.let_the_grace_pass();
    let before = BootTime::now();
    let mut real = node.daemon(MINUTE);
    for _ in 0..5 {
        real.turn();
        thread::sleep(Duration::from_millis(30));
    }
    assert!(login.is_alive());
    let (since, deadline) = node.notice().unwrap();
    assert!(since >= before, "told anew");
    assert_eq!(since.until(deadline), Duration::from_secs(60));
}

#[test]
fn a_later_login_is_not_ended_with_the_earlier_ones_nor_does_it_put_their_end_off() {
    let node = Node::new();
    let mut first = node.login("alice", &[]);
    let mut daemon = node.daemon(MINUTE);
    daemon.turn();
    let mut later = node.login("alice", &[]);
    let (since, _) = node.notice().unwrap();
    daemon.turn();
    assert_eq!(node.notice().unwrap().0, since, "put off");
    drop(daemon);
    node.let_the_grace_pass();

    let mut daemon = node.daemon(MINUTE);
    until(&mut daemon, "the first session ends", || !first.is_alive());
    until(&mut daemon, "the later one is told", || {
        node.notice().is_some_and(|it| it.0 >= later.opened)
    });
    let (since, deadline) = node.notice().unwrap();
    assert_eq!(since.until(deadline), Duration::from_secs(60));
    assert!(later.is_alive());
    drop(daemon);
    node.let_the_grace_pass();
    let mut daemon = node.daemon(MINUTE);
    until(&mut daemon, "the later one ends", || !later.is_alive());
}

#[test]
fn a_notice_that_a_job_cancelled_while_no_daemon_looked_ends_nobody() {
    let node = Node::new();
    let mut first = node.login("alice", &[]);
    let mut daemon = node.daemon(MINUTE);
    daemon.turn();
    drop(daemon);
    node.let_the_grace_pass();
    let mut second = node.login("alice", &[8]);
    let mut daemon = node.daemon(MINUTE);
    for _ in 0..5 {
        daemon.turn();
        thread::sleep(Duration::from_millis(30));
    }
    assert!(first.is_alive() && second.is_alive());
    let (since, deadline) = node.notice().unwrap();
    assert!(since >= second.opened, "told anew");
    assert_eq!(since.until(deadline), Duration::from_secs(60));
}

#[test]
fn a_notice_whose_sessions_have_all_gone_is_not_held_against_a_later_login() {
    let node = Node::new();
    let first = node.login("alice", &[]);
    let mut daemon = node.daemon(MINUTE);
    daemon.turn();
    let mut later = node.login("alice", &[]);
    drop(first);
    until(&mut daemon, "the later one is told", || {
        node.notice().is_some_and(|it| it.0 >= later.opened)
    });
    let (since, deadline) = node.notice().unwrap();
    assert!(later.is_alive());
    assert_eq!(since.until(deadline), Duration::from_secs(60));
}

#[test]
fn where_logins_need_no_job_only_those_who_had_one_meanwhile_end_and_a_restart_knows_it() {
    let policy = format!("{MINUTE}\nrequire_job = false");
    let node = Node::new();
    let mut before_the_job = node.login("alice", &[]);
    let mut daemon = node.daemon(&policy);
    daemon.turn();
    assert_eq!(node.notice(), None);
    node.job();
    daemon.turn();
    fs::remove_file(node.job_socket()).unwrap();
    daemon.turn();
    assert!(node.notice().is_some(), "the job has ended");
    drop(daemon);
    let mut observer = node.login("alice", &[]);
    node.let_the_grace_pass();
    let mut daemon = node.daemon(&policy);
    until(&mut daemon, "the session of the job ends", || {
        !before_the_job.is_alive()
    });
    until(&mut daemon, "the notice is done with", || {
        node.notice().is_none()
    });
    daemon.turn();
    assert!(observer.is_alive() && node.notice().is_none());
}

#[test]
fn a_user_whom_the_configuration_exempts_may_be_idle_for_as_long_as_it_takes() {
    let node = Node::new();
    node.job();
    let mut support = node.login("support", &[7]);
    let mut alice = node.login("alice", &[7]);
    let mut daemon = node.daemon("grace = '0'\nidle_after = '300ms'\nexempt_users = ['support']");
    until(&mut daemon, "the idle session ends", || !alice.is_alive());
    for _ in 0..20 {
        daemon.turn();
        thread::sleep(Duration::from_millis(20));
    }
    assert!(support.is_alive());
}

#[test]
fn an_idle_session_has_the_whole_grace_however_late_it_is_warned() {
    let node = Node::new();
    node.job();
    let mut alice = node.login("alice", &[7]);
    let mut daemon = node.daemon("grace = '1s'\nidle_after = '300ms'");
    daemon.turn();
    // The daemon is stopped for a while.
    thread::sleep(Duration::from_millis(1500));
    daemon.turn();
    let warned = Clock::now();
    until(&mut daemon, "the idle session ends", || !alice.is_alive());
    assert!(warned.elapsed() >= Duration::from_millis(900));
}

#[test]
fn a_sweep_that_only_looks_tells_whom_one_that_acts_would_end() {
    let node = Node::new();
    let _unbound = node.login("observer", &[]);
    let _bound = node.login("alice", &[6]);
    let shown = |logout: &str| {
        let output = node.program(logout, &["sweep", "--dry-run"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = shown("");
    assert!(all.contains("would end: alice") && all.contains("would end: observer"));
    let some = shown("require_job = false");
    assert!(
        some.contains("would end: alice") && some.contains("stays: observer"),
        "{some}"
    );
}

#[test]
fn everything_of_a_uid_is_killed_at_once_only_if_all_of_it_is_to_end() {
    let node = Node::new();
    let mut one = node.login("alice", &[]);
    let mut other = node.login("alice", &[]);
    let user = User::new(Uid(alice()));
    let pids = |logins: &[&Login]| logins.iter().map(|it| Pid(it.leader.id())).collect();
    let all = Processes::scan().unwrap();
    let refused = killall::of_user(&user, &all, &pids(&[&one])).unwrap_err();
    assert!(
        refused.contains("belongs to none of these sessions"),
        "{refused}"
    );
    assert!(one.is_alive() && other.is_alive());
    killall::of_user(&user, &all, &pids(&[&one, &other])).unwrap();
    for login in [&mut one, &mut other] {
        assert!(!login.leader.wait().unwrap().success());
    }
    assert!(killall::of_user(&User::new(Uid::ROOT), &Processes::default(), &pids(&[])).is_err());
}

#[test]
fn wrong_use_is_told_from_what_cannot_be_had_and_asking_for_help_is_neither() {
    let node = Node::new();
    for (arguments, code) in [
        (&["no-such-command"][..], 64),
        (&["sweep", "--no-such-option"], 64),
        (&["end"], 64),
        (&["end", "nobody-here"], 64),
        (&[], 64),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let output = node.program("", arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
    }
    for (argument, code) in [("--no-such-option", 64), ("--version", 0)] {
        let daemon = Command::new(env!("CARGO_BIN_EXE_slurm-logoutd"))
            .arg(argument)
            .output()
            .unwrap();
        assert_eq!(daemon.status.code(), Some(code), "{daemon:?}");
    }
}
