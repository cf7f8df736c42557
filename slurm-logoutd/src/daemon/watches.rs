//! The events that the daemon waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::Pid;
use logins::clock::BootTime;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use super::error::DaemonError;

/// After an event, others that follow within this time are taken together:
/// a flood of them costs 50 looks a second at most.
const TOGETHER: Duration = Duration::from_millis(20);

/// What happens to files that appear by rename and go by removal.
pub(super) const RECORDS: WatchFlags = WatchFlags::MOVED_TO.union(WatchFlags::DELETE).union(COMMON);
/// Sockets are made in place.
pub(super) const SPOOL: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_FROM)
    .union(RECORDS);
const COMMON: WatchFlags = WatchFlags::DELETE_SELF
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Directories that are watched.
pub(super) struct Watches {
    inotify: OwnedFd,
    watched: BTreeMap<PathBuf, i32>,
    /// Processes whose end is an event.
    processes: BTreeMap<Pid, OwnedFd>,
    /// One of them has ended.
    pub(super) lost: bool,
    /// When events were answered last.
    last: BootTime,
}

impl Watches {
    pub(super) fn new() -> Result<Self, DaemonError> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|errno| DaemonError::Events(errno.into()))?;
        Ok(Self {
            inotify,
            watched: BTreeMap::new(),
            processes: BTreeMap::new(),
            lost: false,
            last: BootTime(0),
        })
    }

    /// Fine if it is watched already, or is not there: the one who needs it looks
    /// again in time.
    pub(super) fn add(&mut self, dir: &Path, flags: WatchFlags) {
        if self.watched.contains_key(dir) {
            return;
        }
        if let Ok(watch) = inotify::add_watch(&self.inotify, dir, flags) {
            self.watched.insert(dir.to_owned(), watch);
        }
    }

    /// Waits for the end of these processes, and of no others. One that cannot
    /// be waited for (a kernel before 5.3) is left out.
    pub(super) fn follow(&mut self, pids: &BTreeSet<Pid>) {
        self.lost = false;
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let raw = i32::try_from(pid.0).ok();
            let Some(process) = raw.and_then(rustix::process::Pid::from_raw) else {
                continue;
            };
            if !self.processes.contains_key(pid)
                && let Ok(fd) = pidfd_open(process, PidfdFlags::empty())
            {
                self.processes.insert(*pid, fd);
            }
        }
    }

    /// Waits for an event, or until then.
    pub(super) fn wait(&mut self, until: Option<BootTime>) -> std::io::Result<()> {
        self.poll(until)?;
        // The first event is answered at once, a flood in portions.
        std::thread::sleep(BootTime::now().until(self.last.after(TOGETHER)));
        self.drain();
        self.last = BootTime::now();
        Ok(())
    }

    fn poll(&mut self, until: Option<BootTime>) -> std::io::Result<()> {
        let now = BootTime::now();
        let timeout = until
            .map(|until| now.until(until) + Duration::from_millis(1))
            .and_then(|left| Timespec::try_from(left).ok());
        let fds = std::iter::once(&self.inotify).chain(self.processes.values());
        let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended: Vec<bool> = polled
            .iter()
            .skip(1)
            .map(|it| !it.revents().is_empty())
            .collect();
        let before = self.processes.len();
        let mut ended = ended.into_iter();
        self.processes.retain(|_, _| !ended.next().unwrap_or(false));
        self.lost |= self.processes.len() < before;
        Ok(())
    }

    /// Takes all events. What they say does not matter, an overflow included:
    /// everything is looked at again.
    fn drain(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        let mut gone = Vec::new();
        while let Ok(event) = events.next() {
            let over = ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
            if event.events().intersects(over) {
                gone.push(event.wd());
            }
        }
        self.watched.retain(|_, watch| !gone.contains(watch));
    }
}
