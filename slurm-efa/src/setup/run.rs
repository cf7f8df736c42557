//! Programs of others, run with a time limit and an environment of ours.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::printable;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Most of its output that is kept, in bytes.
const MOST: u64 = 256 * 1024;

/// Where programs are looked for: root's environment is not asked.
const FOLDERS: [&str; 8] = [
    "/opt/slurm/bin",
    "/opt/slurm/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What a program did.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Its exit code; `None` if it was ended by a signal or by us.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended with 0.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Its last complaint, for a sentence.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut lines = self.stderr.lines().filter(|line| !line.trim().is_empty());
        match lines.next_back() {
            Some(line) => printable(line, 300),
            None => match self.code {
                Some(code) => format!("exit code {code}"),
                None => "it was ended by a signal or after 30 s".to_owned(),
            },
        }
    }
}

/// Where a program is, looked for first beside the configuration of Slurm: that
/// in `/opt/slurm-24.11/etc` has its programs in `/opt/slurm-24.11/bin`.
#[must_use]
pub fn find(name: &str, slurm_conf: Option<&Path>) -> Option<PathBuf> {
    let folder = slurm_conf.and_then(Path::parent);
    // Any other place says nothing about programs.
    let prefix = folder
        .filter(|it| it.ends_with("etc"))
        .and_then(Path::parent);
    let own = prefix
        .into_iter()
        .flat_map(|prefix| [prefix.join("bin"), prefix.join("sbin")]);
    own.chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started, for a person.
pub fn run(program: &Path, arguments: &[&str], slurm_conf: Option<&Path>) -> Result<Ran, String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = slurm_conf {
        command.env("SLURM_CONF", path);
    }
    let shown = printable(&program.to_string_lossy(), 200);
    let mut child = command
        .spawn()
        .map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let end = Instant::now() + LIMIT;
    let code = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code(),
            Ok(None) if Instant::now() < end => std::thread::sleep(POLL),
            _ => {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let text = |collected: Option<std::sync::mpsc::Receiver<String>>| {
        // A grandchild may keep the pipe open for ever.
        let left = end.saturating_duration_since(Instant::now()).max(POLL);
        collected
            .and_then(|it| it.recv_timeout(left).ok())
            .unwrap_or_default()
    };
    Ok(Ran {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Reads to the end, keeping the first [`MOST`] bytes.
fn collect(mut pipe: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read is not there.
        let _ = pipe.by_ref().take(MOST).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        // Nobody may wait for it any more.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
