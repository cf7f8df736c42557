#![no_main]
//! Snapshots of counters between prolog and epilog: what is read is written
//! back, and comparing any two invents nothing.

use efa::counters::Snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(snapshot) = Snapshot::from_json(text) else {
        return;
    };
    let written = snapshot.to_json().expect("it was JSON");
    assert_eq!(
        Snapshot::from_json(&written).expect("we wrote it"),
        snapshot
    );
});
