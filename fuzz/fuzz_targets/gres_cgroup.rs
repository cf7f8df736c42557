#![no_main]
//! `/proc/PID/cgroup`: a job can shape what is below its own directory only.

use gres_helper::cgroup::place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = place(text);
    if !text.contains('\n') {
        let own = format!("0::/system.slice/slurmstepd.scope/job_3/{text}");
        let expected = place("0::/system.slice/slurmstepd.scope/job_3");
        assert_eq!(place(&own), expected);
    }
});
