//! Whose a process is, and to which session it belongs.
//!
//! Everything that ends, watches or counts processes asks [`belongs`]. It never
//! relies on the real uid alone: in a user namespace of their own, users run
//! processes under any uid of their ranges in `/etc/subuid`. What they cannot
//! change is the audit session with its login uid, the session's control group,
//! and who owns the user namespace.
//!
//! | evidence | the process is the user's |
//! |---|---|
//! | real uid 0, as the initial user namespace counts | no |
//! | real uid is the user's, or the user owns a user namespace around it | yes |
//! | login uid of somebody else | no |
//! | effective, saved or filesystem uid is the user's | yes |
//! | login uid is the user's, and a subordinate uid or another user namespace | yes |
//! | no login uid, a subordinate uid, in the session's tree or control group | yes |
//! | anything else, such as `su` to another account | no |

use host::Uid;
use host::process::{ProcessIdentity, read};

use crate::group;
use crate::process;
use crate::process::{AuditSession, Process, Uids};
use crate::session::Session;

/// Most bytes of `/etc/subuid` that are read.
const MOST: u64 = 4 << 20;

/// A user with the uids that only this user's namespaces may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's own uid.
    pub uid: Uid,
    /// First and last uid of each range.
    ranges: Vec<(Uid, Uid)>,
}

impl User {
    /// A user without subordinate uids.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            ranges: Vec::new(),
        }
    }

    /// A user with the ranges of `/etc/subuid` as it is now.
    #[must_use]
    pub fn look_up(uid: Uid, name: &str) -> Self {
        use std::io::Read as _;
        let mut text = Vec::new();
        // Without the file nobody has ranges.
        let _ = std::fs::File::open("/etc/subuid")
            .and_then(|file| file.take(MOST).read_to_end(&mut text));
        Self::parse(uid, name, &text)
    }

    /// A user with the ranges that the text of `/etc/subuid` gives by name or
    /// by number.
    #[must_use]
    pub fn parse(uid: Uid, name: &str, subuid: &[u8]) -> Self {
        let number = uid.to_string();
        let range = |line: &[u8]| {
            let mut fields = std::str::from_utf8(line).ok()?.trim().split(':');
            let owner = fields.next()?;
            let first: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let theirs = owner == name || owner == number;
            // Root's own uid is never subordinate to anybody.
            (theirs && first > 0 && count > 0)
                .then(|| (Uid(first), Uid(first.saturating_add(count - 1))))
        };
        let ranges = subuid.split(|byte| *byte == b'\n').filter_map(range);
        Self {
            uid,
            ranges: ranges.collect(),
        }
    }

    /// Whether a uid is one of the user's subordinate ones.
    #[must_use]
    pub fn has_subordinate(&self, uid: Uid) -> bool {
        let inside = |range: &(Uid, Uid)| (range.0..=range.1).contains(&uid);
        self.ranges.iter().any(inside)
    }

    /// Whether a process is this user's; `linked`: it is in the tree or in the
    /// control group of one of the user's sessions.
    fn owns(&self, identity: &ProcessOwner, linked: bool) -> bool {
        let ProcessOwner {
            uids,
            login,
            namespace,
        } = identity;
        let owners: &[Uid] = match namespace {
            Namespace::Foreign(owners) => owners,
            Namespace::Initial | Namespace::Unknown => &[],
        };
        let subordinate = uids.iter().chain(owners);
        let subordinate = subordinate.copied().any(|uid| self.has_subordinate(uid));
        if uids.real().is_root() {
            return false;
        }
        if uids.real() == self.uid || owners.contains(&self.uid) {
            return true;
        }
        match login {
            Some(login) if *login != self.uid => false,
            _ if uids.iter().any(|uid| *uid == self.uid) => true,
            Some(_) => subordinate || matches!(namespace, Namespace::Foreign(_)),
            None => subordinate && linked,
        }
    }
}

/// The user namespace of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// The one that this program runs in, too.
    Initial,
    /// Another one: who owns it and those around it, innermost first.
    Foreign(Vec<Uid>),
    /// It could not be read.
    Unknown,
}

/// What shows whose a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOwner {
    /// Its uids.
    pub uids: Uids,
    /// The uid that logged in (`/proc/PID/loginuid`), which no user can change.
    pub login: Option<Uid>,
    /// Its user namespace.
    pub namespace: Namespace,
}

/// What shows where a process belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Whose it is.
    pub identity: ProcessOwner,
    /// The kernel's login session.
    pub audit: Option<AuditSession>,
    /// The text of `/proc/PID/cgroup`.
    pub cgroup: Vec<u8>,
    /// The leaders of the sessions whose own groups it is in.
    pub groups: Vec<ProcessIdentity>,
}

