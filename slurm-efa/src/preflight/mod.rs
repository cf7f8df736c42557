//! `slurm-efa preflight`: a cluster judged before it exists. Reads files and
//! changes nothing.
//!
//! ```text
//! checks.rs      the table ── shapes.rs, groups.rs, lifecycle.rs      files
//!                          ── network.rs, capacity.rs, storage.rs     AWS's answers
//! look.rs        what the checks look at
//! live.rs        asking AWS
//! init.rs        files of a cluster that passes
//! ```

mod capacity;
pub mod checks;
mod groups;
pub mod init;
mod lifecycle;
pub mod live;
mod look;
mod network;
mod shapes;
mod storage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cluster::json::{Document, Place};
use cluster::model::BOTOCORE;
use findings::{Envelope, Finding, Findings, Severity};
use host::printable;
use host::sysroot::read_named;
use serde::Serialize;

use self::checks::{CHECKS, Check};
use self::look::{Fault, Look};
pub use self::look::{File, Input, Listing, Scripts, Source, Unread};

/// Most faults of one check that are shown.
const SHOWN: usize = 20;

/// Where a finding is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The file, as it was called.
    pub file: String,
    /// The JSON pointer; empty for the whole file.
    pub pointer: String,
    /// The line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

/// The findings of one run.
#[derive(Debug)]
pub struct Report {
    /// In the order of the table.
    pub findings: Findings,
    /// Where each is; `None` for what passed or was not checked.
    pub positions: Vec<Option<Position>>,
}

/// Keys of the document beside those of every document of findings.
#[derive(Debug, Serialize)]
struct Keys {
    /// The version of botocore whose model was used.
    botocore: &'static str,
}

/// A finding with its place.
#[derive(Debug, Serialize)]
struct Placed<'r> {
    #[serde(flatten)]
    finding: &'r Finding,
    #[serde(flatten)]
    position: Option<&'r Position>,
}

impl Source {
    /// Reads a file, without more of it than its limit.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = read_named(path, cluster::json::LARGEST).map_err(|error| Unread {
            reason: error.to_string(),
            place: None,
        });
        let name = printable(&path.to_string_lossy(), 200);
        match text {
            Ok(text) => Self::of(name, text),
            Err(unread) => Self {
                name,
                document: Err(unread),
            },
        }
    }

    /// A text under a name.
    #[must_use]
    pub fn of(name: String, text: String) -> Self {
        let document = Document::parse(text).map_err(|error| Unread {
            reason: error.reason,
            place: Some(error.place),
        });
        Self { name, document }
    }

    fn place(&self, offset: usize) -> Option<Place> {
        match &self.document {
            Ok(document) => Some(document.place(offset)),
            Err(unread) => unread.place,
        }
    }
}

/// Runs every check.
#[must_use]
pub fn judge(input: &Input) -> Report {
    let look = Look::new(input);
    let mut report = Report {
        findings: Findings::default(),
        positions: Vec::new(),
    };
    for check in CHECKS {
        let outcome = match &input.cluster.document {
            Err(_) if check.id != "json" => Err(format!("{} was not read", input.cluster.name)),
            _ => (check.run)(&look),
        };
        match outcome {
            Err(reason) => report.add(check, Severity::Unknown, &reason, None),
            Ok(faults) if faults.is_empty() => report.add(check, Severity::Ok, "", None),
            Ok(faults) => {
                let more = faults.len().saturating_sub(SHOWN);
                for fault in faults.iter().take(SHOWN) {
                    let position = position(input, fault);
                    report.add(check, check.severity, &fault.sentence, Some(position));
                }
                if more > 0 {
                    let sentence = format!("{more} more of this kind");
                    report.add(check, check.severity, &sentence, None);
                }
            }
        }
    }
    report
}

fn position(input: &Input, fault: &Fault) -> Position {
    let source = match fault.file {
        File::Cluster => Some(&input.cluster),
        File::Provisioning => input.provisioning.as_ref(),
        File::Lifecycle => None,
    };
    let Some(source) = source else {
        return Position {
            file: fault.at.pointer.clone(),
            pointer: String::new(),
            line: None,
            column: None,
        };
    };
    let place = source.place(fault.at.offset);
    Position {
        file: source.name.clone(),
        pointer: fault.at.pointer.clone(),
        line: place.map(|it| it.line),
        column: place.map(|it| it.column),
    }
}

