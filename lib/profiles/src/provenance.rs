//! Which variables of the environment are our own doing.
//!
//! A step inside a batch job inherits what the batch step's profile set. To
//! tell that from a value that the user set, the plugin leaves a list of what
//! it set in `SLURM_EFA_SET`: `NAME=value` words, with whatever is not plain
//! text percent-encoded. A user who changes a listed variable makes it theirs.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::plan::Env;
use host::Gather;

/// The variable that holds the list.
pub const SET: &str = "SLURM_EFA_SET";

/// Every variable that tells a job what happened. Always ours to set and to remove.
pub const REPORT: &[&str] = &[
    "SLURM_EFA_PROFILE",
    "SLURM_EFA_INSTANCE_TYPE",
    "SLURM_EFA_DEVICES",
    SET,
];

/// A list longer than this was not written by us.
const MAX_BYTES: usize = 64 * 1024;

/// What an outer step of ours set, and to which value.
pub fn inherited(env: Env<'_>) -> BTreeMap<String, String> {
    let Some(list) = env(SET).filter(|list| list.len() <= MAX_BYTES) else {
        return BTreeMap::new();
    };
    let Ok(list) = String::from_utf8(list) else {
        return BTreeMap::new();
    };
    list.split(' ')
        .filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), decode(value)?))
        })
        .gather()
}

/// The list for what this step set.
pub fn list<'a>(set: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    set.map(|(name, value)| format!("{name}={}", encode(value)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (hex, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_listed_is_read_back(map in proptest::collection::btree_map("[A-Z_]{1,8}", ".{0,40}", 0..6)) {
            let text = list(map.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            prop_assert!(!text.contains('\n'));
            let read = inherited(&|name| (name == SET).then(|| text.clone().into_bytes()));
            prop_assert_eq!(read, map);
        }

        #[test]
        fn a_forged_list_of_any_bytes_is_harmless(bytes: Vec<u8>) {
            let _ = inherited(&|_| Some(bytes.clone()));
        }
    }
}
