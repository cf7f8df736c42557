//! The program that reads counters for the plugin, on simulated devices that
//! answer, and on some that do not.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cdylib_tests::simnode::{SimNode, Spec};
use cdylib_tests::stuck::Stuck;
use efa::counter_reader::{AT_END, CounterReader, Line, Reading};
use efa::counters::{Reading as Counter, Snapshot};
use host::process::ProcessIdentity;
use host::state_dir::StateDir;
use host::{BootId, Deadline, Gid, Pid, Sysroot, Uid};
use jobs::counters_at_start;
use jobs::registry::{Job, Registry, Start};
use slurm::{JobId, JobKey};

const PLENTY: Duration = Duration::from_secs(20);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_efa-counter-reader"))
}

/// A p4d with four devices, and a state directory.
struct Node {
    dir: tempfile::TempDir,
    sim: SimNode,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec::named("p4d.24xlarge").unwrap();
        let sim = SimNode::build(&dir.path().join("p4d"), &spec);
        fs::create_dir(dir.path().join("state")).unwrap();
        Self {
            sim: sim.unwrap(),
            dir,
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn device(&self, n: usize) -> &str {
        &self.sim.devices()[n]
    }

    fn counter(&self, device: usize) -> PathBuf {
        let class = self.sim.path("sys/class/infiniband");
        let device = class.join(self.device(device));
        device.join("ports/1/hw_counters/tx_bytes")
    }

    /// Whoever opens a counter of this device waits until somebody writes there.
    fn block(&self, device: usize) {
        let counter = self.counter(device);
        fs::remove_file(&counter).unwrap();
        let made = Command::new("mkfifo").arg(&counter).status().unwrap();
        assert!(made.success());
    }

    /// Ends that wait; from now on the device answers.
    fn answer(&self, device: usize) {
        let counter = self.counter(device);
        let mut fifo = fs::OpenOptions::new().write(true).open(&counter).unwrap();
        let well = counter.with_extension("well");
        fs::write(&well, "5\n").unwrap();
        fs::rename(well, counter).unwrap();
        fifo.write_all(b"5\n").unwrap();
    }

    fn with<T>(&self, limit: Duration, ask: impl FnOnce(Reading<'_>) -> T) -> T {
        let sysroot = Sysroot::new(self.sim.root().to_owned());
        ask(Reading {
            program: program(),
            sysroot: &sysroot,
            state: &self.state(),
            limit,
            known: &[],
        })
    }

    fn start(&self, limit: Duration) -> CounterReader {
        self.with(limit, |reading| reading.start().unwrap())
    }

    fn read(&self, limit: Duration) -> Snapshot {
        let reader = self.start(limit);
        reader.finish(Deadline::after(PLENTY)).unwrap()
    }

    /// The program as such, and its first line.
    fn raw(&self, limit: Duration) -> (Child, BufReader<ChildStdout>, u32) {
        let mut child = Command::new(program())
            .arg(self.sim.root())
            .arg(self.state())
            .arg(limit.as_millis().to_string())
            .args([""; 3])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Line::Begun { reader, .. } = serde_json::from_str(&line).unwrap() else {
            panic!("{line}");
        };
        (child, output, reader)
    }
}

fn ended(process: u32) -> bool {
    !matches!(ProcessIdentity::of(Pid(process)), Ok(Some(_)))
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < PLENTY, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn all_devices_that_answer_are_read() {
    let node = Node::new();
    node.sim.add_traffic(node.device(2), 4096).unwrap();
    let snapshot = node.read(PLENTY);
    assert!(snapshot.silent.is_empty());
    let read: Vec<&String> = snapshot.devices.keys().collect();
    assert_eq!(read.len(), 4, "{read:?}");
    let sent = &snapshot.devices[node.device(2)].counters["tx_bytes"];
    assert!(matches!(sent, Counter::Value(4096..)), "{sent:?}");
}

#[test]
fn a_device_that_does_not_answer_is_named_and_costs_the_reading_of_no_other() {
    let node = Node::new();
    node.block(0);
    let begun = Instant::now();
    let snapshot = node.read(AT_END);
    assert!(begun.elapsed() < PLENTY / 4, "{:?}", begun.elapsed());
    assert_eq!(snapshot.devices.len(), 3);
    let silent: Vec<&String> = snapshot.silent.keys().collect();
    assert_eq!(silent, [node.device(0)]);
}

#[test]
fn a_device_that_answers_late_is_read_late() {
    let node = Node::new();
    node.block(1);
    let reader = node.start(PLENTY);
    std::thread::sleep(Duration::from_millis(150));
    node.answer(1);
    let snapshot = reader.finish(Deadline::after(PLENTY)).unwrap();
    assert!(snapshot.silent.is_empty());
    let read = |n: usize| snapshot.devices[node.device(n)].read_ns.unwrap();
    assert!(read(1) - read(0) > 100_000_000);
}

#[test]
fn a_reader_is_nobodys_child_and_has_no_descriptor_of_its_host() {
    let node = Node::new();
    node.block(0);
    // As Slurm leaves some: not closed on exec.
    let leaked = fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let leaked = leaked.into_raw_fd();
    assert!(leaked.as_raw_fd() > 2);
    let (mut child, output, reader) = node.raw(PLENTY);
    // Its first process does not wait for it.
    assert!(child.wait().unwrap().success());
    assert_ne!(child.id(), reader);
    let parent = host::process::stat(Pid(reader)).unwrap().unwrap().parent;
    assert_ne!(parent, Pid(std::process::id()));
    let zero = |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|it| it.ends_with("zero"));
    let open = fs::read_dir(format!("/proc/{reader}/fd")).unwrap();
    let open: Vec<_> = open.flatten().filter(zero).collect();
    assert!(open.is_empty(), "{open:?}");
    node.answer(0);
    drop(output);
    wait_for("its end", || ended(reader));
}

#[test]
fn a_reader_whose_time_is_up_is_gone() {
    let node = Node::new();
    node.block(0);
    let (mut child, mut output, reader) = node.raw(AT_END);
    child.wait().unwrap();
    let mut rest = String::new();
    // To its end: nobody has the pipe any more.
    output.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains(r#"{"silent":["#) && rest.contains(r#""settled""#),
        "{rest}"
    );
    wait_for("its end", || ended(reader));
}

#[test]
fn two_readers_never_wait_for_one_device() {
    let node = Node::new();
    node.block(0);
    let (mut child, output, first) = node.raw(PLENTY);
    child.wait().unwrap();
    wait_for("its lock", || {
        let snapshot = node.read(Duration::from_millis(100));
        snapshot.silent.get(node.device(0)) == Some(&first)
    });
    // The second one reads all others, and says who waits.
    let only_the_first = [(node.device(0).to_owned(), first)].into();
    wait_for("what the second one reads", || {
        let snapshot = node.read(AT_END);
        snapshot.silent == only_the_first && snapshot.devices.len() == 3
    });
    node.answer(0);
    drop(output);
    wait_for("its end", || ended(first));
    assert_eq!(node.read(PLENTY).devices.len(), 4);
}

/// A reader that hangs in the kernel at the first device, and what holds it there.
fn hung_reader(node: &Node) -> (Stuck, u32) {
    let place = node.dir.path().join("stuck");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap_or_else(|error| panic!("{error}"));
    fs::remove_file(node.counter(0)).unwrap();
    symlink(stuck.file(), node.counter(0)).unwrap();
    let (mut child, mut output, first) = node.raw(AT_END);
    child.wait().unwrap();
    let mut line = String::new();
    while !line.contains("settled") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    // It ends as far as it can: one thread stays, which SIGKILL does not end.
    let waits = || {
        let threads = fs::read_dir(format!("/proc/{first}/task"));
        threads.into_iter().flatten().flatten().any(|thread| {
            fs::read_to_string(thread.path().join("stat")).is_ok_and(|it| it.contains(") D "))
        })
    };
    wait_for("the kernel's wait", waits);
    (stuck, first)
}

#[test]
fn as_root_a_device_that_hangs_a_reader_in_the_kernel_costs_the_next_less_than_its_limit() {
    let node = Node::new();
    let (stuck, first) = hung_reader(&node);
    let begun = Instant::now();
    let snapshot = node.read(PLENTY);
    println!("settled after {:?}", begun.elapsed());
    assert!(begun.elapsed() < PLENTY / 4, "{:?}", begun.elapsed());
    assert_eq!(snapshot.silent, [(node.device(0).to_owned(), first)].into());
    assert_eq!(snapshot.devices.len(), 3);
    drop(stuck);
    wait_for("its end", || ended(first));
}

/// Slurm would wait a second for it at the step's end.
#[test]
fn as_root_a_reader_that_only_waits_for_another_that_hangs_ends() {
    let node = Node::new();
    let (stuck, _) = hung_reader(&node);
    let begun = Instant::now();
    let (mut child, mut output, second) = node.raw(PLENTY);
    child.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    wait_for("its end", || ended(second));
    assert!(begun.elapsed() < PLENTY / 4, "{:?}", begun.elapsed());
    assert!(rest.contains(r#"{"silent":["#), "{rest}");
    drop(stuck);
}

#[test]
fn as_root_a_device_that_hangs_a_reader_in_the_kernel_is_not_waited_for_to_the_limit() {
    let node = Node::new();
    let place = node.dir.path().join("stuck");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap_or_else(|error| panic!("{error}"));
    // Who looks up a file that another process looks up waits in the kernel at
    // once, and not only when it is killed.
    let mut other = Command::new("cat")
        .arg(stuck.file())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(stuck.hangs_one(PLENTY));
    fs::remove_file(node.counter(0)).unwrap();
    symlink(stuck.file(), node.counter(0)).unwrap();
    let begun = Instant::now();
    let snapshot = node.read(PLENTY);
    println!("settled after {:?}", begun.elapsed());
    assert!(begun.elapsed() < PLENTY / 4, "{:?}", begun.elapsed());
    assert_eq!(snapshot.devices.len(), 3);
    let (device, reader) = snapshot.silent.first_key_value().unwrap();
    assert_eq!(device, node.device(0));
    drop(stuck);
    other.wait().unwrap();
    wait_for("its end", || ended(*reader));
}

// ------------------------------------------------------------ for a job's start

fn key() -> JobKey {
    JobKey {
        job: JobId(7),
        node: "n1".parse().unwrap(),
    }
}

fn job(node: &Node) -> (StateDir, Job) {
    let state = StateDir::open(&node.state()).unwrap();
    let start = Start::now(BootId::current().unwrap()).unwrap();
    let job = Job::new(&key(), start, Uid(1000), Gid(1000), "/spool".into());
    Registry::open(&state).unwrap().put(&job).unwrap();
    (state, job)
}

fn keep(node: &Node, nonce: &str) -> Child {
    let child = node.with(PLENTY, |reading| reading.keep("n1", 7, nonce));
    child.unwrap()
}

fn ends_well(mut reader: Child) {
    assert!(reader.wait().unwrap().success());
}

fn kept(state: &StateDir) -> Option<Snapshot> {
    counters_at_start::kept_by(state, &key(), Deadline::after(PLENTY)).unwrap()
}

#[test]
fn the_counters_at_a_jobs_start_come_into_its_record_while_nobody_waits() {
    let node = Node::new();
    let (state, job) = job(&node);
    let reader = keep(&node, &job.start.nonce);
    assert_eq!(kept(&state).unwrap().devices.len(), 4);
    ends_well(reader);
}

#[test]
fn counters_of_an_earlier_start_come_into_no_record() {
    let node = Node::new();
    node.block(0);
    let (state, earlier) = job(&node);
    let first = keep(&node, &earlier.start.nonce);
    let (_, later) = job(&node);
    node.answer(0);
    // The later start's own reading waits for the earlier's lock.
    let second = keep(&node, &later.start.nonce);
    let snapshot = kept(&state).unwrap();
    let taken = snapshot.taken.since_boot_ns / 1_000_000;
    assert!(taken >= later.start.since_boot_ms, "{snapshot:?}");
    ends_well(first);
    ends_well(second);
}

#[test]
fn as_root_a_job_whose_device_hangs_in_the_kernel_has_the_counters_of_the_others_at_once() {
    let node = Node::new();
    let place = node.dir.path().join("stuck");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap_or_else(|error| panic!("{error}"));
    fs::remove_file(node.counter(3)).unwrap();
    symlink(stuck.file(), node.counter(3)).unwrap();
    let (state, job) = job(&node);
    let child = node.with(AT_END, |it| it.keep("n1", 7, &job.start.nonce));
    let snapshot = kept(&state).unwrap();
    assert_eq!(snapshot.devices.len(), 3);
    let silent: Vec<&String> = snapshot.silent.keys().collect();
    assert_eq!(silent, [node.device(3)]);
    drop(stuck);
    child.unwrap().wait().unwrap();
}
