//! The one way to run a program: it was judged before ([`trust::program`]), its
//! environment is a list, nothing is looked up in PATH, its output is bounded,
//! and a deadline covers its start, its output and its end.
//!
//! The end of the program itself counts, not the end of its output: a
//! descendant that keeps the output open (a daemon, a job of a shell in the
//! background) is not waited for. What the program had written when it ended
//! is read in any case.
//!
//! One thing no deadline covers: the kernel reads the program's file before it
//! starts, and a file system that hangs then hangs the caller.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sysroot::shown;
use crate::trust;
use crate::trust::{TrustError, TrustedProgram};
use crate::{Gid, Uid};

/// Bytes of output that are kept of each stream, unless the caller sets another
/// limit; the rest is read and dropped.
const LARGEST: usize = 64 * 1024;

/// Most bytes that a program may be given to read: a pipe always has room for
/// them (pipe(7)).
const LARGEST_INPUT: usize = 4096;

/// What a pipe holds (pipe(7)): a program that has ended left no more in it.
const PIPE: usize = 64 * 1024;

/// How long the output may stay open after the end of the program.
const AFTER_END: Duration = Duration::from_millis(200);

/// How long a program that was killed is waited for, so that it leaves no
/// zombie.
const AFTER_KILL: Duration = Duration::from_millis(100);

/// How often a kernel without pidfds is asked for a child's end.
const POLL: Duration = Duration::from_millis(10);

/// Where programs look for others, unless the caller says otherwise.
const PATH: &str = "/usr/bin:/bin";

/// Why a program was not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It is missing, or others could have put it there.
    #[error("{}: not run, because {}", shown(path), error.reason(path))]
    Refused {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        error: TrustError,
    },
    /// More was to be said to it than a pipe is sure to hold.
    #[error(
        "{}: not run, because its input is larger than {LARGEST_INPUT} bytes",
        shown(path)
    )]
    Input {
        /// The program.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{} did not start: {source}", shown(path))]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ExecError {
    /// Whether there is no such program.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused { error, .. } => matches!(error, TrustError::Missing { .. }),
            Self::Start { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Input { .. } => false,
        }
    }
}

/// [`trust::program`], for those who run it.
///
/// # Errors
/// [`ExecError::Refused`].
pub fn program(path: &Path) -> Result<TrustedProgram, ExecError> {
    trust::program(path).map_err(|error| ExecError::Refused {
        path: path.to_owned(),
        error,
    })
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// How it ended; `None` when it was killed for being late.
    pub status: Option<ExitStatus>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Whether it ended well.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// A program that is about to be run.
#[derive(Debug)]
pub struct Call {
    path: PathBuf,
    command: Command,
    input: Option<Vec<u8>>,
    output: Output,
    largest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Kept,
    Discarded,
}

impl Call {
    /// A program at this path, if [`trust::program`] believes it.
    ///
    /// # Errors
    /// [`ExecError::Refused`].
    pub fn to(path: &Path) -> Result<Self, ExecError> {
        program(path).map(|program| Self::of(&program))
    }

    /// A program that was judged.
    #[must_use]
    pub fn of(program: &TrustedProgram) -> Self {
        // By the path without links: only root can change what it leads to.
        let mut command = Command::new(program.real());
        command
            .arg0(program.named())
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/");
        Self {
            path: program.named().to_owned(),
            command,
            input: None,
            output: Output::Kept,
            largest: LARGEST,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// A variable of its environment, which else has only `PATH` and `LC_ALL`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// As another user, in that user's group alone. Only root can do so.
    #[must_use]
    pub fn user(mut self, uid: Uid, gid: Gid) -> Self {
        self.command.uid(uid.0).gid(gid.0);
        self
    }

    /// What it reads, at most 4 KiB; else there is nothing to read.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Bytes of its output that are kept of each stream, instead of 64 KiB.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// Its output goes nowhere. For a program that leaves a daemon: with a pipe
    /// for its output, that daemon would end when it first writes.
    #[must_use]
    pub fn without_output(mut self) -> Self {
        self.output = Output::Discarded;
        self
    }

    /// Runs it for at most `limit`; then it is killed.
    ///
    /// # Errors
    /// It could not be started.
    pub fn run(mut self, limit: Duration) -> Result<Said, ExecError> {
        let deadline = Instant::now() + limit;
        let output = match self.output {
            Output::Kept => Stdio::piped,
            Output::Discarded => Stdio::null,
        };
        if self
            .input
            .as_ref()
            .is_some_and(|it| it.len() > LARGEST_INPUT)
        {
            let path = self.path;
            return Err(ExecError::Input { path });
        }
        self.command.stdout(output()).stderr(output());
        self.command.stdin(match &self.input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        });
        let mut child = self.spawn()?;
        if let (Some(bytes), Some(mut pipe)) = (&self.input, child.stdin.take()) {
            // A program that has ended already tells by its status.
            let _ = pipe.write_all(bytes);
        }
        Ok(hear(&mut child, deadline, self.largest))
    }

    /// Starts it, without input and output but for its errors, for a caller that
    /// ends it by [`end`] and reads them by [`errors`].
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(mut self) -> Result<Child, ExecError> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        self.spawn()
    }

    /// Starts it for a caller that does not wait for it: what it says goes to
    /// `output`, if to anywhere, and what is sent to the caller's process group
    /// does not reach it.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_apart(mut self, output: Option<OwnedFd>) -> Result<Child, ExecError> {
        self.command
            .stdin(Stdio::null())
            .stdout(output.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::null())
            .process_group(0);
        self.spawn()
    }

    fn spawn(&mut self) -> Result<Child, ExecError> {
        self.command.spawn().map_err(|source| ExecError::Start {
            path: self.path.clone(),
            source,
        })
    }
}

