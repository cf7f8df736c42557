#![no_main]
//! Records of usage, from a folder that nodes share: what is read is written
//! back, and what is refused is explained.

use libfuzzer_sys::fuzz_target;
use slurm_efa_fuzz::assert_presentable;
use usage::UsageRecord;

fuzz_target!(|line: &str| {
    match UsageRecord::from_line(line) {
        Ok(record) => {
            // One that became longer than a line may be is not written.
            if let Ok(written) = record.to_line() {
                assert_eq!(UsageRecord::from_line(&written), Ok(record));
            }
        }
        Err(reason) => assert_presentable(&reason),
    }
});
