//! Commands on a testbed: who runs them, with which environment, how long.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Testbed;
use super::error::{Context, Error};
use super::output::Output;

/// How long a command may take unless it says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long output is awaited from a background process that outlived the
/// command and still holds its pipes.
const STRAGGLER_GRACE: Duration = Duration::from_secs(2);
/// Output beyond this many bytes a stream is read and dropped.
const MAX_OUTPUT: usize = 64 << 20;

/// A command to be run on a testbed, as one of its users, with a clean
/// environment: `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `SLURM_CONF` and
/// what [`env`](Cmd::env) adds.
#[derive(Debug)]
pub struct Cmd<'tb> {
    testbed: &'tb Testbed,
    user: String,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    place: Place,
}

/// Which cgroup a process starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// That of the caller.
    Caller,
    /// The testbed's own: daemons, whose cgroups the testbed counts.
    Testbed,
}

impl<'tb> Cmd<'tb> {
    pub(super) fn new<S: AsRef<OsStr>>(testbed: &'tb Testbed, user: &str, argv: &[S]) -> Self {
        Cmd {
            testbed,
            user: user.to_owned(),
            argv: argv.iter().map(|a| a.as_ref().to_owned()).collect(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            timeout: DEFAULT_TIMEOUT,
            place: Place::Caller,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.argv.extend(args.iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; any bytes but NUL.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs in `dir` instead of the user's home directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Feeds `bytes` to standard input, which is otherwise `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Gives the command this long instead of [`DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    pub(super) fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// Runs the command to its end, whatever its exit status.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the time is up (the command is killed),
    /// [`Error::Unknown`] for a user that does not exist, [`Error::Io`] when
    /// it cannot be started.
    pub fn output(self) -> Result<Output, Error> {
        self.spawn()?.wait()
    }

    /// Runs the command to its end and makes a failure an error.
    ///
    /// # Errors
    /// As [`output`](Cmd::output), and [`Error::Failed`].
    pub fn success(self) -> Result<Output, Error> {
        let testbed = self.testbed;
        let line = self.line();
        let output = self.output()?;
        if output.success() {
            Ok(output)
        } else {
            Err(Error::Failed {
                command: line,
                output: Box::new(output),
                logs: testbed.log_tails(),
            })
        }
    }

    /// Starts the command and returns at once.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a user that does not exist, [`Error::Io`] when
    /// it cannot be started.
    pub fn spawn(self) -> Result<Running<'tb>, Error> {
        let line = self.line();
        let mut command = self.prepare()?;
        let stdin = match &self.stdin {
            None => Stdio::null(),
            Some(bytes) => input(bytes).context(|| "make a temporary file".to_owned())?,
        };
        let child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("start `{line}`"))?;
        Ok(Running {
            testbed: self.testbed,
            line,
            child,
            started: Instant::now(),
            timeout: self.timeout,
        })
    }

    /// Starts a daemon, whose output goes to `log`.
    pub(super) fn spawn_daemon(self, log: &Path) -> Result<Child, Error> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .context(|| format!("open {}", log.display()))?;
        let twin = file
            .try_clone()
            .context(|| format!("open {}", log.display()))?;
        let line = self.line();
        self.prepare()?
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(twin)
            .spawn()
            .context(|| format!("start `{line}`"))
    }

    /// The command line, for messages.
    fn line(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|a| a.to_string_lossy()).collect();
        let mut line = words.join(" ");
        if let Some((end, _)) = line.char_indices().nth(400) {
            line.truncate(end);
            line.push('…');
        }
        line
    }

    fn prepare(&self) -> Result<Command, Error> {
        let user = self.testbed.user(&self.user)?;
        let cwd = self.cwd.as_deref().unwrap_or(&user.home);
        let mut command = match self.testbed.init_pid() {
            None => {
                let mut command = Command::new("/usr/bin/env");
                command.arg("-C").arg(cwd);
                command
            }
            Some(init) => {
                let mut command = Command::new("/usr/bin/nsenter");
                command.arg(format!("--target={init}")).args([
                    "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
                ]);
                command.arg("--");
                if self.place == Place::Testbed {
                    command.args(["/bin/sh", "-c", ENTER_CGROUPS, "enter"]);
                }
                // Killing nsenter must kill what it started: the parent-death
                // signal is set after the change of user, which would clear it.
                command
                    .args(["/usr/bin/setpriv", "--pdeathsig=KILL"])
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .args(["--init-groups", "--", "/usr/bin/env", "-C"])
                    .arg(cwd);
                command
            }
        };
        command
            .args(&self.argv)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", &user.home)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("SHELL", "/bin/bash")
            .env("SLURM_CONF", self.testbed.slurm_conf());
        for (name, value) in &self.env {
            command.env(name, value);
        }
        Ok(command)
    }
}

