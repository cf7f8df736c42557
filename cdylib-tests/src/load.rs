//! A CPU that others keep to themselves, as a user's job may.

use std::io;
use std::process::{Child, Command};

/// So many leave a process of usual priority far less than a hundredth.
const PROCESSES: u32 = 4;

/// Processes of the highest priority on the first CPU, until this is dropped.
#[derive(Debug)]
pub struct Load(Vec<Child>);

impl Load {
    /// Starts them. Needs root.
    ///
    /// # Errors
    /// The system's.
    pub fn begin() -> io::Result<Self> {
        let mut load = Self(Vec::new());
        for _ in 0..PROCESSES {
            let mut command = Command::new("taskset");
            command.args(["-c", "0", "nice", "-n", "-20"]);
            command.args(["sh", "-c", "while :; do :; done"]);
            load.0.push(command.spawn()?);
        }
        Ok(load)
    }

    /// The same program with the same arguments and nothing in its environment
    /// but what `command` sets, on that CPU.
    #[must_use]
    pub fn under(&self, command: &Command) -> Command {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(command.get_program());
        pinned.args(command.get_args()).env_clear();
        pinned.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        pinned
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for process in &mut self.0 {
            // It fails only for one that has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
