//! A private, real Slurm: own munged, slurmctld and slurmds, in a directory and
//! namespaces of their own.
//!
//! ```no_run
//! use cdylib_tests::testbed::Testbed;
//!
//! let tb = Testbed::builder().nodes(2).start()?;
//! let hello = tb.srun("alice", &["-N2", "printenv", "SLURMD_NODENAME"])?;
//! assert!(hello.success());
//! # Ok::<(), cdylib_tests::testbed::Error>(())
//! ```
//!
//! Inside, the testbed's directory has the same path as outside, so files are
//! simply read. In every text given to the builder (`plugstack`,
//! `slurm_conf_extra`, `cgroup_conf_extra`, `file`), `{dir}` stands for that
//! directory. With `SLURM_EFA_KEEP=1` in the environment it is kept, and its
//! place is printed.
//!
//! `/run` and `/var/log` inside are empty and belong to the testbed alone; look
//! into them with [`Testbed::run`]. `/proc` shows only the testbed's processes,
//! and `/sys/fs/cgroup` only its cgroups: every cgroup v1 hierarchy that the
//! machine has mounted below `/sys/fs/cgroup` when the testbed starts. On a
//! machine without a v1 `freezer` the testbed uses `proctrack/linuxproc` and no
//! cgroups; [`Testbed::has_cgroups`] tells (that case is not verified as root).

mod command;
mod config;
mod error;
mod job;
mod namespaces;
mod output;
mod proof;

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) use command::collect;
pub use command::{Cmd, DEFAULT_TIMEOUT, Running};
pub use config::{NodeOptions, Release, User};
pub use error::Error;
pub use job::{Job, JobId, JobState, NodeState};
pub use output::Output;
pub use proof::boots_and_runs_jobs;

use crate::simnode::SimNode;
use command::{Place, kill_and_wait};
use config::{Accounts, PROGRAMS, Site, in_root};
use error::Context;
use namespaces::{ADDRESS, HOSTNAME, Lifeline, Namespaces, Plan};

/// Longest that a test waits for anything that should happen: on a quiet machine
/// that is a second, and a machine busy with other tests needs many. slurmctld
/// looks at time limits every 30 s only, so nothing that follows one may be
/// waited for shorter.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How often a condition is looked at that nothing announces.
const POLL: Duration = Duration::from_millis(20);
/// uid and gid of the first test user; the next ones follow.
const FIRST_UID: u32 = 20_001;
/// Bytes of each log that an error shows.
const LOG_TAIL: usize = 3000;

type Prepare = Box<dyn FnOnce(&Path) -> std::io::Result<()>>;

/// What a testbed shall be; see [`Testbed::builder`].
#[must_use]
pub struct Builder {
    nodes: Vec<NodeOptions>,
    users: Vec<String>,
    plugstack: Vec<String>,
    slurm_conf_extra: String,
    cgroup_conf_extra: String,
    root: Option<PathBuf>,
    binds: Vec<PathBuf>,
    files: Vec<(String, String)>,
    prepare: Vec<Prepare>,
    contain: bool,
    unprivileged: bool,
    debug: String,
}