impl Position {
    fn text(&self) -> String {
        let mut text = self.file.clone();
        if let (Some(line), Some(column)) = (self.line, self.column) {
            let _ = write!(text, ":{line}:{column}");
        }
        if !self.pointer.is_empty() {
            let _ = write!(text, " {}", self.pointer);
        }
        text
    }
}

impl Report {
    fn add(
        &mut self,
        check: &Check,
        severity: Severity,
        sentence: &str,
        position: Option<Position>,
    ) {
        let remedy = match severity {
            Severity::Ok => None,
            Severity::Unknown => Some("this was not checked".to_owned()),
            Severity::Warning | Severity::Fatal => Some(check.remedy.to_owned()),
        };
        let subject = position.as_ref().map(|it| match it.pointer.as_str() {
            "" => it.file.clone(),
            pointer => format!("{}#{pointer}", it.file),
        });
        self.findings.0.push(Finding {
            id: check.id,
            severity,
            subject,
            sentence: printable(sentence, 1000),
            remedy,
        });
        self.positions.push(position);
    }

    /// The exit code; with `strict` a warning counts as fatal.
    #[must_use]
    pub fn exit_code(&self, strict: bool) -> u8 {
        let warned = self.findings.0.iter();
        let mut warned = warned.map(|it| it.severity);
        if strict && warned.any(|it| it == Severity::Warning) {
            return Severity::Fatal.exit_code();
        }
        self.findings.exit_code()
    }

    /// For a person: what is wrong.
    #[must_use]
    pub fn wrong_text(&self) -> String {
        let mut text = String::new();
        let both = self.findings.0.iter().zip(&self.positions);
        let wrong = |severity| matches!(severity, Severity::Warning | Severity::Fatal);
        for (finding, position) in both.filter(|(finding, _)| wrong(finding.severity)) {
            let place = position.as_ref().map(Position::text).unwrap_or_default();
            let (label, id) = (finding.severity.label(), finding.id);
            let _ = writeln!(
                text,
                "{}",
                format!("{label:<8} {id:<21} {place}").trim_end()
            );
            let _ = writeln!(text, "{:<30} {}", "", finding.sentence);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "{:<30} -> {remedy}", "");
            }
        }
        text
    }

    /// For a person: what is wrong, what was not checked, and a summary.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.wrong_text();
        self.unknown(&mut text);
        let count = |severity| {
            let ids = self.findings.0.iter();
            let ids = ids.filter(|it| it.severity == severity).map(|it| it.id);
            ids.collect::<std::collections::BTreeSet<_>>().len()
        };
        let _ = writeln!(
            text,
            "{} checks: {} fatal, {} warning, {} not checked, {} ok. Shapes: botocore {BOTOCORE}.",
            CHECKS.len(),
            count(Severity::Fatal),
            count(Severity::Warning),
            count(Severity::Unknown),
            count(Severity::Ok),
        );
        text
    }

    /// What was not checked, by reason.
    fn unknown(&self, text: &mut String) {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let unknown = self.findings.0.iter();
        for finding in unknown.filter(|it| it.severity == Severity::Unknown) {
            let ids = reasons.entry(&finding.sentence).or_default();
            ids.push(finding.id);
        }
        for (reason, ids) in reasons {
            let label = Severity::Unknown.label();
            let _ = writeln!(text, "{label:<8} not checked: {reason}");
            for line in ids.chunks(6) {
                let _ = writeln!(text, "{:<8}   {}", "", line.join(", "));
            }
        }
    }

    /// For a program.
    ///
    /// # Errors
    /// Never in practice: the document has only texts and numbers.
    pub fn to_json(&self, unix: u64) -> serde_json::Result<String> {
        let mut positions = self.positions.iter();
        let placed = |finding| Placed {
            finding,
            position: positions.next().and_then(Option::as_ref),
        };
        let all: Vec<Placed<'_>> = self.findings.0.iter().map(placed).collect();
        #[derive(Serialize)]
        struct Body<'r> {
            severity: Severity,
            findings: Vec<Placed<'r>>,
            #[serde(flatten)]
            keys: Keys,
        }
        let body = Body {
            severity: self.findings.worst(),
            findings: all,
            keys: Keys { botocore: BOTOCORE },
        };
        serde_json::to_string_pretty(&Envelope::new(None, unix, body))
    }
}
