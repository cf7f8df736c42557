//! What a program was called for.
//!
//! Slurm's `Prolog=`, `Epilog=` and `HealthCheckProgram=` take a path and no
//! arguments, so the name of a link says what to do. Sites number the programs
//! of a folder (`prolog.d/50-efa-check-prolog`, as ParallelCluster does) or give
//! them an extension; both are no part of the name.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use host::printable;

/// A program that Slurm calls by links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its own name.
    pub name: &'static str,
    /// The commands that a link may stand for.
    pub commands: &'static [&'static str],
    /// Commands that had another name in the last release, which goes on for this
    /// one: the old name and the new one.
    pub renamed: &'static [(&'static str, &'static str)],
}

/// The health of EFA devices.
pub const EFA_CHECK: Program = Program {
    name: "efa-check",
    commands: &["prolog", "healthcheck"],
    renamed: &[("watch", "healthcheck"), ("record", "baseline")],
};

/// What is done for each job; in the reverse order of names, in which Slurm runs a
/// folder, it comes before the others, which add to the record that it makes.
pub const SLURM_EFA_JOB: Program = Program {
    name: "slurm-efa-job",
    commands: &["prolog", "epilog"],
    renamed: &[],
};

/// Shared GPUs.
pub const GRES_HELPER: Program = Program {
    name: "gres-helper",
    commands: &["prolog", "epilog"],
    renamed: &[],
};

/// All of them.
pub const PROGRAMS: [Program; 3] = [SLURM_EFA_JOB, EFA_CHECK, GRES_HELPER];

impl Program {
    /// The name of the link for a command: `efa-check-prolog`.
    #[must_use]
    pub fn link(&self, command: &str) -> String {
        format!("{}-{command}", self.name)
    }

    /// The command that a link of this name or path stands for.
    #[must_use]
    pub fn command(&self, called: &OsStr) -> Option<&'static str> {
        let command = self.named(called)?;
        let command = self.current(command).unwrap_or(command);
        self.commands.iter().copied().find(|it| *it == command)
    }

    /// What the name of a link says after the program's.
    fn named<'n>(&self, called: &'n OsStr) -> Option<&'n str> {
        let name = Path::new(called).file_name()?.to_str()?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let name = match name.split_at(digits) {
            ("", name) => name,
            (_, rest) => rest.strip_prefix(['-', '_'])?,
        };
        let name = name.rsplit_once('.').map_or(name, |(name, _)| name);
        name.strip_prefix(self.name)?.strip_prefix('-')
    }

    /// Whether a link of this name or path has the name that a command had in the
    /// last release.
    #[must_use]
    pub fn is_old_link(&self, called: &OsStr) -> bool {
        let named = self.named(called);
        named.is_some_and(|it| self.current(it).is_some() && self.command(called).is_some())
    }

    /// What a command of the last release is called now; `None` where its name is
    /// no old one.
    #[must_use]
    pub fn current(&self, command: &str) -> Option<&'static str> {
        let renamed = self.renamed.iter().find(|(old, _)| *old == command);
        renamed.map(|(_, new)| *new)
    }

    /// The arguments that a script stands for whose first line names this program and
    /// a configuration: the kernel hands on what that line says, in one piece, and the
    /// script's path. `None` where they are not a script's.
    #[must_use]
    pub fn of_script(&self, arguments: &[OsString]) -> Option<[OsString; 2]> {
        let [option, script] = arguments else {
            return None;
        };
        let command = self.command(script).filter(|_| is_of_script(arguments))?;
        Some([command.into(), option.clone()])
    }

    /// The line about a prolog or an epilog that calls the program wrongly:
    /// for this reason, or without a command.
    #[must_use]
    pub fn misuse(&self, called: &OsStr, reason: Option<&str>) -> String {
        let called = printable(&called.to_string_lossy(), 200);
        let reason = match reason.and_then(|text| text.lines().next()) {
            Some(line) => printable(line.trim_start_matches("error: "), 200),
            None => format!("{called} was called without a command"),
        };
        let links: Vec<String> = self.commands.iter().map(|it| self.link(it)).collect();
        format!(
            "nothing was done: {reason}; the name of the link must be {}, with or without a number \
             in front, such as 50-",
            links.join(" or ")
        )
    }
}

/// Whether these arguments come from the first line of a script, whatever its name.
#[must_use]
pub fn is_of_script(arguments: &[OsString]) -> bool {
    let [option, script] = arguments else {
        return false;
    };
    option.as_encoded_bytes().starts_with(CONFIG.as_bytes()) && Path::new(script).is_absolute()
}

/// The option in the first line of a script.
pub const CONFIG: &str = "--config=";

/// Whether this process belongs to slurmd or to a job: nobody reads what it says
/// each time. `env` looks a variable up.
#[must_use]
pub fn under_slurm(env: impl Fn(&str) -> Option<OsString>) -> bool {
    env("SLURMD_NODENAME").is_some() || env("SLURM_SCRIPT_CONTEXT").is_some()
}

