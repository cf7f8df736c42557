//! How a test steers a device while a guest has it: one line for each connection
//! to SOCKET.ctl, and one line back.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;

use crate::device::Efa;
use crate::fabric::{Port, Settings};
use crate::faults::Refusal;
use crate::vfio_user::{Slot, lock};

/// What a device can be asked for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// A fault begins or ends.
    Fault(Fault, bool),
    /// Each command of the admin queue takes this long.
    Slow(Duration),
    /// Commands are refused, or no longer.
    Refuse(Option<Refusal>),
    /// The device sends an event: group and syndrome.
    Event(u16, u16),
    /// The connection to the client is closed.
    HangUp,
    /// The fabric admits nothing, or everything.
    Closed(bool),
    /// Lost packets of a million, on the whole fabric.
    Loss(u32),
    /// How long work takes to arrive, on the whole fabric.
    Delay(Duration),
    /// A counter has this value.
    Set(String, u64),
    /// The device claims a GUID, or has its own again. A driver asks when it comes.
    Guid(Option<u64>),
    /// What the device has counted.
    Counters,
    /// What is wrong with it and what the driver made on it.
    State,
}

/// Faults that are on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Commands are never answered.
    DeadAdmin,
    /// Registers are never answered.
    DeadRegisters,
    /// Interrupts are lost.
    Muted,
    /// The device says that it is not ready.
    NotReady,
    /// A reset never ends.
    StuckReset,
    /// The device is off the bus.
    Gone,
}

const FAULTS: &[(&str, Fault)] = &[
    ("dead-admin", Fault::DeadAdmin),
    ("dead-registers", Fault::DeadRegisters),
    ("muted", Fault::Muted),
    ("not-ready", Fault::NotReady),
    ("stuck-reset", Fault::StuckReset),
    ("gone", Fault::Gone),
];

/// For `tell --help`.
pub const USAGE: &str = "\
dead-admin|dead-registers|muted|not-ready|stuck-reset|gone on|off
slow MS              each command of the admin queue takes MS; 0 ends it
refuse OP STATUS     commands with opcode OP end with STATUS; `refuse off` ends it
event GROUP SYNDROME send an event (4 0 is a keep-alive)
hang-up              close the connection to the guest
closed on|off        the whole fabric: nothing arrives
loss PERCENT         the whole fabric: lost packets
delay MS             the whole fabric: how long work takes to arrive
set COUNTER N        a counter has this value
guid N               claim a GUID when a driver comes; `guid own` ends it
counters             print the counters as JSON
state                print faults, queues and commands seen as JSON";

fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{word}: use on or off")),
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    word.parse().map_err(|error| format!("{word}: {error}"))
}

/// Lost packets of a million, from a percentage.
///
/// # Errors
/// It is no percentage.
pub fn loss(word: &str) -> Result<u32, String> {
    let percent: f64 = number(word)?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("{word}: use a percentage from 0 to 100"));
    }
    Ok((percent * 10_000.0).round() as u32)
}

/// A time of at most an hour, from milliseconds.
///
/// # Errors
/// It is no such time.
pub fn milliseconds(word: &str) -> Result<Duration, String> {
    let time: u64 = number(word)?;
    if time > 3_600_000 {
        return Err(format!("{word}: use at most 3600000"));
    }
    Ok(Duration::from_millis(time))
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let fault = |word: &str| FAULTS.iter().find(|(name, _)| *name == word);
        Ok(match *words {
            ["slow", time] => Self::Slow(milliseconds(time)?),
            ["refuse", "off"] => Self::Refuse(None),
            ["refuse", opcode, status] => Self::Refuse(Some(Refusal {
                opcode: number(opcode)?,
                status: number(status)?,
            })),
            ["event", group, syndrome] => Self::Event(number(group)?, number(syndrome)?),
            ["hang-up"] => Self::HangUp,
            ["closed", word] => Self::Closed(switch(word)?),
            ["loss", percent] => Self::Loss(loss(percent)?),
            ["delay", time] => Self::Delay(milliseconds(time)?),
            ["set", counter, value] => Self::Set(counter.to_owned(), number(value)?),
            ["guid", "own"] => Self::Guid(None),
            ["guid", guid] => Self::Guid(Some(number(guid)?)),
            ["counters"] => Self::Counters,
            ["state"] => Self::State,
            [name, word] => match fault(name) {
                Some((_, fault)) => Self::Fault(*fault, switch(word)?),
                None => return Err(format!("unknown request; use one of\n{USAGE}")),
            },
            _ => return Err(format!("unknown request; use one of\n{USAGE}")),
        })
    }
}

