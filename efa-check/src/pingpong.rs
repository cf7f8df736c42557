//! The active test: fi_pingpong from a device to itself, one after the other.
//!
//! Only on an idle node, on demand or from `healthcheck` in a process of its own: it
//! takes seconds for each device and uses the device. Shared memory is off, or
//! libfabric would not touch the device.
//!
//! The two ends meet in a network namespace of their own, so that no user of the
//! node can take their port or connect to it. Where that is not possible, a test
//! that fails is no finding.
//!
//! Slurm is asked before and after each device, and what was found while a job
//! was there is thrown away: it may be the job's doing.
//!
//! That libfabric calls a device's domain `<device>-rdm` is from libfabric's
//! efa provider; nothing here was run on EFA hardware.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use host::Deadline;
use host::exec::{self, Call, ExecError};
use host::net_namespace;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use host::trust::TrustedProgram;
use host::{Sysroot, printable};
use slurm::{NodeName, drain_worker};

use crate::history::Rounds;
use crate::settings::Settings;
use crate::site::{self, Named, Site};
use crate::{drain, own_program};

/// The hidden first argument of the process that `healthcheck` leaves behind.
pub const TESTER: &str = "loopback-tester";

/// The hidden first argument of the process that tests one device.
pub const PAIR: &str = "loopback-pair";

/// How long the server may take until the client finds it.
const SERVER_START: Duration = Duration::from_secs(5);
/// How often the client is started until then.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// What the process that tests one device may take beside its limit.
const GRACE: Duration = Duration::from_secs(5);

/// Where the two ends of a test meet, on loopback.
const CONTROL_PORT: u16 = 47_592;

/// Whether RDMA devices belong to one network namespace (`N`) or to all (`Y`).
const NETNS_MODE: &str = "sys/module/ib_core/parameters/netns_mode";

/// What testing one device gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Packets came back, in this time.
    Fine(Duration),
    /// They did not; libfabric's words.
    Failed(String),
    /// It could not be found out, which is no device's fault.
    Unknown(String),
}

/// The program that tests, if root may run it.
///
/// # Errors
/// Why not, which is no device's fault; for a person.
pub fn program(settings: &Settings) -> Result<TrustedProgram, String> {
    exec::program(&settings.fi_pingpong).map_err(|error| error.to_string())
}

/// Tests one device, in a process of its own: that one leaves this network
/// namespace.
#[must_use]
pub fn test(program: &TrustedProgram, site: &Site, device: &str) -> Outcome {
    let limit = site.settings.pingpong_limit;
    let mut command = Command::new(own_program());
    command
        .arg(PAIR)
        .arg(program.named())
        .arg(site.sysroot.path(""))
        .arg(device)
        .arg(limit.as_millis().to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Unknown(format!("no process could be started: {error}")),
    };
    // It writes a line at its end; a pipe has room for it.
    if exec::end(&mut child, Instant::now() + limit + GRACE).is_none() {
        return Outcome::Unknown("the process that tests did not end".to_owned());
    }
    let mut text = String::new();
    if let Some(pipe) = child.stdout.take() {
        // What is no text is no outcome either.
        let _ = pipe.take(LONGEST).read_to_string(&mut text);
    }
    Outcome::parse(&text)
}

/// Longer than any line of [`Outcome`].
const LONGEST: u64 = 4096;

impl Outcome {
    fn line(&self) -> String {
        match self {
            Self::Fine(took) => format!("fine {}\n", took.as_millis()),
            Self::Failed(reason) => format!("failed {}\n", printable(reason, 300)),
            Self::Unknown(reason) => format!("unknown {}\n", printable(reason, 300)),
        }
    }

    fn parse(line: &str) -> Self {
        let odd = || Self::Unknown("the process that tests ended early".to_owned());
        let Some((word, rest)) = line.trim_end().split_once(' ') else {
            return odd();
        };
        match (word, rest.parse()) {
            ("fine", Ok(took)) => Self::Fine(Duration::from_millis(took)),
            ("failed", _) => Self::Failed(rest.to_owned()),
            ("unknown", _) => Self::Unknown(rest.to_owned()),
            _ => odd(),
        }
    }
}

