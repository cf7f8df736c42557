//! The process that speaks with NVML, and how the others speak with it.
//!
//! Any call of NVML can hang in the driver, where no signal ends the wait. So
//! a child makes the calls: it reads questions from its standard input and
//! answers on its standard output, both lines of JSON. Whoever asks waits for
//! a limited time, then kills the child. A child that hangs in the driver stays
//! even so; one that ends was late for another reason (see [`host::late`]).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use host::Deadline;
use host::late;
use host::late::Fate;
use host::printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::inventory::{Answer, Ask, Instance, Machine, Profile};

/// The hidden first argument of the child.
pub const AGENT: &str = "nvml-agent";

/// Largest answer, in bytes: 10⁵ processes fit.
const LARGEST: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No library, no driver.
    #[error("{0}")]
    NoNvml(String),
    /// NVML refused.
    #[error("{0}")]
    Failed(String),
    /// NVML did not answer, but does not hang in the kernel.
    #[error(
        "NVML did not answer within {} s ({what}), but the process that asked does not hang in the \
         kernel: the node may be too busy",
        limit.as_secs()
    )]
    Late {
        /// What was asked.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// NVML hangs.
    #[error(
        "NVML did not answer within {} s ({what}); a GPU or its driver hangs: look for Xid in the \
         kernel's log",
        limit.as_secs()
    )]
    Hangs {
        /// What was asked.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The child is gone or talks nonsense.
    #[error("the process that speaks with NVML {0}")]
    Died(String),
}

/// A child that speaks with NVML, started when it is first needed and again
/// after it was killed.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    library: PathBuf,
    limit: Duration,
    child: Option<Child>,
    /// Children that were killed and had not ended when they were last looked at.
    killed: Vec<Child>,
}

impl Agent {
    /// For this library; each answer may take `limit`.
    #[must_use]
    pub fn new(library: PathBuf, limit: Duration) -> Self {
        Self {
            // This very program, even if its file was replaced meanwhile.
            program: "/proc/self/exe".into(),
            library,
            limit,
            child: None,
            killed: Vec::new(),
        }
    }

    /// The same with another program as the child: for those who are no
    /// `gres-helper` themselves.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        let mut agent = self;
        agent.program = program;
        agent
    }

    /// Everything about the GPUs.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn machine(&mut self) -> Result<Machine, AgentError> {
        match self.ask(&Ask::Machine)? {
            Answer::Machine(machine) => Ok(machine),
            other => Err(unexpected(&other)),
        }
    }

    /// Processes and memory alone.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn usage(&mut self) -> Result<Machine, AgentError> {
        match self.ask(&Ask::Usage)? {
            Answer::Machine(machine) => Ok(machine),
            other => Err(unexpected(&other)),
        }
    }

    /// The MIG profiles of a GPU.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn profiles(&mut self, gpu: &str) -> Result<Vec<Profile>, AgentError> {
        match self.ask(&Ask::Profiles(gpu.to_owned()))? {
            Answer::Profiles(profiles) => Ok(profiles),
            other => Err(unexpected(&other)),
        }
    }

    /// The MIG instances of a GPU.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn instances(&mut self, gpu: &str) -> Result<Vec<Instance>, AgentError> {
        match self.ask(&Ask::Instances(gpu.to_owned()))? {
            Answer::Instances(instances) => Ok(instances),
            other => Err(unexpected(&other)),
        }
    }

    /// An order whose success is all there is to say.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn order(&mut self, ask: &Ask) -> Result<(), AgentError> {
        match self.ask(ask)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Any question.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, AgentError> {
        let mut answer = self.exchange(ask);
        match answer {
            Err(AgentError::Late { what, limit }) => {
                answer = Err(match self.end_late() {
                    Fate::Hangs(_) => AgentError::Hangs { what, limit },
                    Fate::Ended | Fate::Unknown => AgentError::Late { what, limit },
                });
            }
            Err(AgentError::Died(_)) => self.end(),
            _ => {}
        }
        match answer? {
            Answer::Failed(reason) => Err(AgentError::Failed(reason)),
            Answer::NoNvml(reason) => {
                self.end();
                Err(AgentError::NoNvml(reason))
            }
            answer => Ok(answer),
        }
    }

    fn exchange(&mut self, ask: &Ask) -> Result<Answer, AgentError> {
        let died = |what: &str, error: &dyn std::fmt::Display| {
            AgentError::Died(format!("{what}: {}", printable(&error.to_string(), 200)))
        };
        let mut line = serde_json::to_vec(ask).map_err(|error| died("was not asked", &error))?;
        line.push(b'\n');
        let late = AgentError::Late {
            what: what(ask),
            limit: self.limit,
        };
        // A question may itself ask for a time to wait.
        let extra = match ask {
            Ask::Xids(milliseconds) => Duration::from_millis((*milliseconds).into()),
            _ => Duration::ZERO,
        };
        let deadline = Deadline::after(self.limit + extra);
        let child = self
            .running()
            .map_err(|error| died("did not start", &error))?;
        let (Some(input), Some(output)) = (child.stdin.as_mut(), child.stdout.as_mut()) else {
            return Err(AgentError::Died("has no pipes".to_owned()));
        };
        input
            .write_all(&line)
            .map_err(|error| died("has ended", &error))?;
        let mut bytes = Vec::new();
        let mut chunk = [0; 64 * 1024];
        while bytes.last() != Some(&b'\n') {
            if bytes.len() > LARGEST {
                return Err(AgentError::Died("says too much".to_owned()));
            }
            let left = deadline.left();
            if left.is_zero() {
                return Err(late);
            }
            let timeout = Timespec::try_from(left).ok();
            let mut polled = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
            match poll(&mut polled, timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(died("cannot be read", &errno)),
            }
            match output.read(&mut chunk) {
                Ok(0) => return Err(AgentError::Died("has ended".to_owned())),
                Ok(count) => bytes.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(died("cannot be read", &error)),
            }
        }
        serde_json::from_slice(&bytes).map_err(|error| died("talks nonsense", &error))
    }

    fn running(&mut self) -> io::Result<&mut Child> {
        self.reap();
        let child = match self.child.take() {
            Some(child) => child,
            None => Command::new(&self.program)
                .arg(AGENT)
                .arg(&self.library)
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?,
        };
        Ok(self.child.insert(child))
    }

    /// Ends a child that did not answer in time, and finds out whether it hangs.
    fn end_late(&mut self) -> Fate {
        let fates = late::end(self.child.as_mut());
        self.end();
        fates.first().copied().unwrap_or(Fate::Unknown)
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.kill();
            self.killed.push(child);
        }
        self.reap();
    }

    /// A child that hangs in the driver stays; nobody waits for it.
    fn reap(&mut self) {
        self.killed
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

fn unexpected(answer: &Answer) -> AgentError {
    let text = printable(&format!("{answer:?}"), 60);
    AgentError::Died(format!("answered something else: {text}"))
}

/// A question in short, for a message.
fn what(ask: &Ask) -> String {
    printable(&format!("{ask:?}"), 80)
}
