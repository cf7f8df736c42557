//! Reads the counters in a process that may hang, so that this one does not.
//!
//! A port counter makes the driver ask the device (an admin command), so a
//! read is the cheap proof that the device still answers; and it may hang in
//! the kernel, where no signal reaches it. So a child reads, and says on a pipe
//! which device it is at. Half of the limit is for one child that reads all
//! devices in a row. If it has not ended by then, the device it hangs on is
//! named, and each of the others gets a child of its own for the other half.
//! A device is stuck only if the child is, in the kernel, where not even SIGKILL
//! ends it (see [`host::late`]); a child that ends was late for another reason.
//!
//! The child opens and reads as `cat` would: a FIFO in a simulated tree makes
//! it late, and a file system whose server is silent makes it hang as a dead
//! device would.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use efa::reader_locks::{self, ReaderLocks, cannot_be_ended};
use host::late;
use host::late::{Fate, Late};
use host::process;
use host::process::ProcessIdentity;
use host::{Pid, Sysroot, Uid, printable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::counters::{self, Wanted};
use crate::own_program;

/// The hidden first argument of the child.
pub const READER: &str = efa::counter_reader::CHILD;

/// What the child says first. One that never got so far, because its own
/// program could not be loaded in time, says nothing about a device.
const BEGUN: &str = "+";

/// A counter of sysfs has at most a page; a number of 64 bits far less.
const LARGEST: usize = 64;

/// Children at one time, however many devices a tree claims to have.
const MOST_CHILDREN: usize = 64;

/// So long the parent waits for a child's end and for nothing it says: to be
/// woken for each device would cost more than the reads themselves.
const QUIET: Duration = Duration::from_millis(50);

/// What reading the counters of one device gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The counters that the driver has.
    Values(BTreeMap<&'static str, u64>),
    /// A read failed.
    Failed {
        /// Counter and reason.
        reason: String,
    },
    /// A read failed because the device does not answer its driver.
    Dead {
        /// Counter and reason.
        reason: String,
    },
    /// A read never came back.
    Stuck {
        /// The process that hangs.
        holder: ProcessIdentity,
    },
    /// It could not be found out.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Reads the counters of `devices`, in at most `limit` and three times
/// [`late::PATIENCE`], and does something else `meanwhile`.
///
/// A device is not read again while a process hangs on it, of whichever program:
/// such processes must not pile up. `held` are those of an earlier round; others
/// are known by their lock in `state_dir` ([`ReaderLocks`]). Who may not open root's
/// locks has his own, and reads nothing while a reader hangs that they do not explain.
#[must_use]
pub fn probe(
    sysroot: &Sysroot,
    state_dir: &Path,
    devices: &[&str],
    wanted: Wanted,
    limit: Duration,
    held: &BTreeMap<String, ProcessIdentity>,
    meanwhile: impl FnOnce(),
) -> Vec<Probe> {
    let start = Instant::now();
    let (locks, state_dir) = locks_of(state_dir);
    let mut found: Vec<Option<Probe>> = devices
        .iter()
        .map(|name| {
            let known = held.get(*name).copied().filter(|it| it.is_alive());
            let holder = known.or_else(|| hanging(locks.as_ref()?, name))?;
            Some(Probe::Stuck { holder })
        })
        .collect();
    if !Uid::effective().is_root() {
        spare_root(sysroot, &mut found);
    }
    let mut readers = Readers {
        sysroot,
        state_dir: &state_dir,
        devices,
        wanted,
        found: &mut found,
        running: Vec::new(),
    };
    readers.start(&readers.open());
    meanwhile();
    readers.wait(start + (limit / 16).min(QUIET));
    readers.drive(start + limit / 2);
    readers.stop(limit / 4);
    let open = readers.open();
    for some in open.chunks(open.len().div_ceil(MOST_CHILDREN).max(1)) {
        readers.start(some);
    }
    readers.drive(Instant::now() + limit / 2);
    readers.stop(Duration::ZERO);
    if let Some(locks) = &locks {
        readers.judge_holders(locks);
    }
    found
        .into_iter()
        .map(|probe| {
            probe.unwrap_or_else(|| Probe::Unknown {
                reason: format!(
                    "no answer within {} ms, but no read hangs in the kernel; the node may be too \
                     busy",
                    limit.as_millis()
                ),
            })
        })
        .collect()
}

/// The locks of readers, and their folder: root's in the state directory, or else
/// this user's own.
fn locks_of(state_dir: &Path) -> (Option<ReaderLocks>, PathBuf) {
    let uid = Uid::effective();
    if let Some(locks) = ReaderLocks::open(state_dir) {
        return (Some(locks), state_dir.to_owned());
    }
    if uid.is_root() {
        return (None, state_dir.to_owned());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = match runtime.filter(|folder| folder.is_absolute()) {
        Some(runtime) => runtime.join("slurm-efa"),
        None => std::env::temp_dir().join(format!("slurm-efa-{uid}")),
    };
    (ReaderLocks::open_own(&own), own)
}

/// Leaves all devices alone while a reader hangs, of root or of this user, at a device
/// that is not known here.
fn spare_root(sysroot: &Sysroot, found: &mut [Option<Probe>]) {
    let mut hanging = reader_locks::hanging_readers(sysroot, Uid::effective());
    hanging.retain(|pid| {
        let is_it = |probe: &Option<Probe>| {
            matches!(probe, Some(Probe::Stuck { holder }) if holder.pid == *pid)
        };
        !found.iter().any(is_it)
    });
    let Some(pid) = hanging.first() else { return };
    for probe in found.iter_mut().filter(|probe| probe.is_none()) {
        let reason = format!(
            "process {pid} hangs at a device that does not answer; only root can find out which: \
             run `efa-check node` as root"
        );
        *probe = Some(Probe::Unknown { reason });
    }
}

/// The process that hangs on a device, by its lock.
fn hanging(locks: &ReaderLocks, device: &str) -> Option<ProcessIdentity> {
    let pid = Pid(locks.holder(device)?);
    if !cannot_be_ended(pid) {
        return None;
    }
    let start = process::stat(pid).ok()??.start;
    Some(ProcessIdentity { pid, start })
}

/// The children, and what they found so far.
struct Readers<'a> {
    sysroot: &'a Sysroot,
    state_dir: &'a Path,
    devices: &'a [&'a str],
    wanted: Wanted,
    found: &'a mut [Option<Probe>],
    running: Vec<Reader>,
}

/// One child.
struct Reader {
    child: Child,
    pipe: ChildStdout,
    /// What came and is no whole line yet.
    text: Vec<u8>,
    /// The devices it reads, as places in `devices`.
    places: Vec<usize>,
    /// How many of them it is done with.
    done: usize,
    /// Since when it is at the next; `None` until it has begun with the first.
    since: Option<Instant>,
    values: BTreeMap<&'static str, u64>,
    ended: bool,
}

impl Readers<'_> {
    /// The devices of which nothing is known yet.
    fn open(&self) -> Vec<usize> {
        (0..self.devices.len())
            .filter(|place| self.found[*place].is_none())
            .collect()
    }

    fn start(&mut self, places: &[usize]) {
        if places.is_empty() {
            return;
        }
        let mut command = Command::new(own_program());
        command
            .arg(READER)
            .arg(match self.wanted {
                Wanted::Judged => "judged",
                Wanted::All => "all",
            })
            .arg(self.sysroot.path(""))
            .arg(self.state_dir)
            .args(places.iter().map(|place| self.devices[*place]))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let refused = |reason: String| {
            let reason = format!("the process that reads counters did not start: {reason}");
            Some(Probe::Unknown { reason })
        };
        match command.spawn() {
            Ok(mut child) => match child.stdout.take() {
                Some(pipe) => self.running.push(Reader {
                    child,
                    pipe,
                    text: Vec::new(),
                    places: places.to_vec(),
                    done: 0,
                    since: None,
                    values: BTreeMap::new(),
                    ended: false,
                }),
                None => drop(child.kill()),
            },
            Err(error) => {
                for place in places {
                    self.found[*place] = refused(error.to_string());
                }
            }
        }
    }

    /// Waits for the end of the only child. One that says more than a pipe
    /// holds waits, too, until it is listened to.
    fn wait(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(reader) = self.running.first() {
            // No event is asked for: what remains is the end of the other side.
            let end = PollFd::from_borrowed_fd(reader.pipe.as_fd(), PollFlags::empty());
            // An error or a signal only makes the wait shorter.
            let _ = poll(&mut [end], Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Takes what the children say until all have ended or `deadline` is there.
    fn drive(&mut self, deadline: Instant) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waiting: Vec<&mut Reader> =
                self.running.iter_mut().filter(|r| !r.ended).collect();
            if waiting.is_empty() || left.is_zero() {
                return;
            }
            let mut polled: Vec<PollFd<'_>> = waiting
                .iter()
                .map(|reader| PollFd::from_borrowed_fd(reader.pipe.as_fd(), PollFlags::IN))
                .collect();
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut polled, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (reader, ready) in waiting.iter_mut().zip(ready) {
                if ready {
                    reader.take(self.found);
                }
            }
        }
    }

    /// Ends the children. A device at which one has been for `patience` or
    /// longer, and hangs, is stuck; of the others nothing is known yet.
    fn stop(&mut self, patience: Duration) {
        let (ended, mut late): (Vec<Reader>, Vec<Reader>) =
            self.running.drain(..).partition(|reader| reader.ended);
        for mut reader in ended {
            let _ = reader.child.kill();
            // Ended means that its pipe is closed: this takes no time.
            let _ = reader.child.wait();
        }
        let waited = |reader: &Reader| reader.since.is_some_and(|it| it.elapsed() >= patience);
        let waited: Vec<bool> = late.iter().map(waited).collect();
        let fates = late::end(late.iter_mut().map(|reader| &mut reader.child));
        for ((reader, fate), waited) in late.iter().zip(fates).zip(waited) {
            if let (Fate::Hangs(holder), true, Some(place)) =
                (fate, waited, reader.places.get(reader.done))
            {
                self.found[*place] = Some(Probe::Stuck { holder });
            }
        }
    }
}

impl Readers<'_> {
    /// Judges the devices of which nothing is known because a process of another
    /// program has read them all the time, by what becomes of that process: the
    /// plugin's reader may have met a dead device a moment before ours.
    fn judge_holders(&mut self, locks: &ReaderLocks) {
        let (places, mut holders): (Vec<usize>, Vec<Holder>) = self
            .open()
            .into_iter()
            .filter_map(|place| Some((place, Holder::of(locks, self.devices[place])?)))
            .unzip();
        for (place, fate) in places.into_iter().zip(late::end(&mut holders)) {
            if let Fate::Hangs(holder) = fate {
                self.found[place] = Some(Probe::Stuck { holder });
            }
        }
    }
}