/// The child: `loopback-pair FI_PINGPONG SYSROOT DEVICE MILLISECONDS`.
#[must_use]
pub fn pair_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    // Without its parent nobody reads what it says.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let (Some(program), Some(root)) = (args.next(), args.next()) else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let mut text = || args.next().and_then(|arg| arg.into_string().ok());
    let (Some(device), Some(limit)) = (text(), text().and_then(|it| it.parse().ok())) else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let privacy = leave(&Sysroot::new(root.into()));
    let outcome = match exec::program(Path::new(&program)) {
        Ok(program) => pair(&program, &device, Duration::from_millis(limit)),
        Err(error) => Outcome::Unknown(error.to_string()),
    };
    let outcome = match (outcome, privacy) {
        (Outcome::Failed(reason), Err(why)) => Outcome::Unknown(format!(
            "{reason}; but another user may have disturbed the test, because {why}"
        )),
        (outcome, _) => outcome,
    };
    print!("{}", outcome.line());
    ExitCode::SUCCESS
}

/// Moves into a network namespace, in which no other user can take the port of
/// the test or connect to it; else why not.
fn leave(sysroot: &Sysroot) -> Result<(), String> {
    if sysroot.read_small(NETNS_MODE).is_ok_and(|mode| mode == "N") {
        return Err("RDMA devices belong to one network namespace here".to_owned());
    }
    net_namespace::enter_own()
        .map_err(|error| format!("it has no network namespace of its own: {error}"))
}

/// Runs both ends of fi_pingpong.
fn pair(program: &TrustedProgram, device: &str, limit: Duration) -> Outcome {
    let start = Instant::now();
    let not_run = |error: ExecError| Outcome::Unknown(error.to_string());
    let call = || {
        Call::of(program)
            .args(["-p", "efa", "-e", "rdm", "-I", "10", "-S", "4096"])
            .args(["-d", &format!("{device}-rdm")])
            .env("FI_EFA_ENABLE_SHM_TRANSFER", "0")
    };
    let mut server = match call().args(["-B", &CONTROL_PORT.to_string()]).start() {
        Ok(server) => server,
        Err(error) => return not_run(error),
    };
    // Of the client that met the server; a later one meets nobody.
    let mut met: Option<String> = None;
    let result = loop {
        let left = limit.saturating_sub(start.elapsed());
        let client = call().args(["-P", &CONTROL_PORT.to_string(), "127.0.0.1"]);
        let said = match client.run(left) {
            Ok(said) => said,
            Err(error) => break not_run(error),
        };
        if said.success() {
            break Outcome::Fine(start.elapsed());
        }
        if said.status.is_none() {
            let words = format!("no end after {} s", limit.as_secs());
            break Outcome::Failed(words);
        }
        if !said.stderr.contains(NOBODY) {
            met.get_or_insert_with(|| telling(&said.stderr).to_owned());
        }
        // Without a server there is nobody to try again for.
        let alone = matches!(server.try_wait(), Ok(Some(_)));
        if alone || start.elapsed() >= SERVER_START {
            break Outcome::Failed(met.unwrap_or_else(|| telling(&said.stderr).to_owned()));
        }
        // The server does not say when it listens.
        std::thread::sleep(TRY_AGAIN);
    };
    // Both ends of a good test end together; a server without a client never.
    let grace = Duration::from_secs(u64::from(matches!(result, Outcome::Fine(_))));
    let ended = exec::end(&mut server, Instant::now() + grace);
    let errors = exec::errors(&mut server);
    judge(result, ended, &errors)
}

/// What both ends together mean.
fn judge(client: Outcome, server: Option<ExitStatus>, errors: &str) -> Outcome {
    let server = server.filter(|status| !status.success());
    match (client, server) {
        (Outcome::Failed(_) | Outcome::Fine(_), Some(_)) if errors.contains(IN_USE) => {
            Outcome::Unknown(format!(
                "the port of the test is taken: {}",
                telling(errors)
            ))
        }
        // The client only found that nobody is there.
        (Outcome::Failed(_), Some(_)) if !errors.trim().is_empty() => {
            Outcome::Failed(telling(errors).to_owned())
        }
        (Outcome::Fine(_), Some(status)) => {
            Outcome::Failed(format!("the other end: {status}: {}", telling(errors)))
        }
        (client, _) => client,
    }
}

/// `ECONNREFUSED`, in the words of the C library.
const NOBODY: &str = "Connection refused";

/// `EADDRINUSE`, in the words of the C library.
const IN_USE: &str = "Address already in use";

/// The line of fi_pingpong's errors that says most: the first with libfabric's
/// error number, which is where it began.
fn telling(errors: &str) -> &str {
    let lines = || errors.lines().map(str::trim).filter(|it| !it.is_empty());
    let first = lines().next();
    let numbered = lines().find(|line| line.contains("ret="));
    numbered.or(first).unwrap_or("no reason given")
}

