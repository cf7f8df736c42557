//! What came out, for people, machines and Slurm.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::checks::{CHECKS, CheckOutcome, Facts, Severity};
use crate::slurm::PREFIX;

/// The longest drain reason, in bytes; `sinfo -R` shows less than that anyway.
const LONGEST_REASON: usize = 240;

/// How one check, or all together, came out, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// Somebody should look.
    Warning,
    /// It could not be told.
    Unknown,
    /// No job shall start here.
    Fatal,
}

impl Status {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Fatal => 2,
            Self::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Fatal => "FATAL",
        }
    }
}

/// One check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found, empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Unknown now, and in every other round on this node.
    #[serde(skip)]
    pub uncheckable: bool,
}

/// All results of one look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The worst of all.
    pub status: Status,
    /// The instance type, if known.
    pub instance_type: Option<String>,
    /// EFA devices that are there.
    pub devices: Option<usize>,
    /// EFA devices that shall be there.
    pub expected_devices: Option<u32>,
    /// Every check that has a meaning on this node.
    pub checks: Vec<Finding>,
    /// How long each part of looking took, in seconds.
    pub seconds: Vec<(&'static str, f64)>,
}

impl Report {
    /// Judges a node by every check but those that the site does not want.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Self {
        let disabled = &facts.settings.disable;
        let checks: Vec<Finding> = CHECKS
            .iter()
            .filter(|check| !disabled.iter().any(|id| id == check.id))
            .filter_map(|check| {
                let found = |severity, message: String| match severity {
                    Severity::Fatal => (Status::Fatal, message),
                    Severity::Warning => (Status::Warning, message),
                };
                let outcome = check.judge(facts);
                let uncheckable = matches!(outcome, CheckOutcome::Uncheckable(_));
                let (status, message) = match outcome {
                    CheckOutcome::NotApplicable => return None,
                    CheckOutcome::Fine => (Status::Ok, String::new()),
                    CheckOutcome::Found(message) => found(check.severity, message),
                    CheckOutcome::FoundAs(severity, message) => found(severity, message),
                    CheckOutcome::Unknown(message) | CheckOutcome::Uncheckable(message) => {
                        (Status::Unknown, message)
                    }
                };
                Some(Finding {
                    check: check.id,
                    status,
                    message,
                    uncheckable,
                })
            })
            .collect();
        let seen = facts.seen;
        Self {
            status: worst(&checks),
            instance_type: seen.instance.as_ref().ok().map(ToString::to_string),
            devices: seen.devices.as_ref().ok().map(Vec::len),
            expected_devices: facts.expected.count,
            checks,
            seconds: seconds(&seen.took),
        }
    }

    /// The findings that are not fine, the worst first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        [Status::Fatal, Status::Unknown, Status::Warning]
            .into_iter()
            .flat_map(|status| self.checks.iter().filter(move |f| f.status == status))
    }

    /// Leaves out what no round can find out: it must neither be logged every
    /// minute nor keep a node from being resumed.
    pub fn leave_out_uncheckable(&mut self) {
        self.checks.retain(|finding| !finding.uncheckable);
        self.status = worst(&self.checks);
    }

    /// Makes these warnings fatal.
    pub fn hold(&mut self, ids: &[String]) {
        for finding in &mut self.checks {
            if finding.status == Status::Warning && ids.iter().any(|id| id == finding.check) {
                finding.status = Status::Fatal;
            }
        }
        self.status = worst(&self.checks);
    }

    /// A fatal report's reason for Slurm: one line of plain ASCII that begins
    /// as all of ours do.
    #[must_use]
    pub fn reason(&self) -> String {
        let fatal: Vec<&str> = self
            .checks
            .iter()
            .filter(|finding| finding.status == Status::Fatal)
            .map(|finding| finding.message.as_str())
            .collect();
        let mut text = PREFIX.to_owned();
        for c in fatal.join("; ").chars() {
            // Slurm quotes nothing where it shows a reason.
            text.push(match c {
                '"' | '\'' | '\\' | '`' => '\'',
                c if c.is_ascii() && !c.is_ascii_control() => c,
                _ => '?',
            });
        }
        if text.len() > LONGEST_REASON {
            text.truncate(LONGEST_REASON - 3);
            text.push_str("...");
        }
        text
    }

    /// For a terminal: findings, or every check, and a last line that sums up.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let mut text = String::new();
        for finding in &self.checks {
            if all || finding.status != Status::Ok {
                let (word, check) = (finding.status.word(), finding.check);
                let line = format!("{word:<8} {check:<20} {}", finding.message);
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        let number = |n: Option<String>| n.unwrap_or_else(|| "?".to_owned());
        let _ = writeln!(
            text,
            "{} {}: {} of {} EFA devices, {} checks in {:.1} ms",
            self.status.word(),
            self.instance_type.as_deref().unwrap_or("unknown type"),
            number(self.devices.map(|n| n.to_string())),
            number(self.expected_devices.map(|n| n.to_string())),
            self.checks.len(),
            self.seconds.iter().map(|(_, s)| s * 1000.0).sum::<f64>()
        );
        text
    }
}

