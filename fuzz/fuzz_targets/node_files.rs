#![no_main]
//! The files of the registry and the ledger: what is read is written back.

use hugepages::PageSize;
use hugepages::ledger::Entry;
use jobs::registry::Job;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(job) = serde_json::from_slice::<Job>(bytes) {
        let text = serde_json::to_vec(&job).expect("it was JSON");
        assert_eq!(
            serde_json::from_slice::<Job>(&text).expect("we wrote it"),
            job
        );
        assert!(!job.key().file_name().contains('/'));
    }
    if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
        let text = serde_json::to_vec(&entry).expect("it was JSON");
        assert_eq!(
            serde_json::from_slice::<Entry>(&text).expect("we wrote it"),
            entry
        );
        let totals = PageSize::ALL.map(|size| entry.total(size));
        assert!(
            entry
                .granted
                .iter()
                .all(|grant| totals.contains(&grant.pages)
                    || totals.iter().any(|total| *total >= grant.pages))
        );
    }
});