/// Carries a request out. Returns what to print.
///
/// # Errors
/// Why it has no effect.
pub fn obey(
    request: Request,
    port: &Port,
    settings: &Settings,
    client: &Mutex<Option<UnixStream>>,
) -> Result<String, String> {
    let Slot { device, guest } = &mut *lock(port);
    match request {
        Request::Fault(Fault::DeadAdmin, on) => device.faults.dead_admin = on,
        Request::Fault(Fault::DeadRegisters, on) => device.faults.dead_registers = on,
        Request::Fault(Fault::Muted, on) => guest.muted = on,
        Request::Fault(Fault::NotReady, on) => device.faults.not_ready = on,
        Request::Fault(Fault::StuckReset, on) => device.faults.stuck_reset = on,
        Request::Fault(Fault::Gone, on) => device.faults.gone = on,
        Request::Slow(time) => device.faults.slow = time,
        Request::Refuse(refusal) => device.faults.refuse = refusal,
        Request::Event(group, syndrome) => {
            if !device.event(group, syndrome, guest) {
                return Err("no driver has set up a queue of events".to_owned());
            }
        }
        Request::HangUp => {
            let client = lock(client);
            let client = client.as_ref().ok_or("no guest is connected")?;
            client
                .shutdown(Shutdown::Both)
                .map_err(|error| error.to_string())?;
        }
        Request::Closed(on) => settings.closed.store(on, Relaxed),
        Request::Loss(loss) => settings.loss.store(loss, Relaxed),
        Request::Delay(time) => settings.delay.store(time.as_millis() as u64, Relaxed),
        Request::Set(counter, value) => {
            if !device.counters.set(&counter, value) {
                return Err(format!("{counter}: there is no such counter"));
            }
        }
        Request::Guid(guid) => device.identity.claimed_guid = guid,
        Request::Counters => return Ok(json!(device.counters.values()).to_string()),
        Request::State => {
            let connected = lock(client).is_some();
            return Ok(state(device, guest.muted, connected));
        }
    }
    Ok("ok".to_owned())
}

fn state(device: &Efa, muted: bool, connected: bool) -> String {
    let faults = &device.faults;
    json!({
        "model": device.identity.model.name,
        "connected": connected,
        "faults": {
            "dead_admin": faults.dead_admin,
            "dead_registers": faults.dead_registers,
            "muted": muted,
            "not_ready": faults.not_ready,
            "stuck_reset": faults.stuck_reset,
            "gone": faults.gone,
            "slow_ms": faults.slow.as_millis() as u64,
            "refuse": faults.refuse,
        },
        "queues": device.counts(),
        "commands": device.commands,
    })
    .to_string()
}

/// The longest request.
const LINE: u64 = 256;
/// A connection that says nothing must not keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one connection.
///
/// # Errors
/// The connection failed.
pub fn answer(
    mut stream: &UnixStream,
    port: &Port,
    settings: &Settings,
    client: &Mutex<Option<UnixStream>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE)).read_line(&mut line)?;
    let reply = line
        .parse()
        .and_then(|request| obey(request, port, settings, client));
    match reply {
        Ok(reply) => writeln!(stream, "{reply}"),
        Err(error) => writeln!(stream, "{FAILED}{error}"),
    }
}

const FAILED: &str = "error: ";

/// Sends a request to a device's control socket. Returns the reply.
///
/// # Errors
/// The device is not there, or says why the request has no effect.
pub fn tell(socket: &Path, line: &str) -> Result<String, String> {
    let talk = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        writeln!(stream, "{line}")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    let reply = talk().map_err(|error| format!("{}: {error}", socket.display()))?;
    match reply.strip_prefix(FAILED) {
        Some(error) => Err(error.trim_end().to_owned()),
        None => Ok(reply.trim_end().to_owned()),
    }
}
