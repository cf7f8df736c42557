//! Logins: a real sshd with `pam_slurm_logout.so` in a testbed's private
//! world, real ssh clients, and `slurm-logoutd`.
//!
//! Everyone logs in from carol's account, so that nothing that runs as the
//! user who logs in belongs to the client.
//!
//! ```no_run
//! use cdylib_tests::logins::{Logins, Site};
//! use cdylib_tests::testbed::Testbed;
//!
//! let tb = Testbed::builder().start()?;
//! let logins = Logins::start(&tb, &Site::default())?;
//! assert!(!logins.ssh("alice", &["true"]).output()?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::error::Error;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::modules;
use crate::testbed::{Cmd, JobId, JobState, LIMIT, Progress, Running, Testbed};

/// Where run-time state lies inside.
pub const STATE: &str = "/run/slurm-efa";

/// Who runs the ssh clients.
pub const CLIENT: &str = "carol";

/// What is set up.
#[derive(Debug, Clone)]
pub struct Site {
    /// `[logout]` of the configuration, besides where slurmd is.
    pub logout: String,
    /// Arguments of the module.
    pub arguments: String,
    /// The module.
    pub module: PathBuf,
    /// Lines of sshd_config.
    pub sshd: String,
    /// The suite's `state_dir`.
    pub state: PathBuf,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            logout: String::new(),
            arguments: String::new(),
            module: modules::pam_module(),
            sshd: String::new(),
            state: PathBuf::from(STATE),
        }
    }
}

impl Site {
    /// A site with this `[logout]`.
    pub fn with(logout: &str) -> Self {
        Self {
            logout: logout.to_owned(),
            ..Self::default()
        }
    }
}

/// A testbed's logins.
#[derive(Debug)]
pub struct Logins<'tb> {
    /// The testbed.
    pub tb: &'tb Testbed,
    _sshd: Running<'tb>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl<'tb> Logins<'tb> {
    /// Starts sshd on the testbed's first node. slurm-logoutd is started by
    /// [`Logins::daemon`].
    ///
    /// # Errors
    /// When sshd does not come up, with its log.
    pub fn start(tb: &'tb Testbed, site: &Site) -> Outcome<Self> {
        let dir = tb.dir();
        fs::create_dir_all(dir.join("ssh"))?;
        fs::create_dir_all(dir.join("pam.d"))?;
        fs::create_dir_all(dir.join("site"))?;
        keys(tb)?;
        configure(tb, site)?;
        let here = dir.display();
        fs::write(
            dir.join("ssh/sshd_config"),
            format!(
                "Port 2222\nListenAddress 127.0.0.1\nHostKey {here}/ssh/host\nUsePAM yes\n\
                 PidFile none\nStrictModes no\nAuthorizedKeysFile {here}/ssh/key.pub\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin yes\nMaxStartups 1000\nMaxSessions 100\nUseDNS no\n\
                 PrintMotd no\nPrintLastLog no\nLogLevel VERBOSE\n\
                 Subsystem sftp /usr/lib/openssh/sftp-server\n{}\n",
                site.sshd
            ),
        )?;
        fs::write(
            dir.join("ssh/client"),
            format!(
                "Host *\nHostName 127.0.0.1\nPort 2222\nIdentityFile {here}/ssh/key\n\
                 IdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n\
                 LogLevel INFO\nBatchMode yes\n"
            ),
        )?;
        // The first ids that `useradd` gives alice, so that newuidmap serves her.
        for file in ["subuid", "subgid"] {
            fs::write(dir.join("ssh").join(file), "alice:100000:65536\n")?;
        }
        let script = "mkdir -p /run/sshd /run/slurm-efa && mount --bind \"$1/pam.d\" /etc/pam.d && \
                      for file in subuid subgid; do \
                      mount --bind \"$1/ssh/$file\" /etc/$file || exit; done && exec /usr/sbin/sshd -D -f \"$1/ssh/sshd_config\" -E \"$1/log/sshd.log\"";
        let sshd = tb
            .command("root", &["sh", "-c", script, "sh"])
            .arg(dir)
            .timeout(Duration::from_secs(3600))
            .spawn()?;
        let logins = Self { tb, _sshd: sshd };
        logins.wait("sshd to listen", || {
            let log = logins.log("sshd");
            Ok(log.contains("Server listening on 127.0.0.1"))
        })?;
        Ok(logins)
    }

    /// Starts slurm-logoutd; dropping it kills it.
    ///
    /// # Errors
    /// When it does not take its lock.
    pub fn daemon(&self) -> Outcome<Running<'tb>> {
        let script = "exec \"$2\" --config \"$1/site/slurm-efa.toml\" 2>>\"$1/log/logoutd.log\"";
        let mut daemon = self
            .tb
            .command("root", &["sh", "-c", script, "sh"])
            .arg(self.tb.dir())
            .arg(modules::program("slurm-logoutd"))
            .timeout(Duration::from_secs(3600))
            .spawn()?;
        self.wait("slurm-logoutd to run", || {
            if daemon.ended()? {
                return Err(format!("slurm-logoutd ended: {}", self.log("logoutd")).into());
            }
            Ok(self.status()?.contains("\"daemon\": true"))
        })?;
        Ok(daemon)
    }

    /// Runs `slurm-logout` as root.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Cmd<'tb> {
        self.tb
            .command("root", &[modules::program("slurm-logout")])
            .arg("--config")
            .arg(self.tb.dir().join("site/slurm-efa.toml"))
            .args(arguments)
    }

    /// `slurm-logout status --json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Outcome<String> {
        Ok(self.command(&["status", "--json"]).success()?.stdout)
    }

    /// `ssh -l USER … n1 ARGUMENTS`, as the client's user.
    #[must_use]
    pub fn ssh(&self, user: &str, arguments: &[&str]) -> Cmd<'tb> {
        self.ssh_with(user, &[], arguments)
    }

    /// The same with options before the host.
    #[must_use]
    pub fn ssh_with(&self, user: &str, options: &[&str], arguments: &[&str]) -> Cmd<'tb> {
        // An input that never ends, as a person at a keyboard.
        let script = "exec ssh -F \"$0\" \"$@\" < <(exec sleep 3600 2>/dev/null)";
        self.tb
            .command(CLIENT, &["bash", "-c", script])
            .arg(self.tb.dir().join("ssh/client"))
            .args(&["-l", user])
            .args(options)
            .arg("n1")
            .args(arguments)
            .timeout(LIMIT * 2)
    }

    /// A log of the testbed: `sshd`, `logoutd`.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let path = self.tb.dir().join(format!("log/{name}.log"));
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// With the logs, when it does not come true.
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
        let mut failed = None;
        let waited = self.tb.wait_until(what, LIMIT, || {
            Ok(match condition() {
                Ok(true) => Progress::Done(()),
                Ok(false) => Progress::Waiting(String::new()),
                Err(error) => {
                    failed = Some(error);
                    Progress::Done(())
                }
            })
        });
        match (failed, waited) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(format!(
                "{error}\n--- sshd ---\n{}\n--- slurm-logoutd ---\n{}\n--- processes ---\n{}",
                self.log("sshd"),
                self.log("logoutd"),
                self.processes("alice").unwrap_or_default()
            )
            .into()),
        }
    }

    /// Waits until a command has ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait_end(&self, what: &str, command: &mut Running<'_>) -> Outcome<()> {
        self.wait(what, || Ok(command.ended()?))
    }

    /// The user's processes, one `pid args` each line.
    ///
    /// # Errors
    /// When ps cannot be run.
    pub fn processes(&self, user: &str) -> Outcome<String> {
        let ps = ["ps", "-o", "pid=,args=", "-U", user];
        Ok(self.tb.command("root", &ps).output()?.stdout)
    }

    /// Waits until the user runs a process whose command line contains this.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_process(&self, user: &str, part: &str) -> Outcome<()> {
        self.wait(&format!("{part} of {user}"), || {
            Ok(self.processes(user)?.contains(part))
        })
    }

    /// Submits a job of this user that runs until it is cancelled, and waits
    /// until it runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn job(&self, user: &str) -> Outcome<JobId> {
        self.job_with(user, "#!/bin/bash\nsleep 86400\n", &[])
    }

    /// The same with a script and options.
    ///
    /// # Errors
    /// When it does not run.
    pub fn job_with(&self, user: &str, script: &str, options: &[&str]) -> Outcome<JobId> {
        let options: Vec<&str> = ["-n1"].iter().chain(options).copied().collect();
        let job = self.tb.sbatch(user, script, &options)?;
        self.tb
            .wait_job_until(job, LIMIT, |state| *state == JobState::Running)?;
        Ok(job)
    }
}