impl Builder {
    /// Adds `count` nodes with the default shape.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes
            .extend(std::iter::repeat_with(NodeOptions::default).take(count));
        self
    }

    /// Adds one node. The nodes are called n1, n2, … in the order of adding.
    pub fn node(mut self, node: NodeOptions) -> Self {
        self.nodes.push(node);
        self
    }

    /// Adds a user beside alice, bob and carol.
    pub fn user(mut self, name: &str) -> Self {
        if !self.users.iter().any(|user| user == name) {
            self.users.push(name.to_owned());
        }
        self
    }

    /// Adds a line to plugstack.conf, e.g. `optional /abs/spank_efa.so config=…`.
    pub fn plugstack(mut self, line: &str) -> Self {
        self.plugstack.push(line.to_owned());
        self
    }

    /// Adds lines to the end of slurm.conf.
    pub fn slurm_conf_extra(mut self, lines: &str) -> Self {
        self.slurm_conf_extra.push_str(lines);
        self.slurm_conf_extra.push('\n');
        self
    }

    /// Adds lines to the end of cgroup.conf, e.g. `ConstrainDevices=yes`.
    pub fn cgroup_conf_extra(mut self, lines: &str) -> Self {
        self.cgroup_conf_extra.push_str(lines);
        self.cgroup_conf_extra.push('\n');
        self
    }

    /// Runs another Debian's Slurm: `path` is the root directory of one, as
    /// debootstrap makes it. It is never written to.
    pub fn root(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    /// Shows a file or directory of the machine, read-only and at the same
    /// path, inside another [`root`](Builder::root). Without one, the whole
    /// machine is visible anyway.
    pub fn bind(mut self, path: impl Into<PathBuf>) -> Self {
        self.binds.push(path.into());
        self
    }

    /// Writes `text` to `{dir}/name` before the daemons start; mode 0644, owner root.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Calls `prepare` with the testbed's directory before the daemons start.
    pub fn prepare(mut self, prepare: impl FnOnce(&Path) -> std::io::Result<()> + 'static) -> Self {
        self.prepare.push(Box::new(prepare));
        self
    }

    /// Leaves `PrologFlags=Contain` (an extern step and a cgroup for every
    /// job) out of slurm.conf.
    pub fn without_contain(mut self) -> Self {
        self.contain = false;
        self
    }

    /// Sets the verbosity of the daemons' and steps' logs, e.g. `debug2`; `info` otherwise.
    pub fn debug(mut self, level: &str) -> Self {
        level.clone_into(&mut self.debug);
        self
    }

    /// Runs everything as the calling user, without namespaces and cgroups:
    /// one user, `proctrack/linuxproc`, `task/none`, free ports of the machine.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Starts the daemons and waits until every node is idle.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::NotRoot`] say what to install or run;
    /// [`Error::Boot`] carries the daemons' logs.
    pub fn start(self) -> Result<Testbed, Error> {
        Testbed::start(self)
    }
}

/// A running private Slurm. Dropping it stops everything and removes it.
#[derive(Debug)]
pub struct Testbed {
    daemons: Mutex<Vec<Daemon>>,
    world: World,
    dir: PathBuf,
    root: Option<PathBuf>,
    release: Release,
    users: Vec<User>,
    nodes: Vec<String>,
}

/// Where the daemons live.
#[derive(Debug)]
enum World {
    /// Namespaces of their own.
    Private(Namespaces),
    /// The caller's; the lifeline's keeper ends the daemons.
    Shared { _lifeline: Lifeline },
}

#[derive(Debug)]
struct Daemon {
    /// `munged`, `slurmctld`, `slurmd n1`.
    name: String,
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_and_wait(&mut self.child);
    }
}

impl Testbed {
    /// Begins a testbed with no nodes (one, if none is added) and the users
    /// alice, bob and carol.
    pub fn builder() -> Builder {
        Builder {
            nodes: Vec::new(),
            users: ["alice", "bob", "carol"].map(str::to_owned).to_vec(),
            plugstack: Vec::new(),
            slurm_conf_extra: String::new(),
            cgroup_conf_extra: String::new(),
            root: None,
            binds: Vec::new(),
            files: Vec::new(),
            prepare: Vec::new(),
            contain: true,
            unprivileged: false,
            debug: "info".to_owned(),
        }
    }

    fn start(mut builder: Builder) -> Result<Testbed, Error> {
        check_prerequisites(&builder)?;
        let release = installed_release(builder.root.as_deref())?;
        if builder.nodes.is_empty() {
            builder.nodes.push(NodeOptions::default());
        }
        let keep = std::env::var_os("SLURM_EFA_KEEP").is_some_and(|value| value != "0");
        let dir = tempfile::Builder::new()
            .prefix("slurm-efa-tb.")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context(|| "make a temporary directory".to_owned())?
            // From here on the keeper removes it.
            .keep();
        if keep {
            eprintln!("testbed: kept in {}", dir.display());
        }
        let outcome = Testbed::start_in(builder, release, dir.clone(), keep);
        if outcome.is_err() && !keep {
            // Usually gone already, by the keeper.
            let _ = fs::remove_dir_all(&dir);
        }
        outcome
    }

