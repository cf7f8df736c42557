//! One guest: QEMU with emulated devices, and root's shell in it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::image::{HERE, Image};
use crate::machines::qemu::{self, Clock};
use crate::machines::{Verdict, tail};

/// How long a guest may take to boot on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a command may take that says nothing else.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a guest that says nothing is nudged, if it must be.
const NUDGE: Duration = Duration::from_millis(250);
/// What the shell says first.
const UP: &str = "guest is up";
/// Ends the output of a command; its status and its microseconds follow.
const END: &str = "-- end of command";

/// What a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    pub name: &'static str,
    /// The instance type that its firmware reports.
    pub product: &'static str,
    pub cpus: u32,
    /// MiB of memory of each NUMA node. With several, device N is at node N.
    pub memory: &'static [u32],
    pub kernel: Kernel,
    pub clock: Clock,
    pub network: Option<Network>,
}

/// A kernel of the image, with its own efa driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The release's: 17 counters.
    Stable,
    /// The backports': 22 counters.
    Backports,
}

impl Kernel {
    /// As the image's files are called.
    fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Backports => "backports",
        }
    }
}

/// A cable between two guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: &'static str,
    /// One end waits for the other.
    pub first: bool,
}

/// What a command in a guest printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Standard output and error together.
    pub text: String,
    pub code: i32,
    /// As the guest's clock measured it.
    pub took: Duration,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { text, code, took } = self;
        write!(f, "{text}(exit code {code}, {} ms)", took.as_millis())
    }
}

