//! A release of Slurm, as its programs report it.

use std::fmt;

/// A release: `24.11` of `slurm 24.11.5-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    year: u16,
    month: u16,
}

impl Release {
    /// The release of this year and month.
    #[must_use]
    pub const fn new(year: u16, month: u16) -> Self {
        Self { year, month }
    }

    /// Reads the output of `slurmd -V` or `scontrol --version`: `slurm-wlm
    /// 22.05.8`, `slurm 24.11.5-1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace().nth(1)?.split('.');
        let year = parts.next()?.parse().ok()?;
        let month = parts.next()?.parse().ok()?;
        Some(Self { year, month })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}.{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_either_vendors_words() {
        let release = |text| Release::parse(text).map(|it| it.to_string());
        assert_eq!(release("slurm-wlm 22.05.8\n").as_deref(), Some("22.05"));
        assert_eq!(release("slurm 24.11.5-1").as_deref(), Some("24.11"));
        assert_eq!(release("slurm"), None);
        assert_eq!(release(""), None);
    }

    #[test]
    fn releases_are_ordered_by_year_before_month() {
        assert!(Release::new(23, 11) < Release::new(24, 5));
    }
}
