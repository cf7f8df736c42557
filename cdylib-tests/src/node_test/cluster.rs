//! The three machines, and what is put on them before the first scene.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::image::{ADDRESSES, Image};
use mock_nvml::Machine as Gpus;

use super::machine::{Hardware, Machine, ip};

use crate::machines::Verdict;
use crate::machines::command::{run, shell};
use crate::modules;
use crate::simnode::{SimNode, Spec};
use crate::testbed::{Output, collect};

/// Where the lifecycle scripts lie on the machines.
pub const LIFECYCLE: &str = "/opt/lifecycle";
/// The tree that stands for a p5's hardware and software.
pub const SYSROOT: &str = "/srv/sysroot";
/// GPUs of the compute node, of 80 GB each.
pub const GPUS: usize = 2;
/// A newer package than the installed one.
pub const NEWER: &str = "/opt/newer";
/// Its version.
pub const NEWER_VERSION: &str = "99.0.0";

/// As small as they can be: all of them share the machine that runs this.
const HARDWARE: [Hardware; 3] = [
    Hardware {
        name: ADDRESSES[0].0,
        address: ADDRESSES[0].1,
        cpus: 1,
        memory: &[640],
    },
    Hardware {
        name: ADDRESSES[1].0,
        address: ADDRESSES[1].1,
        cpus: 1,
        memory: &[640],
    },
    // The second NUMA node has six whole, aligned GiB: in one of them the kernel
    // has nothing that it cannot move away for a page of that size.
    Hardware {
        name: ADDRESSES[2].0,
        address: ADDRESSES[2].1,
        cpus: 2,
        memory: &[1024, 6144],
    },
];

/// The machines.
#[derive(Debug)]
pub struct Cluster {
    pub controller: Machine,
    pub login: Machine,
    pub compute: Machine,
    /// What was put on them, as a tar archive.
    pub files: PathBuf,
}

impl Cluster {
    /// Switches the machines on; they boot on their own.
    ///
    /// # Errors
    /// Something is not built, or the network or QEMU cannot be had.
    pub fn start(image: &Image, dir: &Path) -> Verdict<Self> {
        let files = files(dir)?;
        ip("link set lo up")?;
        ip("link add cluster type bridge")?;
        ip("address add 10.77.0.254/24 dev cluster")?;
        ip("link set cluster up")?;
        let start = |hardware| Machine::start(hardware, image, dir);
        let [controller, login, compute] = &HARDWARE;
        Ok(Self {
            controller: start(controller)?,
            login: start(login)?,
            compute: start(compute)?,
            files,
        })
    }

    pub fn all(&self) -> [&Machine; 3] {
        [&self.controller, &self.login, &self.compute]
    }