    fn start_in(
        builder: Builder,
        release: Release,
        dir: PathBuf,
        keep: bool,
    ) -> Result<Testbed, Error> {
        let names: Vec<String> = (1..=builder.nodes.len()).map(|i| format!("n{i}")).collect();
        let users = make_users(&builder, &dir)?;
        for sub in ["munge", "state", "spool", "pid", "log", "etc", "sysroots"] {
            make_dir(&dir.join(sub))?;
        }
        for (name, node) in names.iter().zip(&builder.nodes) {
            make_dir(&dir.join("spool").join(name))?;
            if let Some(spec) = &node.simulated {
                let sysroot = dir.join("sysroots").join(name);
                SimNode::build(&sysroot, spec)
                    .context(|| format!("build the simulated node {}", sysroot.display()))?;
            }
        }
        let expand = |text: &str| text.replace("{dir}", &dir.to_string_lossy());
        for (name, text) in &builder.files {
            write(&dir.join(name), expand(text).as_bytes())?;
        }
        for prepare in builder.prepare {
            prepare(&dir).context(|| "prepare the testbed".to_owned())?;
        }
        make_munge_key(&dir.join("munge/key"))?;
        let plugstack: String = builder
            .plugstack
            .iter()
            .map(|line| expand(line) + "\n")
            .collect();
        write(&dir.join("plugstack.conf"), plugstack.as_bytes())?;

        let world = if builder.unprivileged {
            let (lifeline, _) = Lifeline::start(&dir, keep, SHARED_KEEPER, &[])?;
            World::Shared {
                _lifeline: lifeline,
            }
        } else {
            let root = builder.root.as_deref().unwrap_or(Path::new("/"));
            let accounts = Accounts::new(root, &users, &names);
            for (name, text) in [
                ("passwd", &accounts.passwd),
                ("group", &accounts.group),
                ("shadow", &accounts.shadow),
                ("hosts", &accounts.hosts),
            ] {
                write(&dir.join("etc").join(name), text.as_bytes())?;
            }
            fs::set_permissions(dir.join("etc/shadow"), fs::Permissions::from_mode(0o600))
                .context(|| "protect the shadow file".to_owned())?;
            World::Private(Namespaces::start(&Plan {
                dir: &dir,
                root: builder.root.as_deref(),
                binds: &builder.binds,
                etc: &["passwd", "group", "shadow", "hosts"],
                keep,
            })?)
        };

        let private = matches!(world, World::Private(_));
        let cgroups = match &world {
            World::Private(space) => space.has_cgroup("freezer"),
            World::Shared { .. } => false,
        };
        let mut ports = if private {
            (6817..).take(names.len() + 1).collect()
        } else {
            free_ports(names.len() + 1)?
        }
        .into_iter();
        let ctld_port = ports.next().unwrap_or(6817);
        let nodes: Vec<_> = names
            .iter()
            .cloned()
            .zip(ports)
            .zip(builder.nodes)
            .map(|((name, port), node)| (name, port, node))
            .collect();
        let (hostname, address) = if private {
            (HOSTNAME.to_owned(), ADDRESS)
        } else {
            (host_name()?, Ipv4Addr::LOCALHOST)
        };
        let site = Site {
            dir: &dir,
            hostname: &hostname,
            address,
            daemon_user: &users[0].name,
            release,
            ctld_port,
            nodes: &nodes,
            cgroups,
            contain: builder.contain,
            debug: &builder.debug,
            extra: &expand(&builder.slurm_conf_extra),
        };
        write(&dir.join("slurm.conf"), site.slurm_conf().as_bytes())?;
        if let Some(text) = site.cgroup_conf() {
            let text = text + &expand(&builder.cgroup_conf_extra);
            write(&dir.join("cgroup.conf"), text.as_bytes())?;
        }

        let testbed = Testbed {
            daemons: Mutex::new(Vec::new()),
            world,
            dir,
            root: builder.root,
            release,
            users,
            nodes: names,
        };
        testbed.boot()?;
        Ok(testbed)
    }

    fn boot(&self) -> Result<(), Error> {
        let munge = self.dir.join("munge");
        let option = |name: &str, file: &str| format!("--{name}={}", munge.join(file).display());
        let socket = munge.join("socket");
        self.start_daemon(
            "munged",
            &[
                "/usr/sbin/munged",
                "--foreground",
                &option("key-file", "key"),
                &option("socket", "socket"),
                &option("pid-file", "pid"),
                &option("log-file", "log"),
                &option("seed-file", "seed"),
            ],
        )?;
        self.wait_until("munged to listen", LIMIT, || {
            Ok(match std::os::unix::net::UnixStream::connect(&socket) {
                Ok(_) => Progress::Done(()),
                Err(error) => Progress::Waiting(error.to_string()),
            })
        })?;
        self.start_slurmctld()?;
        for node in &self.nodes {
            self.start_slurmd(node)?;
        }
        self.wait_idle()
    }

