//! What Slurm knows of this node, and what we ask of it, by way of scontrol.
//! Who decides is a pure function; who calls waits for a limited time.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use node::{NodeName, printable};

use crate::bounded;
use crate::settings::OnFatal;

/// What every reason of ours begins with, and no other does.
pub const PREFIX: &str = "EFA: ";

/// Slurm's reason for a prolog that failed.
const PROLOG_ERROR: &str = "Prolog error";

/// Where scontrol is: ParallelCluster and HyperPod, packages, hand-built.
const PLACES: [&str; 5] = [
    "/opt/slurm/bin/scontrol",
    "/usr/bin/scontrol",
    "/usr/local/bin/scontrol",
    "/usr/local/slurm/bin/scontrol",
    "/usr/sbin/scontrol",
];

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
        // ` [root@2026-11-22T09:12:00]`, and more fields in later releases.
        let end = reason.find(" [").filter(|at| reason[*at..].contains('@'));
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
    fn is_out(&self) -> bool {
        // Slurm shows one that is drained and busy as DRAINING, an idle one as DRAINED.
        [
            "DRAIN", "DRAINED", "DRAINING", "DOWN", "FAIL", "FAILING", "MAINT",
        ]
        .iter()
        .any(|flag| self.has(flag))
    }

    fn is_ours(&self) -> bool {
        self.reason.starts_with(PREFIX)
    }
}

/// What `scontrol update NodeName=…` shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    state: &'static str,
    reason: Option<String>,
}

/// What we want of Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// No new jobs here, for this reason.
    Drain {
        /// Begins with [`PREFIX`].
        reason: String,
        /// How.
        on_fatal: OnFatal,
        /// Whether this node's failing prolog is ours: then Slurm's words for
        /// it may be replaced.
        after_prolog: bool,
    },
    /// Jobs again, if it was us who drained.
    Resume,
}

/// What is to be done about a node; `None`: nothing. Reasons of others stay.
#[must_use]
pub fn decide(shown: &Shown, wish: &Wish) -> Option<Update> {
    match wish {
        Wish::Resume => (shown.is_ours() && shown.is_out()).then_some(Update {
            state: "RESUME",
            reason: None,
        }),
        Wish::Drain {
            reason,
            on_fatal,
            after_prolog,
        } => {
            let slurms_words = *after_prolog && shown.reason == PROLOG_ERROR;
            let may_replace = shown.reason.is_empty() || shown.is_ours() || slurms_words;
            let (state, words) = match on_fatal {
                OnFatal::Drain => ("DRAIN", reason.clone()),
                OnFatal::HyperpodReplace => ("FAIL", "Action:Replace".to_owned()),
                OnFatal::HyperpodReboot => ("FAIL", "Action:Reboot".to_owned()),
            };
            if shown.is_out() {
                let same = shown.reason == words;
                return (may_replace && !same).then_some(Update {
                    state,
                    reason: Some(words),
                });
            }
            // In service with a note of somebody: it is drained, the note stays
            // and, since ours is not in front, so does the drain.
            let words = match on_fatal {
                OnFatal::Drain if !may_replace => format!("{}; {words}", shown.reason),
                _ if !may_replace => return None,
                _ => words,
            };
            Some(Update {
                state,
                reason: Some(words),
            })
        }
    }
}

/// scontrol, found and called without any help of the environment.
#[derive(Debug, Clone)]
pub struct Scontrol {
    program: PathBuf,
    slurm_conf: Option<OsString>,
    limit: Duration,
}

impl Scontrol {
    /// Finds it: the site's own, else the first of the usual places.
    ///
    /// # Errors
    /// There is none that root may run; for a person.
    pub fn find(
        configured: Option<&Path>,
        slurm_conf: Option<OsString>,
        limit: Duration,
    ) -> Result<Self, String> {
        let program = match configured {
            Some(path) => path.to_owned(),
            None => PLACES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
                .ok_or_else(|| {
                    format!(
                        "no scontrol in any of {}; set `scontrol` in [health]",
                        PLACES.join(", ")
                    )
                })?,
        };
        let shown = printable(&program.to_string_lossy(), 300);
        let meta = fs::metadata(&program).map_err(|error| format!("{shown}: {error}"))?;
        let me = rustix::process::geteuid().as_raw();
        let open = meta.permissions().mode() & 0o022 != 0;
        if !meta.is_file() || (meta.uid() != 0 && meta.uid() != me) || open {
            return Err(format!(
                "{shown}: not run, because it is not a file that root alone may write"
            ));
        }
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
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/");
        if let Some(conf) = &self.slurm_conf {
            command.env("SLURM_CONF", conf);
        }
        let said = bounded::run(&mut command, self.limit)
            .map_err(|error| format!("scontrol did not start: {error}"))?;
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

    fn shown(state: &str, reason: &str) -> Shown {
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!(" Reason={reason} [root@2026-11-22T09:12:00]")
        };
        Shown::parse(&format!(
            "NodeName=n1 Arch=x86_64 State={state} ThreadsPerCore=2 Owner=N/A{reason}"
        ))
        .unwrap()
    }

