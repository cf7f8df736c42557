//! Durations: a whole number and its unit, such as `60s`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use host::printable;

/// Each unit in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 24 * HOUR),
    ("h", HOUR),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
const HOUR: u64 = 3_600_000;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Not a number with a unit.
    #[error(
        "`{text}` is not a duration; write a whole number and ms, s, m, h or d, such as 60s or 5m"
    )]
    Syntax {
        /// What was written, safe to print.
        text: String,
    },
    /// A number alone: seconds, minutes and milliseconds would all be plausible.
    #[error("`{number}` has no unit; write {number}s for seconds or {number}m for minutes")]
    NoUnit {
        /// What was written.
        number: u64,
    },
    /// Shorter or longer than its key accepts.
    #[error("`{text}` is out of range; write {} to {}", shown(*low), shown(*high))]
    OutOfRange {
        /// What was written, safe to print.
        text: String,
        /// The shortest that is accepted.
        low: Duration,
        /// The longest that is accepted.
        high: Duration,
    },
}

/// Reads a duration. Zero needs no unit.
///
/// # Errors
/// It is not one, or is longer than 2^64 milliseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let syntax = || DurationError::Syntax {
        text: printable(text, 40),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(syntax)?;
    let number: u64 = number.parse().map_err(|_| syntax())?;
    if unit.is_empty() {
        return match number {
            0 => Ok(Duration::ZERO),
            number => Err(DurationError::NoUnit { number }),
        };
    }
    let factor = UNITS.iter().find(|(name, _)| *name == unit);
    let milliseconds = factor.and_then(|(_, factor)| number.checked_mul(*factor));
    milliseconds.map(Duration::from_millis).ok_or_else(syntax)
}

/// Reads a duration that must be in `range`, the limits included.
///
/// # Errors
/// It is not one, or out of range.
pub fn parse_in(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, DurationError> {
    let duration = parse(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    Err(DurationError::OutOfRange {
        text: printable(text, 40),
        low: *range.start(),
        high: *range.end(),
    })
}

/// The value of a key that accepts durations in `range`.
///
/// # Errors
/// It is not a string, not a duration, or out of range.
pub fn deserialize_in<'de, D: Deserializer<'de>>(
    from: D,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_in(&text, range).map_err(serde::de::Error::custom)
}

/// A duration as [`parse`] reads it, in the largest unit that divides it.
#[must_use]
pub fn shown(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let unit = UNITS
        .iter()
        .find(|(_, factor)| milliseconds.is_multiple_of(u128::from(*factor)));
    match unit {
        Some((unit, factor)) if milliseconds > 0 => {
            format!("{}{unit}", milliseconds / u128::from(*factor))
        }
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units_and_only_zero_needs_none() {
        for (text, seconds) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("7d", 604_800),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn a_text_that_is_not_a_duration_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1.5h",
            "5 m",
            "5M",
            "1w",
            "é",
            "1 minute",
            "99999999999999999999s",
            "18446744073709551615d",
            "\u{1b}[2J",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, DurationError::Syntax { .. }), "{text:?}");
            assert!(!error.to_string().contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_two_that_have_one() {
        assert_eq!(
            parse("30").unwrap_err().to_string(),
            "`30` has no unit; write 30s for seconds or 30m for minutes"
        );
    }

    #[test]
    fn a_duration_out_of_range_is_refused_with_the_limits() {
        let range = Duration::from_secs(1)..=Duration::from_secs(600);
        assert_eq!(parse_in("10m", &range), Ok(Duration::from_secs(600)));
        assert_eq!(
            parse_in("1h", &range).unwrap_err().to_string(),
            "`1h` is out of range; write 1s to 10m"
        );
        assert!(parse_in("0", &range).is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(milliseconds in any::<u64>()) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&shown(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