/// One output of a child.
struct Stream {
    pipe: Option<File>,
    kept: Vec<u8>,
    /// Most bytes that are kept.
    largest: usize,
    /// Bytes that are still read once the child has ended.
    left: usize,
}

impl Stream {
    fn of(pipe: Option<OwnedFd>, largest: usize) -> Self {
        Self {
            pipe: pipe.map(File::from),
            kept: Vec::new(),
            largest,
            left: PIPE,
        }
    }

    /// Reads once; there is something to read, or its end.
    fn read(&mut self, child_has_ended: bool) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mut bytes = [0; 4096];
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let room = self.largest.saturating_sub(self.kept.len());
                self.kept.extend(bytes.iter().take(count.min(room)));
                if child_has_ended {
                    self.left = self.left.saturating_sub(count);
                }
                if self.left == 0 {
                    self.pipe = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// Reads what a child says until it has ended or time is up.
fn hear(child: &mut Child, deadline: Instant, largest: usize) -> Said {
    let mut stdout = Stream::of(child.stdout.take().map(OwnedFd::from), largest);
    let mut stderr = Stream::of(child.stderr.take().map(OwnedFd::from), largest);
    let status = listen(child, [&mut stdout, &mut stderr], deadline);
    if status.is_none() {
        kill(child);
    }
    Said {
        status,
        stdout: stdout.text(),
        stderr: stderr.text(),
    }
}

/// Reads what a child says until it has ended; `None` if it has not by then.
fn listen(
    child: &mut Child,
    mut streams: [&mut Stream; 2],
    deadline: Instant,
) -> Option<ExitStatus> {
    let pidfd = pidfd(child);
    let mut status = None;
    let mut until = deadline;
    loop {
        if status.is_none()
            && let Ok(Some(ended)) = child.try_wait()
        {
            status = Some(ended);
            until = Instant::now() + AFTER_END;
        }
        if status.is_some() && streams.iter().all(|stream| stream.pipe.is_none()) {
            return status;
        }
        let mut left = until.saturating_duration_since(Instant::now());
        let is_over = left.is_zero();
        if status.is_none() && is_over {
            return None;
        }
        if status.is_none() && pidfd.is_none() {
            left = left.min(POLL);
        }
        let end = pidfd.as_ref().filter(|_| status.is_none());
        let ready = wait(&streams, end, left);
        if is_over && ready == [false; 2] {
            return status;
        }
        for (stream, ready) in streams.iter_mut().zip(ready) {
            if ready {
                stream.read(status.is_some());
            }
        }
    }
}

/// Waits until a stream or the end of the child is ready, or time is up;
/// which of the streams are.
fn wait(streams: &[&mut Stream; 2], end: Option<&OwnedFd>, left: Duration) -> [bool; 2] {
    let pipes = streams.iter().map(|stream| stream.pipe.as_ref());
    let pipes = pipes.map(|pipe| pipe.map(AsFd::as_fd));
    let all = pipes.chain([end.map(AsFd::as_fd)]);
    let mut polled: Vec<PollFd<'_>> = all
        .clone()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // After an error or a signal the caller looks at the clock and comes again.
    if !matches!(
        poll(&mut polled, Timespec::try_from(left).ok().as_ref()),
        Ok(1..)
    ) {
        return [false; 2];
    }
    let mut events = polled.iter().map(PollFd::revents);
    let mut ready = all.map(|fd| {
        fd.and_then(|_| events.next())
            .is_some_and(|it| !it.is_empty())
    });
    [ready.next(), ready.next()].map(|it| it.unwrap_or(false))
}

fn pidfd(child: &Child) -> Option<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = ended_by(child, Instant::now() + AFTER_KILL);
}

/// Waits for the end of a child; one that is late is killed, and not waited
/// for if even that does not end it.
pub fn end(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let status = ended_by(child, deadline);
    if status.is_none() {
        kill(child);
    }
    status
}

/// What a child of [`Call::start`] has written to its standard error, as far as a
/// pipe holds it. Never waits for more.
pub fn errors(child: &mut Child) -> String {
    let Some(pipe) = child.stderr.take() else {
        return String::new();
    };
    let mut bytes = vec![0; PIPE];
    let mut length = 0;
    if rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK).is_ok() {
        // It ends with the end of the output, or where there is no more by now.
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty())
            && let Ok(count @ 1..) = rustix::io::read(&pipe, rest)
        {
            length += count;
        }
    }
    bytes.truncate(length);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of a child; `None` if it has not ended by then.