/// Moves the shell into the root of every hierarchy of the cgroup namespace,
/// which is the testbed's own directory, and becomes the wanted program.
const ENTER_CGROUPS: &str = r#"
for procs in /sys/fs/cgroup/*/cgroup.procs; do
    [ -e "$procs" ] && echo 0 > "$procs"
done
exec "$@"
"#;

fn input(bytes: &[u8]) -> io::Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// A command under way. Dropping it kills it.
#[derive(Debug)]
pub struct Running<'tb> {
    testbed: &'tb Testbed,
    line: String,
    child: Child,
    started: Instant,
    timeout: Duration,
}

impl Running<'_> {
    /// Waits for the end; the time limit counts from the start.
    ///
    /// # Errors
    /// [`Error::Timeout`], after killing the command; [`Error::Io`].
    pub fn wait(mut self) -> Result<Output, Error> {
        let deadline = self.started + self.timeout;
        let collected = collect(&mut self.child, deadline)
            .context(|| format!("read the output of `{}`", self.line))?;
        let [stdout_bytes, stderr_bytes] = collected.streams;
        let stdout = String::from_utf8_lossy(&stdout_bytes).into_owned();
        let stderr = String::from_utf8_lossy(&stderr_bytes).into_owned();
        if !collected.ended {
            return Err(Error::Timeout {
                what: format!("`{}`", self.line),
                after: self.timeout,
                seen: format!("\n--- stdout ---\n{stdout}\n--- stderr ---\n{stderr}"),
                logs: self.testbed.log_tails(),
            });
        }
        let status = self
            .child
            .wait()
            .context(|| format!("wait for `{}`", self.line))?;
        Ok(Output {
            status,
            stdout,
            stderr,
            stdout_bytes,
            took: self.started.elapsed(),
        })
    }

    /// Kills the command if it still runs; what it printed until then.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stop(mut self) -> Result<Output, Error> {
        kill(&mut self.child);
        self.timeout = self.started.elapsed() + DEFAULT_TIMEOUT;
        self.wait()
    }

    /// Has the command ended?
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ended(&mut self) -> Result<bool, Error> {
        self.child
            .try_wait()
            .map(|status| status.is_some())
            .context(|| format!("wait for `{}`", self.line))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        kill_and_wait(&mut self.child);
    }
}

/// Kills what `child` has started, or else `child` itself, and waits for it.
///
/// `child` is nsenter, and its only child is the program inside. Were nsenter
/// killed, that program would be left to the machine's init, and until *that*
/// reaps it the PID namespace cannot end; so nsenter has to live to reap it.
pub(super) fn kill_and_wait(child: &mut Child) {
    kill(child);
    // Fails only when it has been waited for already.
    let _ = child.wait();
}

fn kill(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let pid = child.id();
        let proc_file =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // Unprivileged, `child` is the program itself.
        let inside: Vec<i32> = if proc_file("comm").trim() == "nsenter" {
            proc_file(&format!("task/{pid}/children"))
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect()
        } else {
            Vec::new()
        };
        for pid in &inside {
            // SAFETY: takes plain integers. The process is the child of a child
            // that lives; if it has just ended, nsenter is about to end too.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        if inside.is_empty() {
            // Fails only when it has ended in the meantime.
            let _ = child.kill();
        }
    }
}

/// Standard output, standard error, and whether the command has ended.
pub(crate) struct Collected {
    pub(crate) streams: [Vec<u8>; 2],
    pub(crate) ended: bool,
}

/// Reads both streams until the child has ended and they are closed, or until
/// the deadline.
pub(crate) fn collect(child: &mut Child, deadline: Instant) -> io::Result<Collected> {
    // One that has been waited for has no number any more.
    let pidfd = match child.try_wait()? {
        Some(_) => None,
        None => Some(pidfd_open(child.id())?),
    };
    let mut sources: [Option<Box<dyn ReadFd>>; 2] = [
        child.stdout.take().map(|s| Box::new(s) as Box<dyn ReadFd>),
        child.stderr.take().map(|s| Box::new(s) as Box<dyn ReadFd>),
    ];
    let mut streams = [Vec::new(), Vec::new()];
    let mut ended = pidfd.is_none();
    let mut limit = if ended {
        deadline.min(Instant::now() + STRAGGLER_GRACE)
    } else {
        deadline
    };
    loop {
        if ended && sources.iter().all(Option::is_none) {
            break;
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let alive = pidfd.as_ref().filter(|_| !ended);
        let alive = alive.map_or(-1, AsRawFd::as_raw_fd);
        let mut polled = [-1, -1, alive].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        for (slot, source) in polled.iter_mut().zip(&sources) {
            slot.fd = source.as_ref().map_or(-1, |s| s.fd());
        }
        let millis = libc::c_int::try_from(left.as_millis() + 1).unwrap_or(libc::c_int::MAX);
        // SAFETY: the pointer and the count describe one array of pollfd.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 3, millis) };
        if ready == -1 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for ((slot, source), stream) in polled.iter().zip(&mut sources).zip(&mut streams) {
            if slot.revents == 0 {
                continue;
            }
            let mut chunk = [0; 65536];
            let read = source.as_mut().map_or(Ok(0), |s| s.read(&mut chunk))?;
            if read == 0 {
                *source = None;
            }
            let room = MAX_OUTPUT.saturating_sub(stream.len());
            stream.extend_from_slice(&chunk[..read.min(room)]);
        }
        if polled[2].revents != 0 {
            ended = true;
            limit = deadline.min(Instant::now() + STRAGGLER_GRACE);
        }
    }
    Ok(Collected { streams, ended })
}

trait ReadFd: Read {
    fn fd(&self) -> RawFd;
}

impl<T: Read + AsRawFd> ReadFd for T {
    fn fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

/// A descriptor that becomes readable when the child ends: pidfd_open(2).
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the descriptor is open and only ours; the
    // kernel sets close-on-exec on it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
