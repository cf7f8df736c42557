//! `efa-check prolog`.

use std::ffi::OsStr;

use efa_check::counters::Wanted;
use efa_check::drain;
use efa_check::settings::has_profile;
use efa_check::site::{self, Site};
use findings::{Domain, Severity};
use slurm::drain_policy::{Failed, NodeAction};

use super::output::complain;
use super::round::{How, Keep, round};
use super::slurm::{ask_slurm, log_only};

pub fn run(site: &Site) -> u8 {
    let profile = site::job_profile();
    let profile = profile.as_deref().map(OsStr::to_string_lossy);
    // Hostile text, used for nothing but this: to be lenient.
    let wants_efa = match profile {
        Some(name) => has_profile(Some(&name)),
        None => site.settings.default_profile,
    };
    let how = How {
        counters: Wanted::Judged,
        hold: if wants_efa { &site.settings.hold } else { &[] },
        // Fatal only where every job has a profile; then any job that comes.
        stack: wants_efa || site.settings.default_profile,
        from_slurmd: true,
        jobs: false,
        uncheckable: false,
        wait: true,
        keep: Keep::State,
        confirmed: None,
    };
    let drain_as = drain::drain_as(site.settings.on_fatal);
    let round = round(site, &how, |report, _, rounds| {
        if report.worst() == Severity::Fatal && drain_as.is_some() {
            rounds.healthy = 0;
            rounds.drained = true;
        }
    });
    let report = round.report;
    for finding in report.findings.not_ok() {
        complain(&format!("{}: {}", finding.id, finding.sentence));
    }
    let Some(reason) = report.findings.reason(Domain::Efa) else {
        return 0;
    };
    let Some(drain_as) = drain_as else {
        log_only(&reason);
        return 0;
    };
    ask_slurm(
        site,
        &NodeAction::Drain {
            reason,
            drain_as,
            after: Some(Failed::Prolog),
        },
    );
    2
}
