//! The program that reads counters so that its caller cannot hang, and what it
//! says.
//!
//! A read of a port's counters makes the driver ask the device. One that no
//! longer answers hangs the reader in the kernel, for 30 s as a rule, and no
//! signal ends that. So no hook of Slurm reads one: [`PROGRAM`] does, which is
//! nobody's child (its first process forks and ends at once, but for a prolog,
//! which ends itself), has no descriptor of its caller but the pipe, and is never
//! waited for longer than a deadline.
//!
//! It writes [`Line`]s of JSON: first which devices there are, then each as it
//! is read; [`Line::Settled`] when nothing more comes soon.

use std::collections::BTreeSet;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::counters::{DeviceCounters, LARGEST_SNAPSHOT, Moment, Snapshot};
use host::exec::Call;
use host::{Deadline, Sysroot, printable};

/// The program's name. It lies beside the plugin.
pub const PROGRAM: &str = "efa-counter-reader";

/// The hidden first argument of efa-check's own process that reads counters.
pub const CHILD: &str = "counter-reader";

/// For how long the program waits for a device that does not answer, when what
/// it reads is the start of a job or step.
pub const AT_START: Duration = Duration::from_secs(2);

/// The longest wait at the end of a job or step.
pub const AT_END: Duration = Duration::from_millis(500);

/// What the program says, a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// It begins.
    Begun {
        /// Its process.
        reader: u32,
        /// Now.
        taken: Moment,
        /// What it reads.
        devices: Vec<String>,
        /// RDMA devices that may be EFA devices.
        unidentified: BTreeSet<String>,
    },
    /// A device's counters.
    Read(String, DeviceCounters),
    /// A device that this process waits for, which is the reader itself or an
    /// earlier one.
    Silent(String, u32),
    /// The devices could not be listed.
    Failed(String),
    /// Each device was read, or is waited for without much hope.
    Settled,
}

/// A reading under way.
#[derive(Debug)]
pub struct CounterReader {
    child: Option<Child>,
    pipe: PipeReader,
    said: Said,
}

/// What was said so far.
#[derive(Debug, Default)]
struct Said {
    text: Vec<u8>,
    bytes: usize,
    snapshot: Option<Snapshot>,
    failed: Option<String>,
    is_settled: bool,
}

/// How the program is called.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The program.
    pub program: &'a Path,
    /// Where devices are looked for.
    pub sysroot: &'a Sysroot,
    /// The state directory.
    pub state: &'a Path,
    /// How long it waits for a device that does not answer.
    pub limit: Duration,
    /// Devices that are known to be EFA devices, if they are still there.
    pub known: &'a [String],
}

impl Reading<'_> {
    /// With the three words that name a start of a job, or none.
    fn call(&self, job: [&str; 3]) -> Result<Call, String> {
        let call = Call::to(self.program).map_err(|error| error.to_string())?;
        let limit = self.limit.as_millis().to_string();
        let call = call.arg(self.sysroot.path("")).arg(self.state).arg(limit);
        Ok(call.args(job).args(self.known))
    }

    /// Starts it; it writes what it reads into the job's record, whose file has
    /// this name and whose start this identity. The child may hang: for a caller
    /// that ends soon.
    ///
    /// # Errors
    /// A sentence.
    pub fn keep(&self, node: &str, job: u32, start: &str) -> Result<Child, String> {
        let call = self.call([node, &job.to_string(), start])?;
        call.start_apart(None).map_err(|error| error.to_string())
    }

    /// Starts it.
    ///
    /// # Errors
    /// A sentence.
    pub fn start(&self) -> Result<CounterReader, String> {
        let (pipe, output) = std::io::pipe().map_err(|error| format!("pipe: {error}"))?;
        let child = self.call([""; 3])?.start_apart(Some(OwnedFd::from(output)));
        Ok(CounterReader {
            child: Some(child.map_err(|error| error.to_string())?),
            pipe,
            said: Said::default(),
        })
    }
}

