//! The emulated devices: one process for a fabric, which any number of guests share.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::machines::command::run;
use crate::machines::{Verdict, tail};
use crate::modules;

/// Devices that know each other. Dropping it takes them away.
#[derive(Debug)]
pub struct Fabric {
    process: Child,
    log: PathBuf,
    sockets: Vec<PathBuf>,
}

impl Fabric {
    /// Starts it with so many devices of a model. `limit` is what they say is the
    /// driver's limit for an admin command; with none the driver takes its own, 30 s.
    ///
    /// # Errors
    /// The program is not built, or ends at once.
    pub fn start(
        dir: &Path,
        name: &str,
        model: &str,
        devices: usize,
        limit: Duration,
    ) -> Verdict<Self> {
        let sockets: Vec<PathBuf> = (0..devices)
            .map(|number| dir.join(format!("{name}-{number}.sock")))
            .collect();
        let log = dir.join(format!("{name}.log"));
        let mut process = Command::new(modules::released("efa-device"))
            .args(["serve", "--model", model, "--admin-timeout"])
            .arg(limit.as_millis().to_string())
            .args(&sockets)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        // The word that its sockets are open.
        let mut ready = String::new();
        BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut ready)?;
        if ready.trim() != "ready" {
            // Fails only when it has ended already.
            let _ = process.kill();
            let status = process.wait()?;
            return Err(format!("no devices: {status}\n{}", tail(&log, 2000)).into());
        }
        Ok(Self {
            process,
            log,
            sockets,
        })
    }

    /// Where a device waits for its guest.
    pub fn socket(&self, device: usize) -> &Path {
        &self.sockets[device]
    }

    /// Steers a device, and returns its answer.
    ///
    /// # Errors
    /// It does not understand.
    pub fn tell(&self, device: usize, words: &str) -> Verdict<String> {
        let mut tell = Command::new(modules::released("efa-device"));
        tell.arg("tell")
            .arg(self.socket(device))
            .args(words.split(' '));
        let output = run(tell, Duration::from_secs(20), words)?;
        if !output.success() {
            return Err(format!("device {device}: {words}: {output}").into());
        }
        Ok(output.stdout.trim().to_owned())
    }

    /// Takes all faults away.
    ///
    /// # Errors
    /// A device does not understand.
    pub fn heal(&self) -> Verdict {
        const FAULTS: [&str; 10] = [
            "dead-admin off",
            "dead-registers off",
            "not-ready off",
            "slow 0",
            "gone off",
            "stuck-reset off",
            "muted off",
            "closed off",
            "refuse off",
            "guid own",
        ];
        for device in 0..self.sockets.len() {
            for fault in FAULTS {
                self.tell(device, fault)?;
            }
        }
        Ok(())
    }

    /// What devices have counted, added up.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn counted(&self, devices: Range<usize>, counter: &str) -> Verdict<u64> {
        let mut sum = 0;
        for device in devices {
            let counters: Value = serde_json::from_str(&self.tell(device, "counters")?)?;
            sum += counters[counter].as_u64().ok_or("no such counter")?;
        }
        Ok(sum)
    }

    /// What the devices have to say about a failure.
    pub fn log(&self) -> String {
        tail(&self.log, 2000)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
