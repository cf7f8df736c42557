//! Seconds since 1970 as a date, without a time zone's help.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seconds since 1970 now; 0 on a clock that is set to before 1970.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// `2026-11-22T04:00:00Z`, as RFC 3339 writes it.
#[must_use]
pub fn rfc3339(unix_s: u64) -> String {
    format!("{}Z", utc(unix_s).replace(' ', "T"))
}

/// `2026-11-22 04:00:00`, UTC, in the Gregorian calendar.
#[must_use]
pub fn utc(unix_s: u64) -> String {
    let (mut days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    // 400 years have always the same number of days.
    const CYCLE: u64 = 146_097;
    let mut year = 1970 + days / CYCLE * 400;
    days %= CYCLE;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = if days_of(year) == 366 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}",
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn days_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, utc};

    #[test]
    fn dates_are_those_of_date_u() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_795_320_000, "2026-11-22 04:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds), date);
        }
        let _ = utc(u64::MAX);
    }

    #[test]
    fn a_time_in_json_is_that_of_rfc_3339() {
        assert_eq!(rfc3339(951_782_461), "2000-02-29T00:01:01Z");
    }
}
