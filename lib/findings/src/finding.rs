//! One finding, and all findings of one run.

use std::cmp::Reverse;
use std::fmt::Write as _;

use serde::Serialize;

use crate::Severity;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, the same in every version.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The device that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found; empty if the check has nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// What was found and what to do, as one line.
    #[must_use]
    pub fn advice(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.sentence),
            None => self.sentence.clone(),
        }
    }
}

/// Which findings a text contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Every finding, in the order of the checks.
    All,
    /// Those that are not ok.
    NotOk,
}

/// Whether a text says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedies {
    /// Below each finding.
    Shown,
    /// No: another command explains the findings.
    Elsewhere,
}

/// The findings of one run, in the order of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// The worst severity; ok without any finding.
    #[must_use]
    pub fn worst(&self) -> Severity {
        let severities = self.0.iter().map(|finding| finding.severity);
        severities.max().unwrap_or(Severity::Ok)
    }

    /// The exit code of the program.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.worst().exit_code()
    }

    /// The findings that are not ok, the worst first.
    #[must_use]
    pub fn not_ok(&self) -> Vec<&Finding> {
        let mut found: Vec<&Finding> = self.shown(Show::NotOk).collect();
        // Stable: findings of one severity keep the order of the checks.
        found.sort_by_key(|finding| Reverse(finding.severity));
        found
    }

    /// A line for each finding, however wide the terminal is.
    #[must_use]
    pub fn text(&self, show: Show, remedies: Remedies) -> String {
        let mut text = String::new();
        for finding in self.shown(show) {
            let line = format!(
                "{:<8} {:<20} {}",
                finding.severity.label(),
                finding.id,
                finding.sentence
            );
            let _ = writeln!(text, "{}", line.trim_end());
            if let (Remedies::Shown, Some(remedy)) = (remedies, &finding.remedy) {
                let _ = writeln!(text, "{:<29} -> {remedy}", "");
            }
        }
        text
    }

    fn shown(&self, show: Show) -> impl Iterator<Item = &Finding> {
        self.0
            .iter()
            .filter(move |finding| show == Show::All || finding.severity != Severity::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &'static str, severity: Severity) -> Finding {
        Finding {
            id,
            severity,
            subject: None,
            sentence: "one device is missing".to_owned(),
            remedy: Some("reboot".to_owned()),
        }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        use Severity::{Fatal, Ok, Unknown, Warning};
        for (severities, worst, code) in [
            (&[] as &[Severity], Ok, 0),
            (&[Ok, Ok], Ok, 0),
            (&[Warning, Ok], Warning, 1),
            (&[Unknown, Ok], Unknown, 3),
            (&[Warning, Unknown, Warning], Unknown, 3),
            (&[Unknown, Warning], Unknown, 3),
            (&[Fatal, Unknown], Fatal, 2),
            (&[Warning, Fatal, Ok], Fatal, 2),
            (&[Ok, Warning, Unknown, Fatal], Fatal, 2),
        ] {
            let all = severities.iter().map(|it| finding("uverbs", *it));
            let findings = Findings(all.collect());
            assert_eq!(findings.worst(), worst, "{severities:?}");
            assert_eq!(findings.exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn the_worst_findings_come_first() {
        let findings = Findings(vec![
            finding("a", Severity::Warning),
            finding("b", Severity::Ok),
            finding("c", Severity::Fatal),
            finding("d", Severity::Unknown),
            finding("e", Severity::Warning),
        ]);
        let ids: Vec<&str> = findings.not_ok().iter().map(|it| it.id).collect();
        assert_eq!(ids, ["c", "d", "a", "e"]);
    }

    #[test]
    fn advice_is_what_was_found_then_what_to_do() {
        let mut missing = finding("count", Severity::Fatal);
        assert_eq!(missing.advice(), "one device is missing; reboot");
        missing.remedy = None;
        assert_eq!(missing.advice(), "one device is missing");
    }

    #[test]
    fn each_finding_has_a_line() {
        let findings = Findings(vec![
            finding("count", Severity::Fatal),
            Finding {
                sentence: String::new(),
                remedy: None,
                ..finding("uverbs", Severity::Ok)
            },
        ]);
        let line = "FATAL    count                one device is missing\n";
        let remedy = "                              -> reboot\n";
        assert_eq!(findings.text(Show::NotOk, Remedies::Elsewhere), line);
        assert_eq!(
            findings.text(Show::All, Remedies::Shown),
            format!("{line}{remedy}ok       uverbs\n")
        );
    }
}
