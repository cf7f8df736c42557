//! The daemons that a plan starts or stops, and by which configuration they run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::exec::Said;
use host::{Deadline, printable};

use super::discover::Site;
use super::error::SetupError;
use super::pam;
use super::parts::Item;
use super::paths::{EPILOGS, MADE, PROLOGS};
use super::plan::Plan;
use super::run;

const LOGOUTD: &str = "slurm-logoutd";
const GRES_WATCH: &str = "gres-helper-watch";

/// A daemon of the suite's.
#[derive(Debug)]
pub struct Daemon {
    /// Its unit.
    pub unit: &'static str,
    /// What it belongs to.
    pub item: Item,
    /// What its unit runs, without a configuration.
    call: &'static str,
}

/// All of them, as packaging/systemd has them.
pub const DAEMONS: [Daemon; 2] = [
    Daemon {
        unit: LOGOUTD,
        item: Item::Logins,
        call: "/usr/sbin/slurm-logoutd",
    },
    Daemon {
        unit: GRES_WATCH,
        item: Item::GresHelper,
        call: "/usr/bin/gres-helper watch",
    },
];

/// What the units' `ProtectHome=` hides from the daemons.
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];

impl Daemon {
    /// Where its unit is completed by a configuration of the site's choice.
    #[must_use]
    pub fn drop_in(&self, site: &Site) -> PathBuf {
        site.place(&format!(
            "/etc/systemd/system/{}.service.d/slurm-efa.conf",
            self.unit
        ))
    }

    pub(super) fn text(&self, config: &Path) -> String {
        let (call, config) = (self.call, config.to_string_lossy());
        format!("{MADE}\n[Service]\nExecStart=\nExecStart={call} --config {config}\n")
    }

    /// The configuration by which its unit runs it, where that is not the usual one.
    #[must_use]
    pub fn config(&self, site: &Site) -> Option<PathBuf> {
        let text = std::fs::read_to_string(self.drop_in(site)).ok()?;
        let mut calls = text.lines().rev();
        let call = calls.find_map(|line| line.strip_prefix("ExecStart="))?;
        let (_, config) = call.split_once(" --config ")?;
        Some(PathBuf::from(config))
    }

    /// Plans that its unit runs it by this configuration, or by the usual one.
    pub(super) fn plan(
        &self,
        site: &Site,
        plan: &mut Plan,
        config: Option<&Path>,
    ) -> Result<(), SetupError> {
        let text = config.map(|config| self.text(config));
        plan.made(&self.drop_in(site), text)
    }

    /// Whether this plan changes what its unit runs.
    pub(super) fn is_changed(&self, site: &Site, plan: &Plan) -> bool {
        super::verify::changes(plan, &self.drop_in(site))
    }
}

/// Whether the daemons cannot read this configuration.
#[must_use]
pub fn is_hidden(config: &Path) -> bool {
    HIDDEN.iter().any(|folder| config.starts_with(folder))
}

/// Which daemons shall run from now on, and which no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Units {
    pub(super) start: Vec<&'static str>,
    pub(super) stop: Vec<&'static str>,
}

/// What follows from a plan: `stack` is the text of sshd's stack once it is carried
/// out, and `gres` whether this node shares GPUs.
pub(super) fn units(plan: &Plan, stack: &str, gres: bool) -> Units {
    let mut units = Units::default();
    // By the new text: a revert changes the stack, too.
    let judged = stack.lines().any(|line| {
        let rule = line.split('#').next().unwrap_or_default();
        rule.contains(pam::MODULE)
    });
    if plan.reverts {
        // Lines of the site's own still need the daemon.
        if !judged && plan.scope.takes(Item::Logins) {
            units.stop.push(LOGOUTD);
        }
        let asked = plan.stays.iter().any(|it| [PROLOGS, EPILOGS].contains(it));
        if !asked && plan.scope.takes(Item::GresHelper) {
            units.stop.push(GRES_WATCH);
        }
        return units;
    }
    if judged && plan.scope.makes(Item::Logins) {
        units.start.push(LOGOUTD);
    }
    if gres && plan.scope.makes(Item::GresHelper) {
        units.start.push(GRES_WATCH);
    }
    units
}

