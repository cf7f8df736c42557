//! The JSON documents of programs.

use std::time::SystemTime;

use host::date;
use serde::Serialize;

use crate::{Finding, Findings, Severity};

/// The version of the documents' format. New keys do not change it.
pub const VERSION: u32 = 1;

/// One run of a program as JSON: the keys that every document has, then those
/// of this one.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, M> {
    version: u32,
    node: Option<&'a str>,
    time: String,
    #[serde(flatten)]
    more: M,
}

impl<'a, M> Envelope<'a, M> {
    /// A document of this node, with what was seen at this time.
    pub fn new(node: Option<&'a str>, unix: u64, more: M) -> Self {
        Self {
            version: VERSION,
            node,
            time: date::rfc3339(unix),
            more,
        }
    }

    /// A document of this node, with what has just been seen.
    pub fn of_now(node: Option<&'a str>, more: M) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::new(node, now.map_or(0, |since| since.as_secs()), more)
    }
}

/// A document of findings: the keys that every such document has, then those of
/// its program.
pub type Document<'a, F, M> = Envelope<'a, Body<F, M>>;

/// What a document of findings has beside the keys of every document.
#[derive(Debug, Serialize)]
pub struct Body<F, M> {
    severity: Severity,
    findings: Vec<F>,
    #[serde(flatten)]
    more: M,
}

impl Findings {
    /// What a document has of these findings: `finding` is what a program shows
    /// of each, and `more` are the program's other keys.
    pub fn body<'a, F, M>(&'a self, finding: impl Fn(&'a Finding) -> F, more: M) -> Body<F, M> {
        Body {
            severity: self.worst(),
            findings: self.0.iter().map(finding).collect(),
            more,
        }
    }

    /// These findings as a document. `finding` is what a program shows of each:
    /// [`Finding`] itself, or that with keys of its own; `unix` is when the checks
    /// were made, and `more` are the program's other keys.
    pub fn document<'a, F, M>(
        &'a self,
        node: Option<&'a str>,
        unix: u64,
        finding: impl Fn(&'a Finding) -> F,
        more: M,
    ) -> Document<'a, F, M> {
        Envelope::new(node, unix, self.body(finding, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct More {
        devices: u32,
    }

    #[test]
    fn a_document_has_version_node_time_severity_findings() {
        let findings = Findings(vec![Finding {
            id: "device-count",
            severity: Severity::Fatal,
            subject: Some("rdmap182s0".to_owned()),
            sentence: "31/32 devices".to_owned(),
            remedy: Some("reboot".to_owned()),
        }]);
        let document = findings.document(Some("n1"), 1_795_320_000, |it| it, More { devices: 31 });
        let expected = serde_json::json!({
            "version": 1,
            "node": "n1",
            "time": "2026-11-22T04:00:00Z",
            "severity": "fatal",
            "findings": [{
                "id": "device-count",
                "severity": "fatal",
                "subject": "rdmap182s0",
                "sentence": "31/32 devices",
                "remedy": "reboot",
            }],
            "devices": 31,
        });
        assert_eq!(serde_json::to_value(document).unwrap(), expected);
    }
}
