//! Control groups of slurm-efa's own, one for each session that has no scope
//! which can be killed as a whole.
//!
//! The module makes `slurm-efa-logins/PID-START-NS` and enters it before the
//! user's first process exists: nothing that a user starts can leave it,
//! whatever it forks and whatever uid it takes. The name is that of the process
//! that opened the session, so no record is needed to find the group.
//!
//! | hierarchy | used for |
//! |---|---|
//! | v2, at `/sys/fs/cgroup` or `/sys/fs/cgroup/unified` | `cgroup.freeze`, `cgroup.kill` |
//! | v1, `/sys/fs/cgroup/freezer` | `freezer.state`, SIGKILL while it is frozen |
//!
//! The folder lies at the top of the hierarchy, where neither Slurm nor systemd
//! has anything. No limit is set in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use host::Pid;
use host::process::{ProcessIdentity, read};
use slurm::job_cgroup;

/// The folder of the groups.
const FOLDER: &str = "slurm-efa-logins";

/// More groups are not made: a session then ends without one.
const MOST: u64 = 10_000;

/// With this many, those that are empty are removed at a login.
const MANY: u64 = 1000;

/// Most bytes read of a list of processes.
const LONGEST: u64 = 4 << 20;

/// How often a group that freezes is looked at.
const POLL: Duration = Duration::from_millis(2);

/// From linux/magic.h.
const CGROUP_V1: u64 = 0x0027_e0eb;
const CGROUP_V2: u64 = 0x6367_7270;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The freezer of v1.
    Freezer,
    /// v2.
    Unified,
}

/// A group of processes that can be frozen and killed as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    dir: PathBuf,
    version: Version,
    /// Made by slurm-efa, not by logind.
    own: bool,
}

/// The hierarchies that are mounted where systemd and Slurm expect them.
fn hierarchies() -> impl Iterator<Item = (PathBuf, Version)> {
    let candidates = [
        ("/sys/fs/cgroup", CGROUP_V2, Version::Unified),
        ("/sys/fs/cgroup/unified", CGROUP_V2, Version::Unified),
        ("/sys/fs/cgroup/freezer", CGROUP_V1, Version::Freezer),
    ];
    candidates.into_iter().filter_map(|(path, magic, version)| {
        let found = rustix::fs::statfs(path).ok()?;
        (u64::try_from(found.f_type).ok()? == magic).then(|| (PathBuf::from(path), version))
    })
}

/// The group's name; a process number counts in one PID namespace only.
fn name(leader: ProcessIdentity) -> Option<String> {
    static NAMESPACE: OnceLock<Option<u64>> = OnceLock::new();
    let find = || Some(fs::metadata("/proc/self/ns/pid").ok()?.ino());
    let namespace = (*NAMESPACE.get_or_init(find))?;
    Some(format!("{}-{}-{namespace}", leader.pid.0, leader.start))
}

/// The leader whose group has this name, in the PID namespace of this process.
fn leader_of(text: &str) -> Option<ProcessIdentity> {
    let mut parts = text.splitn(3, '-');
    let identity = ProcessIdentity {
        pid: Pid(parts.next()?.parse().ok()?),
        start: parts.next()?.parse().ok()?,
    };
    (name(identity)? == text).then_some(identity)
}

/// The leaders of the sessions into whose groups the text of
/// `/proc/PID/cgroup` places a process. A user may make a group of such a name
/// elsewhere, but only the user's own processes can be in it.
#[must_use]
pub fn leaders(text: &[u8]) -> Vec<ProcessIdentity> {
    let group = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let (_, rest) = line.split_once("/slurm-efa-logins/")?;
        leader_of(rest.split('/').next()?)
    };
    text.split(|byte| *byte == b'\n')
        .filter_map(group)
        .collect()
}

