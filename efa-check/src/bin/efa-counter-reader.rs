//! `efa-counter-reader SYSROOT STATE_DIR LIMIT_MS NODE JOB START [DEVICE…]`: reads
//! what reports need of the EFA devices' counters, for the plugin, and may hang.
//! NODE, JOB and START are empty if it is for no job; each DEVICE is known to be
//! an EFA device.
//!
//! It says [`Line`]s on standard output or, for a job's prolog, writes what it
//! read into the job's record. For all others the process that was started ends at
//! once: the reading is its child's, which is nobody's then. A prolog ends soon itself.
//!
//! One thread reads device after device. Where a device takes longer than a
//! healthy one, more threads go on with the others, so one that hangs in the
//! kernel costs the reading of no other: all of them at once where the driver is
//! what the thread waits for. This process hangs then as a whole once
//! it ends, and stays until the driver lets go. Meanwhile it keeps a lock by
//! which the next reader knows, and has left the control groups of the step that
//! it was started in, for whose end Slurm would wait.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use efa::counter_reader::Line;
use efa::counters::{DeviceCounters, Moment, Scope, Snapshot, since_boot_ns};
use efa::reader_locks::ReaderLocks;
use host::state_dir::StateDir;
use host::{Deadline, Pid, Sysroot, process};
use jobs::registry::Registry;
use slurm::{JobId, JobKey};

/// A healthy device takes less; after that another thread goes on with the next.
const PACE: Duration = Duration::from_millis(2);

/// A device for which a thread has waited so long in the kernel will not answer
/// soon.
const PATIENCE: Duration = Duration::from_millis(30);

/// A process that has read for so long and waits in the kernel hangs there.
const OLD: Duration = Duration::from_millis(200);

/// Ticks of `/proc/PID/stat` in a second, on every processor that Linux has
/// today (USER_HZ).
const TICKS: u64 = 100;

/// How soon a device that another process reads is tried again: at first, and
/// at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Threads at one time, however many devices a tree claims to have.
const MOST_THREADS: usize = 64;

/// A thread's stack: it reads small files.
const STACK: usize = 128 * 1024;

/// sysexits(3): the command line is wrong.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    close_inherited();
    let Some(task) = Task::of(std::env::args_os().skip(1)) else {
        return ExitCode::from(EX_USAGE);
    };
    // The prolog ends soon, and leaves this process to init.
    if task.job.is_some() {
        task.run();
        return ExitCode::SUCCESS;
    }
    // SAFETY: fork(2) in a process of one thread; the child may do anything.
    match unsafe { libc::fork() } {
        0 => task.run(),
        -1 => return ExitCode::FAILURE,
        _ => {}
    }
    ExitCode::SUCCESS
}

/// Closes what the host left open: a process that hangs must not keep its sockets.
fn close_inherited() {
    // SAFETY: close_range(2) with numbers only; nothing of this process is open
    // above standard error yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } == 0 {
        return;
    }
    // A kernel before 5.9.
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // SAFETY: close(2) takes any number; nothing here owns one above 2.
        unsafe { libc::close(fd) };
    }
}

/// What was asked for.
struct Task {
    sysroot: Sysroot,
    state: PathBuf,
    limit: Duration,
    job: Option<(JobKey, String)>,
    known: Vec<String>,
}

impl Task {
    fn of(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let sysroot = Sysroot::new(args.next()?.into());
        let state = PathBuf::from(args.next()?);
        let limit = Duration::from_millis(args.next()?.to_str()?.parse().ok()?);
        let [node, job, start] = [args.next()?, args.next()?, args.next()?];
        let job = match node.is_empty() {
            true => None,
            false => {
                let key = JobKey {
                    node: node.to_str()?.parse().ok()?,
                    job: JobId(job.to_str()?.parse().ok()?),
                };
                Some((key, start.into_string().ok()?))
            }
        };
        Some(Self {
            sysroot,
            state,
            limit,
            job,
            known: args.filter_map(|name| name.into_string().ok()).collect(),
        })
    }

    fn run(self) {
        let seconds = u32::try_from(self.limit.as_secs()).unwrap_or(0);
        // Even the list of devices may hang in a simulated tree.
        // SAFETY: alarm(2) takes a number; nothing handles SIGALRM, which ends us.
        unsafe { libc::alarm(seconds.saturating_add(2)) };
        let deadline = Instant::now() + self.limit;
        let state = StateDir::open_existing(&self.state).ok().flatten();
        let mut report = Report {
            snapshot: Snapshot::empty(Moment::now()),
            job: self.job.zip(state.as_ref()),
            text: Vec::new(),
            // That there is none is known, too.
            has_news: true,
        };
        let names = match efa::devices::names(&self.sysroot, &self.known) {
            Ok(names) => names,
            Err(error) => {
                report.say(&Line::Failed(error.to_string()));
                return report.write();
            }
        };
        let locks = state
            .as_ref()
            .and_then(|state| ReaderLocks::open(state.path()));
        let work = Arc::new(Work {
            sysroot: self.sysroot,
            devices: names.efa,
            locks,
            deadline,
            state: Mutex::default(),
            all_read: Condvar::new(),
        });
        report.begin(&work, names.unidentified.into_iter().collect());
        drive(&work, &mut report);
        // What it has in memory need not be freed piece by piece.
        std::process::exit(0);
    }
}

