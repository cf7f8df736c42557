//! How bad a finding is.

use serde::{Deserialize, Serialize};

/// How bad a finding is, from the best to the worst: the order in which
/// findings are compared, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Somebody should look.
    Warning,
    /// The check could not be completed.
    Unknown,
    /// Something does not work; no job should start here.
    Fatal,
}

impl Severity {
    /// Every severity, from the best to the worst.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Unknown, Self::Fatal];

    /// The exit code of a program whose worst finding has this severity.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Fatal => 2,
            Self::Unknown => 3,
        }
    }

    /// The value of the JSON key `severity`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Fatal => "fatal",
        }
    }

    /// The first word of a line for a person: capitals where something is wrong.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Fatal => "FATAL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_ok_warning_unknown_fatal() {
        let mut shuffled = [
            Severity::Fatal,
            Severity::Ok,
            Severity::Unknown,
            Severity::Warning,
        ];
        shuffled.sort_unstable();
        assert_eq!(
            shuffled.map(Severity::word),
            ["ok", "warning", "unknown", "fatal"]
        );
        assert_eq!(shuffled, Severity::ALL);
    }

    #[test]
    fn each_severity_has_the_exit_code_of_the_manuals() {
        let table = [("ok", 0), ("warning", 1), ("unknown", 3), ("fatal", 2)];
        let codes = Severity::ALL.map(|severity| (severity.word(), severity.exit_code()));
        assert_eq!(codes, table);
    }

    #[test]
    fn json_has_the_words_of_the_manuals() {
        for severity in Severity::ALL {
            let json = serde_json::to_value(severity).unwrap();
            assert_eq!(json, severity.word());
        }
    }
}