/// Starts the process that tests an idle node, and returns at once.
///
/// # Errors
/// It could not be started.
pub fn send(config: &Path, node: &NodeName) -> io::Result<()> {
    let mut command = Command::new(own_program());
    command.arg(TESTER).arg(config).arg(node.as_str());
    drain_worker::detach(command)
}

/// The child: `loopback-tester CONFIG NODE`.
#[must_use]
pub fn tester_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    drain_worker::leave();
    let mut text = || args.next().and_then(|arg| arg.into_string().ok());
    let (Some(config), Some(node)) = (text(), text()) else {
        return ExitCode::from(crate::EX_USAGE);
    };
    match test_idle_node(Path::new(&config), &node) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            drain::log(&format!("no loopback test: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn test_idle_node(config: &Path, node: &str) -> Result<(), String> {
    let node: NodeName = node.parse().map_err(|error| format!("{error}"))?;
    let site = Site::load(Some(config), Some(node.clone()), Named::Perhaps)?;
    let mut state = StateDir::open(&site.state_dir).map_err(|error| error.to_string())?;
    // Two tests of a device would disturb each other.
    let Ok(_testing) = state.lock(health::LOOPBACK_LOCK, Deadline::after(Duration::ZERO)) else {
        return Ok(());
    };
    let scontrol = drain::scontrol(&site.settings)?;
    let program = program(&site.settings)?;
    let devices = efa::devices::devices(&site.sysroot).map_err(|error| error.to_string())?;
    let mut failed = Vec::new();
    let mut unknown = Vec::new();
    if !scontrol.show(&node)?.is_idle() {
        return Ok(());
    }
    for device in devices.iter() {
        let outcome = test(&program, &site, &device.name);
        if !scontrol.show(&node)?.is_idle() {
            return Ok(());
        }
        match outcome {
            Outcome::Fine(_) => {}
            Outcome::Failed(reason) => failed.push((device.name.clone(), reason)),
            Outcome::Unknown(reason) => unknown.push(reason),
        }
    }
    if let (Some(reason), true) = (unknown.first(), failed.is_empty()) {
        return Err(reason.clone());
    }
    let keep = |error: host::state_dir::StateError| error.to_string();
    let limit = Deadline::after(Duration::from_secs(2));
    let _lock = state.lock(health::ROUNDS_LOCK, limit).map_err(keep)?;
    let now = site::now(&site.sysroot);
    let Some(bytes) = state.read(health::ROUNDS).map_err(keep)? else {
        return Ok(());
    };
    let mut last = Rounds::parse(&bytes, &now);
    last.loopback.get_or_insert_default().tell(failed, &now);
    let bytes = last.bytes().map_err(|error| error.to_string())?;
    state.write(health::ROUNDS, &bytes).map_err(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const NO_DATA: &str = "[warn] x\nfi_getinfo(): util/pingpong.c:1585, ret=-61 (No data available)\n\
                           pp_run(): util/pingpong.c:2, ret=-61 (No data available)\n";
    const REFUSED: &str = "connect: Connection refused";

    fn failed(text: &str) -> Outcome {
        Outcome::Failed(text.to_owned())
    }

    fn exit(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn libfabrics_own_error_is_given_from_whichever_end_has_it() {
        let own = "fi_getinfo(): util/pingpong.c:1585, ret=-61 (No data available)";
        assert_eq!(telling(NO_DATA), own);
        assert_eq!(judge(failed(REFUSED), exit(1), NO_DATA), failed(own));
        assert_eq!(judge(failed(own), None, ""), failed(own));
    }

    #[test]
    fn a_port_in_use_is_no_devices_fault() {
        let errors = "bind: Address already in use\n";
        for client in [failed(REFUSED), Outcome::Fine(Duration::ZERO)] {
            let outcome = judge(client, exit(1), errors);
            assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        }
    }

    #[test]
    fn a_test_that_one_end_failed_has_failed() {
        let fine = Outcome::Fine(Duration::ZERO);
        assert!(matches!(
            judge(fine.clone(), exit(1), ""),
            Outcome::Failed(_)
        ));
        assert_eq!(judge(fine.clone(), exit(0), NO_DATA), fine);
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for outcome in [
            Outcome::Fine(Duration::from_millis(7)),
            failed("a b"),
            Outcome::Unknown("c".to_owned()),
        ] {
            assert_eq!(Outcome::parse(&outcome.line()), outcome);
        }
        for line in ["", "fine", "fine x", "what 1"] {
            assert!(
                matches!(Outcome::parse(line), Outcome::Unknown(_)),
                "{line}"
            );
        }
    }
}