/// The process that has a device's lock, and is nobody's child here.
struct Holder {
    pid: Pid,
    handle: OwnedFd,
}

impl Holder {
    fn of(locks: &ReaderLocks, device: &str) -> Option<Self> {
        let pid = Pid(locks.holder(device)?);
        let number = rustix::process::Pid::from_raw(i32::try_from(pid.0).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        // It has the lock now, too, so the handle is not of another process.
        (locks.holder(device) == Some(pid.0)).then_some(Self { pid, handle })
    }
}

impl Late for Holder {
    fn kill(&mut self) {
        // It fails only for one that has ended.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    fn ends_by(&mut self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut end = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut end, Timespec::try_from(left).ok().as_ref()) {
                Err(Errno::INTR) => {}
                ended => return ended.is_ok_and(|ended| ended > 0),
            }
        }
    }

    fn stat(&self) -> Option<process::Stat> {
        let stat = process::stat(self.pid).ok().flatten()?;
        // Of several threads one may hang, and the first have ended.
        Some(match cannot_be_ended(self.pid) {
            true => process::Stat {
                state: b'D',
                ..stat
            },
            false => stat,
        })
    }

    fn pid(&self) -> Pid {
        self.pid
    }
}

impl Reader {
    fn take(&mut self, found: &mut [Option<Probe>]) {
        let mut bytes = [0; 16 * 1024];
        match self.pipe.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(n) => self.text.extend(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.ended = true,
        }
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            self.line(&String::from_utf8_lossy(&line[..end]), found);
        }
        if self.ended {
            for place in self.places.iter().skip(self.done) {
                let reason = "the process that reads counters ended early".to_owned();
                found[*place].get_or_insert(Probe::Unknown { reason });
            }
        }
    }

    /// One line of [`Report`].
    fn line(&mut self, line: &str, found: &mut [Option<Probe>]) {
        let result = match line.split_once(' ') {
            None if line == BEGUN => {
                self.since = Some(Instant::now());
                return;
            }
            None if line == "." => Probe::Values(std::mem::take(&mut self.values)),
            Some(("!", reason)) => Probe::Failed {
                reason: printable(reason, 200),
            },
            Some(("!!", reason)) => Probe::Dead {
                reason: printable(reason, 200),
            },
            Some((name, value)) => {
                if let (Some(name), Ok(value)) = (counters::find(name), value.parse()) {
                    self.values.insert(name, value);
                }
                return;
            }
            None => return,
        };
        if let Some(place) = self.places.get(self.done) {
            found[*place] = Some(result);
        }
        self.values.clear();
        self.done += 1;
        self.since = Some(Instant::now());
    }
}

