//! Brings a device back whose admin queue is closed: its driver lets it go and
//! takes it again, which resets it. Nothing else does; the driver never opens the
//! queue again by itself (seen with the kernel's own driver: 0.07 s).
//!
//! A process of its own does all of it, and the process that started it can leave: the
//! driver lets a device go only when the last reader that hangs on it has come
//! back, after 30 s with the driver's default. That process is never killed, or a
//! device could be left without its driver.
//!
//! It acts below the sysroot, so that a simulated tree never moves a real device.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use efa::devices;
use findings::Domain;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use host::{Deadline, Sysroot, exec, printable};
use rustix::fs::{Mode, OFlags};
use slurm::scontrol::Shown;
use slurm::{NodeName, drain_worker};

use crate::baseline;
use crate::counters::Wanted;
use crate::history::Rounds;
use crate::observe;
use crate::probe_worker::{self, Probe};
use crate::settings::OnFatal;
use crate::site::{self, Named, Site};
use crate::{drain, own_program};

/// The hidden first argument of the process.
pub const REBINDER: &str = "device-rebinder";

const DRIVER: &str = "sys/bus/pci/drivers/efa";

/// A person waits so long: the driver's own limit of 30 s, twice.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long Slurm may take until it shows the node drained.
const DRAIN: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a device may take to come up.
const COMES_UP: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The health check, on a node that it drained.
    Idle,
    /// A person, on a node without a job.
    ByHand,
    /// A person, whatever is on the node.
    Forced,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::ByHand => "by-hand",
            Self::Forced => "forced",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let all = [Self::Idle, Self::ByHand, Self::Forced];
        all.into_iter().find(|how| how.word() == word)
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device answers again.
    Healed(String),
    /// It was tried, and the device does not.
    Failed(String),
    /// Nothing was done, and why.
    Refused(String),
}

impl Outcome {
    fn line(&self) -> String {
        let (word, text) = match self {
            Self::Healed(text) => ("healed", text),
            Self::Failed(text) => ("failed", text),
            Self::Refused(text) => ("refused", text),
        };
        format!("{word} {}\n", printable(text, 400))
    }

    fn parse(line: &str) -> Option<Self> {
        let (word, text) = line.trim_end().split_once(' ')?;
        let text = text.to_owned();
        match word {
            "healed" => Some(Self::Healed(text)),
            "failed" => Some(Self::Failed(text)),
            "refused" => Some(Self::Refused(text)),
            _ => None,
        }
    }
}

fn command(config: &Path, node: Option<&NodeName>, device: &str, how: How) -> Command {
    let mut command = Command::new(own_program());
    command
        .arg(REBINDER)
        .arg(config)
        .arg(node.map_or("", NodeName::as_str))
        .arg(device)
        .arg(how.word());
    command
}

/// Starts the process for a health check, and returns at once.
///
/// # Errors
/// It could not be started.
pub fn send(config: &Path, node: &NodeName, device: &str) -> io::Result<()> {
    drain_worker::detach(command(config, Some(node), device, How::Idle))
}

/// Starts the process for a person and waits for it, but not without a limit.
///
/// # Errors
/// Why it is not known what came of it.
pub fn wait_for(site: &Site, device: &str, how: How) -> Result<Outcome, String> {
    let mut command = command(&site.config, site.node.as_ref(), device, how);
    let mut child = command
        // A signal from the terminal must not end it half way.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no process could be started: {error}"))?;
    if exec::ended_by(&mut child, Instant::now() + PATIENCE).is_none() {
        return Err(format!(
            "the driver has not let {} go in {} s; process {} goes on, and logs what comes of it",
            printable(device, 60),
            PATIENCE.as_secs(),
            child.id()
        ));
    }
    let mut text = String::new();
    if let Some(pipe) = child.stdout.take() {
        // What is no text is no outcome either.
        let _ = pipe.take(4096).read_to_string(&mut text);
    }
    Outcome::parse(&text).ok_or_else(|| "the process that rebinds ended early".to_owned())
}