/// Puts the calling process, which opens a session, into a group for it.
/// `None`: it needs none, since its scope can be killed as a whole, or it is in
/// a group of Slurm's.
///
/// # Errors
/// There is no group. The session continues without one.
pub fn enter(leader: ProcessIdentity, scope: Option<&str>) -> io::Result<Option<Group>> {
    let own = read(leader.pid, "cgroup")?.unwrap_or_default();
    if job_cgroup::is_slurms(&own) || scope.and_then(Group::of_scope).is_some() {
        return Ok(None);
    }
    let mut last = io::Error::other("neither cgroup v2 nor the freezer of v1 is mounted");
    for (mount, version) in hierarchies() {
        match make(&mount, version, leader) {
            Ok(group) => return Ok(Some(group)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn make(mount: &Path, version: Version, leader: ProcessIdentity) -> io::Result<Group> {
    let folder = mount.join(FOLDER);
    make_dir(&folder)?;
    // The kernel counts the groups in it as links.
    if fs::metadata(&folder)?.nlink() > MANY {
        sweep_folder(&folder);
    }
    if fs::metadata(&folder)?.nlink() > MOST {
        return Err(io::Error::other(format!(
            "{} has more than {MOST} groups",
            folder.display()
        )));
    }
    let name = name(leader).ok_or_else(|| io::Error::other("/proc/self/ns/pid is not there"))?;
    let group = Group {
        dir: folder.join(name),
        version,
        own: true,
    };
    make_dir(&group.dir)?;
    let entered = if group.can_freeze() {
        // 0 is the process that writes.
        fs::write(group.dir.join("cgroup.procs"), "0")
    } else {
        Err(io::Error::other("this kernel cannot freeze its groups"))
    };
    if let Err(error) = entered {
        let _ = fs::remove_dir(&group.dir);
        return Err(error);
    }
    Ok(group)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes the empty groups of sessions whose leader has ended, and lets go on
/// what was frozen when its daemon was killed.
pub fn sweep() {
    for (mount, _) in hierarchies() {
        sweep_folder(&mount.join(FOLDER));
    }
}

fn sweep_folder(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let leader = entry.file_name().to_str().and_then(leader_of);
        if leader.is_some_and(|leader| !leader.is_alive()) {
            // Fails while a process is in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Lets all groups go on: one may have been frozen when its daemon was killed.
pub fn thaw_all() {
    for (mount, version) in hierarchies() {
        for entry in fs::read_dir(mount.join(FOLDER))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_str().and_then(leader_of).is_some() {
                Group {
                    dir: entry.path(),
                    version,
                    own: true,
                }
                .set_frozen(false);
            }
        }
    }
}

impl Group {
    /// The group that the session with this leader has.
    #[must_use]
    pub fn of(leader: ProcessIdentity) -> Option<Self> {
        let name = name(leader)?;
        hierarchies().find_map(|(mount, version)| {
            let dir = mount.join(FOLDER).join(&name);
            dir.is_dir().then_some(Self {
                dir,
                version,
                own: true,
            })
        })
    }

    /// logind's scope of this path, where the kernel can freeze it.
    #[must_use]
    pub fn of_scope(scope: &str) -> Option<Self> {
        let unified = hierarchies().filter(|(_, version)| *version == Version::Unified);
        let mut groups = unified.map(|(mount, version)| Self {
            dir: mount.join(scope.trim_start_matches('/')),
            version,
            own: false,
        });
        groups.find(Self::can_freeze)
    }

    fn can_freeze(&self) -> bool {
        let file = match self.version {
            Version::Freezer => "freezer.state",
            Version::Unified => "cgroup.freeze",
        };
        self.dir.join(file).exists()
    }

    /// Whether nothing is in it. slurm-efa's own is removed to find out: that
    /// fails if and only if a process is in it, however fast it forks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        if self.own {
            return fs::remove_dir(&self.dir)
                .map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true);
        }
        fs::read_to_string(self.dir.join("cgroup.events"))
            .map_or(true, |text| text.lines().all(|line| line != "populated 1"))
    }

    /// The processes in it.
    #[must_use]
    pub fn members(&self) -> Vec<Pid> {
        use io::Read as _;
        let mut text = String::new();
        let _ = fs::File::open(self.dir.join("cgroup.procs"))
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        let numbers = text.lines().filter_map(|line| line.parse().ok());
        // 0 is a process of another PID namespace.
        numbers.filter(|pid| *pid != 0).map(Pid).collect()
    }

    fn set_frozen(&self, frozen: bool) {
        let (file, text) = match (self.version, frozen) {
            (Version::Freezer, true) => ("freezer.state", "FROZEN"),
            (Version::Freezer, false) => ("freezer.state", "THAWED"),
            (Version::Unified, true) => ("cgroup.freeze", "1"),
            (Version::Unified, false) => ("cgroup.freeze", "0"),
        };
        // What cannot be frozen is killed all the same.
        let _ = fs::write(self.dir.join(file), text);
    }

    fn still_runs(&self) -> bool {
        let (file, wanted) = match self.version {
            Version::Freezer => ("freezer.state", "FROZEN"),
            Version::Unified => ("cgroup.events", "frozen 1"),
        };
        let text = fs::read_to_string(self.dir.join(file));
        self.wants_freezing() && text.is_ok_and(|text| text.lines().all(|line| line != wanted))
    }

    /// Takes a process out of it, into the folder above.
    fn move_out(&self, pid: Pid) -> io::Result<()> {
        let above = self.dir.parent().unwrap_or(&self.dir);
        match fs::write(above.join("cgroup.procs"), pid.0.to_string()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Kills whatever is in it, where the kernel has `cgroup.kill`.
    fn kill_all(&self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
    }

    /// logind's scope is frozen only where it cannot be killed otherwise.
    fn wants_freezing(&self) -> bool {
        self.own || !self.dir.join("cgroup.kill").exists()
    }
}

/// Groups that stand still: nothing in them forks or changes its uid. They go
/// on when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Group>);

impl Frozen {
    /// Freezes groups and waits until they are frozen, or for `longest`: a
    /// process that waits in the kernel cannot be, and does nothing either.
    #[must_use]
    pub fn new(groups: Vec<Group>, longest: Duration) -> Self {
        let own = Pid(std::process::id());
        let mut frozen = Self(Vec::new());
        for group in groups {
            // Somebody may have started this very program in the session.
            let inside = group.members().contains(&own);
            if inside && !(group.own && group.move_out(own).is_ok()) {
                continue;
            }
            if group.wants_freezing() {
                group.set_frozen(true);
            }
            frozen.0.push(group);
        }
        let until = Instant::now() + longest;
        while frozen.0.iter().any(Group::still_runs) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        frozen
    }

    /// Kills everything in the groups but `spared`, which leave the group.
    /// logind's scope ends as a whole, as logind itself does it.
    pub fn kill(&self, spared: impl Fn(Pid) -> bool) {
        for group in &self.0 {
            let mut only_ours = true;
            for pid in group.members() {
                if group.own && spared(pid) {
                    only_ours &= group.move_out(pid).is_ok();
                } else if let Ok(Some(identity)) = ProcessIdentity::of(pid) {
                    let _ = identity.signal(rustix::process::Signal::KILL);
                }
            }
            if only_ours {
                group.kill_all();
            }
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let frozen = self.0.iter().filter(|it| it.wants_freezing());
        frozen.for_each(|group| group.set_frozen(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEADER: ProcessIdentity = ProcessIdentity {
        pid: Pid(42),
        start: 123,
    };

    #[test]
    fn a_group_is_named_by_its_leader_and_the_namespace_of_the_number() {
        let name = name(LEADER).unwrap();
        assert_eq!(leader_of(&name), Some(LEADER));
        for other in ["42-123", "42-123-1", "+42-123-1", "x", ""] {
            assert_eq!(leader_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_is_placed_by_the_whole_name_of_the_group() {
        let path = format!("/{FOLDER}/{}", name(LEADER).unwrap());
        for (line, inside) in [
            (format!("0::{path}"), true),
            (format!("4:freezer:{path}\n0::/"), true),
            (format!("0::/docker/abc{path}/below"), true),
            // A group of a user's making hides no other.
            (
                format!("1:name=systemd:/x/{FOLDER}/1-2-3\n4:freezer:{path}"),
                true,
            ),
            (format!("0::{path}1"), false),
            (format!("0::/{FOLDER}/1{}", name(LEADER).unwrap()), false),
            ("0::/".to_owned(), false),
        ] {
            assert_eq!(leaders(line.as_bytes()).contains(&LEADER), inside, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = leaders(&bytes);
        }
    }
}