/// What the threads have in common.
struct Work {
    sysroot: Sysroot,
    devices: Vec<String>,
    locks: Option<ReaderLocks>,
    deadline: Instant,
    state: Mutex<State>,
    all_read: Condvar,
}

#[derive(Default)]
struct State {
    /// The next device that nobody reads yet.
    next: usize,
    busy: Vec<Busy>,
    /// What was read and not reported yet.
    read: Vec<(usize, DeviceCounters)>,
    /// How many were read.
    count: usize,
}

/// A thread and its device.
#[derive(Clone, Copy)]
struct Busy {
    device: usize,
    thread: i32,
    since: Instant,
    /// The process that has the device's lock.
    holder: Option<u32>,
}

impl Busy {
    fn is_slow(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }

    /// Whether it waits in the kernel, itself or in the process that has the lock.
    fn hangs(&self) -> bool {
        match self.holder.map(Pid) {
            Some(holder) => threads(holder).any(|thread| waits(holder, thread)),
            None => waits(Pid(std::process::id()), self.thread),
        }
    }

    /// Whether it has waited for long: itself, or in the process that has the
    /// lock, which may have hung before this one began.
    fn stalls(&self) -> bool {
        let is_old = |holder| {
            let stat = process::stat(Pid(holder)).ok().flatten();
            let now = since_boot_ns() / (1_000_000_000 / TICKS);
            let age = stat.map_or(0, |stat| now.saturating_sub(stat.start));
            Duration::from_millis(age * 1000 / TICKS) >= OLD
        };
        self.is_slow(PATIENCE) || (self.holder.is_some_and(is_old) && self.hangs())
    }
}

fn threads(process: Pid) -> impl Iterator<Item = i32> {
    let list = fs::read_dir(format!("/proc/{process}/task"));
    list.into_iter()
        .flatten()
        .take(2 * MOST_THREADS)
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn waits(process: Pid, thread: i32) -> bool {
    let stat = process::read(process, &format!("task/{thread}/stat"));
    let stat = stat.ok().flatten();
    let stat = stat.as_deref().and_then(process::parse_stat);
    stat.is_some_and(|stat| stat.state == b'D')
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread: reads device after device.
    fn read(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        loop {
            let device = {
                let mut state = self.state();
                let device = state.next;
                if device >= self.devices.len() {
                    return;
                }
                state.next += 1;
                state.busy.push(Busy {
                    device,
                    thread,
                    since: Instant::now(),
                    holder: None,
                });
                device
            };
            let name = self.devices[device].as_str();
            self.wait_for_lock(device, name);
            let limit = Deadline::after(self.deadline.saturating_duration_since(Instant::now()));
            let counters = DeviceCounters::read(&self.sysroot, name, Scope::Traffic, limit);
            if let Some(locks) = &self.locks {
                locks.release(name);
            }
            let mut state = self.state();
            state.busy.retain(|busy| busy.device != device);
            state.read.push((device, counters));
            state.count += 1;
            if state.count == self.devices.len() {
                self.all_read.notify_one();
            }
        }
    }

    /// Two processes never hang on one device.
    fn wait_for_lock(&self, device: usize, name: &str) {
        let Some(locks) = &self.locks else { return };
        let (mut pause, longest) = AGAIN;
        while let Some(holder) = locks.take(name) {
            let mut state = self.state();
            let busy = state.busy.iter_mut().find(|busy| busy.device == device);
            if let Some(busy) = busy {
                busy.holder = Some(holder);
            }
            drop(state);
            std::thread::sleep(pause);
            pause = longest.min(pause * 2);
        }
        let mut state = self.state();
        if let Some(busy) = state.busy.iter_mut().find(|busy| busy.device == device)
            && busy.holder.is_some()
        {
            busy.holder = None;
            busy.since = Instant::now();
        }
    }
}

/// Has the devices read, and reports what comes of it until all were read or
/// time is up.
fn drive(work: &Arc<Work>, report: &mut Report<'_>) {
    let all = work.devices.len();
    let mut threads = 0;
    let mut has_stalled = false;
    let mut is_settled = false;
    let mut wanted = usize::from(all > 0);
    loop {
        for _ in 0..wanted {
            let work = Arc::clone(work);
            let thread = std::thread::Builder::new().stack_size(STACK);
            threads += usize::from(thread.spawn(move || work.read()).is_ok());
        }
        let left = work.deadline.saturating_duration_since(Instant::now());
        let (read, busy, unread) = {
            let state = work.state();
            let wait = work
                .all_read
                .wait_timeout_while(state, PACE.min(left), |state| state.count < all);
            let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            let read = std::mem::take(&mut state.read);
            (read, state.busy.clone(), all.saturating_sub(state.next))
        };
        report.take(&work.devices, read);
        let is_over = left.is_zero() || report.snapshot.devices.len() == all;
        let stalls = unread == 0 && busy.iter().all(Busy::stalls);
        if is_over || (stalls && !has_stalled) {
            report.silent(&work.devices, &busy);
        }
        let stalls_now = stalls && !has_stalled;
        has_stalled |= stalls;
        report.has_news |= stalls_now;
        // Before the step goes on, which may be its end.
        if stalls_now && busy.iter().any(|busy| busy.holder.is_none()) {
            leave_groups();
        }
        if is_over || (stalls && !is_settled && busy.iter().all(Busy::hangs)) {
            is_settled = true;
            report.say(&Line::Settled);
        }
        report.write();
        // Before that a job's record would change for each device.
        if is_over || has_stalled {
            report.keep();
        }
        // A process that is left in a step's control group costs its end a second, which
        // Slurm sleeps before it looks again.
        let waits_for_others = busy.iter().all(|busy| busy.holder.is_some());
        if is_over || (is_settled && waits_for_others && report.job.is_none()) {
            return;
        }
        wanted = further(&busy, unread).min(MOST_THREADS.saturating_sub(threads));
    }
}

/// Threads that are to go on with the devices that nobody reads yet.
fn further(busy: &[Busy], unread: usize) -> usize {
    let slow: Vec<&Busy> = busy.iter().filter(|busy| busy.is_slow(PACE)).collect();
    // One that does not wait in the kernel may lack a CPU, as more of them would.
    match unread > 0 && slow.iter().any(|busy| busy.hangs()) {
        true => unread,
        false => slow.len().min(unread),
    }
}

/// Leaves the control groups of the step that started this: Slurm waits for
/// their end, and drains the node if it does not come.
fn leave_groups() {
    const LARGEST: usize = 1024 * 1024;
    let mounts = Sysroot::real().read_bounded("proc/self/mountinfo", LARGEST);
    for line in mounts.unwrap_or_default().lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let is_group = after.starts_with("cgroup ") || after.starts_with("cgroup2 ");
        let place = before.split(' ').nth(4).filter(|_| is_group);
        // 0 is the process that writes. Where it may not, Slurm waits for it.
        if let Some(place) = place {
            let file = Path::new(place).join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(file);
            let _ = opened.and_then(|mut file| file.write_all(b"0"));
        }
    }
}

