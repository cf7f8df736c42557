//! The `[health]` section of the configuration.

pub use config::sections::health::{CAUSED_BY_JOBS, OnFatal, Settings, StackPlace, has_profile};

#[cfg(test)]
mod tests {
    use config::sections::health::{FATAL_CHECKS, WARNING_CHECKS};

    use crate::checks::{CHECKS, Severity};

    #[test]
    fn disable_and_hold_know_every_check() {
        let ids = |severity: Severity| -> Vec<&str> {
            let checks = CHECKS.iter().filter(|check| check.severity == severity);
            checks.map(|check| check.id).collect()
        };
        assert_eq!(ids(Severity::Fatal), FATAL_CHECKS);
        assert_eq!(ids(Severity::Warning), WARNING_CHECKS);
    }
}