/// The child: `device-rebinder CONFIG NODE DEVICE idle|by-hand|forced`.
#[must_use]
pub fn rebinder_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut text = || args.next().and_then(|arg| arg.into_string().ok());
    let (Some(config), Some(node), Some(device), Some(how)) = (text(), text(), text(), text())
    else {
        return ExitCode::from(crate::EX_USAGE);
    };
    let Some(how) = How::parse(&how) else {
        return ExitCode::from(crate::EX_USAGE);
    };
    if how == How::Idle {
        drain_worker::leave();
    }
    let shown = printable(&device, 60);
    let outcome = rebind(Path::new(&config), &node, &device, how).unwrap_or_else(Outcome::Refused);
    match &outcome {
        Outcome::Healed(text) => drain::log(&format!("rebind of {shown}: {text}")),
        Outcome::Failed(text) => drain::log(&format!("rebind of {shown} failed: {text}")),
        // A person is told; a busy node is looked at again in a minute.
        Outcome::Refused(_) => {}
    }
    // Nobody may be left to read it.
    let _ = io::stdout().write_all(outcome.line().as_bytes());
    ExitCode::SUCCESS
}

/// An error is a refusal.
fn rebind(config: &Path, node: &str, device: &str, how: How) -> Result<Outcome, String> {
    let name = (!node.is_empty()).then(|| node.parse::<NodeName>());
    let name = name.transpose().map_err(|error| error.to_string())?;
    let site = Site::load(Some(config), name, Named::Perhaps)?;
    if !rustix::process::geteuid().is_root() {
        return Err("only root can do that".to_owned());
    }
    let mut state = StateDir::open(&site.state_dir).map_err(|error| error.to_string())?;
    let held = state.lock(health::LOOPBACK_LOCK, Deadline::after(Duration::ZERO));
    let _lock = held.map_err(|error| format!("another rebind or a loopback test runs: {error}"))?;
    let target = Target::find(&site, &state, device)?;
    if how != How::Forced {
        without_job(&site, how)?;
    }
    let started = Instant::now();
    if how == How::Idle && !mark(&site, &mut state, device, None)? {
        return Err("it was rebound within a day".to_owned());
    }
    let address = &target.address;
    let outcome = match target.rebind(&site.sysroot) {
        Err(reason) => Outcome::Failed(reason),
        Ok(()) => match answers(&site, address) {
            Ok(()) => Outcome::Healed(format!(
                "it answers again after {} ms (pci {address})",
                started.elapsed().as_millis()
            )),
            Err(reason) => Outcome::Failed(reason),
        },
    };
    let healed = matches!(outcome, Outcome::Healed(_));
    if let Some(name) = &target.name {
        // The device is back or not, whether or not that can be written down.
        let _ = mark(&site, &mut state, name, Some(healed));
    }
    Ok(outcome)
}

/// The device to rebind.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// The kernel's name, or the last one that it had.
    name: Option<String>,
    address: String,
    /// Whether the efa driver has it. After a bind that failed, no driver has.
    is_driven: bool,
}

impl Target {
    /// The device of this name or PCI address. The name may be the last one of a
    /// device that has no driver now, and so none.
    fn find(site: &Site, state: &StateDir, device: &str) -> Result<Self, String> {
        let all = devices::devices(&site.sysroot).map_err(|error| error.to_string())?;
        let known = last_known(site, state);
        let address = match all.iter().find(|it| it.name == device) {
            Some(found) => {
                let address = found.pci_address.clone();
                address.ok_or_else(|| "its PCI address is not known".to_owned())?
            }
            None => {
                let mut known = known.iter();
                let known = known.find(|(name, _)| name == device);
                known.map_or(device, |(_, address)| address).to_owned()
            }
        };
        let on_bus = devices::on_bus(&site.sysroot, &address).ok_or(
            "there is no such EFA device; name it as `efa-check node` does, or by its PCI address",
        )?;
        let is_driven = match on_bus.driver.as_deref() {
            Some("efa") => true,
            None => false,
            Some(other) => return Err(format!("the driver {} has it", printable(other, 60))),
        };
        let address = on_bus.address;
        let here = all.devices.into_iter();
        let here = here.map(|it| (it.name, it.pci_address.unwrap_or_default()));
        let mut named = here.chain(known);
        Ok(Self {
            name: named.find(|(_, its)| *its == address).map(|(name, _)| name),
            address,
            is_driven,
        })
    }

