//! What the checks of one look found, for people, machines and Slurm.

use std::fmt::Write as _;
use std::time::Duration;

use findings::{Document, Finding, Findings, Remedies, Severity, Show};
use serde::Serialize;
use slurm::NodeName;

use crate::checks::{CHECKS, Check, CheckOutcome, Facts};
use crate::history::Changes;
use crate::settings::CAUSED_BY_JOBS;

/// All results of one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The result of every check that has a meaning on this node.
    pub findings: Findings,
    /// Checks that are unknown now, and in every other round on this node.
    uncheckable: Vec<&'static str>,
    /// The instance type, if known.
    pub instance_type: Option<String>,
    /// EFA devices that are present.
    pub devices: Option<usize>,
    /// EFA devices that should be present.
    pub expected_devices: Option<u32>,
    /// How long each part of looking took, in seconds.
    pub seconds: Vec<(&'static str, f64)>,
}

/// The keys of the JSON document beside those of every [`Document`].
#[derive(Debug, Serialize)]
pub struct Keys<'a> {
    /// The old name of `severity`, for one release.
    status: Severity,
    instance_type: Option<&'a str>,
    devices: Option<usize>,
    expected_devices: Option<u32>,
    /// The old form of `findings`, for one release.
    checks: Vec<OldFinding<'a>>,
    seconds: &'a [(&'static str, f64)],
}

/// A finding with the keys that it had up to 0.1.
#[derive(Debug, Serialize)]
struct OldFinding<'a> {
    check: &'static str,
    status: Severity,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl Report {
    /// Judges a node by every check but those that the site does not want.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Self {
        let disabled = &facts.settings.disable;
        let mut uncheckable = Vec::new();
        let mut findings = Vec::new();
        for check in CHECKS {
            if disabled.iter().any(|id| id == check.id) {
                continue;
            }
            let outcome = check.judge(facts);
            if matches!(outcome, CheckOutcome::Uncheckable(_)) {
                uncheckable.push(check.id);
            }
            findings.extend(finding(check, outcome));
        }
        let seen = facts.seen;
        Self {
            findings: Findings(findings),
            uncheckable,
            instance_type: seen.instance.as_ref().ok().map(ToString::to_string),
            devices: seen.devices.as_ref().ok().map(Vec::len),
            expected_devices: facts.expected.count,
            seconds: seconds(&seen.took),
        }
    }

    /// The worst severity of all.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.findings.worst()
    }

    /// Leaves out what no round can find out: it must neither be logged every
    /// minute nor keep a node from being resumed.
    pub fn leave_out_uncheckable(&mut self) {
        let left_out = std::mem::take(&mut self.uncheckable);
        self.findings
            .0
            .retain(|finding| !left_out.contains(&finding.id));
    }

    /// Makes these warnings fatal, but for those that a job may have caused: no
    /// job's fault takes a node out of service.
    pub fn hold(&mut self, ids: &[String], changes: &Changes) {
        let holding: Vec<bool> = self
            .findings
            .0
            .iter()
            .map(|finding| self.holds(finding, ids, changes))
            .collect();
        for (finding, holds) in self.findings.0.iter_mut().zip(holding) {
            if holds && finding.severity == Severity::Warning {
                finding.severity = Severity::Fatal;
            }
        }
    }

    /// Whether `hold` names this finding and no job can have caused it.
    #[must_use]
    pub fn holds(&self, finding: &Finding, ids: &[String], changes: &Changes) -> bool {
        let is_confirmed = match finding.id {
            // It is about all packets since the driver was loaded.
            "security-group" => {
                let mut all = self.findings.0.iter();
                all.any(|other| other.id == "loopback" && other.severity != Severity::Ok)
            }
            id => changes.without_job || !CAUSED_BY_JOBS.contains(&id),
        };
        is_confirmed && ids.iter().any(|id| id == finding.id)
    }

    /// For a terminal: findings, or every check, and a last line that sums up.
    #[must_use]
    pub fn text(&self, show: Show) -> String {
        let mut text = self.findings.text(show, Remedies::Elsewhere);
        let number = |n: Option<String>| n.unwrap_or_else(|| "?".to_owned());
        let _ = writeln!(
            text,
            "{} {}: {} of {} EFA devices, {} checks in {:.1} ms",
            self.worst().label(),
            self.instance_type.as_deref().unwrap_or("unknown type"),
            number(self.devices.map(|n| n.to_string())),
            number(self.expected_devices.map(|n| n.to_string())),
            self.findings.0.len(),
            self.seconds.iter().map(|(_, s)| s * 1000.0).sum::<f64>()
        );
        text
    }

    /// For a program.
    #[must_use]
    pub fn document<'a>(
        &'a self,
        node: Option<&'a NodeName>,
        unix: u64,
    ) -> Document<'a, &'a Finding, Keys<'a>> {
        let checks = self.findings.0.iter().map(|finding| OldFinding {
            check: finding.id,
            status: finding.severity,
            message: &finding.sentence,
        });
        let keys = Keys {
            status: self.worst(),
            instance_type: self.instance_type.as_deref(),
            devices: self.devices,
            expected_devices: self.expected_devices,
            checks: checks.collect(),
            seconds: &self.seconds,
        };
        self.findings
            .document(node.map(NodeName::as_str), unix, |finding| finding, keys)
    }
}

/// A check's outcome as a finding; `None` where the check has no meaning.
fn finding(check: &Check, outcome: CheckOutcome) -> Option<Finding> {
    let (severity, sentence) = match outcome {
        CheckOutcome::NotApplicable => return None,
        CheckOutcome::Fine => (Severity::Ok, String::new()),
        CheckOutcome::Found(message) => (check.severity, message),
        CheckOutcome::FoundAs(severity, message) => (severity, message),
        CheckOutcome::Unknown(message) | CheckOutcome::Uncheckable(message) => {
            (Severity::Unknown, message)
        }
    };
    Some(Finding {
        id: check.id,
        severity,
        // A sentence may be about several devices, and names them.
        subject: None,
        sentence,
        remedy: (severity != Severity::Ok).then(|| check.remedy.to_owned()),
    })
}

fn seconds(took: &[(&'static str, Duration)]) -> Vec<(&'static str, f64)> {
    took.iter()
        .map(|(part, took)| (*part, took.as_secs_f64()))
        .collect()
}