/// Writes configuration and PAM file; sshd reads both at each login.
///
/// # Errors
/// When a file cannot be written.
pub fn configure(tb: &Testbed, site: &Site) -> Outcome<()> {
    let dir = tb.dir();
    let here = dir.display();
    fs::write(
        dir.join("site/slurm-efa.toml"),
        format!(
            "state_dir = \"{}\"\n[logout]\nnode_name = \"n1\"\n\
             spool_dir = \"{here}/spool/n1\"\ndebug = true\n{}\n",
            site.state.display(),
            site.logout
        ),
    )?;
    // pam_env as in Debian's stack: users put variables into libpam's environment.
    let module = site.module.display();
    let arguments = format!("config={here}/site/slurm-efa.toml {}", site.arguments);
    let pam = format!(
        "auth     required pam_permit.so\n\
         account  required {module} {arguments}\n\
         session  required pam_loginuid.so\n\
         session  optional pam_env.so user_readenv=1\n\
         session  required {module} {arguments}\n"
    );
    // Whole or not at all: sshd may be reading it.
    let file = dir.join("pam.d/sshd");
    fs::write(dir.join("pam.d/.new"), pam)?;
    fs::rename(dir.join("pam.d/.new"), file)?;
    Ok(())
}

/// Whether a process holds a lock on this file, by flock(2); false while the
/// file is empty, before it is locked.
///
/// # Errors
/// When there is no such file.
pub fn is_locked(file: &Path) -> std::io::Result<bool> {
    let file = fs::File::open(file)?;
    // SAFETY: an open descriptor; the lock goes when it is closed, right here.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    Ok(file.metadata()?.len() > 0 && result == -1)
}

fn keys(tb: &Testbed) -> Outcome<()> {
    let ssh = tb.dir().join("ssh");
    for name in ["host", "key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(ssh.join(name))
            .status()?;
        if !made.success() {
            return Err(format!("ssh-keygen: {made}").into());
        }
    }
    let client = tb.user(CLIENT)?;
    own(&ssh.join("key"), client.uid, client.gid)?;
    Ok(())
}

fn own(file: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    chown(file, Some(uid), Some(gid))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
}
