//! A moment as a reason shows it.

/// `09:12 UTC` of today would do for a person, but a reason is read days later:
/// `Nov 21 09:12 UTC`.
#[must_use]
pub(super) fn utc(unix: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days of the Gregorian calendar, in years that begin in March so that the
    // leap day comes last; 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = MONTHS
        .get(usize::try_from((from_march + 2) % 12).unwrap_or(0))
        .unwrap_or(&"?");
    let (hour, minute) = (seconds / 3600, seconds % 3600 / 60);
    format!("{month} {day} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_by_the_calendar() {
        assert_eq!(utc(0), "Jan 1 00:00 UTC");
        assert_eq!(utc(951_782_400), "Feb 29 00:00 UTC");
        assert_eq!(utc(951_868_740), "Feb 29 23:59 UTC");
        assert_eq!(utc(1_795_340_000), "Nov 22 09:33 UTC");
        assert_eq!(utc(4_102_444_799), "Dec 31 23:59 UTC");
    }
}