pub fn ended_by(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let pidfd = pidfd(child);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let Some(pidfd) = &pidfd else {
            std::thread::sleep(left.min(POLL));
            continue;
        };
        let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut polled, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // It cannot be waited for in this way: ask again.
            Err(_) => std::thread::sleep(left.min(POLL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const PLENTY: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Call {
        Call::to(Path::new("/bin/sh")).unwrap().args(["-c", script])
    }

    fn sh(script: &str, limit: Duration) -> Said {
        shell(script).run(limit).unwrap()
    }

    #[test]
    fn both_streams_and_the_end_are_told_apart() {
        let said = sh("echo out; echo err >&2; exit 3", PLENTY);
        assert_eq!(
            (said.stdout.as_str(), said.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert_eq!(said.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_program_that_never_ends_costs_the_limit_and_what_it_said_is_kept() {
        let start = Instant::now();
        let said = sh("echo begun; exec sleep 60", Duration::from_millis(500));
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(said.status.is_none() && !said.success());
        assert_eq!(said.stdout, "begun\n");
    }

    #[test]
    fn a_program_that_closes_its_output_and_goes_on_costs_the_limit_too() {
        let said = sh("exec sleep 60 >/dev/null 2>&1", Duration::from_millis(300));
        assert!(said.status.is_none());
    }

    #[test]
    fn a_flood_is_read_and_only_its_start_kept() {
        let said = sh("head -c 1000000 /dev/zero", PLENTY);
        assert!(said.success());
        assert_eq!(said.stdout.len(), LARGEST);
    }

    #[test]
    fn a_caller_may_keep_more_of_the_output() {
        let call = shell("head -c 1000000 /dev/zero").output_limit(900_000);
        assert_eq!(call.run(PLENTY).unwrap().stdout.len(), 900_000);
    }

    #[test]
    fn a_flood_that_never_ends_costs_the_limit() {
        let start = Instant::now();
        let said = sh("exec cat /dev/zero", Duration::from_millis(300));
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(said.status.is_none());
    }

    /// A child of the program that keeps its output until it is let go.
    fn keeper() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let fifo = fifo.to_str().unwrap();
        let script = format!("(read line <{fifo}) & echo all that it has to say");
        (dir, script)
    }

    /// Ends what [`keeper`] left, which waits at its FIFO.
    fn let_go(dir: &tempfile::TempDir) {
        fs::write(dir.path().join("fifo"), "\n").unwrap();
    }

    #[test]
    fn a_descendant_that_keeps_the_output_is_not_waited_for() {
        let (dir, script) = keeper();
        let start = Instant::now();
        let said = sh(&script, Duration::from_secs(60));
        let took = start.elapsed();
        let_go(&dir);
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert!(said.success());
        assert_eq!(said.stdout, "all that it has to say\n");
    }

    #[test]
    fn a_descendant_that_floods_the_output_is_not_waited_for() {
        // It ends at its first write after its reader has gone.
        let start = Instant::now();
        let said = sh("cat /dev/zero & exit 0", Duration::from_secs(60));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert!(said.success());
    }

    #[test]
    fn what_a_program_wrote_before_its_end_is_read_whole_even_if_time_is_up() {
        let mut command = Command::new("head");
        command
            .args(["-c", "60000", "/dev/zero"])
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let said = hear(&mut child, Instant::now(), LARGEST);
        assert!(said.success());
        assert_eq!(said.stdout.len(), 60_000);
    }

    #[test]
    fn a_program_reads_what_it_is_given_and_else_nothing() {
        let said = shell("cat").input("words\n").run(PLENTY).unwrap();
        assert_eq!(said.stdout, "words\n");
        assert_eq!(sh("cat", PLENTY).stdout, "");
        let error = shell("cat").input(vec![b'x'; 4097]).run(PLENTY);
        assert!(matches!(error, Err(ExecError::Input { .. })), "{error:?}");
    }

    #[test]
    fn the_errors_of_a_child_that_runs_are_read_without_waiting() {
        let mut child = shell("echo why >&2; exec sleep 600").start().unwrap();
        let mut text = String::new();
        let begun = Instant::now();
        while text.is_empty() && begun.elapsed() < PLENTY {
            let pipe = child.stderr.as_ref().unwrap();
            let mut polled = [PollFd::new(pipe, PollFlags::IN)];
            poll(&mut polled, Timespec::try_from(PLENTY).ok().as_ref()).unwrap();
            text = errors(&mut child);
        }
        assert_eq!(text, "why\n");
        assert!(end(&mut child, Instant::now()).is_none());
    }

    #[test]
    fn without_output_nothing_of_it_is_kept() {
        let said = shell("echo out; echo err >&2").without_output();
        let said = said.run(PLENTY).unwrap();
        assert!(said.success());
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    }

    #[test]
    fn the_environment_is_what_the_caller_lists() {
        let said = Call::to(Path::new("/usr/bin/env")).unwrap();
        let said = said.env("SLURM_CONF", "/x").run(PLENTY).unwrap();
        let mut lines: Vec<&str> = said.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LC_ALL=C", "PATH=/usr/bin:/bin", "SLURM_CONF=/x"]);
    }

    #[test]
    fn a_program_runs_under_the_name_that_it_was_called_by() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("called");
        symlink("/bin/sh", &link).unwrap();
        let said = Call::to(&link).unwrap().args(["-c", "echo $0"]);
        assert_eq!(
            said.run(PLENTY).unwrap().stdout.trim_end(),
            link.to_str().unwrap()
        );
    }

    #[test]
    fn a_program_that_others_may_change_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!/bin/sh\ntouch \"$0.ran\"\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Call::to(&program).unwrap_err().to_string();
        assert!(error.contains("not run, because others"), "{error}");
        assert!(!dir.path().join("program.ran").exists());
        let missing = Call::to(&dir.path().join("none")).unwrap_err();
        assert!(missing.is_missing());
    }
}
