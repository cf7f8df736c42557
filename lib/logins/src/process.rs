//! `/proc`: which processes there are, whose they are, where they belong.
//!
//! Every text here is under users' control to some degree (a process names
//! itself as it likes, with any bytes), so numbers are read from behind the
//! name, as bytes, with a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use host::process::{ProcessIdentity, read, stat};
use host::{Pid, Uid};

/// The kernel's number of a login session (`/proc/PID/sessionid`), which
/// pam_loginuid sets and no user can change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct AuditSession(pub u32);

/// A process at the moment of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Which.
    pub identity: ProcessIdentity,
    /// Its parent's number.
    pub parent: Pid,
    /// The terminal's device number, if it has one.
    pub tty: Option<u32>,
    /// CPU time so far, in clock ticks.
    pub cpu: u64,
    /// It has ended and waits for its parent.
    pub zombie: bool,
    /// Its uids.
    pub uids: Uids,
}

/// Real, effective, saved and filesystem uid of a process, as the initial user
/// namespace counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uids(pub [Uid; 4]);

impl Uids {
    /// The real one, which only root changes to another account's.
    #[must_use]
    pub fn real(self) -> Uid {
        self.0[0]
    }

    /// The saved one.
    #[must_use]
    pub fn saved(self) -> Uid {
        self.0[2]
    }

    /// All four.
    pub fn iter(&self) -> impl Iterator<Item = &Uid> {
        self.0.iter()
    }
}

/// The uids from the text of `/proc/PID/status`.
#[must_use]
pub fn parse_uids(text: &[u8]) -> Option<Uids> {
    // The kernel escapes line breaks in the name, which stands above.
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut numbers = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let mut next = || numbers.next()?.parse().ok().map(Uid);
    Some(Uids([next()?, next()?, next()?, next()?]))
}

/// Whether the text of `/proc/PID/cgroup` places the process into this cgroup
/// or one below it.
#[must_use]
pub fn in_cgroup(text: &[u8], wanted: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let path = line.splitn(3, |byte| *byte == b':').nth(2);
        path.and_then(|path| path.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// The scope that logind made for a session of this user, from the text of
/// `/proc/PID/cgroup`. A process that root started for the user out of another
/// session (su) is in that session's scope, which is not this user's to end.
#[must_use]
pub fn session_scope(text: &[u8], uid: Uid) -> Option<String> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = std::str::from_utf8(line).ok()?.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        // The unified hierarchy, or the one that systemd has for itself beside v1.
        let systemds = controllers.is_empty() || controllers == "name=systemd";
        (systemds && logind_id(path, uid).is_some()).then(|| path.to_owned())
    })
}

/// logind's name of the session whose scope this is, if it is one of this user's.
#[must_use]
pub fn logind_id(scope: &str, uid: Uid) -> Option<&str> {
    let id = scope
        .strip_prefix(&format!("/user.slice/user-{uid}.slice/session-"))?
        .strip_suffix(".scope")?;
    let plain = (1..=32).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric());
    plain.then_some(id)
}

/// The kernel's login session of a process, if it has one.
#[must_use]
pub fn audit_session(pid: Pid) -> Option<AuditSession> {
    number(pid, "sessionid").map(AuditSession)
}

/// The uid that logged in to the session that a process belongs to, if one did.
#[must_use]
pub fn login_uid(pid: Pid) -> Option<Uid> {
    number(pid, "loginuid").map(Uid)
}

fn number(pid: Pid, file: &str) -> Option<u32> {
    let text = read(pid, file).ok()??;
    let number = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
    (number != u32::MAX).then_some(number)
}

/// All processes at the moment of looking.
#[derive(Debug, Default)]
pub struct Processes {
    all: BTreeMap<Pid, Process>,
    children: BTreeMap<Pid, Vec<Pid>>,
}

