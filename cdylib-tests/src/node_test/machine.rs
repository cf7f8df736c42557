//! One machine: QEMU without KVM, its console, and root's connection to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::image::Image;
use crate::machines::command::{run, succeed};
use crate::machines::qemu::{self, Clock};
use crate::machines::{Verdict, tail};
use crate::testbed::Output;

/// How long a machine may take to boot, with both others at it.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long a command may take that says nothing else.
const LIMIT: Duration = Duration::from_secs(180);
/// What the console says when users can log in.
const UP: &str = "machine is up";

/// What a machine is made of.
#[derive(Debug)]
pub struct Hardware {
    pub name: &'static str,
    pub address: &'static str,
    pub cpus: u32,
    /// MiB of memory of each NUMA node.
    pub memory: &'static [u32],
}

/// A machine that runs. Dropping it switches it off.
#[derive(Debug)]
pub struct Machine {
    pub name: &'static str,
    pub address: &'static str,
    hardware: &'static Hardware,
    /// A copy of the image's that has no name, and thus ends with this process.
    disk: File,
    kernel: PathBuf,
    initrd: PathBuf,
    key: PathBuf,
    dir: PathBuf,
    qemu: Child,
    /// How often it was switched on.
    life: u32,
    boots: Mutex<Receiver<()>>,
}

impl Machine {
    /// Switches it on; `dir` holds its console and what belongs to ssh.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(hardware: &'static Hardware, image: &Image, dir: &Path) -> Verdict<Self> {
        let Hardware { name, address, .. } = *hardware;
        let tap = format!("tap-{name}");
        ip(&format!("tuntap add dev {tap} mode tap"))?;
        ip(&format!("link set {tap} master cluster up"))?;
        let copy = image.disk().with_extension(name);
        let mut sparse = Command::new("cp");
        sparse.arg("--sparse=always").arg(image.disk()).arg(&copy);
        let copied = run(sparse, LIMIT, "cp")?;
        if !copied.success() {
            return Err(format!("no disk for {name}: {copied}").into());
        }
        let disk = File::options().read(true).write(true).open(&copy)?;
        fs::remove_file(copy)?;
        let (kernel, initrd) = (image.kernel(), image.initrd());
        let (qemu, boots) = switch_on(hardware, &disk, &kernel, &initrd, dir)?;
        Ok(Self {
            name,
            address,
            hardware,
            disk,
            kernel,
            initrd,
            key: image.key(),
            dir: dir.to_owned(),
            qemu,
            life: 1,
            boots: Mutex::new(boots),
        })
    }

    /// Takes its power away, and gives it back. What has not reached the disk is
    /// lost.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn lose_power(&mut self) -> Verdict {
        self.switch_off();
        let (hardware, disk, dir) = (self.hardware, &self.disk, &self.dir);
        let (qemu, boots) = switch_on(hardware, disk, &self.kernel, &self.initrd, dir)?;
        self.qemu = qemu;
        self.life += 1;
        self.boots = Mutex::new(boots);
        Ok(())
    }

    fn switch_off(&mut self) {
        // Fails only when it has ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// Waits for the end of a boot, and opens root's connection.
    ///
    /// # Errors
    /// With the console's last words, when the machine does not come up.
    pub fn wait_up(&self) -> Verdict {
        let boots = self.boots.lock().map_err(|_| "a thread panicked")?;
        match boots.recv_timeout(BOOT_LIMIT) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("{} does not come up\n{}", self.name, self.console()).into());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(format!("{}: QEMU has ended\n{}", self.name, self.console()).into());
            }
        }
        let mut master = self.ssh_as("root");
        master
            .args(["-f", "-N", "-M", "-S"])
            .arg(self.control())
            .arg(self.name);
        master
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir.join(format!("{}.ssh", self.name)))?);
        if !master.status()?.success() {
            let said = tail(&self.dir.join(format!("{}.ssh", self.name)), 1000);
            return Err(format!("root cannot log in to {}: {said}", self.name).into());
        }
        Ok(())
    }

    /// The connection of an earlier life removes its own socket when it notices
    /// its end, which takes minutes.
    fn control(&self) -> PathBuf {
        self.dir
            .join(format!("{}.{}.control", self.name, self.life))
    }

    /// The last words on the console, and QEMU's own.
    pub fn console(&self) -> String {
        let file = |end: &str| tail(&self.dir.join(format!("{}.{end}", self.name)), 3000);
        format!("{}{}", file("qemu"), file("console"))
    }

    /// An ssh client that is this user's from outside of the cluster; the name of
    /// the host is to be added.
    pub fn ssh_as(&self, user: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-l", user, "-i"])
            .arg(&self.key)
            .arg("-o")
            .arg(format!("HostName={}", self.address));
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ServerAliveInterval=30",
            "ConnectTimeout=60",
            // The cheapest where every instruction is emulated.
            "KexAlgorithms=curve25519-sha256",
            "Ciphers=aes128-gcm@openssh.com",
        ] {
            ssh.args(["-o", option]);
        }
        ssh
    }

    /// Runs a shell script as root, whatever its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub fn output(&self, script: &str) -> Verdict<Output> {
        run(self.shell(script), LIMIT, script)
    }

    /// Runs a shell script as root; one that fails is an error.
    ///
    /// # Errors
    /// With what it printed.
    pub fn run(&self, script: &str) -> Verdict<String> {
        let output = self.output(script)?;
        if !output.success() {
            return Err(format!("on {}: {script}\n{output}", self.name).into());
        }
        Ok(output.stdout)
    }

    /// The same as one of the users, in their home.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_as(&self, user: &str, script: &str) -> Verdict<String> {
        self.run(&as_user(user, script))
    }

    /// The same, whatever its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub fn output_as(&self, user: &str, script: &str) -> Verdict<Output> {
        self.output(&as_user(user, script))
    }

    /// Waits until a condition of the machine's shell holds.
    ///
    /// # Errors
    /// It does not within the time; with what the condition printed last.
    pub fn wait(&self, what: &str, condition: &str) -> Verdict {
        let seconds = LIMIT.as_secs() - 30;
        let script = format!(
            "end=$(($(date +%s) + {seconds}))\n\
             until said=$({condition}) 2>&1; do\n\
             [ $(date +%s) -lt $end ] || {{ echo \"$said\"; exit 1; }}; sleep 0.2\ndone"
        );
        let output = self.output(&script)?;
        if !output.success() {
            let name = self.name;
            return Err(format!("{name}: waited in vain for {what}: {condition}\n{output}").into());
        }
        Ok(())
    }

    /// Unpacks a tar archive at `/`.
    ///
    /// # Errors
    /// With tar's words.
    pub fn unpack(&self, archive: &Path) -> Verdict {
        let script = "tar --extract --no-same-owner --no-overwrite-dir --directory=/";
        let mut command = self.shell(script);
        command.stdin(File::open(archive)?);
        let output = run(command, LIMIT, script)?;
        if !output.success() {
            return Err(format!("{}: {output}", self.name).into());
        }
        Ok(())
    }

    fn shell(&self, script: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-S"])
            .arg(self.control())
            .args(["-o", "ControlMaster=no", "-l", "root", self.name, script])
            .stdin(Stdio::null());
        ssh
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.switch_off();
    }
}

