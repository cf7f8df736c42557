//! `efa-check healthcheck`: one round of slurmd's health check.

use std::path::PathBuf;

use clap::Args;
use efa_check::checks;
use efa_check::counters::Wanted;
use efa_check::history::Changes;
use efa_check::report::Report;
use efa_check::site::{self, Site};
use efa_check::{EX_CANTCREAT, drain, pingpong, rebind};
use findings::{Domain, Finding, Severity, Show};
use slurm::drain_policy::NodeAction;

use super::output::{complain, print};
use super::round::{How, Keep, is_young, round, write_metrics};
use super::slurm::{ask_slurm, log_only};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Write counters and results for node_exporter, instead of `metrics` in [health].
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

pub fn run(site: &Site, arguments: &Arguments) -> u8 {
    let how = How {
        counters: Wanted::All,
        hold: &[],
        stack: true,
        from_slurmd: true,
        jobs: true,
        uncheckable: false,
        wait: false,
        keep: Keep::State,
        confirmed: None,
    };
    let every = site.settings.pingpong_every;
    let drain_as = drain::drain_as(site.settings.on_fatal);
    let early = site::now(&site.sysroot);
    let mut to_test = false;
    let round = round(site, &how, |report, changes, rounds| {
        if report.worst() == Severity::Fatal {
            rounds.drained |= drain_as.is_some();
        } else if let Some(every) = every {
            let loopback = rounds.loopback.get_or_insert_default();
            to_test = loopback.is_due(every, &early);
            if to_test {
                loopback.ask(&early);
            }
        }
        rounds.healthy = match worst_for_jobs(site, report, changes) {
            Severity::Ok => rounds.healthy.saturating_add(1),
            // Neither healthy nor the opposite.
            Severity::Unknown => rounds.healthy,
            // The next job, or the next one with a profile, would be held again.
            Severity::Warning | Severity::Fatal => 0,
        };
    });
    let report = &round.report;
    print(&report.text(Show::NotOk));
    let settings = &site.settings;
    let metrics = arguments.metrics.as_deref();
    let written = write_metrics(metrics.or(settings.metrics.as_deref()), &round);
    let late = still_young(site, report);
    let reason = report.findings.reason(Domain::Efa);
    match (reason.filter(|_| !late), drain_as) {
        (Some(reason), Some(drain_as)) => ask_slurm(
            site,
            &NodeAction::Drain {
                reason,
                drain_as,
                after: None,
            },
        ),
        (Some(reason), None) => log_only(&reason),
        (None, _) => {}
    }
    for device in rebind::dead(site, &round.seen, &round.rounds, &round.now) {
        if let Some(node) = &site.node
            && let Err(error) = rebind::send(&site.config, node, device)
        {
            complain(&format!("{device} cannot be rebound: {error}"));
        }
    }
    if let (true, Some(node)) = (to_test, &site.node)
        && let Err(error) = pingpong::send(&site.config, node)
    {
        complain(&format!("no loopback test could be started: {error}"));
    }
    let healed = round.rounds.healthy >= settings.resume_after;
    if settings.resume && healed && round.rounds.drained && drain_as.is_some() {
        ask_slurm(site, &NodeAction::Resume);
    }
    if written {
        report.findings.exit_code()
    } else {
        EX_CANTCREAT
    }
}

/// The worst that any job may be held for: a warning that holds none, or one
/// that could not be looked for, keeps no node out of service.
fn worst_for_jobs(site: &Site, report: &Report, changes: &Changes) -> Severity {
    let holds = |finding: &&Finding| {
        let fatal = |check: &checks::Check| check.severity == Severity::Fatal;
        finding.severity == Severity::Fatal
            || finding.severity == Severity::Unknown && checks::find(finding.id).is_some_and(fatal)
            || report.holds(finding, &site.settings.hold, changes)
    };
    let findings = report.findings.0.iter().filter(holds);
    findings
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}

/// Whether all that is wrong is that devices are missing just after boot.
fn still_young(site: &Site, report: &Report) -> bool {
    is_young(site)
        && report
            .findings
            .0
            .iter()
            .filter(|finding| finding.severity == Severity::Fatal)
            .all(|finding| finding.id == "device-count")
}
