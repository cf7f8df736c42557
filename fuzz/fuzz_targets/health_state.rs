#![no_main]
//! The state between rounds: any file is a state of this boot or a first round.

use std::time::Duration;

use efa_check::history::{Now, Rounds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = Now {
        boot: "b".to_owned(),
        uptime: Duration::from_secs(1000),
        unix: 1_800_000_000,
    };
    let rounds = Rounds::parse(bytes, &now);
    assert!(rounds.is_before(&now));
    // What was accepted is written and read again as it is.
    if let Ok(written) = rounds.bytes() {
        assert_eq!(Rounds::parse(&written, &now), rounds);
    }
});