/// Starts QEMU; the receiver hears of each boot.
fn switch_on(
    hardware: &Hardware,
    disk: &File,
    kernel: &Path,
    initrd: &Path,
    dir: &Path,
) -> Verdict<(Child, Receiver<()>)> {
    let Hardware {
        name,
        address,
        cpus,
        memory,
    } = *hardware;
    let mac = address.rsplit('.').next().unwrap_or_default();
    let disk = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu::boot(&mut qemu, cpus, kernel, initrd, &command_line(name));
    qemu::clock(&mut qemu, Clock::Host);
    qemu::numa(&mut qemu, cpus, memory, "memory-backend-ram");
    qemu.args(["-M", "pc", "-serial", "stdio"])
        .arg("-drive")
        .arg(format!("file={disk},format=raw,if=virtio,cache=unsafe"))
        .arg("-netdev")
        .arg(format!(
            "tap,id=net,ifname=tap-{name},script=no,downscript=no"
        ))
        .arg("-device")
        .arg(format!(
            "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:0a:4d:{mac:0>2}"
        ))
        .args(["-object", "rng-random,id=rng,filename=/dev/urandom"])
        .args(["-device", "virtio-rng-pci,rng=rng"]);
    let words = File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{name}.qemu")))?;
    let mut qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(words)
        .spawn()?;
    let console = qemu.stdout.take().ok_or("no console")?;
    let log = File::create(dir.join(format!("{name}.console")))?;
    let (tell, boots) = channel();
    thread::spawn(move || watch(console, log, &tell));
    Ok((qemu, boots))
}

/// The kernel's command line. Nothing here needs a defence against the CPU.
fn command_line(name: &str) -> String {
    format!(
        "root=/dev/vda rw console=ttyS0 quiet mitigations=off lsm=yama net.ifnames=0 fsck.mode=skip \
         systemd.show_status=no systemd.hostname={name}"
    )
}

/// Keeps what the console says, and tells of each boot.
fn watch(console: ChildStdout, mut log: File, tell: &Sender<()>) {
    for line in BufReader::new(console).split(b'\n') {
        let Ok(line) = line else { return };
        // A log that cannot be written is no reason to miss a boot.
        let _ = log.write_all(&line).and_then(|()| log.write_all(b"\n"));
        if String::from_utf8_lossy(&line).contains(UP) && tell.send(()).is_err() {
            return;
        }
    }
}

/// The script as an argument of the user's own shell.
fn as_user(user: &str, script: &str) -> String {
    let quoted = script.replace('\'', r"'\''");
    format!("cd ~{user} && exec runuser -u {user} -- env HOME=/home/{user} bash -c '{quoted}'")
}

/// ip(8).
///
/// # Errors
/// With its words.
pub fn ip(arguments: &str) -> Verdict {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    succeed(command, LIMIT, &format!("ip {arguments}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_script_may_hold_quotes_of_both_kinds() {
        let script = as_user("root", r#"printf '%s|' "it's" 'a "b"'"#);
        let plain = script
            .replace("runuser -u root -- ", "")
            .replace("/home/root", "/root");
        let mut shell = Command::new("sh");
        shell.args(["-c", &plain]);
        let output = run(shell, LIMIT, &plain).unwrap();
        assert_eq!(output.stdout, "it's|a \"b\"|");
    }
}
