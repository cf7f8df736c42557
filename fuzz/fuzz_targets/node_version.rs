#![no_main]
//! Versions: what is printed parses back, and only a number begins one.

use efa::Version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Version::parse(text) {
        Some(version) => {
            assert!(text.starts_with(|c: char| c.is_ascii_digit()));
            assert_eq!(Version::parse(&version.to_string()), Some(version));
        }
        None => {
            // Refused is only what has no leading number, or one beyond 32 bits.
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            assert!(digits == 0 || text.len() >= 10, "{text:?}");
        }
    }
});
