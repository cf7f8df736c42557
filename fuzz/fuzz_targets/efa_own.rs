#![no_main]
//! SLURM_EFA_SET, which a user may have forged: what is read is written back.

use libfuzzer_sys::fuzz_target;
use profiles::provenance::{SET, inherited, list};

fuzz_target!(|bytes: &[u8]| {
    let read = inherited(&|name| (name == SET).then(|| bytes.to_vec()));
    let words = read
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let written = list(words);
    let again = inherited(&|_| Some(written.clone().into_bytes()));
    // A list that has grown by encoding beyond what we write is not read.
    if written.len() <= bytes.len() {
        assert_eq!(again, read);
    }
});
