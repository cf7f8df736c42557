#![no_main]
//! The values of --efa-profile and --efa-explain: any bytes.

use libfuzzer_sys::fuzz_target;
use profiles::request::{Explain, ProfileRequest};
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|bytes: &[u8]| {
    match ProfileRequest::parse(Some(bytes)) {
        Ok(request) => {
            let again = ProfileRequest::parse(Some(request.as_str().as_bytes()));
            assert_eq!(again.as_ref(), Ok(&request));
        }
        Err(error) => assert_presentable(&error.to_string()),
    }
    match Explain::parse(Some(bytes)) {
        Ok(explain) => assert!(explain == Explain::All && bytes == b"all"),
        Err(error) => assert_presentable(&error.to_string()),
    }
});
