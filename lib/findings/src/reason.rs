//! The reason that a drained node gets in Slurm.

use crate::{Findings, Severity};

/// The longest drain reason, in bytes; `sinfo -R` shows less than that anyway.
pub const LONGEST_REASON: usize = 240;

/// What part of a node a drain reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// EFA devices and what they need.
    Efa,
    /// GPUs.
    Gpu,
}

impl Domain {
    /// What each reason of this domain begins with, and no other reason does.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Efa => "EFA: ",
            Self::Gpu => "GPU: ",
        }
    }
}

impl Findings {
    /// The drain reason: the fatal findings as one line of printable ASCII.
    /// `None` if no finding is fatal, because nothing else drains a node.
    #[must_use]
    pub fn reason(&self, domain: Domain) -> Option<String> {
        let fatal: Vec<&str> = self
            .0
            .iter()
            .filter(|finding| finding.severity == Severity::Fatal)
            .map(|finding| finding.sentence.as_str())
            .collect();
        if fatal.is_empty() {
            return None;
        }
        let mut text = domain.prefix().to_owned();
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
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finding;

    fn findings(all: &[(Severity, &str)]) -> Findings {
        let of = |(severity, sentence): &(Severity, &str)| Finding {
            id: "device-count",
            severity: *severity,
            subject: None,
            sentence: (*sentence).to_owned(),
            remedy: None,
        };
        Findings(all.iter().map(of).collect())
    }

    fn fatal(sentences: &[&str]) -> String {
        let all: Vec<_> = sentences.iter().map(|it| (Severity::Fatal, *it)).collect();
        findings(&all).reason(Domain::Efa).unwrap()
    }

    #[test]
    fn a_reason_is_one_short_line_that_cannot_be_read_as_anything_else() {
        assert_eq!(fatal(&["31/32", "x"]), "EFA: 31/32; x");
        let hostile = fatal(&["a\" State=RESUME\n\u{202e}\x1b[2J ä"]);
        assert!(
            hostile.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{hostile}"
        );
        assert!(!hostile.contains('"'));
        assert_eq!(fatal(&[&"x".repeat(5000)]).len(), LONGEST_REASON);
    }

    #[test]
    fn a_reason_names_its_domain() {
        let lost = findings(&[(Severity::Fatal, "GPU 3 has fallen off the bus")]);
        let reason = lost.reason(Domain::Gpu).unwrap();
        assert_eq!(reason, "GPU: GPU 3 has fallen off the bus");
    }

    #[test]
    fn only_a_fatal_finding_gives_a_reason_to_drain() {
        let others = [Severity::Ok, Severity::Warning, Severity::Unknown];
        let all = others.map(|severity| (severity, "not read"));
        assert_eq!(findings(&all).reason(Domain::Efa), None);
        let with_fatal = [all[0], all[1], all[2], (Severity::Fatal, "gone")];
        let reason = findings(&with_fatal).reason(Domain::Efa);
        assert_eq!(reason.as_deref(), Some("EFA: gone"));
    }
}
