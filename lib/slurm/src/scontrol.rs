//! What Slurm knows of this node, and what it is asked, by way of scontrol,
//! which is found and called without any help of the environment and answers
//! within a time.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::NodeName;
use crate::programs::{Program, ProgramError, Programs};
use host::exec::{self, Call};
use host::printable;
use host::trust::TrustedProgram;

/// A node as Slurm shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// `IDLE`, `DRAIN`, … of `State=IDLE+DRAIN`.
    pub flags: Vec<String>,
    /// The reason, without who gave it when.
    pub reason: String,
}

impl Shown {
    /// Reads a line of `scontrol show node -o`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let state = line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("State="))?;
        let flags = state
            .split('+')
            .map(|flag| flag.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-']))
            .map(str::to_owned)
            .collect();
        let reason = line.split_once(" Reason=").map_or("", |(_, rest)| rest);
        // ` [root@2026-11-22T09:12:00]`, the last of its kind, and more fields
        // in later releases.
        let is_who_and_when = |at: &usize| {
            let inside = reason[*at..].split(']').next();
            inside.is_some_and(|inside| inside.contains('@'))
        };
        let mut brackets = reason.rmatch_indices(" [").map(|(at, _)| at);
        let end = brackets.find(is_who_and_when);
        let reason = reason[..end.unwrap_or(reason.len())].trim().to_owned();
        Some(Self { flags, reason })
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// No job is on it, whether or not one may come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let has_any = |flags: &[&str]| flags.iter().any(|flag| self.has(flag));
        has_any(&["IDLE", "DRAINED"]) && !has_any(&["ALLOCATED", "MIXED", "COMPLETING", "DRAINING"])
    }

    /// Taken out of service, by whomever: no new jobs start here.
    #[must_use]
    pub fn is_out(&self) -> bool {
        // Slurm shows one that is drained and busy as DRAINING, an idle one as DRAINED.
        [
            "DRAIN", "DRAINED", "DRAINING", "DOWN", "FAIL", "FAILING", "MAINT",
        ]
        .iter()
        .any(|flag| self.has(flag))
    }
}

/// What `scontrol update NodeName=…` sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// `DRAIN`, `FAIL`, `RESUME`.
    pub state: &'static str,
    /// Why; `None` leaves what is there.
    pub reason: Option<String>,
}

/// scontrol, found and called without any help of the environment.
#[derive(Debug, Clone)]
pub struct Scontrol {
    program: TrustedProgram,
    slurm_conf: Option<OsString>,
    limit: Duration,
}

impl Scontrol {
    /// Finds it: the site's own, which the configuration names in `section`,
    /// else the one that belongs to the slurm.conf.
    ///
    /// # Errors
    /// There is none, or none that root may believe; for a person.
    pub fn find(
        section: &str,
        configured: Option<&Path>,
        slurm_conf: Option<OsString>,
        limit: Duration,
    ) -> Result<Self, String> {
        let program = match configured {
            Some(path) => exec::program(path).map_err(ProgramError::Refused),
            None => {
                let conf = slurm_conf.as_deref().map(Path::new);
                Programs::beside(conf).trusted(Program::Scontrol)
            }
        };
        let program = program.map_err(|error| match error {
            ProgramError::Missing { .. } => format!("{error}; set `scontrol` in [{section}]"),
            ProgramError::Refused(_) => error.to_string(),
        })?;
        Ok(Self {
            program,
            slurm_conf,
            limit,
        })
    }

    /// What Slurm says of the node.
    ///
    /// # Errors
    /// scontrol fails or is late: slurmctld may be down. For a person.
    pub fn show(&self, node: &NodeName) -> Result<Shown, String> {
        let text = self.node_line(node)?;
        Shown::parse(&text).ok_or_else(|| "scontrol shows no state of this node".to_owned())
    }

    /// What `scontrol show node -o` prints of the node.
    ///
    /// # Errors
    /// As [`Scontrol::show`].
    pub fn node_line(&self, node: &NodeName) -> Result<String, String> {
        self.call(&["show", "node", "-o", node.as_str()])
    }

    /// Asks Slurm to change the node.
    ///
    /// # Errors
    /// As [`Scontrol::show`].
    pub fn update(&self, node: &NodeName, update: &Update) -> Result<(), String> {
        let name = format!("NodeName={node}");
        let state = format!("State={}", update.state);
        let reason = update.reason.as_ref().map(|r| format!("Reason={r}"));
        let mut args = vec!["update", &name, &state];
        args.extend(reason.as_deref());
        self.call(&args).map(drop)
    }

    fn call(&self, args: &[&str]) -> Result<String, String> {
        let mut call = Call::of(&self.program).args(args);
        if let Some(conf) = &self.slurm_conf {
            call = call.env("SLURM_CONF", conf);
        }
        let said = call.run(self.limit).map_err(|error| error.to_string())?;
        if said.success() {
            return Ok(said.stdout);
        }
        let words = said.stderr.lines().next().unwrap_or_default();
        Err(match said.status {
            None => format!("scontrol gave no answer in {} s", self.limit.as_secs()),
            Some(status) => format!("scontrol failed ({status}): {}", printable(words, 200)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A scontrol that says with which arguments and Slurm it was called.
    fn fake() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("scontrol");
        fs::write(&program, "#!/bin/sh\necho \"$SLURM_CONF $*\"\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, program)
    }

    fn find(program: &Path) -> Result<Scontrol, String> {
        let limit = Duration::from_secs(20);
        Scontrol::find("health", Some(program), Some("/x".into()), limit)
    }

    #[test]
    fn the_sites_scontrol_is_called_with_the_sites_slurm_conf() {
        let (_dir, program) = fake();
        let scontrol = find(&program).unwrap();
        let line = scontrol.node_line(&"n1".parse().unwrap()).unwrap();
        assert_eq!(line, "/x show node -o n1\n");
    }

    #[test]
    fn a_scontrol_that_others_may_change_is_not_run() {
        let (dir, program) = fake();
        for spoilt in [dir.path(), &program] {
            fs::set_permissions(spoilt, fs::Permissions::from_mode(0o777)).unwrap();
            let reason = find(&program).unwrap_err();
            assert!(reason.contains("not run, because others"), "{reason}");
            assert!(reason.contains("chmod go-w"), "{reason}");
            fs::set_permissions(spoilt, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(find(&program).is_ok());
    }

    #[test]
    fn reason_and_state_are_read_without_who_and_when() {
        let node = Shown::parse(
            "NodeName=n1 Arch=x86_64 State=IDLE*+DRAIN ThreadsPerCore=2 Owner=N/A \
             Reason=EFA: 31/32 devices, efa_17 gone [x] [root@2026-11-22T09:12:00]",
        )
        .unwrap();
        assert_eq!(node.flags, ["IDLE", "DRAIN"]);
        assert_eq!(node.reason, "EFA: 31/32 devices, efa_17 gone [x]");
        assert!(node.is_out() && node.is_idle());
        let busy = Shown::parse("NodeName=n1 State=MIXED+DRAIN").unwrap();
        assert!(busy.is_out() && !busy.is_idle());
        let idle = Shown::parse("NodeName=n1 State=IDLE Owner=N/A").unwrap();
        assert!(idle.reason.is_empty() && idle.is_idle() && !idle.is_out());
        assert_eq!(Shown::parse("slurm_load_node error"), None);
    }
}