/// A guest that runs. Dropping it switches it off.
#[derive(Debug)]
pub struct Guest {
    hardware: Hardware,
    qemu: Child,
    keyboard: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    /// Switches it on with these devices, one for each socket; it boots on its own.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(image: &Image, hardware: Hardware, devices: &[&Path]) -> Verdict<Self> {
        let mut qemu = command(image, &hardware, devices)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(file(&hardware, "qemu"))?)
            .spawn()?;
        let keyboard = qemu.stdin.take().ok_or("no serial line")?;
        let screen = qemu.stdout.take().ok_or("no serial line")?;
        let (send, lines) = channel();
        thread::spawn(move || read(screen, &send));
        Ok(Self {
            hardware,
            qemu,
            keyboard,
            lines,
        })
    }

    /// Waits for the end of its boot.
    ///
    /// # Errors
    /// With the console's last words, when it does not come up.
    pub fn wait_up(&mut self) -> Verdict {
        let end = Instant::now() + BOOT_LIMIT;
        while self.line(end)? != UP {}
        Ok(())
    }

    /// Runs a script as root, whatever its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub fn output(&mut self, script: &str) -> Verdict<Said> {
        self.output_within(script, LIMIT)
    }

    /// The same with a limit of its own.
    ///
    /// # Errors
    /// It does not end within the limit.
    pub fn output_within(&mut self, script: &str, limit: Duration) -> Verdict<Said> {
        write!(
            self.keyboard,
            "t=${{EPOCHREALTIME/./}}; ( {script}\n) </dev/null 2>&1; s=$?; \
             echo; echo \"{END} $s $((${{EPOCHREALTIME/./}} - t))\"\n"
        )?;
        self.keyboard.flush()?;
        let end = Instant::now() + limit;
        let mut text = String::new();
        loop {
            let line = match self.line(end) {
                Ok(line) => line,
                Err(reason) => return Err(format!("{reason}\n{script}\n{text}").into()),
            };
            if let Some(end) = line.strip_prefix(END) {
                let mut numbers = end.split_whitespace();
                let mut number = || numbers.next().and_then(|word| word.parse::<u64>().ok());
                let code = number().ok_or("no exit code")?;
                let took = Duration::from_micros(number().ok_or("no time")?);
                // The line feed that comes before the end.
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                let code = i32::try_from(code)?;
                return Ok(Said { text, code, took });
            }
            writeln!(text, "{line}")?;
        }
    }

    /// Runs a script as root; one that fails is an error.
    ///
    /// # Errors
    /// With what it printed.
    pub fn run(&mut self, script: &str) -> Verdict<String> {
        let said = self.output(script)?;
        if said.code != 0 {
            return Err(format!("on {}: {script}\n{said}", self.hardware.name).into());
        }
        Ok(said.text)
    }

    /// Waits until a condition of the guest's shell holds.
    ///
    /// # Errors
    /// It does not within the time; with what it printed last.
    pub fn wait(&mut self, what: &str, condition: &str) -> Verdict {
        let script = format!(
            "end=$((SECONDS + 60)); until said=$({condition}) 2>&1; do \
             [ $SECONDS -lt $end ] || {{ echo \"$said\"; exit 1; }}; sleep 0.05; done"
        );
        let said = self.output(&script)?;
        if said.code != 0 {
            return Err(format!("waited in vain for {what}: {condition}\n{said}").into());
        }
        Ok(())
    }

    /// Plugs a device into a free slot of a guest that runs.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn plug(&self, slot: usize, socket: &Path) -> Verdict {
        let stream = UnixStream::connect(file(&self.hardware, "qmp"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut words = &stream;
        let mut answers = BufReader::new(&stream);
        let device = device(slot, &format!("slot{slot}"), socket);
        for command in [
            r#"{"execute":"qmp_capabilities"}"#.to_owned(),
            format!(r#"{{"execute":"device_add","arguments":{device}}}"#),
        ] {
            writeln!(words, "{command}")?;
            loop {
                let mut answer = String::new();
                if answers.read_line(&mut answer)? == 0 || answer.starts_with(r#"{"error""#) {
                    return Err(format!("QEMU: {command}: {answer}").into());
                }
                if answer.starts_with(r#"{"return""#) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The last words on the console, and QEMU's own.
    pub fn console(&self) -> String {
        let last = |end| tail(&file(&self.hardware, end), 10_000);
        let mut text = format!("======== {}\n", self.hardware.name);
        for line in last("qemu").lines().chain(last("console").lines()) {
            // QEMU's words for each device that is well.
            if !line.contains("Could not enable error recovery") {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    fn line(&self, end: Instant) -> Verdict<String> {
        let name = self.hardware.name;
        let what = loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(NUDGE)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => break "no answer in time",
                Err(RecvTimeoutError::Timeout) => self.nudge()?,
                Err(RecvTimeoutError::Disconnected) => break "QEMU has ended",
            }
        };
        Err(format!("{name}: {what}\n{}", self.console()).into())
    }

    /// Now and then a QEMU that counts instructions misses that its guest, which does
    /// nothing, waits for time to go by, until something happens to it: an empty line.
    fn nudge(&self) -> Verdict {
        if self.hardware.clock == Clock::Instructions {
            (&self.keyboard).write_all(b"\n")?;
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The bus above the first device of a guest with NUMA nodes; the next one's is 16
/// further.
const FIRST_FAR_BUS: usize = 0x40;

/// A file of the guest's.
fn file(hardware: &Hardware, end: &str) -> PathBuf {
    Path::new(HERE).join(format!("{}.{end}", hardware.name))
}

/// QEMU's own, in the root that has one with vfio-user-pci. The devices share the
/// guest's memory, or could not read what the driver writes.
fn command(image: &Image, hardware: &Hardware, devices: &[&Path]) -> Command {
    /// Slots for devices that are plugged in later.
    const SLOTS: usize = 4;
    let Hardware {
        name,
        product,
        cpus,
        memory,
        kernel,
        clock,
        network,
    } = *hardware;
    let at = |name: &str| Path::new(HERE).join("image").join(name);
    let mut qemu = Command::new("chroot");
    qemu.arg(&image.root).arg("qemu-system-x86_64");
    let address = network.map_or(String::new(), |it| format!("address={}", it.address));
    let words = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off lsm=yama net.ifnames=0 name={name} \
         {address}"
    );
    let of_kernel = |what: &str| at(&format!("{what}-{}", kernel.name()));
    qemu::boot(
        &mut qemu,
        cpus,
        &of_kernel("KERNEL"),
        &of_kernel("INITRD"),
        &words,
    );
    qemu::clock(&mut qemu, clock);
    qemu::numa(&mut qemu, cpus, memory, "memory-backend-memfd,share=on");
    qemu.args(["-M", "q35", "-no-reboot"])
        .args([
            "-smbios",
            &format!("type=1,manufacturer=Amazon EC2,product={product}"),
        ])
        .arg("-serial")
        .arg(format!("file:{}", file(hardware, "console").display()))
        .args(["-serial", "stdio", "-qmp"])
        .arg(format!(
            "unix:{},server=on,wait=off",
            file(hardware, "qmp").display()
        ));
    for (name, disk) in [("base", at("DISK")), ("own", Path::new(HERE).join("own"))] {
        qemu.arg("-drive")
            .arg(format!(
                "id={name},file={},format=raw,if=none,readonly=on",
                disk.display()
            ))
            .arg("-device")
            .arg(format!("virtio-blk-pci,drive={name},bus=pcie.0"));
    }
    if let Some(Network { address, first }) = network {
        let end = match first {
            true => "server=on",
            // Until the other one is there.
            false => "server=off,reconnect-ms=100",
        };
        let mac = address.rsplit('.').next().unwrap_or_default();
        qemu.arg("-netdev")
            .arg(format!(
                "stream,id=net,{end},addr.type=unix,addr.path={HERE}/cable"
            ))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,netdev=net,bus=pcie.0,romfile=,mac=52:54:00:0a:4d:{mac:0>2}"
            ));
    }
    for slot in 0..devices.len().max(SLOTS) {
        // The firmware leaves room for a device only where there is one.
        let room = match devices.get(slot) {
            Some(_) => "",
            None => ",mem-reserve=1M,pref64-reserve=32M",
        };
        qemu.arg("-device").arg(format!(
            "pcie-root-port,id=slot{slot},chassis={0},slot={0},addr={1:x}.{2},multifunction=on{room}",
            slot + 1,
            8 + slot / 8,
            slot % 8
        ));
    }
    for (number, socket) in devices.iter().enumerate() {
        let mut bus = format!("slot{number}");
        if memory.len() > 1 {
            let node = number % memory.len();
            bus = format!("far{number}");
            qemu.arg("-device")
                .arg(format!(
                    "pxb-pcie,id=root{number},bus_nr={},numa_node={node},bus=pcie.0",
                    FIRST_FAR_BUS + number * 16
                ))
                .arg("-device")
                .arg(format!(
                    "pcie-root-port,id={bus},bus=root{number},chassis={0},slot={0}",
                    100 + number
                ));
        }
        qemu.arg("-device").arg(device(number, &bus, socket));
    }
    qemu
}

/// The words for a device, which only JSON can say: its socket is an object.
fn device(number: usize, bus: &str, socket: &Path) -> String {
    format!(
        r#"{{"driver":"vfio-user-pci","id":"efa{number}","bus":"{bus}","socket":{{"path":"{}","type":"unix"}}}}"#,
        socket.display()
    )
}

/// Hands the lines of the serial line on.
fn read(screen: ChildStdout, to: &Sender<String>) {
    for line in BufReader::new(screen).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        if to.send(line.trim_end_matches('\r').to_owned()).is_err() {
            return;
        }
    }
}
