//! The daemons that a plan starts or stops.

use std::path::Path;

use super::discover::Site;
use super::pam;
use super::parts::Item;
use super::paths::{EPILOGS, PROLOGS};
use super::plan::Plan;
use super::run;

const LOGOUTD: &str = "slurm-logoutd";
const GRES_WATCH: &str = "gres-helper-watch";

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

/// Starts a daemon now and at each boot, where systemd runs.
pub(super) fn start(site: &Site, unit: &str) -> Result<(), String> {
    if site.wanted.root.is_some() || !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let Some(systemctl) = run::find("systemctl") else {
        return Ok(());
    };
    let ran = run::run(&systemctl, &["enable", "--now", unit])?;
    if ran.success() {
        return Ok(());
    }
    Err(format!("{unit} was not started: {}", run::complaint(&ran)))
}

/// Stops a daemon, now and for the next boot. On a node that never had it,
/// systemd complains, and there is nothing to do.
pub(super) fn stop(site: &Site, unit: &str) {
    if site.wanted.root.is_some() || !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    if let Some(systemctl) = run::find("systemctl") {
        let _ = run::run(&systemctl, &["disable", "--now", unit]);
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
