//! Which jobs have a slurmstepd on this node, by asking it.
//!
//! Every step's slurmstepd listens on
//! `<SlurmdSpoolDir>/<NodeName>_<jobid>.<stepid>[.<het component>]`, in every
//! release from 20.11 to 26.05, and answers anyone who connects. All numbers are
//! 32 bits in the machine's byte order:
//!
//! | we send | it answers |
//! |---|---|
//! | a protocol version, at least the oldest that it supports | its own, or −1 |
//! | 20, `REQUEST_STEP_UID` | the job's uid |
//! | 5, `REQUEST_STATE` | 0 not running, 1 starting, 2 running, 3 and more ending |
//!
//! A file that nobody listens on is what a killed slurmstepd left. A slurmstepd
//! that is stopped, or answers anything else, is alive in a way that we do not
//! know: its job counts as existing.
//!
//! slurmstepd listens as root. In a spool directory that others may write,
//! anybody may put a socket, so only an answer of root, or of the user this
//! process acts as, is believed: nobody is admitted by another one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::NodeName;
use crate::{JobId, JobKey};
use host::Gather;
use host::sysroot::shown;
use host::{Deadline, Pid, Uid};

/// The step id of the extern step, which lives as long as its job
/// (`PrologFlags=Contain`).
pub const EXTERN: u32 = 0xffff_fffc;

/// The version we say. slurmstepd only looks whether it is at least the oldest
/// one it supports, which grows with every release, and neither question's
/// answer depends on it; so this is higher than any.
const VERSION: i32 = 0x7fff;
const STEP_UID: i32 = 20;
const STATE: i32 = 5;
/// From this number on a step is ending (3 in 22.05; 24.11 has 3 cancelled and
/// 4 ending).
const ENDING: i32 = 3;
/// Most that a state can be; more is not an answer of slurmstepd.
const LARGEST_STATE: i32 = 15;

/// Answers to version, uid and state.
const ANSWER: usize = 12;

/// Sockets open at a time: a host such as slurmd may have few descriptors left.
const AT_ONCE: usize = 32;

/// Most sockets of a node that are looked at.
const MOST_SOCKETS: usize = 64 * 1024;

/// Why nothing is known of a node's steps. Never read it as "there are none".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepdError {
    /// The spool directory cannot be listed.
    #[error(
        "cannot list {}: {source}; `scontrol show config` tells SlurmdSpoolDir",
        shown(path)
    )]
    Spool {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// More sockets than a node can have steps.
    #[error("{}: more than {MOST_SOCKETS} sockets", shown(path))]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// How long slurmstepd may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For one socket. All are asked at the same time, 32 at once.
    pub each: Duration,
    /// For everything.
    pub all: Deadline,
}

/// A step, as a socket's name tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Its job.
    pub job: JobId,
    /// Its number, or [`EXTERN`] and the like.
    pub step: u32,
    /// Its component of a heterogeneous step.
    pub component: Option<u32>,
}

impl Step {
    /// Reads `<node>_<job>.<step>[.<component>]` of this node.
    #[must_use]
    pub fn of_socket(name: &str, node: &NodeName) -> Option<Self> {
        let (its, step) = Self::of_any_socket(name)?;
        (its == node.as_str()).then_some(step)
    }

    /// Reads a socket's name, of whichever node. The numbers hold no `_`, so
    /// what is before the last one is the node's name.
    #[must_use]
    pub fn of_any_socket(name: &str) -> Option<(&str, Self)> {
        let (node, rest) = name.rsplit_once('_')?;
        let mut numbers = rest.split('.');
        let step = Self {
            job: JobId(number(numbers.next()?)?),
            step: number(numbers.next()?)?,
            component: match numbers.next() {
                Some(text) => Some(number(text)?),
                None => None,
            },
        };
        numbers.next().is_none().then_some((node, step))
    }
}

/// Digits only: `parse` would also take a `+`.
pub fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// What a job's slurmstepds say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// At least one step has not begun to end.
    Alive {
        /// The job's user.
        uid: Uid,
    },
    /// All steps that live are ending.
    Ending {
        /// The job's user.
        uid: Uid,
    },
    /// Someone listens who hangs, speaks otherwise, or could not be asked in
    /// time, and no other step is alive: the job counts as existing.
    Unknown,
    /// Nobody listens.
    Gone,
}

/// The jobs that have a slurmstepd; those whose sockets are all dead are left
/// out.
pub type LiveJobs = BTreeMap<JobId, JobState>;

