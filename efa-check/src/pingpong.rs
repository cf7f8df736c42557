//! The active test: fi_pingpong from a device to itself, one after the other.
//!
//! Only on an idle node, on demand or from `healthcheck` in a process of its own: it
//! takes seconds for each device and uses the device. Shared memory is off, or
//! libfabric would not touch the device.
//!
//! Slurm is asked before and after each device, and what was found while a job
//! was there is thrown away: it may be the job's doing.
//!
//! That libfabric calls a device's domain `<device>-rdm` is from libfabric's
//! efa provider; nothing here was run on EFA hardware.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use host::Deadline;
use host::exec::{self, Call, ExecError};
use host::printable;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use host::trust::TrustedProgram;
use slurm::{NodeName, drain_worker};

use crate::history::Rounds;
use crate::settings::Settings;
use crate::site::{self, Named, Site};
use crate::{drain, own_program};

/// The hidden first argument of the process that `healthcheck` leaves behind.
pub const TESTER: &str = "loopback-tester";

/// How long the server may take until the client finds it.
const SERVER_START: Duration = Duration::from_secs(5);
/// How often the client is started until then.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Where the two ends of a test meet, on loopback.
const CONTROL_PORT: u16 = 47_592;

/// The program that tests, if root may run it.
///
/// # Errors
/// Why not, which is no device's fault; for a person.
pub fn program(settings: &Settings) -> Result<TrustedProgram, String> {
    exec::program(&settings.fi_pingpong).map_err(|error| error.to_string())
}

/// Tests one device; the reason if it fails.
///
/// # Errors
/// The first words of who failed, for a person.
pub fn test(
    program: &TrustedProgram,
    settings: &Settings,
    device: &str,
) -> Result<Duration, String> {
    let start = Instant::now();
    let not_run = |error: ExecError| error.to_string();
    let call = || {
        Call::of(program)
            .args(["-p", "efa", "-e", "rdm", "-I", "10", "-S", "4096"])
            .args(["-d", &format!("{device}-rdm")])
            .env("FI_EFA_ENABLE_SHM_TRANSFER", "0")
    };
    let mut server = call()
        .args(["-B", &CONTROL_PORT.to_string()])
        .start()
        .map_err(not_run)?;
    let result = loop {
        let left = settings.pingpong_limit.saturating_sub(start.elapsed());
        let client = call().args(["-P", &CONTROL_PORT.to_string(), "127.0.0.1"]);
        let said = match client.run(left) {
            Ok(said) => said,
            Err(error) => break Err(not_run(error)),
        };
        if said.success() {
            break Ok(start.elapsed());
        }
        let words = said.stderr.lines().next().unwrap_or("no word why");
        if said.status.is_none() {
            let limit = settings.pingpong_limit.as_secs();
            break Err(format!("no end after {limit} s"));
        }
        // Without a server there is nobody to try again for.
        let alone = matches!(server.try_wait(), Ok(Some(_)));
        if alone || start.elapsed() >= SERVER_START {
            break Err(printable(words, 200));
        }
        // The server does not say when it listens.
        std::thread::sleep(TRY_AGAIN);
    };
    // Both ends of a good test end together; a server without a client never.
    let grace = if result.is_ok() { 1 } else { 0 };
    let ended = exec::end(&mut server, Instant::now() + Duration::from_secs(grace));
    match (result, ended) {
        (Ok(_), Some(status)) if !status.success() => Err(format!("the other end: {status}")),
        (result, _) => result,
    }
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
    if !scontrol.show(&node)?.is_idle() {
        return Ok(());
    }
    for device in devices.iter() {
        let result = test(&program, &site.settings, &device.name);
        if !scontrol.show(&node)?.is_idle() {
            return Ok(());
        }
        failed.extend(result.err().map(|reason| (device.name.clone(), reason)));
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