fn worst(findings: &[Finding]) -> Status {
    let any = |status| findings.iter().any(|finding| finding.status == status);
    [Status::Fatal, Status::Unknown, Status::Warning]
        .into_iter()
        .find(|status| any(*status))
        .unwrap_or(Status::Ok)
}

fn seconds(took: &[(&'static str, Duration)]) -> Vec<(&'static str, f64)> {
    took.iter()
        .map(|(part, took)| (*part, took.as_secs_f64()))
        .collect()
}

/// `09:12 UTC` of today would do for a person, but a reason is read days later:
/// `Nov 21 09:12 UTC`.
#[must_use]
pub fn utc(unix: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days of the Gregorian calendar, in years that begin in March so that the
    // leap day comes last; 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = MONTHS
        .get(usize::try_from((from_march + 2) % 12).unwrap_or(0))
        .unwrap_or(&"?");
    let (hour, minute) = (seconds / 3600, seconds % 3600 / 60);
    format!("{month} {day} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_by_the_calendar() {
        assert_eq!(utc(0), "Jan 1 00:00 UTC");
        assert_eq!(utc(951_782_400), "Feb 29 00:00 UTC");
        assert_eq!(utc(951_868_740), "Feb 29 23:59 UTC");
        assert_eq!(utc(1_795_340_000), "Nov 22 09:33 UTC");
        assert_eq!(utc(4_102_444_799), "Dec 31 23:59 UTC");
    }

    fn report(messages: &[&str]) -> Report {
        let checks = messages
            .iter()
            .map(|message| Finding {
                check: "device-count",
                status: Status::Fatal,
                message: (*message).to_owned(),
                uncheckable: false,
            })
            .collect();
        Report {
            status: Status::Fatal,
            instance_type: None,
            devices: None,
            expected_devices: None,
            checks,
            seconds: Vec::new(),
        }
    }

    #[test]
    fn a_reason_is_one_short_line_that_cannot_be_read_as_anything_else() {
        assert_eq!(report(&["31/32", "x"]).reason(), "EFA: 31/32; x");
        let hostile = report(&["a\" State=RESUME\n\u{202e}\x1b[2J ä"]).reason();
        assert!(
            hostile.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{hostile}"
        );
        assert!(!hostile.contains('"'));
        let long = "x".repeat(5000);
        assert_eq!(report(&[&long]).reason().len(), LONGEST_REASON);
    }

    #[test]
    fn a_fatal_finding_outweighs_an_unknown_one_and_that_a_warning() {
        let of = |status| Finding {
            check: "uverbs",
            status,
            message: String::new(),
            uncheckable: false,
        };
        let all = [Status::Ok, Status::Warning, Status::Unknown, Status::Fatal];
        for n in 1..=all.len() {
            let findings: Vec<Finding> = all[..n].iter().map(|s| of(*s)).collect();
            assert_eq!(worst(&findings), all[n - 1]);
        }
        assert_eq!(all.map(Status::code), [0, 1, 3, 2]);
    }
}
