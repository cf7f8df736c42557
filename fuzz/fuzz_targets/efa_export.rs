#![no_main]
//! The value of --export: what reaches the job is what it names.

use libfuzzer_sys::fuzz_target;
use profiles::export::Export;

const NAME: &str = "FI_EFA_MTU_SIZE";

fuzz_target!(|bytes: &[u8]| {
    let export = Export::parse(bytes);
    let value = export.value(NAME, |_| Some(b"client".to_vec()));
    let words: Vec<&[u8]> = bytes.split(|byte| *byte == b',').collect();
    let assigned = words
        .iter()
        .rev()
        .find_map(|word| word.strip_prefix(NAME.as_bytes())?.strip_prefix(b"="));
    let named = words
        .iter()
        .any(|word| *word == NAME.as_bytes() || word.eq_ignore_ascii_case(b"ALL"));
    let expected = assigned.or(named.then_some(b"client".as_slice()));
    assert_eq!(value.as_deref(), expected);
});