/// Whom the reading is for.
struct Report<'a> {
    snapshot: Snapshot,
    /// A job's record to write it into, instead of standard output.
    job: Option<((JobKey, String), &'a StateDir)>,
    /// Lines that were not written yet.
    text: Vec<u8>,
    /// Something was read that is not written yet.
    has_news: bool,
}

impl Report<'_> {
    fn say(&mut self, line: &Line) {
        if self.job.is_some() || serde_json::to_writer(&mut self.text, line).is_err() {
            return;
        }
        self.text.push(b'\n');
    }

    fn begin(&mut self, work: &Work, unidentified: BTreeSet<String>) {
        self.say(&Line::Begun {
            reader: std::process::id(),
            taken: self.snapshot.taken.clone(),
            devices: work.devices.clone(),
            unidentified: unidentified.clone(),
        });
        self.snapshot.unidentified = unidentified;
        self.write();
    }

    fn take(&mut self, devices: &[String], read: Vec<(usize, DeviceCounters)>) {
        for (device, counters) in read {
            let line = Line::Read(devices[device].clone(), counters);
            self.say(&line);
            if let Line::Read(name, counters) = line {
                self.snapshot.silent.remove(&name);
                self.snapshot.devices.insert(name, counters);
            }
            self.has_news = true;
        }
    }

    /// Whatever was not read.
    fn silent(&mut self, devices: &[String], busy: &[Busy]) {
        for (place, name) in devices.iter().enumerate() {
            if self.snapshot.devices.contains_key(name) {
                continue;
            }
            let busy = busy.iter().find(|busy| busy.device == place);
            let holder = busy.and_then(|busy| busy.holder);
            let holder = holder.unwrap_or_else(std::process::id);
            self.say(&Line::Silent(name.clone(), holder));
            self.snapshot.silent.insert(name.clone(), holder);
        }
    }

    fn write(&mut self) {
        if !self.text.is_empty() {
            // Nobody may listen any more.
            let _ = io::stdout().write_all(&self.text);
            let _ = io::stdout().flush();
            self.text.clear();
        }
    }

    /// Into the record of the start that it is for, if that is still there.
    fn keep(&mut self) {
        let Some(((key, start), state)) = &self.job else {
            return;
        };
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        let Ok(mut registry) = Registry::open(state) else {
            return;
        };
        if let Ok(Some(job)) = registry.get(key)
            && job.start.nonce == *start
        {
            // What is not kept is reported as not known at the job's end.
            let _ = registry.keep_counters(state, &job, &self.snapshot);
        }
    }
}