impl Evidence {
    /// Looks at a process. What cannot be read is no evidence.
    #[must_use]
    pub fn of(process: &Process) -> Self {
        let pid = process.identity.pid;
        let cgroup = read(pid, "cgroup").ok().flatten().unwrap_or_default();
        Self {
            identity: ProcessOwner {
                uids: process.uids,
                login: process::login_uid(pid),
                namespace: crate::userns::of(pid),
            },
            audit: process::audit_session(pid),
            groups: group::leaders(&cgroup),
            cgroup,
        }
    }
}

/// What is asked of a process.
#[derive(Debug, Clone, Copy)]
pub enum Whole<'a> {
    /// Does it belong to this session? `descends`: it is in the session's tree.
    Session {
        /// The session.
        session: &'a Session,
        /// The process descends from the one that opened the session.
        descends: bool,
    },
    /// Is it the user's, wherever it runs?
    User,
}

/// Whether a process belongs to a session of this user, or to the user.
#[must_use]
pub fn belongs(evidence: &Evidence, user: &User, whole: Whole<'_>) -> bool {
    match whole {
        Whole::User => user.owns(&evidence.identity, false),
        Whole::Session { session, descends } => {
            let scope = session.scope.as_ref();
            let grouped = scope.is_some_and(|it| process::in_cgroup(&evidence.cgroup, it))
                || evidence.groups.contains(&session.leader);
            let audited = session.audit.is_some() && session.audit == evidence.audit;
            session.uid == user.uid
                && (descends || grouped || audited)
                && user.owns(&evidence.identity, descends || grouped)
        }
    }
}

