//! Findings in Prometheus' text format, for a textfile of node_exporter.

use std::fmt::Write as _;

use crate::Findings;

/// The two lines in front of a metric's samples.
pub fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value, as the text format requires it.
#[must_use]
pub fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

impl Findings {
    /// Adds the metric `name` with the exit code of the worst finding.
    pub fn worst_metric(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, "gauge", help);
        let _ = writeln!(text, "{name} {}", self.exit_code());
    }

    /// Adds the metric `name` with the exit code of each finding, by check.
    pub fn each_metric(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, "gauge", help);
        for finding in &self.0 {
            let (check, code) = (escape(finding.id), finding.severity.exit_code());
            let _ = writeln!(text, "{name}{{check=\"{check}\"}} {code}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Finding, Severity};

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn a_metrics_value_is_the_exit_code() {
        let of = |id, severity| Finding {
            id,
            severity,
            subject: None,
            sentence: String::new(),
            remedy: None,
        };
        let findings = Findings(vec![
            of("uverbs", Severity::Unknown),
            of("modules", Severity::Warning),
        ]);
        let mut text = String::new();
        findings.worst_metric(&mut text, "efa_health_status", "Health.");
        findings.each_metric(&mut text, "efa_check_status", "One check.");
        assert_eq!(
            text,
            "# HELP efa_health_status Health.\n# TYPE efa_health_status gauge\n\
             efa_health_status 3\n\
             # HELP efa_check_status One check.\n# TYPE efa_check_status gauge\n\
             efa_check_status{check=\"uverbs\"} 3\nefa_check_status{check=\"modules\"} 1\n"
        );
    }
}