    /// Has the driver let the device go, if it has it, and take it again.
    fn rebind(&self, sysroot: &Sysroot) -> Result<(), String> {
        let file = |name: &str| attribute(sysroot, &format!("{DRIVER}/{name}"));
        // All are opened first: what cannot be bound again is not unbound.
        let unbind = self.is_driven.then(|| file("unbind")).transpose()?;
        let bind = file("bind")?;
        let write = |file: &OwnedFd, what: &str| {
            let written = rustix::io::write(file, self.address.as_bytes());
            written.map_err(|errno| format!("{what}: {errno}"))
        };
        if let Some(unbind) = &unbind {
            write(unbind, "unbind")?;
        }
        write(&bind, "bind").map_err(|reason| {
            let address = &self.address;
            format!(
                "{reason}; the device has no driver now; `efa-check rebind {address}` tries again"
            )
        })?;
        Ok(())
    }
}

/// Names and PCI addresses of devices that were seen since boot, or recorded.
fn last_known(site: &Site, state: &StateDir) -> Vec<(String, String)> {
    let rounds = rounds(site, state).map(|rounds| rounds.devices);
    let seen = rounds.unwrap_or_default().into_iter();
    let seen = seen.filter_map(|(name, device)| Some((name, device.pci?)));
    let record = baseline::read(&site.record).ok().flatten();
    let recorded = record.map(|record| record.devices).unwrap_or_default();
    let recorded = recorded.into_iter();
    let recorded = recorded.filter_map(|known| Some((known.name, known.pci?)));
    seen.chain(recorded).collect()
}

/// What the last round kept.
fn rounds(site: &Site, state: &StateDir) -> Result<Rounds, String> {
    let now = site::now(&site.sysroot);
    let kept = state.read(health::ROUNDS);
    Ok(match kept.map_err(|error| error.to_string())? {
        Some(bytes) => Rounds::parse(&bytes, &now),
        None => Rounds::first(&now),
    })
}