/// All jobs with a slurmstepd on the node.
///
/// # Errors
/// [`StepdError`]: nothing is known. A single socket that fails is not an error
/// but [`JobState::Unknown`].
pub fn live_jobs(
    spool_dir: &Path,
    node: &NodeName,
    limits: Limits,
) -> Result<LiveJobs, StepdError> {
    let sockets = Sockets::list(spool_dir, node)?;
    Ok(sockets.live(|_| true, limits))
}

/// The sockets of a node that are there, dead or alive.
#[derive(Debug)]
pub struct Sockets {
    /// Keeps names short enough for a socket's address, and the directory the
    /// same while it is looked at.
    dir: Arc<File>,
    by_job: BTreeMap<JobId, Vec<String>>,
}

impl Sockets {
    /// Lists them without connecting to any.
    ///
    /// # Errors
    /// [`StepdError`]: nothing is known.
    pub fn list(spool_dir: &Path, node: &NodeName) -> Result<Self, StepdError> {
        let (dir, mut nodes) = scan(spool_dir, |name| name == node.as_str())?;
        let by_job = nodes.remove(node.as_str()).unwrap_or_default();
        Ok(Self { dir, by_job })
    }

    /// Lists those of every node that has some in the directory.
    ///
    /// # Errors
    /// [`StepdError`]: nothing is known.
    pub fn of_all_nodes(spool_dir: &Path) -> Result<BTreeMap<NodeName, Self>, StepdError> {
        let (dir, nodes) = scan(spool_dir, |_| true)?;
        let sockets = |(name, by_job): (String, _)| {
            let dir = Arc::clone(&dir);
            // What is no node's name is no socket of slurmstepd's.
            Some((name.parse().ok()?, Self { dir, by_job }))
        };
        Ok(nodes.into_iter().filter_map(sockets).gather())
    }

    /// Asks the sockets of these jobs; jobs whose sockets are all dead are left
    /// out.
    #[must_use]
    pub fn live(&self, wanted: impl Fn(JobId) -> bool, limits: Limits) -> LiveJobs {
        let wanted = self.by_job.iter().filter(|(job, _)| wanted(**job));
        let all: Vec<(JobId, &str)> = wanted
            .flat_map(|(job, names)| names.iter().map(|name| (*job, name.as_str())))
            .collect();
        let mut jobs = LiveJobs::new();
        for chunk in all.chunks(AT_ONCE) {
            let names: Vec<&str> = chunk.iter().map(|(_, name)| *name).collect();
            for ((job, _), state) in chunk.iter().zip(self.ask(&names, limits)) {
                let known = jobs.entry(*job).or_insert(JobState::Gone);
                *known = together(*known, state);
            }
        }
        jobs.retain(|_, state| *state != JobState::Gone);
        jobs
    }

    /// The jobs that have a socket, dead or alive.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.by_job.keys().copied()
    }

    /// Whether the job has a socket, dead or alive.
    #[must_use]
    pub fn has(&self, job: JobId) -> bool {
        self.by_job.contains_key(&job)
    }

    /// The processes that listen on the job's sockets, by number, for those
    /// who want to be told of their end: a killed slurmstepd leaves its socket,
    /// so nothing in the directory changes. Whoever does not answer is left out.
    #[must_use]
    pub fn listeners(&self, job: JobId) -> Vec<Pid> {
        let names = self.by_job.get(&job).into_iter().flatten();
        let sockets = names.filter_map(|name| self.connect(name).ok());
        sockets
            .filter_map(|socket| believed_listener(&socket))
            .collect()
    }

    /// Asks several sockets at the same time; one answer for each name.
    fn ask(&self, names: &[&str], limits: Limits) -> Vec<JobState> {
        let mut talks: Vec<Talk> = names.iter().map(|name| self.start(name)).collect();
        let until = Deadline::after(limits.each.min(limits.all.left()));
        loop {
            let mut waiting: Vec<&mut Talk> = talks
                .iter_mut()
                .filter(|talk| talk.result.is_none())
                .collect();
            if waiting.is_empty() || until.passed() {
                break;
            }
            let mut polled: Vec<PollFd<'_>> = waiting
                .iter()
                .filter_map(|talk| Some(PollFd::new(talk.socket.as_ref()?, PollFlags::IN)))
                .collect();
            let timeout = Timespec::try_from(until.left()).ok();
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
            for (talk, ready) in waiting.iter_mut().zip(ready) {
                if ready {
                    talk.receive();
                }
            }
        }
        talks
            .into_iter()
            .map(|talk| talk.result.unwrap_or(JobState::Unknown))
            .collect()
    }

    /// Connects and sends everything at once: slurmstepd reads one number after
    /// the other, and what it does not read does not matter.
    fn start(&self, name: &str) -> Talk {
        let connected = self.connect(name).and_then(|socket| {
            if believed_listener(&socket).is_none() {
                return Err(Errno::ACCESS);
            }
            let questions: Vec<u8> = [VERSION, STEP_UID, STATE]
                .iter()
                .flat_map(|number| number.to_ne_bytes())
                .collect();
            // NOSIGNAL: a SIGPIPE would end our host process.
            match rustix::net::send(&socket, &questions, SendFlags::NOSIGNAL)? {
                sent if sent == questions.len() => Ok(socket),
                _ => Err(Errno::AGAIN),
            }
        });
        match connected {
            Ok(socket) => Talk::new(Some(socket), None),
            // Nobody listens, or the step ended just now.
            Err(Errno::CONNREFUSED | Errno::NOENT) => Talk::new(None, Some(JobState::Gone)),
            // AGAIN: its queue is full, so somebody does listen.
            Err(_) => Talk::new(None, Some(JobState::Unknown)),
        }
    }

    fn connect(&self, name: &str) -> Result<OwnedFd, Errno> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let path = format!("/proc/self/fd/{}/{name}", self.dir.as_fd().as_raw_fd());
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }
}

