//! The daemons that a plan starts or stops, and by which configuration they run.

use std::path::{Path, PathBuf};

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

    fn text(&self, config: &Path) -> String {
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

/// What follows from a plan: `edited` says whether sshd's stack was among its
/// changes, `stack` is its text now, and `gres` whether this node shares GPUs.
pub(super) fn units(plan: &Plan, edited: bool, stack: &str, gres: bool) -> Units {
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
    if edited && judged {
        units.start.push(LOGOUTD);
    }
    if gres && plan.scope.makes(Item::GresHelper) {
        units.start.push(GRES_WATCH);
    }
    units
}

/// systemctl, where systemd runs and the tree is its own.
fn systemctl(site: &Site) -> Option<PathBuf> {
    let runs = site.wanted.root.is_none() && Path::new("/run/systemd/system").is_dir();
    runs.then(|| run::find("systemctl")).flatten()
}

/// Starts a daemon now and at each boot, where systemd runs; again if what its unit
/// runs has changed.
pub(super) fn start(site: &Site, plan: &Plan, unit: &str) -> Result<(), String> {
    let Some(systemctl) = systemctl(site) else {
        return Ok(());
    };
    let mut calls = vec![vec!["enable", "--now", unit]];
    let mut daemons = DAEMONS.iter();
    if daemons.any(|it| it.unit == unit && it.is_changed(site, plan)) {
        calls.insert(0, vec!["daemon-reload"]);
        calls.push(vec!["restart", unit]);
    }
    for call in calls {
        let ran = run::run(&systemctl, &call)?;
        if !ran.success() {
            return Err(format!("{unit} was not started: {}", run::complaint(&ran)));
        }
    }
    Ok(())
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
        assert_eq!(units(&set_up, true, names, false), of(&[LOGOUTD], &[]));
        assert_eq!(units(&set_up, true, names, true), of(&both, &[]));
        assert_eq!(units(&set_up, false, names, false), of(&[], &[]));
        let off = format!("# {names}");
        assert_eq!(units(&set_up, true, &off, false), of(&[], &[]));
        for edited in [false, true] {
            assert_eq!(units(&revert, edited, "", true), of(&[], &both));
            assert_eq!(units(&revert, edited, &off, false), of(&[], &both));
            // The site's own line still needs the daemon.
            assert_eq!(units(&revert, edited, names, true), of(&[], &[GRES_WATCH]));
        }
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
            assert_eq!(units(&kept, true, "", true), of(&[], stop), "{place}");
        }
    }
}