/// How long a daemon may take to start.
const START_LIMIT: Duration = Duration::from_secs(5);

/// systemctl, where systemd runs and the tree is its own.
pub(super) fn systemctl(site: &Site) -> Option<PathBuf> {
    let runs = site.wanted.root.is_none() && Path::new("/run/systemd/system").is_dir();
    runs.then(|| run::find("systemctl")).flatten()
}

/// Starts a daemon now and at each boot; again if what its unit runs has changed.
///
/// # Errors
/// It does not start, for the reason that the daemon itself gives.
pub(super) fn start(site: &Site, plan: &Plan, unit: &str) -> Result<(), String> {
    let Some(systemctl) = systemctl(site) else {
        return Ok(());
    };
    let mut daemons = DAEMONS.iter();
    let is_changed = daemons.any(|it| it.unit == unit && it.is_changed(site, plan));
    let said = start_by(unit, is_changed, |call| run::run(&systemctl, call));
    said.map_err(|state| {
        let reason = own_reason(unit).unwrap_or(state);
        format!(
            "{unit} was enabled but does not start: {reason}. The files stay as they are now; run \
             `systemctl restart {unit}` once that is corrected"
        )
    })
}

fn start_by(
    unit: &str,
    is_changed: bool,
    mut systemctl: impl FnMut(&[&str]) -> Result<Said, String>,
) -> Result<(), String> {
    let mut calls = vec![vec!["enable", "--now", unit]];
    if is_changed {
        calls.insert(0, vec!["daemon-reload"]);
        calls.push(vec!["restart", unit]);
    }
    for call in calls {
        let ran = systemctl(&call)?;
        if !ran.success() {
            return Err(run::complaint(&ran));
        }
    }
    // A simple service counts as started before its program has read anything.
    let deadline = Deadline::after(START_LIMIT);
    let mut seen = None;
    loop {
        let ran = systemctl(&["show", "--property=ActiveState,SubState,MainPID", unit])?;
        match State::of(&ran.stdout) {
            State::Failed => return Err("it ended at once".to_owned()),
            State::Runs(pid) if seen.is_some_and(|it| it != pid) => {
                return Err("it ends again and again".to_owned());
            }
            State::Runs(pid) => {
                let first = seen.replace(pid).is_none();
                if !first && deadline.left() < START_LIMIT - SETTLED {
                    return Ok(());
                }
            }
            State::Starts => {}
        }
        if deadline.left().is_zero() {
            return Err(format!("it is not up after {} s", START_LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A daemon that runs for so long has read its configuration.
const SETTLED: Duration = Duration::from_secs(1);

/// What systemd says of a unit.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Runs(u32),
    Starts,
    Failed,
}

impl State {
    /// Of what `systemctl show` prints.
    fn of(text: &str) -> Self {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find_map(|(name, value)| (name == key).then_some(value))
        };
        let pid = value("MainPID").and_then(|it| it.parse().ok()).unwrap_or(0);
        match (value("ActiveState"), value("SubState")) {
            (Some("failed"), _) | (_, Some("auto-restart")) => Self::Failed,
            (Some("active"), _) => Self::Runs(pid),
            _ => Self::Starts,
        }
    }
}

/// The last line that a unit's own processes logged.
fn own_reason(unit: &str) -> Option<String> {
    let journalctl = run::find("journalctl")?;
    let of_unit = format!("_SYSTEMD_UNIT={unit}.service");
    // What an earlier start said is no reason of this one.
    let call = [
        "--no-pager",
        "--output=cat",
        "--lines=1",
        "--since=-30s",
        &of_unit,
    ];
    let ran = run::run(&journalctl, &call).ok()?;
    let line = ran.stdout.lines().next_back()?.trim();
    let is_said = !line.is_empty() && !line.starts_with("-- ");
    is_said.then(|| printable(line, 300))
}

/// Stops a daemon, now and for the next boot. On a node that never had it,
/// systemd complains, and there is nothing to do.
pub(super) fn stop(site: &Site, unit: &str) {
    if let Some(systemctl) = systemctl(site) {
        let _ = run::run(&systemctl, &["disable", "--now", unit]);
        let _ = run::run(&systemctl, &["daemon-reload"]);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::super::parts::Scope;
    use super::super::paths::HEALTHCHECK;
    use super::*;

    #[test]
    fn a_daemon_starts_where_the_new_stack_names_the_module_and_stops_with_the_last_line() {
        let names = "account required pam_slurm_logout.so # slurm-efa\n";
        let set_up = Plan::default();
        let revert = Plan {
            reverts: true,
            scope: Scope::nothing(),
            ..Plan::default()
        };
        let both = vec![LOGOUTD, GRES_WATCH];
        let of = |start: &[&'static str], stop: &[&'static str]| Units {
            start: start.to_vec(),
            stop: stop.to_vec(),
        };
        assert_eq!(units(&set_up, names, false), of(&[LOGOUTD], &[]));
        assert_eq!(units(&set_up, names, true), of(&both, &[]));
        let off = format!("# {names}");
        assert_eq!(units(&set_up, &off, false), of(&[], &[]));
        assert_eq!(units(&revert, "", true), of(&[], &both));
        assert_eq!(units(&revert, &off, false), of(&[], &both));
        // The site's own line still needs the daemon.
        assert_eq!(units(&revert, names, true), of(&[], &[GRES_WATCH]));
        for (place, stop) in [
            (EPILOGS, &both[..1]),
            (PROLOGS, &both[..1]),
            (HEALTHCHECK, &both),
        ] {
            let kept = Plan {
                reverts: true,
                scope: Scope::nothing(),
                stays: vec![place],
                ..Plan::default()
            };
            assert_eq!(units(&kept, "", true), of(&[], stop), "{place}");
        }
    }

    fn said(code: i32, stdout: &str, stderr: &str) -> Result<Said, String> {
        Ok(Said {
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            status: Some(ExitStatus::from_raw(code << 8)),
        })
    }

    /// Starts a daemon that is in these states, one by one; the last one stays.
    fn started(states: &[(&str, &str, u32)]) -> Result<(), String> {
        let mut states = states.iter().copied();
        let mut now = ("inactive", "dead", 0);
        start_by(LOGOUTD, false, |call| match call {
            ["show", ..] => {
                now = states.next().unwrap_or(now);
                let (active, sub, pid) = now;
                let text = format!("ActiveState={active}\nSubState={sub}\nMainPID={pid}\n");
                said(0, &text, "")
            }
            _ => said(0, "", ""),
        })
    }

    #[test]
    fn a_daemon_that_systemd_started_and_that_ends_has_not_started() {
        let runs = ("active", "running", 7);
        assert_eq!(started(&[("activating", "start", 0), runs, runs]), Ok(()));
        for (ends, reason) in [
            (("activating", "auto-restart", 0), "it ended at once"),
            (("failed", "failed", 0), "it ended at once"),
            (("active", "running", 8), "it ends again and again"),
            (("activating", "start", 0), "it is not up after 5 s"),
        ] {
            assert_eq!(started(&[runs, ends]), Err(reason.to_owned()), "{ends:?}");
        }
        let refused = start_by(LOGOUTD, false, |_| said(1, "", "Unit is masked.\n"));
        assert_eq!(refused, Err("Unit is masked.".to_owned()));
    }

    #[test]
    fn a_daemon_whose_configuration_is_another_one_is_started_again() {
        let mut calls = Vec::new();
        let _ = start_by(LOGOUTD, true, |call| {
            calls.push(call.join(" "));
            said(
                i32::from(call.first() == Some(&"show")),
                "ActiveState=failed\n",
                "",
            )
        });
        let expected = [
            "daemon-reload",
            "enable --now slurm-logoutd",
            "restart slurm-logoutd",
        ];
        assert_eq!(calls[..3], expected);
    }
}