impl Processes {
    /// Looks. Processes that end meanwhile are left out.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn scan() -> io::Result<Self> {
        let mut found = Self::default();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).map(Pid) else {
                continue;
            };
            if let Some(process) = Process::of(pid) {
                found.add(process);
            }
        }
        Ok(found)
    }

    /// Adds one.
    pub fn add(&mut self, process: Process) {
        let pid = process.identity.pid;
        self.children.entry(process.parent).or_default().push(pid);
        self.all.insert(pid, process);
    }

    /// The process of this number.
    #[must_use]
    pub fn get(&self, pid: Pid) -> Option<&Process> {
        self.all.get(&pid)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.all.values()
    }

    /// This process, if it still runs, and all that descends from it.
    #[must_use]
    pub fn tree(&self, root: ProcessIdentity) -> BTreeSet<Pid> {
        let mut tree = BTreeSet::new();
        if self.get(root.pid).is_none_or(|it| it.identity != root) {
            return tree;
        }
        let mut open = vec![root.pid];
        while let Some(pid) = open.pop() {
            if tree.insert(pid) {
                open.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        tree
    }
}

impl Process {
    /// The process of this number, unless it has ended.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let stat = stat(pid).ok()??;
        let uids = parse_uids(&read(pid, "status").ok()??)?;
        Some(Self {
            identity: ProcessIdentity {
                pid,
                start: stat.start,
            },
            parent: stat.parent,
            tty: stat.tty,
            cpu: stat.cpu,
            zombie: stat.has_ended(),
            uids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_of_four_uids_is_the_real_one() {
        let text = b"Name:\tUid:\\n\xff\nState:\tS\nUid:\t20001\t1\t2\t3\n";
        let uids = parse_uids(text).unwrap();
        assert_eq!((uids.real(), uids.saved()), (Uid(20_001), Uid(2)));
        for text in [
            &b"Name:\tx\n"[..],
            b"Uid:\t1\t2\t3\n",
            b"Uid:\t1\t2\t3\tx\n",
        ] {
            assert_eq!(parse_uids(text), None);
        }
    }

    #[test]
    fn only_a_scope_of_logind_is_taken_for_one_and_holds_what_is_below_it() {
        let text = b"4:pids:/\n0::/user.slice/user-20001.slice/session-3.scope\n";
        let scope = session_scope(text, Uid(20_001)).unwrap();
        assert_eq!(scope, "/user.slice/user-20001.slice/session-3.scope");
        assert_eq!(logind_id(&scope, Uid(20_001)), Some("3"));
        let hybrid = format!("2:cpu:/\n1:name=systemd:{scope}\n0::/\n");
        assert_eq!(
            session_scope(hybrid.as_bytes(), Uid(20_001)),
            Some(scope.clone())
        );
        assert!(in_cgroup(text, &scope));
        assert!(in_cgroup(format!("0::{scope}/deeper").as_bytes(), &scope));
        assert!(!in_cgroup(format!("0::{scope}x").as_bytes(), &scope));
        for other in [
            "0::/system.slice/sshd.service",
            "0::/",
            "0::/session-3.scope",
        ] {
            assert_eq!(
                session_scope(other.as_bytes(), Uid(20_001)),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn the_scope_of_another_user_or_below_a_users_own_one_is_no_sessions() {
        for other in [
            "0::/user.slice/user-0.slice/session-3.scope",
            "0::/user.slice/user-200010.slice/session-3.scope",
            "0::/user.slice/user-20001.slice/user@20001.service/session-3.scope",
            "0::/user.slice/user-20001.slice/session-3.scope/session-4.scope",
            "0::/user.slice/user-20001.slice/session-../x.scope",
            "0::/user.slice/user-20001.slice/session-.scope",
            "0::/../user.slice/user-20001.slice/session-3.scope",
            "5:cpu:/user.slice/user-20001.slice/session-3.scope",
        ] {
            assert_eq!(
                session_scope(other.as_bytes(), Uid(20_001)),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn the_tree_of_a_number_that_was_used_again_is_empty() {
        let own = ProcessIdentity::of(Pid(std::process::id()))
            .unwrap()
            .unwrap();
        let all = Processes::scan().unwrap();
        assert!(all.tree(own).contains(&own.pid));
        let earlier = ProcessIdentity {
            start: own.start - 1,
            ..own
        };
        assert!(all.tree(earlier).is_empty());
        assert!(own.is_alive() && !earlier.is_alive());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_uids(&bytes);
            let _ = (session_scope(&bytes, Uid(1)), in_cgroup(&bytes, "/x"));
        }
    }
}