    fn drain(on_fatal: OnFatal, after_prolog: bool) -> Wish {
        Wish::Drain {
            reason: "EFA: 31/32 devices".into(),
            on_fatal,
            after_prolog,
        }
    }

    fn words(update: Option<Update>) -> String {
        update.map_or("nothing".into(), |update| {
            format!("{} {}", update.state, update.reason.unwrap_or_default())
        })
    }

    #[test]
    fn reason_and_state_are_read_without_who_and_when() {
        let node = shown("IDLE*+DRAIN", "EFA: 31/32 devices, efa_17 gone [x]");
        assert_eq!(node.flags, ["IDLE", "DRAIN"]);
        assert!(node.is_out() && node.is_ours());
        assert!(shown("IDLE", "").reason.is_empty());
        assert_eq!(Shown::parse("slurm_load_node error"), None);
    }

    #[test]
    fn a_node_in_service_is_drained_with_our_reason() {
        let update = decide(&shown("IDLE", ""), &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
    }

    #[test]
    fn a_reason_of_somebody_else_is_never_overwritten() {
        for state in ["IDLE+DRAIN", "DOWN", "MIXED+DRAIN", "DRAINED", "DOWN*"] {
            for how in [
                OnFatal::Drain,
                OnFatal::HyperpodReplace,
                OnFatal::HyperpodReboot,
            ] {
                for after_prolog in [false, true] {
                    let node = shown(state, "disk is full");
                    let wish = drain(how, after_prolog);
                    assert_eq!(words(decide(&node, &wish)), "nothing", "{state} {how:?}");
                }
            }
        }
    }

    #[test]
    fn a_note_on_a_node_in_service_stays_in_front_of_ours() {
        let node = shown("IDLE", "ask bob first");
        let update = decide(&node, &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN ask bob first; EFA: 31/32 devices");
    }

    #[test]
    fn our_own_reason_is_kept_up_to_date_and_not_repeated() {
        let node = shown("IDLE+DRAIN", "EFA: 30/32 devices");
        let update = decide(&node, &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
        let node = shown("IDLE+DRAIN", "EFA: 31/32 devices");
        assert_eq!(decide(&node, &drain(OnFatal::Drain, false)), None);
    }

    #[test]
    fn slurms_words_for_our_failed_prolog_are_replaced_and_those_for_another_are_not() {
        let node = shown("IDLE+DRAIN", "Prolog error");
        let update = decide(&node, &drain(OnFatal::Drain, true));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
        assert_eq!(decide(&node, &drain(OnFatal::Drain, false)), None);
    }

    #[test]
    fn hyperpod_gets_exactly_its_words() {
        let node = shown("IDLE", "");
        let replace = decide(&node, &drain(OnFatal::HyperpodReplace, false));
        assert_eq!(words(replace), "FAIL Action:Replace");
        let reboot = decide(&node, &drain(OnFatal::HyperpodReboot, false));
        assert_eq!(words(reboot), "FAIL Action:Reboot");
        // Once it is said, HyperPod owns the node.
        let node = shown("FAIL", "Action:Replace");
        assert_eq!(decide(&node, &drain(OnFatal::HyperpodReplace, false)), None);
    }

    #[test]
    fn only_what_we_drained_is_resumed() {
        let resume = |state, reason| words(decide(&shown(state, reason), &Wish::Resume));
        assert_eq!(resume("IDLE+DRAIN", "EFA: 31/32 devices"), "RESUME ");
        assert_eq!(
            resume("IDLE+DRAIN", "disk is full; EFA: 31/32 devices"),
            "nothing"
        );
        assert_eq!(resume("IDLE+DRAIN", "Prolog error"), "nothing");
        assert_eq!(resume("FAIL", "Action:Reboot"), "nothing");
        assert_eq!(resume("IDLE", "EFA: old"), "nothing");
    }
}
