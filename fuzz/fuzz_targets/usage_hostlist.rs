#![no_main]
//! Slurm's short form of node names, from a job's environment: bounded, and
//! what has no brackets is only split.

use libfuzzer_sys::fuzz_target;
use slurm::hostlist::expand;

fuzz_target!(|list: &str| {
    let Some(names) = expand(list) else {
        return;
    };
    assert!((1..=64 * 1024).contains(&names.len()));
    if !list.contains('[') {
        let split: Vec<&str> = list.split(',').collect();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        assert_eq!(names, split);
    }
});
