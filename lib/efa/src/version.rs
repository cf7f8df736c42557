//! Version numbers as packages, kernels and libraries write them.

use std::fmt;

/// A version of up to three numbers; missing ones are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl Version {
    /// `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Takes the leading dotted numbers and ignores what follows, so that
    /// `1.22.0amzn1.0`, `5.15.0-1051-aws` and `46.0-1` are 1.22.0, 5.15.0 and
    /// 46.0.0. `None` where the text does not start with a number, or a number
    /// exceeds 32 bits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let mut numbers = [0; 3];
        let mut parts = text[..end].split('.');
        numbers[0] = parts.next()?.parse().ok()?;
        for (number, part) in numbers[1..].iter_mut().zip(parts) {
            if part.is_empty() {
                break;
            }
            *number = part.parse().ok()?;
        }
        let [major, minor, patch] = numbers;
        Some(Self {
            major,
            minor,
            patch,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_leading_numbers_count_and_the_rest_does_not() {
        for (text, version) in [
            ("1.22.0amzn1.0", Version::new(1, 22, 0)),
            ("2.1.0amzn3.0", Version::new(2, 1, 0)),
            ("1.16.0~amzn3.0", Version::new(1, 16, 0)),
            ("5.15.0-1051-aws", Version::new(5, 15, 0)),
            ("46.0-1", Version::new(46, 0, 0)),
            ("2.13.0g", Version::new(2, 13, 0)),
            ("1.13.2-aws", Version::new(1, 13, 2)),
            ("6.1", Version::new(6, 1, 0)),
            ("3.", Version::new(3, 0, 0)),
            ("1.2.3.4.5", Version::new(1, 2, 3)),
        ] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
    }

    #[test]
    fn text_without_a_leading_number_is_no_version() {
        for text in [
            "",
            ".1",
            "git-6e504db",
            "v1.2",
            " 1",
            "4294967296.0",
            "1.4294967296",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(Version::new(1, 9, 2) < Version::new(1, 18, 0));
        assert!(Version::new(2, 0, 0) > Version::new(1, 99, 99));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = Version::parse(&text);
        }

        #[test]
        fn what_is_printed_parses_back(major: u32, minor: u32, patch: u32, tail in "([a-z~+-].*)?") {
            let version = Version::new(major, minor, patch);
            prop_assert_eq!(Version::parse(&format!("{version}{tail}")), Some(version));
        }
    }
}