    /// Does the same on several machines at once.
    ///
    /// # Errors
    /// The first that fails.
    pub fn on_each<'c>(
        machines: &[&'c Machine],
        act: impl Fn(&'c Machine) -> Verdict + Sync,
    ) -> Verdict {
        thread::scope(|scope| {
            let running: Vec<_> = machines
                .iter()
                .map(|machine| scope.spawn(|| act(machine).map_err(|error| error.to_string())))
                .collect();
            for one in running {
                one.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }

    /// A login of this user to the compute node, from outside of the cluster, that
    /// runs a command to its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn ssh(&self, user: &str, command: &str) -> Verdict<Output> {
        let mut ssh = self.compute.ssh_as(user);
        ssh.args([self.compute.name, command]);
        ssh.stdin(std::process::Stdio::null());
        run(ssh, Duration::from_secs(120), command)
    }

    /// A login of this user to the compute node with a terminal that stays open.
    ///
    /// # Errors
    /// ssh cannot be started.
    pub fn terminal(&self, user: &str) -> Verdict<Terminal> {
        let mut ssh = self.compute.ssh_as(user);
        ssh.args(["-tt", self.compute.name])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        Ok(Terminal { ssh: ssh.spawn()? })
    }

    /// What the machines have to say about a failure.
    pub fn logs(&self) -> String {
        const SCRIPT: &str = "journalctl --no-hostname -b -q -n 60 -o short-monotonic; \
                              tail -v -n 30 /var/log/slurm/*.log; systemctl --failed --no-legend";
        let mut text = String::new();
        for machine in self.all() {
            let said = match machine.output(SCRIPT) {
                Ok(output) if output.code() != 255 => output.stdout,
                _ => machine.console(),
            };
            text += &format!("\n======== {}\n{said}\n", machine.name);
        }
        text
    }

    /// How a person gets in from another terminal.
    pub fn way_in(&self) -> String {
        let ssh = self.compute.ssh_as("root");
        let words: Vec<_> = ssh.get_args().map(|word| word.to_string_lossy()).collect();
        format!(
            "The machines {} are on; from another terminal of this machine:\n\
             nsenter --net --target $(pgrep -f systemd.hostname=compute) ssh {} compute",
            ADDRESSES
                .map(|(name, address)| format!("{name} ({address})"))
                .join(", "),
            words.join(" ")
        )
    }
}

/// An open login.
#[derive(Debug)]
pub struct Terminal {
    ssh: std::process::Child,
}

impl Terminal {
    /// Waits until it is ended, and returns what was shown.
    ///
    /// # Errors
    /// It stays.
    pub fn wait(mut self, limit: Duration) -> Verdict<String> {
        let keyboard = self.ssh.stdin.take();
        let collected = collect(&mut self.ssh, Instant::now() + limit)?;
        drop(keyboard);
        let text = collected
            .streams
            .map(|it| String::from_utf8_lossy(&it).into_owned());
        let text = text.join("\n--- stderr ---\n");
        if !collected.ended {
            return Err(
                format!("the login is still open after {limit:?}; it shows:\n{text}").into(),
            );
        }
        Ok(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// One archive for all machines: the cluster's own files, the package as the
/// lifecycle script wants it, the next one, a p5's tree, and a test program.
fn files(dir: &Path) -> Verdict<PathBuf> {
    let stage = dir.join("files");
    let at = |path: &str| stage.join(path.trim_start_matches('/'));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    shell(
        "cp -R \"$1\" \"$2\"",
        &[&here.join("src/node_test/cluster"), &stage],
    )?;
    let utils = at(LIFECYCLE).join("utils");
    let script = here.join("../packaging/lifecycle/install_slurm_efa.sh");
    fs::copy(script, utils.join("install_slurm_efa.sh"))?;
    let dist = modules::target().join("dist");
    for entry in fs::read_dir(&dist).map_err(|_| "no packages; run `make dist`")? {
        let package = entry?.path();
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with("_amd64.deb") {
            fs::copy(&package, utils.join(&*name))?;
        }
    }
    SimNode::build(&at(SYSROOT), &Spec::named("p5.48xlarge").ok_or("no p5")?)?;
    gpus(&at(SYSROOT), &at("/usr/lib/x86_64-linux-gnu"))?;
    fs::create_dir_all(at("/usr/local/bin"))?;
    fs::copy(modules::program("hugemap"), at("/usr/local/bin/hugemap"))?;

    fs::create_dir_all(at(NEWER))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut newer = Command::new(cargo);
    newer.current_dir(here).args(["xtask", "package"]);
    newer.env("CARGO_TARGET_DIR", modules::target());
    newer.args(["--package-version", NEWER_VERSION, "--into"]);
    newer.arg(dir.join("newer"));
    let made = run(newer, Duration::from_secs(300), "cargo xtask package")?;
    if !made.success() {
        return Err(format!("no newer package: {made}").into());
    }
    shell(
        "cp \"$1\"/*_amd64.deb \"$2\"",
        &[&dir.join("newer"), &at(NEWER)],
    )?;

    let archive = dir.join("files.tar");
    shell(
        "tar --create --owner=root:0 --group=root:0 --file=\"$2\" --directory=\"$1\" opt etc srv usr",
        &[&stage, &archive],
    )?;
    Ok(archive)
}

/// Made-up GPUs: their device nodes, and a NVML that knows them, which lies where
/// NVIDIA's does.
fn gpus(sysroot: &Path, library: &Path) -> Verdict {
    let mut machine = Gpus::model("8xH100", HARDWARE[2].cpus).ok_or("no such GPUs")?;
    machine.gpus.truncate(GPUS);
    fs::create_dir_all(library)?;
    mock_nvml::install(&modules::mock_nvml(), library, &machine)?;
    fs::create_dir_all(sysroot.join("dev"))?;
    for gpu in &machine.gpus {
        let minor = gpu.minor;
        let node = sysroot.join(format!("dev/nvidia{minor}"));
        shell(&format!("mknod \"$1\" c 195 {minor}"), &[&node])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_its_address_in_the_files_of_hyperpods_shape() {
        let text = include_str!("cluster/opt/ml/config/resource_config.json");
        for (name, address) in ADDRESSES {
            let wanted = format!("\"CustomerIpAddress\": \"{address}\"");
            assert_eq!(text.matches(&wanted).count(), 1, "{name}");
        }
    }
}