/// Whether no job is on the node and, for a health check, none can come.
fn without_job(site: &Site, how: How) -> Result<(), String> {
    let node = site.node.as_ref().ok_or("the node's name is not known")?;
    let scontrol = drain::scontrol(&site.settings)?;
    let start = Instant::now();
    loop {
        if !observe::is_idle(&site.sysroot) {
            return Err("a job is on the node".to_owned());
        }
        let shown = scontrol.show(node)?;
        let reason = match why_not(&shown, how) {
            None => return Ok(()),
            Some(reason) => reason,
        };
        // The same health check has asked for the drain.
        if how != How::Idle || !shown.is_idle() || start.elapsed() >= DRAIN {
            return Err(reason);
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

fn why_not(shown: &Shown, how: How) -> Option<String> {
    // AWS's deep health checks run in a maintenance reservation.
    let reserved = |flag: &String| flag.starts_with("MAINT") || flag == "RESERVED";
    if !shown.is_idle() {
        return Some("Slurm has a job on the node".to_owned());
    }
    if shown.flags.iter().any(reserved) {
        return Some("the node is reserved".to_owned());
    }
    let is_drained = shown.is_out() && shown.reason.starts_with(Domain::Efa.prefix());
    (how == How::Idle && !is_drained).then(|| "the node is not drained by efa-check".to_owned())
}

/// Writes down that a device is rebound, or what came of it; `false` if that was
/// done within a day.
fn mark(
    site: &Site,
    state: &mut StateDir,
    device: &str,
    healed: Option<bool>,
) -> Result<bool, String> {
    let keep = |error: host::state_dir::StateError| error.to_string();
    let limit = Deadline::after(Duration::from_secs(2));
    let _lock = state.lock(health::ROUNDS_LOCK, limit).map_err(keep)?;
    let now = site::now(&site.sysroot);
    let mut rounds = rounds(site, state)?;
    if healed.is_none() && rounds.was_rebound(device, &now) {
        return Ok(false);
    }
    rounds.rebind(device, healed, &now);
    let bytes = rounds.bytes().map_err(|error| error.to_string())?;
    state.write(health::ROUNDS, &bytes).map_err(keep)?;
    Ok(true)
}

/// Opens an attribute for writing; no part of its path may be a link.
fn attribute(sysroot: &Sysroot, rel: &str) -> Result<OwnedFd, String> {
    let failed = |errno: rustix::io::Errno| format!("/{rel}: {errno}");
    let open_root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = sysroot.path("");
    let mut folder = rustix::fs::open(&root, open_root, Mode::empty()).map_err(failed)?;
    let (folders, name) = rel.rsplit_once('/').unwrap_or(("", rel));
    for part in folders.split('/') {
        let flags = open_root | OFlags::NOFOLLOW;
        folder = rustix::fs::openat(&folder, part, flags, Mode::empty()).map_err(failed)?;
    }
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(&folder, name, flags, Mode::empty()).map_err(failed)
}

/// Waits until the device at this address is there, and reads its counters.
fn answers(site: &Site, address: &str) -> Result<(), String> {
    let start = Instant::now();
    let name = loop {
        let all = devices::devices(&site.sysroot).map_err(|error| error.to_string())?;
        let mut all = all.devices.into_iter();
        if let Some(device) = all.find(|it| it.pci_address.as_deref() == Some(address)) {
            break device.name;
        }
        if start.elapsed() >= COMES_UP {
            return Err(format!("it did not come back (pci {address})"));
        }
        // sysfs has nothing to wait on.
        std::thread::sleep(LOOK_AGAIN);
    };
    let none = std::collections::BTreeMap::new();
    let limit = site.settings.probe_limit;
    let found = probe_worker::probe(
        &site.sysroot,
        &site.state_dir,
        &[&name],
        Wanted::Judged,
        limit,
        &none,
        || {},
    );
    match found.into_iter().next() {
        Some(Probe::Values(_)) => Ok(()),
        Some(Probe::Failed { reason } | Probe::Dead { reason } | Probe::Unknown { reason }) => {
            Err(format!("it came back and does not answer: {reason}"))
        }
        Some(Probe::Stuck { .. }) | None => {
            Err("it came back and does not answer: a read hangs".to_owned())
        }
    }
}

/// The devices that a health check may rebind now.
#[must_use]
pub fn dead<'a>(
    site: &Site,
    seen: &'a observe::Observation,
    rounds: &Rounds,
    now: &crate::history::Now,
) -> Vec<&'a str> {
    if !site.settings.rebind || site.settings.on_fatal != OnFatal::Drain {
        return Vec::new();
    }
    let devices = seen.devices.as_deref().unwrap_or_default();
    let is_dead = |it: &&observe::Seen| {
        matches!(it.probe, Probe::Dead { .. } | Probe::Stuck { .. })
            && !rounds.was_rebound(&it.name, now)
    };
    let dead = devices.iter().filter(is_dead);
    dead.map(|device| device.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: &str, reason: &str) -> Shown {
        let line = format!("NodeName=n1 State={state} Owner=N/A Reason={reason} [root@2026]");
        Shown::parse(&line).unwrap()
    }

    #[test]
    fn a_health_check_rebinds_only_on_an_idle_node_that_it_drained() {
        let fine = |state, reason| why_not(&shown(state, reason), How::Idle).is_none();
        assert!(fine("IDLE+DRAIN", "EFA: x"));
        assert!(!fine("IDLE", "EFA: x"));
        assert!(!fine("IDLE+DRAIN", "disk is full"));
        assert!(!fine("MIXED+DRAIN", "EFA: x"));
        assert!(!fine("DRAINING", "EFA: x"));
        assert!(!fine("IDLE+DRAIN+MAINTENANCE", "EFA: x"));
        assert!(!fine("IDLE+DRAIN+RESERVED", "EFA: x"));
    }

    #[test]
    fn a_person_rebinds_on_an_idle_node_in_service() {
        assert_eq!(why_not(&shown("IDLE", ""), How::ByHand), None);
        assert!(why_not(&shown("ALLOCATED", ""), How::ByHand).is_some());
    }

    #[test]
    fn a_path_with_a_link_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = Sysroot::new(dir.path().into());
        let real = dir.path().join("elsewhere");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("unbind"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("sys/bus/pci/drivers")).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join(DRIVER)).unwrap();
        assert!(attribute(&root, &format!("{DRIVER}/unbind")).is_err());
        std::fs::remove_file(dir.path().join(DRIVER)).unwrap();
        std::fs::create_dir(dir.path().join(DRIVER)).unwrap();
        let unbind = dir.path().join(DRIVER).join("unbind");
        std::os::unix::fs::symlink(real.join("unbind"), &unbind).unwrap();
        assert!(attribute(&root, &format!("{DRIVER}/unbind")).is_err());
        std::fs::remove_file(&unbind).unwrap();
        std::fs::write(&unbind, "").unwrap();
        assert!(attribute(&root, &format!("{DRIVER}/unbind")).is_ok());
    }
}