/// The process that listens on the other end, if it may be slurmstepd: root's,
/// or this process' user's.
fn believed_listener(socket: &OwnedFd) -> Option<Pid> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    let uid = Uid(peer.uid.as_raw());
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok()?;
    (uid.is_root() || uid == Uid::effective()).then_some(Pid(pid))
}

/// Whether the job's extern step has a socket, dead or alive, without reading
/// the directory. That it has none says nothing: a component of a
/// heterogeneous job has another name.
#[must_use]
pub fn has_extern(spool_dir: &Path, key: &JobKey) -> bool {
    let name = format!("{}_{}.{EXTERN}", key.node, key.job);
    fs::symlink_metadata(spool_dir.join(name)).is_ok_and(|it| it.file_type().is_socket())
}

/// What the job's own sockets say. [`JobState::Gone`] if it has none.
#[must_use]
pub fn ask_job(sockets: &Sockets, job: JobId, limits: Limits) -> JobState {
    let live = sockets.live(|it| it == job, limits);
    live.get(&job).copied().unwrap_or(JobState::Gone)
}

/// The names of sockets, by node and job.
type Names = BTreeMap<String, BTreeMap<JobId, Vec<String>>>;

/// Reads a spool directory once; only nodes of these names.
fn scan(spool_dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<(Arc<File>, Names), StepdError> {
    let failed = |source| StepdError::Spool {
        path: spool_dir.to_owned(),
        source,
    };
    let dir = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(spool_dir)
        .map_err(failed)?;
    let mut nodes = Names::new();
    let mut count = 0;
    let entries = rustix::fs::Dir::read_from(&dir).map_err(|errno| failed(errno.into()))?;
    for entry in entries {
        let entry = entry.map_err(|errno| failed(errno.into()))?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let Some((node, step)) = Step::of_any_socket(name).filter(|(node, _)| wanted(node)) else {
            continue;
        };
        count += 1;
        if count > MOST_SOCKETS {
            return Err(StepdError::TooMany {
                path: spool_dir.to_owned(),
            });
        }
        if !nodes.contains_key(node) {
            nodes.insert(node.to_owned(), BTreeMap::new());
        }
        if let Some(jobs) = nodes.get_mut(node) {
            jobs.entry(step.job).or_default().push(name.to_owned());
        }
    }
    Ok((Arc::new(dir), nodes))
}

/// The job's state from those of two of its steps: whatever keeps it alive wins.
fn together(one: JobState, other: JobState) -> JobState {
    use JobState::{Alive, Ending, Gone, Unknown};
    match (one, other) {
        (Alive { uid }, _) | (_, Alive { uid }) => Alive { uid },
        (Unknown, _) | (_, Unknown) => Unknown,
        (Ending { uid }, _) | (_, Ending { uid }) => Ending { uid },
        (Gone, Gone) => Gone,
    }
}

/// A conversation with one slurmstepd.
struct Talk {
    socket: Option<OwnedFd>,
    answer: Vec<u8>,
    result: Option<JobState>,
}

impl Talk {
    fn new(socket: Option<OwnedFd>, result: Option<JobState>) -> Self {
        Self {
            socket,
            answer: Vec::with_capacity(ANSWER),
            result,
        }
    }

    fn receive(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        let mut buffer = [0; ANSWER];
        let room = &mut buffer[..ANSWER.saturating_sub(self.answer.len())];
        match rustix::net::recv(socket, room, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((got, _)) if got > 0 => {
                self.answer.extend_from_slice(&buffer[..got.min(ANSWER)]);
                if self.answer.len() < ANSWER {
                    return;
                }
                self.result = Some(judge(&self.answer).unwrap_or(JobState::Unknown));
            }
            // It refuses to speak with us, or ended in the middle: it was there
            // a moment ago, so this is no proof that the job is gone.
            Ok(_) | Err(_) => self.result = Some(JobState::Unknown),
        }
        // Free its thread at once, and our descriptor.
        self.socket = None;
    }
}

fn judge(answer: &[u8]) -> Option<JobState> {
    let number = |at: usize| Some(i32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let (version, uid, state) = (number(0)?, number(4)?, number(8)?);
    let uid = Uid(u32::from_ne_bytes(uid.to_ne_bytes()));
    match state {
        _ if version <= 0 || uid.0 == u32::MAX => None,
        0..ENDING => Some(JobState::Alive { uid }),
        ENDING..=LARGEST_STATE => Some(JobState::Ending { uid }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    fn node() -> NodeName {
        "gpu_7.a".parse().unwrap()
    }

    fn limits() -> Limits {
        Limits {
            each: Duration::from_secs(10),
            all: Deadline::after(Duration::from_secs(20)),
        }
    }

    fn spool() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A slurmstepd that answers one connection with these bytes.
    fn stepd(dir: &tempfile::TempDir, name: &str, answer: Vec<u8>) {
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut questions = [0; 12];
            client.read_exact(&mut questions).unwrap();
            // Byte by byte, since a stream may come in any pieces.
            for byte in answer {
                let _ = client.write_all(&[byte]);
            }
        });
    }

    fn answer(version: i32, uid: i32, state: i32) -> Vec<u8> {
        [version, uid, state]
            .iter()
            .flat_map(|n| n.to_ne_bytes())
            .collect()
    }

    #[test]
    fn the_name_of_a_socket_tells_job_step_and_component_even_with_an_odd_node_name() {
        let step = |job, step, component| Step {
            job: JobId(job),
            step,
            component,
        };
        for (name, expected) in [
            ("gpu_7.a_12.0", Some(step(12, 0, None))),
            ("gpu_7.a_12.4294967292", Some(step(12, EXTERN, None))),
            ("gpu_7.a_12.3.1", Some(step(12, 3, Some(1)))),
            ("gpu_7.a_12", None),
            ("gpu_7.a_12.", None),
            ("gpu_7.a_+12.0", None),
            ("gpu_7.a_12.0.1.2", None),
            ("gpu_7.a_4294967296.0", None),
            ("gpu_7.a_b_12.0", None),
            ("gpu_7_12.0", None),
            ("cred_state", None),
        ] {
            assert_eq!(Step::of_socket(name, &node()), expected, "{name}");
        }
    }

    #[test]
    fn a_job_is_alive_with_one_living_step_and_ending_when_all_are() {
        let dir = spool();
        stepd(&dir, "gpu_7.a_1.0", answer(40 << 8, 20_001, 2));
        stepd(&dir, "gpu_7.a_1.4294967292", answer(40 << 8, 20_001, 4));
        stepd(&dir, "gpu_7.a_2.0", answer(40 << 8, 20_002, 3));
        stepd(&dir, "other_3.0", answer(40 << 8, 20_002, 3));
        let jobs = live_jobs(dir.path(), &node(), limits()).unwrap();
        let expected = [
            (JobId(1), JobState::Alive { uid: Uid(20_001) }),
            (JobId(2), JobState::Ending { uid: Uid(20_002) }),
        ];
        assert_eq!(jobs, expected.into());
    }

    #[test]
    fn what_nobody_listens_on_is_dead() {
        let dir = spool();
        drop(UnixListener::bind(dir.path().join("gpu_7.a_1.0")).unwrap());
        std::fs::write(dir.path().join("gpu_7.a_2.0"), "no socket").unwrap();
        let jobs = live_jobs(dir.path(), &node(), limits()).unwrap();
        assert_eq!(jobs, LiveJobs::new());
    }

    #[test]
    fn nonsense_a_refusal_and_an_early_end_are_unknown_and_not_gone() {
        let dir = spool();
        let nonsense = [
            answer(-1, 1, 2),
            answer(40 << 8, 1, -1),
            answer(40 << 8, 1, 1000),
            answer(40 << 8, -1, 2),
            answer(40 << 8, 1, 2)[..7].to_vec(),
            Vec::new(),
        ];
        let count = nonsense.len();
        for (job, bytes) in nonsense.into_iter().enumerate() {
            stepd(&dir, &format!("gpu_7.a_{job}.0"), bytes);
        }
        let jobs = live_jobs(dir.path(), &node(), limits()).unwrap();
        assert_eq!(jobs.len(), count);
        assert!(jobs.values().all(|state| *state == JobState::Unknown));
    }

    /// Runs as another process and user: see the test below.
    #[test]
    #[ignore = "a part of the test below"]
    fn inside_another_users_process() {
        let Some(path) = std::env::var_os("SOCKET") else {
            return;
        };
        let listener = UnixListener::bind(path).unwrap();
        println!("listens");
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(&answer(40 << 8, 20_001, 2));
        }
    }

    #[test]
    fn as_root_a_socket_that_another_user_listens_on_admits_nobody() {
        let dir = spool();
        // As a site has it that gave the folder away.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let program = dir.path().join("tests");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut other = Command::new("setpriv")
            .args(["--reuid=20001", "--regid=20001", "--clear-groups"])
            .arg(program)
            .args([
                "--exact",
                "stepd_sockets::tests::inside_another_users_process",
            ])
            .args(["--include-ignored", "--nocapture"])
            .env("SOCKET", dir.path().join("gpu_7.a_1.0"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listens")));
        stepd(&dir, "gpu_7.a_2.0", answer(40 << 8, 20_001, 2));
        let sockets = Sockets::list(dir.path(), &node()).unwrap();
        let jobs = sockets.live(|_| true, limits());
        let listeners = sockets.listeners(JobId(1));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(jobs[&JobId(1)], JobState::Unknown);
        assert_eq!(jobs[&JobId(2)], JobState::Alive { uid: Uid(20_001) });
        assert_eq!(listeners, []);
    }

    #[test]
    fn a_hundred_that_hang_cost_the_limit_and_are_unknown() {
        let dir = spool();
        let listeners: Vec<UnixListener> = (0..100)
            .map(|job| UnixListener::bind(dir.path().join(format!("gpu_7.a_{job}.0"))).unwrap())
            .collect();
        let start = Instant::now();
        let limits = Limits {
            each: Duration::from_secs(60),
            all: Deadline::after(Duration::from_millis(100)),
        };
        let jobs = live_jobs(dir.path(), &node(), limits).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(jobs.len(), listeners.len());
        assert!(jobs.values().all(|state| *state == JobState::Unknown));
    }

    #[test]
    fn one_with_a_full_queue_is_unknown_at_once() {
        let dir = spool();
        let path = dir.path().join("gpu_7.a_1.0");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let jobs = live_jobs(
            dir.path(),
            &node(),
            Limits {
                each: Duration::from_millis(50),
                all: Deadline::after(Duration::from_millis(50)),
            },
        );
        assert_eq!(jobs.unwrap(), [(JobId(1), JobState::Unknown)].into());
    }

    #[test]
    fn a_spool_directory_that_is_missing_is_an_error_and_not_an_empty_node() {
        let error = live_jobs(Path::new("/nonexistent"), &node(), limits()).unwrap_err();
        assert!(error.to_string().contains("SlurmdSpoolDir"), "{error}");
    }

    #[test]
    fn a_spool_directory_with_a_path_longer_than_a_socket_address_works() {
        let dir = spool();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        stepd(&dir, "gpu_7.a_1.0", answer(40 << 8, 5, 2));
        std::fs::rename(dir.path().join("gpu_7.a_1.0"), deep.join("gpu_7.a_1.0")).unwrap();
        let jobs = live_jobs(&deep, &node(), limits()).unwrap();
        assert_eq!(jobs, [(JobId(1), JobState::Alive { uid: Uid(5) })].into());
    }

    proptest! {
        #[test]
        fn no_name_and_no_answer_panics(name in ".{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = Step::of_socket(&name, &node());
            let _ = judge(&bytes);
        }
    }
}