    /// Without what an earlier one has saved.
    fn start_slurmctld(&self) -> Result<(), Error> {
        self.start_daemon("slurmctld", &["/usr/sbin/slurmctld", "-D", "-c"])?;
        self.wait_until("slurmctld to answer", LIMIT, || {
            let ping = self.command(self.admin(), &["scontrol", "ping"]).output()?;
            Ok(if ping.success() && ping.stdout.contains(" is UP") {
                Progress::Done(())
            } else {
                Progress::Waiting(ping.stdout + &ping.stderr)
            })
        })
    }

    // ------------------------------------------------------------- commands

    /// Runs `srun` with `args` as `user`, in the user's home.
    ///
    /// # Errors
    /// As [`Cmd::output`]; a failing srun is no error here.
    pub fn srun<S: AsRef<OsStr>>(&self, user: &str, args: &[S]) -> Result<Output, Error> {
        self.command(user, &["srun"]).args(args).output()
    }

    /// Submits a script and returns the job's id.
    ///
    /// # Errors
    /// [`Error::Failed`] when sbatch refuses it; see
    /// [`try_sbatch`](Testbed::try_sbatch) for tests of refusals.
    pub fn sbatch<S: AsRef<OsStr>>(
        &self,
        user: &str,
        script: &str,
        args: &[S],
    ) -> Result<JobId, Error> {
        let output = self.try_sbatch(user, script, args)?;
        match submitted(&output) {
            Some(id) if output.success() => Ok(id),
            _ => Err(Error::Failed {
                command: "sbatch".to_owned(),
                output: Box::new(output),
                logs: self.log_tails(),
            }),
        }
    }

    /// Submits a script and returns what sbatch said.
    ///
    /// # Errors
    /// As [`Cmd::output`]; a refusal is no error here.
    pub fn try_sbatch<S: AsRef<OsStr>>(
        &self,
        user: &str,
        script: &str,
        args: &[S],
    ) -> Result<Output, Error> {
        self.command(user, &["sbatch"])
            .args(args)
            .stdin(script)
            .output()
    }

