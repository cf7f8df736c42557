#![no_main]
//! `/proc/PID/cgroup`: a job can shape what is below its own directory only, a
//! user what is below the user's slice.

use libfuzzer_sys::fuzz_target;
use slurm::job_cgroup::{is_slurms, place, unified_directory};

fuzz_target!(|bytes: &[u8]| {
    let _ = place(bytes);
    if let Some(directory) = unified_directory(bytes) {
        assert!(directory.is_relative());
        assert!(directory.components().all(|part| part.as_os_str() != ".."));
    }
    if !bytes.contains(&b'\n') {
        let job = b"0::/system.slice/slurmstepd.scope/job_3";
        assert_eq!(place(&[job, &b"/"[..], bytes].concat()), place(job));
        assert!(!is_slurms(
            &[b"0::/user.slice/user-1.slice/", bytes].concat()
        ));
    }
});