impl CounterReader {
    /// Lets go of the program's first process, which ends at once: no zombie
    /// stays. Never waits.
    pub fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
    }

    /// What was read, once all of it was or time is up. What is not there then
    /// is [`Snapshot::silent`].
    ///
    /// # Errors
    /// Nothing is known: a sentence.
    pub fn finish(mut self, deadline: Deadline) -> Result<Snapshot, String> {
        self.listen(deadline);
        self.reap();
        self.said.snapshot()
    }

    fn listen(&mut self, deadline: Deadline) {
        let mut bytes = [0; 16 * 1024];
        loop {
            // What is there already is read even if it is late, and what came
            // after the end, too.
            let left = match self.said.is_settled {
                true => Duration::ZERO,
                false => deadline.left(),
            };
            let mut polled = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN)];
            match poll(&mut polled, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) if left.is_zero() => return,
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return,
            }
            match self.pipe.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    let some = bytes.get(..count).unwrap_or_default();
                    if !self.said.take(some) {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Said {
    /// False when it says more than any reader does.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.text.extend_from_slice(bytes);
        let text = std::mem::take(&mut self.text);
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            // A record of a later version is left alone.
            if let Ok(line) = serde_json::from_slice(line) {
                self.line(line);
            }
            rest = after.get(1..).unwrap_or_default();
        }
        self.text = rest.to_vec();
        self.bytes <= LARGEST_SNAPSHOT
    }

    fn line(&mut self, line: Line) {
        match (line, &mut self.snapshot) {
            (
                Line::Begun {
                    reader,
                    taken,
                    devices,
                    unidentified,
                },
                None,
            ) => {
                self.snapshot = Some(Snapshot {
                    unidentified,
                    silent: devices.into_iter().map(|name| (name, reader)).collect(),
                    ..Snapshot::empty(taken)
                });
            }
            (Line::Read(name, counters), Some(snapshot)) => {
                snapshot.silent.remove(&name);
                snapshot.devices.insert(name, counters);
            }
            (Line::Silent(name, reader), Some(snapshot)) => {
                snapshot.silent.insert(name, reader);
            }
            (Line::Settled, _) => self.is_settled = true,
            (Line::Failed(reason), _) => {
                self.failed = Some(printable(&reason, 300));
                self.is_settled = true;
            }
            (Line::Begun { .. } | Line::Read(..) | Line::Silent(..), _) => {}
        }
    }

    fn snapshot(self) -> Result<Snapshot, String> {
        match (self.snapshot, self.failed) {
            (_, Some(reason)) => Err(reason),
            (Some(snapshot), None) => Ok(snapshot),
            (None, None) => Err(format!("{PROGRAM} said nothing in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begun(devices: &[&str]) -> Line {
        Line::Begun {
            reader: 42,
            taken: Moment::now(),
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
            unidentified: BTreeSet::new(),
        }
    }

    fn said(lines: &[Line]) -> Said {
        let mut said = Said::default();
        for line in lines {
            let mut text = serde_json::to_vec(line).unwrap();
            text.push(b'\n');
            // In two parts, as a pipe may give them.
            let (one, two) = text.split_at(text.len() / 2);
            assert!(said.take(one) && said.take(two));
        }
        said
    }

    #[test]
    fn a_device_that_was_not_read_in_time_is_silent_with_the_process_that_reads_it() {
        let read = Line::Read("a".to_owned(), DeviceCounters::default());
        let snapshot = said(&[begun(&["a", "b"]), read]).snapshot().unwrap();
        assert!(snapshot.devices.contains_key("a"));
        assert_eq!(snapshot.silent, [("b".to_owned(), 42)].into());
    }

    #[test]
    fn a_device_that_an_earlier_reader_hangs_on_is_silent_with_that_readers_number() {
        let held = Line::Silent("a".to_owned(), 7);
        let snapshot = said(&[begun(&["a"]), held]).snapshot().unwrap();
        assert_eq!(snapshot.silent, [("a".to_owned(), 7)].into());
    }

    #[test]
    fn a_device_that_answers_after_all_is_silent_no_more() {
        let silent = Line::Silent("a".to_owned(), 42);
        let read = Line::Read("a".to_owned(), DeviceCounters::default());
        let said = said(&[begun(&["a"]), silent, Line::Settled, read]);
        assert!(said.is_settled);
        let snapshot = said.snapshot().unwrap();
        assert!(snapshot.silent.is_empty() && snapshot.devices.contains_key("a"));
    }

    #[test]
    fn a_reader_that_says_nothing_or_cannot_list_the_devices_is_an_error() {
        assert!(said(&[]).snapshot().is_err());
        let failed = said(&[Line::Failed("no\nlist".to_owned())]);
        assert!(failed.is_settled);
        assert_eq!(failed.snapshot().unwrap_err(), r"no\nlist");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Said::default().take(&bytes);
        }
    }
}
