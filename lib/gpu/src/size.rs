//! Amounts of memory, as people write them: `10G`, `512M`, `1T`.

/// Largest amount, MiB: 1 PiB.
const LARGEST: u64 = 1 << 30;

/// Reads a number with `M`, `G` or `T` (powers of 1024, with or without `iB` or
/// `B`) as MiB. 0 and what is above 1 PiB are none.
#[must_use]
pub fn mib(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_uppercase();
    let unit = unit.strip_suffix('B').unwrap_or(&unit);
    let factor = match unit.strip_suffix('I').unwrap_or(unit) {
        "M" => 1,
        "G" => 1 << 10,
        "T" => 1 << 20,
        _ => return None,
    };
    let mib = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=LARGEST).contains(&mib).then_some(mib)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_that_people_write_are_read() {
        for (text, expected) in [
            ("10G", 10_240),
            ("512M", 512),
            ("1 TiB", 1 << 20),
            ("2gb", 2048),
        ] {
            assert_eq!(mib(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in [
            "",
            "G",
            "10",
            "-1G",
            "+1G",
            "0G",
            "1.5G",
            "1K",
            "99999999999999999999G",
            "2000T",
        ] {
            assert_eq!(mib(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = mib(&text);
        }
    }
}