/// Whether Slurm runs this process, or the script that called it, as a prolog
/// or an epilog, where an exit code other than 0 drains the node or holds the
/// job. `arguments` is their number; `env` looks a variable up.
#[must_use]
pub fn by_slurm(arguments: usize, env: impl Fn(&str) -> Option<OsString>) -> bool {
    if let Some(context) = env("SLURM_SCRIPT_CONTEXT") {
        // Those of a task (`prolog_task`) are the user's own.
        return ["_slurmd", "_slurmctld"]
            .iter()
            .any(|daemon| context.as_encoded_bytes().ends_with(daemon.as_bytes()));
    }
    // slurmd sets it from 20.11 on; a script of the site's may have dropped it. A
    // job's own processes have a task's number.
    arguments == 0
        && env("SLURMD_NODENAME").is_some()
        && env("SLURM_JOB_ID").is_some()
        && env("SLURM_PROCID").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_in_front_and_an_extension_are_no_part_of_a_links_name() {
        for name in [
            "efa-check-prolog",
            "50-efa-check-prolog",
            "10_efa-check-prolog",
            "0-efa-check-prolog",
            "efa-check-prolog.sh",
            "50-efa-check-prolog.prolog_slurmd",
            "/opt/slurm/etc/scripts/prolog.d/90-efa-check-prolog",
        ] {
            assert_eq!(EFA_CHECK.command(name.as_ref()), Some("prolog"), "{name}");
        }
        for (program, command) in [
            (SLURM_EFA_JOB, "epilog"),
            (EFA_CHECK, "healthcheck"),
            (GRES_HELPER, "prolog"),
            (GRES_HELPER, "epilog"),
        ] {
            let link = format!("07-{}", program.link(command));
            assert_eq!(program.command(link.as_ref()), Some(command));
        }
    }

    #[test]
    fn the_program_that_records_a_job_comes_first_in_slurms_reverse_order() {
        for command in ["prolog", "epilog"] {
            let mut links = PROGRAMS.map(|it| it.link(command));
            links.sort();
            assert_eq!(links[2], SLURM_EFA_JOB.link(command));
        }
    }

    #[test]
    fn a_link_with_the_name_of_the_last_release_is_todays_command() {
        for name in [
            "efa-check-watch",
            "50-efa-check-watch",
            "efa-check-watch.sh",
        ] {
            let command = EFA_CHECK.command(name.as_ref());
            assert_eq!(command, Some("healthcheck"), "{name}");
            assert!(EFA_CHECK.is_old_link(name.as_ref()), "{name}");
        }
        assert!(!EFA_CHECK.is_old_link("efa-check-healthcheck".as_ref()));
        // No link ever stood for it.
        assert_eq!(EFA_CHECK.command("efa-check-record".as_ref()), None);
    }

    #[test]
    fn a_script_that_names_the_program_in_its_first_line_is_the_command_of_its_name() {
        let of = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            EFA_CHECK.of_script(&arguments)
        };
        let script = "/site/50-efa-check-prolog.sh";
        let expected = ["prolog", "--config=/srv/a b.toml"].map(OsString::from);
        assert_eq!(of(&["--config=/srv/a b.toml", script]), Some(expected));
        for other in [
            &["--config=/srv/a.toml", "/site/other"][..],
            &["--config=/srv/a.toml", "efa-check-prolog"],
            &["--config", script],
            &[script],
            &["--config=/srv/a.toml", script, "more"],
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn another_name_stands_for_no_command() {
        for name in [
            "",
            "/",
            "50",
            "50-",
            "efa-check",
            "efa-check-",
            "efa-check-epilog",
            "efa-check-prolog-old",
            "my-efa-check-prolog",
            "50efa-check-prolog",
            "50.efa-check-prolog",
            "gres-helper-prolog",
        ] {
            assert_eq!(EFA_CHECK.command(name.as_ref()), None, "{name}");
        }
    }

    fn is_by_slurm(arguments: usize, variables: &[(&str, &str)]) -> bool {
        by_slurm(arguments, |name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_prolog_is_known_by_the_context_that_slurmd_sets() {
        for context in ["prolog_slurmd", "epilog_slurmd", "prolog_slurmctld"] {
            assert!(is_by_slurm(3, &[("SLURM_SCRIPT_CONTEXT", context)]));
        }
        assert!(!is_by_slurm(0, &[("SLURM_SCRIPT_CONTEXT", "prolog_task")]));
        assert!(!is_by_slurm(0, &[]));
    }

    #[test]
    fn without_a_context_a_prolog_is_known_by_its_job() {
        let prolog = [("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "7")];
        assert!(is_by_slurm(0, &prolog));
        assert!(!is_by_slurm(1, &prolog));
        assert!(!is_by_slurm(0, &prolog[..1]), "a health check has no job");
    }

    #[test]
    fn a_person_inside_a_job_is_not_taken_for_slurmd() {
        let task = [
            ("SLURMD_NODENAME", "n1"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_PROCID", "0"),
        ];
        assert!(!is_by_slurm(0, &task));
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "[0-9]{0,3}[-_.]?\\PC{0,30}") {
            let _ = EFA_CHECK.command(name.as_ref());
        }
    }
}