    /// Runs a program as `user` (`root` included) with additional environment.
    ///
    /// # Errors
    /// As [`Cmd::output`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        user: &str,
        argv: &[S],
        env: &[(&str, &str)],
    ) -> Result<Output, Error> {
        env.iter()
            .fold(self.command(user, argv), |command, (name, value)| {
                command.env(name, value)
            })
            .output()
    }

    /// Prepares a command with its own environment, directory, input or limit.
    pub fn command<S: AsRef<OsStr>>(&self, user: &str, argv: &[S]) -> Cmd<'_> {
        Cmd::new(self, user, argv)
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// [`Error::Failed`] when scancel does not accept it.
    pub fn scancel(&self, job: JobId) -> Result<(), Error> {
        self.command(self.admin(), &["scancel", &job.to_string()])
            .success()
            .map(drop)
    }

    /// `scontrol` as the administrator.
    ///
    /// # Errors
    /// [`Error::Failed`] when it fails.
    pub fn scontrol<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output, Error> {
        self.command(self.admin(), &["scontrol"])
            .args(args)
            .success()
    }

    // ----------------------------------------------------------- jobs, nodes

    /// What Slurm knows about a job.
    ///
    /// # Errors
    /// [`Error::Failed`] when there is no such job (any more).
    pub fn job(&self, id: JobId) -> Result<Job, Error> {
        let shown = self.scontrol(&["show", "job", "-o", &id.to_string()])?;
        Ok(Job::parse(shown.stdout.lines().next().unwrap_or_default()))
    }

    /// Waits until a job is over, for at most [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    /// [`Error::Timeout`], with the job's last state and reason.
    pub fn wait_job(&self, id: JobId) -> Result<JobState, Error> {
        self.wait_job_until(id, DEFAULT_TIMEOUT, JobState::is_final)
    }

    /// Waits until a job's state fulfils `wanted`.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the job's last state and reason.
    pub fn wait_job_until(
        &self,
        id: JobId,
        limit: Duration,
        wanted: impl Fn(&JobState) -> bool,
    ) -> Result<JobState, Error> {
        self.wait_until(&format!("job {id}"), limit, || {
            let job = self.job(id)?;
            let state = job.state();
            Ok(if wanted(&state) {
                Progress::Done(state)
            } else {
                let reason = job.get("Reason").unwrap_or_default();
                Progress::Waiting(format!("{state:?}, reason {reason}"))
            })
        })
    }

    /// What a batch job printed to its standard output file.
    ///
    /// # Errors
    /// [`Error::Failed`] for an unknown job, [`Error::Io`] without such a file.
    pub fn job_output(&self, id: JobId) -> Result<String, Error> {
        let job = self.job(id)?;
        let path = job.get("StdOut").unwrap_or_default();
        let bytes = fs::read(path).context(|| format!("read the output of job {id}, {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A node's state and the reason for it.
    ///
    /// # Errors
    /// [`Error::Failed`] for an unknown node.
    pub fn node_state(&self, node: &str) -> Result<NodeState, Error> {
        let shown = self.scontrol(&["show", "node", "-o", node])?;
        Ok(NodeState::parse(&shown.stdout))
    }

    /// The nodes' names: n1, n2, …
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// How many jobs are pending, running or completing.
    ///
    /// # Errors
    /// [`Error::Failed`] when squeue fails.
    pub fn queue_len(&self) -> Result<usize, Error> {
        let queue = self
            .command(self.admin(), &["squeue", "-h", "-a", "-o", "%i"])
            .success()?;
        Ok(queue.stdout.lines().count())
    }

    /// Waits until every node is idle.
    ///
    /// # Errors
    /// [`Error::Timeout`], with the last states.
    pub fn wait_idle(&self) -> Result<(), Error> {
        self.wait_until("every node to be idle", LIMIT, || {
            let states = self
                .command(self.admin(), &["sinfo", "-h", "-N", "-o", "%N %T"])
                .output()?;
            let idle = states
                .stdout
                .lines()
                .filter(|line| line.ends_with(" idle"))
                .count();
            Ok(if idle == self.nodes.len() {
                Progress::Done(())
            } else {
                Progress::Waiting(states.stdout + &states.stderr)
            })
        })
    }

    // -------------------------------------------------------------- daemons

    /// Stops a node's slurmd with SIGTERM and starts it again; running steps
    /// live on. Returns when the node has registered.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Timeout`].
    pub fn restart_slurmd(&self, node: &str) -> Result<(), Error> {
        self.stop_slurmd(node)?;
        let boots = || {
            self.log(&format!("slurmd {node}"))
                .matches("slurmd started")
                .count()
        };
        let before = boots();
        self.start_slurmd(node)?;
        self.wait_until(&format!("slurmd of {node}"), LIMIT, || {
            let state = self.node_state(node)?.state;
            let ready =
                !state.contains('*') && !state.starts_with("DOWN") && !state.starts_with("UNKNOWN");
            Ok(if ready && boots() > before {
                Progress::Done(())
            } else {
                Progress::Waiting(state)
            })
        })
    }

    /// Stops a node's slurmd with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// [`Error::Unknown`] when it does not run, [`Error::Timeout`].
    pub fn stop_slurmd(&self, node: &str) -> Result<(), Error> {
        self.end_slurmd(node, "-TERM")
    }

    /// As [`stop_slurmd`](Testbed::stop_slurmd), with SIGKILL: it can tidy up nothing.
    ///
    /// # Errors
    /// As there.
    pub fn kill_slurmd(&self, node: &str) -> Result<(), Error> {
        self.end_slurmd(node, "-KILL")
    }

    /// Starts all of Slurm again, with the slurm.conf of now, and slurmctld without
    /// what it knew. Returns when slurmctld answers; slurmds may not have registered.
    ///
    /// # Errors
    /// As [`stop_slurmd`](Testbed::stop_slurmd).
    pub fn start_again(&self) -> Result<(), Error> {
        for node in &self.nodes {
            self.stop_slurmd(node)?;
        }
        // It saves nothing, and one that hangs ends, too.
        self.end_daemon("slurmctld", "slurmctld", "-KILL")?;
        self.start_slurmctld()?;
        self.nodes
            .iter()
            .try_for_each(|node| self.start_slurmd(node))
    }

    fn end_slurmd(&self, node: &str, signal: &str) -> Result<(), Error> {
        self.end_daemon(&format!("slurmd {node}"), &format!("slurmd-{node}"), signal)
    }

    fn end_daemon(&self, name: &str, pid_file: &str, signal: &str) -> Result<(), Error> {
        let mut daemon = {
            let mut daemons = self.lock_daemons();
            let index = daemons
                .iter()
                .position(|daemon| daemon.name == name)
                .ok_or_else(|| Error::Unknown {
                    what: format!("running {name}"),
                    known: daemons
                        .iter()
                        .map(|d| d.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                })?;
            daemons.swap_remove(index)
        };
        // A daemon may answer before it writes this.
        let pid_file = self.dir.join("pid").join(pid_file);
        let pid = self.wait_until(&format!("the pid of {name}"), LIMIT, || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            Ok(match text.trim().parse::<u32>() {
                Ok(_) => Progress::Done(text),
                Err(_) => Progress::Waiting(pid_file.display().to_string()),
            })
        })?;
        // The shell's own: a minimal root has no kill program.
        self.command(
            self.admin(),
            &["/bin/sh", "-c", "kill $1 $0", pid.trim(), signal],
        )
        .success()?;
        self.wait_until(&format!("the end of {name}"), LIMIT, || {
            let ended = daemon
                .child
                .try_wait()
                .context(|| format!("wait for {name}"))?;
            Ok(match ended {
                Some(_) => Progress::Done(()),
                None => Progress::Waiting("still running".to_owned()),
            })
        })
    }

    /// Starts a node's slurmd and returns at once.
    ///
    /// # Errors
    /// [`Error::Unknown`] for an unknown node.
    pub fn start_slurmd(&self, node: &str) -> Result<(), Error> {
        if !self.nodes.iter().any(|name| name == node) {
            return Err(Error::Unknown {
                what: format!("node {node}"),
                known: self.nodes.join(", "),
            });
        }
        self.start_daemon(
            &format!("slurmd {node}"),
            &["/usr/sbin/slurmd", "-D", "-N", node],
        )
    }

    fn start_daemon(&self, name: &str, argv: &[&str]) -> Result<(), Error> {
        let child = self
            .command(self.admin(), argv)
            .cwd(&self.dir)
            .place(Place::Testbed)
            .spawn_daemon(&self.console(name))?;
        self.lock_daemons().push(Daemon {
            name: name.to_owned(),
            child,
        });
        Ok(())
    }

    fn lock_daemons(&self) -> std::sync::MutexGuard<'_, Vec<Daemon>> {
        // A test that panicked while holding the lock has left the list whole.
        self.daemons
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    // ------------------------------------------------------------- the place

    /// The testbed's directory; same path inside and outside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The other root it runs in, if any.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The tree of a node built with [`NodeOptions::simulated`].
    pub fn sysroot(&self, node: &str) -> PathBuf {
        self.dir.join("sysroots").join(node)
    }

    /// The release of the Slurm that runs.
    pub fn release(&self) -> Release {
        self.release
    }

    /// A user by name; `root` is one, except in the unprivileged mode.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn user(&self, name: &str) -> Result<&User, Error> {
        self.users
            .iter()
            .find(|user| user.name == name)
            .ok_or_else(|| Error::Unknown {
                what: format!("user {name:?}"),
                known: self
                    .users
                    .iter()
                    .map(|user| user.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// All users. The first one runs the daemons.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// The pid, as seen from outside, of the PID 1 inside; none when unprivileged.
    pub fn init_pid(&self) -> Option<i32> {
        match &self.world {
            World::Private(space) => Some(space.init()),
            World::Shared { .. } => None,
        }
    }

    /// Does Slurm use cgroups here (`proctrack/cgroup`, `task/cgroup`)?
    pub fn has_cgroups(&self) -> bool {
        match &self.world {
            World::Private(space) => space.has_cgroup("freezer"),
            World::Shared { .. } => false,
        }
    }

    /// The testbed's cgroup directories, as seen from outside.
    pub fn cgroup_dirs(&self) -> Vec<PathBuf> {
        match &self.world {
            World::Private(space) => space.cgroup_dirs().map(Path::to_owned).collect(),
            World::Shared { .. } => Vec::new(),
        }
    }

    /// The whole log of `munged`, `slurmctld` or `slurmd n1`; what the daemon
    /// printed, if it has no log (yet). The steps of a node log to that of its
    /// slurmd.
    pub fn log(&self, daemon: &str) -> String {
        let file = self
            .dir
            .join(format!("log/{}.log", daemon.replace(' ', "-")));
        match read_lossy(&file) {
            text if text.is_empty() => read_lossy(&self.console(daemon)),
            text => text,
        }
    }

    fn console(&self, daemon: &str) -> PathBuf {
        self.dir
            .join(format!("log/{}.console", daemon.replace(' ', "-")))
    }

    /// The ends of all logs, for the text of an error.
    pub fn log_tails(&self) -> String {
        let names = ["munged".to_owned(), "slurmctld".to_owned()]
            .into_iter()
            .chain(self.nodes.iter().map(|node| format!("slurmd {node}")));
        names
            .map(|name| {
                let log = self.log(&name);
                let mut text = format!("--- {name} ---\n{}", tail(&log, LOG_TAIL));
                // A daemon's last words may be on its console only.
                let console = read_lossy(&self.console(&name));
                let last = console.lines().last().unwrap_or_default();
                if last.contains("fatal") && !log.ends_with(&console) {
                    text.push_str(last);
                    text.push('\n');
                }
                text
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn slurm_conf(&self) -> PathBuf {
        self.dir.join("slurm.conf")
    }

    /// The user that runs the daemons and may do everything.
    fn admin(&self) -> &str {
        &self.users[0].name
    }

    /// Polls a condition, while all daemons live, for at most `limit`.
    ///
    /// # Errors
    /// What `look` returns; [`Error::Boot`] when a daemon has died;
    /// [`Error::Timeout`] with the last thing seen.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Progress<T>, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = match look()? {
                Progress::Done(value) => return Ok(value),
                Progress::Waiting(seen) => seen,
            };
            for daemon in self.lock_daemons().iter_mut() {
                if let Ok(Some(status)) = daemon.child.try_wait() {
                    return Err(Error::Boot {
                        what: format!("{} ended ({status}) while waiting for {what}", daemon.name),
                        logs: self.log_tails(),
                    });
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    after: limit,
                    seen,
                    logs: self.log_tails(),
                });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// What a look at a condition found.
#[derive(Debug)]
pub enum Progress<T> {
    /// It is so.
    Done(T),
    /// Not yet; this is how it is.
    Waiting(String),
}

impl Drop for Testbed {
    // Afterwards the fields go: first the daemons' handles, then their world.
    fn drop(&mut self) {
        if let World::Private(space) = &self.world {
            space.kill();
        } else {
            // Without a PID namespace, steps outlive slurmd: end them first.
            // Whatever fails here, the keeper tries again.
            let admin = self.admin().to_owned();
            let _ = self
                .command(&admin, &["scancel", "--user", &admin])
                .timeout(Duration::from_secs(5))
                .output();
            let _ = self.wait_until("the queue to empty", Duration::from_secs(10), || {
                Ok(match self.queue_len()? {
                    0 => Progress::Done(()),
                    n => Progress::Waiting(format!("{n} jobs")),
                })
            });
        }
    }
}

/// Ends the daemons of an unprivileged testbed whose owner is gone.
const SHARED_KEEPER: &str = r#"
mode=$1; dir=$2
while read -r _; do :; done
export SLURM_CONF="$dir/slurm.conf"
if kill -0 "$(cat "$dir/pid/slurmctld" 2>/dev/null)" 2>/dev/null; then
    timeout 5 scancel --user "$(id -un)"
    tries=0
    while [ $tries -lt 50 ] && [ -n "$(timeout 5 squeue -h)" ]; do
        tries=$((tries + 1)); sleep 0.1
    done
fi
for file in "$dir"/pid/* "$dir"/munge/pid; do
    [ -e "$file" ] && kill "$(cat "$file")"
done
[ "$mode" = keep ] || rm -rf --one-file-system -- "$dir"
"#;

fn check_prerequisites(builder: &Builder) -> Result<(), Error> {
    // SAFETY: geteuid takes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if builder.unprivileged {
        if builder.root.is_some() {
            return Err(Error::NeedsRoot {
                what: "another root directory".to_owned(),
                fix: "Leave out `.root()`, or run as root without `.unprivileged()`.",
            });
        }
        if builder.users.len() > 3 {
            return Err(Error::NeedsRoot {
                what: format!("the user {:?}", builder.users[3]),
                fix: "Leave out `.user()`, or run as root without `.unprivileged()`.",
            });
        }
    } else if uid != 0 {
        return Err(Error::NotRoot { uid });
    }
    let root = builder.root.as_deref();
    for (program, package) in PROGRAMS {
        if !in_root(root, program).exists() {
            let fix = match root {
                None => format!("apt-get install --no-install-recommends {package}"),
                Some(root) => format!(
                    "chroot {root} apt-get install {package}, or make the root anew: \
                     debootstrap --variant=minbase --include=slurm-wlm,munge SUITE {root}",
                    root = root.display()
                ),
            };
            return Err(Error::Missing {
                program,
                root: builder.root.clone(),
                fix,
            });
        }
    }
    let nsenter = "/usr/bin/nsenter";
    if !builder.unprivileged && !Path::new(nsenter).exists() {
        return Err(Error::Missing {
            program: nsenter,
            root: None,
            fix: "apt-get install util-linux".to_owned(),
        });
    }
    Ok(())
}

fn installed_release(root: Option<&Path>) -> Result<Release, Error> {
    let mut command = match root {
        None => Command::new("/usr/sbin/slurmd"),
        Some(root) => {
            let mut chroot = Command::new("/usr/sbin/chroot");
            chroot.arg(root).arg("/usr/sbin/slurmd");
            chroot
        }
    };
    let output = command
        .arg("-V")
        .env_clear()
        .output()
        .context(|| "run `slurmd -V`".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Release::parse(&text)
        .ok_or_else(|| Error::Release(format!("{text}{}", String::from_utf8_lossy(&output.stderr))))
}

/// The user that runs the daemons, then the test users, with their homes.
fn make_users(builder: &Builder, dir: &Path) -> Result<Vec<User>, Error> {
    let home = dir.join("home");
    make_dir(&home)?;
    if builder.unprivileged {
        return Ok(vec![calling_user(home)?]);
    }
    let mut users = vec![User {
        name: "root".to_owned(),
        uid: 0,
        gid: 0,
        home: dir.to_owned(),
    }];
    for (uid, name) in (FIRST_UID..).zip(&builder.users) {
        let home = home.join(name);
        make_dir(&home)?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700))
            .context(|| format!("protect {}", home.display()))?;
        std::os::unix::fs::chown(&home, Some(uid), Some(uid))
            .context(|| format!("give {} to {name}", home.display()))?;
        users.push(User {
            name: name.clone(),
            uid,
            gid: uid,
            home,
        });
    }
    Ok(users)
}

fn calling_user(home: PathBuf) -> Result<User, Error> {
    // SAFETY: geteuid takes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    let passwd = Command::new("/usr/bin/getent")
        .args(["passwd", &uid.to_string()])
        .output()
        .context(|| "run getent".to_owned())?;
    let line = String::from_utf8_lossy(&passwd.stdout).into_owned();
    match line.split(':').next().filter(|name| !name.is_empty()) {
        Some(name) => Ok(User {
            name: name.to_owned(),
            uid,
            gid,
            home,
        }),
        None => Err(Error::NeedsRoot {
            what: format!("a Slurm for uid {uid}, which has no name in /etc/passwd,"),
            fix: "Slurm knows users by name: run as a user with a passwd entry, or as root.",
        }),
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// About the last `bytes` bytes, from the start of a line.
fn tail(text: &str, bytes: usize) -> &str {
    let start = text.len().saturating_sub(bytes);
    if start == 0 {
        return text;
    }
    text.bytes()
        .skip(start)
        .position(|byte| byte == b'\n')
        .map_or("", |newline| &text[start + newline + 1..])
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir(path).context(|| format!("make the directory {}", path.display()))?;
    // Whatever the caller's umask is: the users have to pass.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .context(|| format!("open {} to all users", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
    }
    fs::write(path, bytes).context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .context(|| format!("open {} to all users", path.display()))
}

fn make_munge_key(path: &Path) -> Result<(), Error> {
    use std::io::Read;
    let mut key = [0; 128];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context(|| "read /dev/urandom".to_owned())?;
    fs::write(path, key).context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .context(|| format!("protect {}", path.display()))
}

/// Ports that are free now. Another process may take one before Slurm does;
/// only the unprivileged mode, which has no network of its own, lives with that.
fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let listeners = (0..count)
        .map(|_| std::net::TcpListener::bind(("0.0.0.0", 0)))
        .collect::<Result<Vec<_>, _>>()
        .context(|| "find free ports".to_owned())?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()
        .context(|| "find free ports".to_owned())
}

fn host_name() -> Result<String, Error> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .context(|| "read the host name".to_owned())?;
    Ok(name.trim().split('.').next().unwrap_or_default().to_owned())
}

/// The job id in "Submitted batch job 7".
fn submitted(output: &Output) -> Option<JobId> {
    output
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Submitted batch job "))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .or_else(|| output.stdout.trim().split(';').next()?.parse().ok())
        .map(JobId)
}
