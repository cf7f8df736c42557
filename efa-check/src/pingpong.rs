//! The active test: fi_pingpong from a device to itself, one after the other.
//!
//! Only on demand, on an idle node: it takes seconds for each device and uses
//! the device. Shared memory is off, or libfabric would not touch the device.
//! That libfabric calls a device's domain `<device>-rdm` is from libfabric's
//! efa provider; nothing here was run on EFA hardware.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::printable;

use crate::bounded;
use crate::settings::Settings;

/// How long the server may take until the client finds it.
const SERVER_START: Duration = Duration::from_secs(5);
/// How often the client is started until then.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Where the two ends of a test meet, on loopback.
const CONTROL_PORT: u16 = 47_592;

/// Tests one device; the reason if it fails.
///
/// # Errors
/// The first words of who failed, for a person.
pub fn test(settings: &Settings, device: &str) -> Result<Duration, String> {
    let start = Instant::now();
    let command = || {
        let mut command = Command::new(&settings.fi_pingpong);
        command
            .args(["-p", "efa", "-e", "rdm", "-I", "10", "-S", "4096"])
            .args(["-d", &format!("{device}-rdm")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("FI_EFA_ENABLE_SHM_TRANSFER", "0")
            .current_dir("/");
        command
    };
    let program = printable(&settings.fi_pingpong.to_string_lossy(), 200);
    let mut server = command()
        .args(["-B", &CONTROL_PORT.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let result = loop {
        let left = settings.pingpong_limit.saturating_sub(start.elapsed());
        let mut client = command();
        client.args(["-P", &CONTROL_PORT.to_string(), "127.0.0.1"]);
        let said = match bounded::run(&mut client, left) {
            Ok(said) => said,
            Err(error) => break Err(format!("{program}: {error}")),
        };
        if said.success() {
            break Ok(start.elapsed());
        }
        let words = said.stderr.lines().next().unwrap_or("no word why");
        if said.status.is_none() {
            let limit = settings.pingpong_limit.as_secs();
            break Err(format!("no end after {limit} s"));
        }
        if start.elapsed() >= SERVER_START {
            break Err(printable(words, 200));
        }
        // The server does not say when it listens.
        std::thread::sleep(TRY_AGAIN);
    };
    // Both ends of a good test end together; a server without a client never.
    let grace = if result.is_ok() { 1 } else { 0 };
    let ended = bounded::end(&mut server, Instant::now() + Duration::from_secs(grace));
    match (result, ended) {
        (Ok(_), Some(status)) if !status.success() => Err(format!("the other end: {status}")),
        (result, _) => result,
    }
}