/// [`belongs`] for a process that exists. It reads what decides, and nothing
/// more for root's processes, which are most.
#[must_use]
pub fn process_belongs(process: &Process, user: &User, whole: Whole<'_>) -> bool {
    let real = process.uids.real();
    let plain = matches!(
        whole,
        Whole::User | Whole::Session { descends: true, .. } if real == user.uid
    );
    !real.is_root() && (plain || belongs(&Evidence::of(process), user, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::PamItems;
    use host::BootId;
    use host::Pid;
    use proptest::prelude::*;

    const ALICE: Uid = Uid(20_001);
    const BOB: Uid = Uid(20_002);
    /// The first of alice's subordinate uids, and one of bob's.
    const SUB: Uid = Uid(100_000);
    const BOBS: Uid = Uid(165_536);

    /// Another of alice's subordinate uids.
    fn plus(more: u32) -> Uid {
        Uid(SUB.0 + more)
    }

    fn alice() -> User {
        User::parse(ALICE, "alice", b"alice:100000:65536\nbob:165536:65536\n")
    }

    fn session() -> Session {
        let leader = ProcessIdentity {
            pid: Pid(10),
            start: 7,
        };
        let boot = BootId::current().unwrap();
        let mut session = Session::new(boot, ALICE, "alice", leader, PamItems::default());
        session.audit = Some(AuditSession(5));
        session
    }

    fn identity(uids: [Uid; 4], login: Option<Uid>, namespace: Namespace) -> ProcessOwner {
        ProcessOwner {
            uids: Uids(uids),
            login,
            namespace,
        }
    }

    #[test]
    fn whoever_a_process_claims_to_be_it_is_the_users_by_what_users_cannot_change() {
        use Namespace::{Foreign, Initial, Unknown};
        let own = || Foreign(vec![ALICE]);
        let nested = || Foreign(vec![plus(6), ALICE]);
        for (what, uids, login, namespace, theirs) in [
            ("her own", [ALICE; 4], Some(ALICE), Initial, true),
            ("her own, without audit", [ALICE; 4], None, Initial, true),
            ("fake root", [ALICE; 4], Some(ALICE), own(), true),
            ("all subordinate", [SUB; 4], Some(ALICE), own(), true),
            ("the same, without audit", [SUB; 4], None, own(), true),
            (
                "real one only",
                [SUB, ALICE, ALICE, ALICE],
                None,
                own(),
                true,
            ),
            ("a namespace in hers", [plus(9); 4], None, nested(), true),
            (
                "ranges of another source",
                [Uid(9_000_000); 4],
                None,
                own(),
                true,
            ),
            (
                "subordinate, in what cannot be read",
                [SUB; 4],
                Some(ALICE),
                Unknown,
                true,
            ),
            (
                "anybody, in what cannot be read",
                [BOB; 4],
                Some(ALICE),
                Unknown,
                false,
            ),
            (
                "a file of SUB's, set-user-id",
                [SUB; 4],
                Some(ALICE),
                Initial,
                true,
            ),
            (
                "her set-user-id program",
                [ALICE, BOB, BOB, BOB],
                None,
                Initial,
                true,
            ),
            ("root", [Uid::ROOT; 4], Some(ALICE), Initial, false),
            (
                "root that entered her namespace",
                [Uid::ROOT; 4],
                None,
                own(),
                false,
            ),
            (
                "root's server that acts as her",
                [Uid::ROOT, ALICE, Uid::ROOT, ALICE],
                None,
                Initial,
                false,
            ),
            ("bob", [BOB; 4], Some(BOB), Initial, false),
            ("su to bob", [BOB; 4], Some(ALICE), Initial, false),
            (
                "bob runs her program",
                [BOB, ALICE, ALICE, ALICE],
                Some(BOB),
                Initial,
                false,
            ),
            (
                "bob's container",
                [BOBS; 4],
                Some(BOB),
                Foreign(vec![BOB]),
                false,
            ),
            (
                "an account within her range",
                [plus(500); 4],
                Some(plus(500)),
                Initial,
                false,
            ),
            (
                "the same, of a service",
                [plus(500); 4],
                None,
                Initial,
                false,
            ),
            (
                "root's container",
                [SUB; 4],
                None,
                Foreign(vec![Uid::ROOT]),
                false,
            ),
        ] {
            let identity = identity(uids, login, namespace);
            assert_eq!(alice().owns(&identity, false), theirs, "{what}");
        }
    }

    #[test]
    fn a_process_is_in_a_session_by_tree_audit_session_scope_or_group() {
        let evidence = |audit: Option<u32>, cgroup: &str, groups: &[ProcessIdentity]| Evidence {
            identity: identity([SUB; 4], None, Namespace::Foreign(vec![ALICE])),
            audit: audit.map(AuditSession),
            cgroup: cgroup.as_bytes().to_owned(),
            groups: groups.to_owned(),
        };
        let mut scoped = session();
        scoped.scope = Some("/user.slice/user-20001.slice/session-3.scope".to_owned());
        let other = ProcessIdentity {
            pid: Pid(11),
            start: 7,
        };
        let scope = "0::/user.slice/user-20001.slice/session-3.scope\n";
        for (what, evidence, descends, inside) in [
            ("tree", evidence(None, "", &[]), true, true),
            ("audit", evidence(Some(5), "", &[]), false, true),
            ("scope", evidence(None, scope, &[]), false, true),
            (
                "group",
                evidence(None, "", &[other, session().leader]),
                false,
                true,
            ),
            ("nothing", evidence(None, "0::/\n", &[]), false, false),
            (
                "another session",
                evidence(Some(6), "", &[other]),
                false,
                false,
            ),
        ] {
            let whole = Whole::Session {
                session: &scoped,
                descends,
            };
            assert_eq!(belongs(&evidence, &alice(), whole), inside, "{what}");
            assert!(!belongs(&evidence, &User::new(BOB), whole), "{what}");
        }
    }

    #[test]
    fn in_the_group_of_a_session_another_account_and_root_stay_their_own() {
        let whole = session();
        let whole = Whole::Session {
            session: &whole,
            descends: false,
        };
        for (uids, login, inside) in [
            ([SUB; 4], None, true),
            ([ALICE; 4], None, true),
            ([BOB; 4], Some(ALICE), false),
            ([Uid::ROOT; 4], Some(ALICE), false),
        ] {
            let evidence = Evidence {
                identity: identity(uids, login, Namespace::Initial),
                audit: Some(AuditSession(5)),
                cgroup: Vec::new(),
                groups: vec![session().leader],
            };
            assert_eq!(belongs(&evidence, &alice(), whole), inside, "{uids:?}");
        }
    }

    #[test]
    fn ranges_are_given_by_name_or_number_and_never_cover_root() {
        let text = b"alice:100000:10\n20001:300000:1\nbob:1:9\nalice:0:99\nalice:5\n\xff:1:1\n\
                     alice:4294967290:4294967295\nalicex:7:7\n";
        let alice = User::parse(ALICE, "alice", text);
        for uid in [100_000, 100_009, 300_000, u32::MAX] {
            assert!(alice.has_subordinate(Uid(uid)), "{uid}");
        }
        for uid in [0, 1, 7, 99_999, 100_010, 300_001, 4_294_967_289] {
            assert!(!alice.has_subordinate(Uid(uid)), "{uid}");
        }
    }

    proptest! {
        #[test]
        fn no_text_of_ranges_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = User::parse(Uid(1), "a", &bytes);
        }

        #[test]
        fn root_is_nobodys(uids in any::<[u32; 4]>(), login in any::<Option<u32>>(), linked in any::<bool>()) {
            let uids = [0, uids[1], uids[2], uids[3]].map(Uid);
            let identity = identity(uids, login.map(Uid), Namespace::Foreign(vec![ALICE]));
            prop_assert!(!alice().owns(&identity, linked));
        }
    }
}