/// The child: `counter-reader all|judged SYSROOT STATE_DIR DEVICE…`. First a line of
/// [`BEGUN`]; then for each device lines of `COUNTER VALUE`, then `.`, or in place of all
/// `! REASON`, or `!! REASON` if the device is dead.
#[must_use]
pub fn reader_main(mut args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    // Without its parent nobody reads what it says.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let wanted = match args.next() {
        Some(word) if word == "all" => Wanted::All,
        _ => Wanted::Judged,
    };
    let Some(root) = args.next() else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let Some(state_dir) = args.next() else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let sysroot = Sysroot::new(root.into());
    let locks = ReaderLocks::open(Path::new(&state_dir));
    let mut out = io::stdout().lock();
    let begun = writeln!(out, "{BEGUN}").and_then(|()| out.flush());
    if begun.is_err() {
        return ExitCode::FAILURE;
    }
    for device in args.filter_map(|name| name.into_string().ok()) {
        let mut text = String::new();
        let read = |text: &mut String| read_device(&sysroot, &device, wanted, text);
        match alone(locks.as_ref(), &device, || read(&mut text)) {
            Ok(()) => text.push_str(".\n"),
            Err(failure) => {
                let mark = if failure.is_dead { "!!" } else { "!" };
                text = format!("{mark} {}\n", printable(&failure.reason, 200));
            }
        }
        if out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Reads a device while no other process does. One that waits here for too long is
/// late, as one that reads for too long is.
fn alone<T>(locks: Option<&ReaderLocks>, device: &str, read: impl FnOnce() -> T) -> T {
    let Some(locks) = locks else {
        return read();
    };
    while locks.take(device).is_some() {
        std::thread::sleep(TRY_AGAIN);
    }
    let result = read();
    locks.release(device);
    result
}

/// How soon a device that another process reads is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// Why a device's counters were not read.
struct Failure {
    reason: String,
    /// The device does not answer its driver.
    is_dead: bool,
}

impl Failure {
    fn of(reason: String) -> Self {
        let is_dead = false;
        Self { reason, is_dead }
    }

    /// What the driver answers once its admin queue is closed (`ENODEV`), for the
    /// command on which it closes (`ETIME`), and for a device that fell off the bus.
    fn of_read(counter: &str, errno: Errno) -> Self {
        let dead = [Errno::NODEV, Errno::NXIO, Errno::IO, Errno::TIME];
        Self {
            reason: format!("{counter}: {errno}"),
            is_dead: dead.contains(&errno) || errno == Errno::TIMEDOUT,
        }
    }
}

fn read_device(
    sysroot: &Sysroot,
    device: &str,
    wanted: Wanted,
    text: &mut String,
) -> Result<(), Failure> {
    let base = format!("{}/{device}", efa::devices::CLASS);
    let port = folder(sysroot, &format!("{base}/ports/1/hw_counters"))?;
    let own = folder(sysroot, &format!("{base}/hw_counters"))?;
    let Some(port) = port else {
        let reason = "ports/1/hw_counters: no such directory";
        return Err(Failure::of(reason.to_owned()));
    };
    let mut any = false;
    for counter in wanted.port() {
        if let Some(value) = read_counter(&port, counter)? {
            any = true;
            let _ = writeln!(text, "{counter} {value}");
        }
    }
    if !any {
        let reason = "ports/1/hw_counters: none of EFA's counters";
        return Err(Failure::of(reason.to_owned()));
    }
    for counter in wanted.device() {
        let value = match &own {
            Some(own) => read_counter(own, counter)?,
            None => None,
        };
        let value = match value {
            // Kernels before 5.16 list the counters of a device with its port's.
            None => read_counter(&port, counter)?,
            value => value,
        };
        if let Some(value) = value {
            let _ = writeln!(text, "{counter} {value}");
        }
    }
    Ok(())
}

fn folder(sysroot: &Sysroot, rel: &str) -> Result<Option<OwnedFd>, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(sysroot.path(rel), flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Failure::of(format!("{rel}: {errno}"))),
    }
}

/// A counter's value; `None` where the driver does not have it.
fn read_counter(folder: &OwnedFd, counter: &str) -> Result<Option<u64>, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let failed = |errno| Failure::of_read(counter, errno);
    let file = match rustix::fs::openat(folder, counter, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    // sysfs gives a whole attribute to one read.
    let mut bytes = [0; LARGEST];
    let length = rustix::io::read(&file, &mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    let text = text.trim();
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(value) if digits => Ok(Some(value)),
        _ => {
            let text = printable(text, 40);
            Err(Failure::of(format!("{counter}: `{text}` is no number")))
        }
    }
}
