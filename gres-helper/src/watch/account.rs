//! What jobs took at each sample, against their shares.

use std::collections::BTreeMap;

use gpu::shares::Record;
use host::state_dir::{StateDir, Store};
use host::state_layout::gres::WATCH;
use serde::{Deserialize, Serialize};

use super::held::Held;

/// What a job took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Taken {
    /// Its share, MiB.
    pub share_mib: u64,
    /// What it held at the last sample, MiB.
    pub used_mib: u64,
    /// The most it held at any sample, MiB.
    pub peak_mib: u64,
    /// Samples in a row at which it was over its share.
    pub over: u32,
    /// Samples at which it was, ever.
    pub over_all: u64,
}

/// What the last sample found, by job number.
pub type Account = BTreeMap<u32, Taken>;

/// What the watchdog wrote last; empty where it never ran.
#[must_use]
pub fn account(state: &StateDir) -> Account {
    let bytes = state.read(WATCH).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Takes a sample into the account: who is over its share now, with the
/// samples in a row.
pub fn judge(
    account: &mut Account,
    held: &BTreeMap<u32, Held>,
    records: &[Record],
    over_percent: u64,
) -> Vec<u32> {
    account.retain(|job, _| records.iter().any(|record| record.job.0 == *job));
    let mut over = Vec::new();
    for record in records {
        let Some(share) = record.share_mib() else {
            continue;
        };
        let taken = account.entry(record.job.0).or_default();
        taken.share_mib = share;
        taken.used_mib = held.get(&record.job.0).map_or(0, |held| held.mib);
        taken.peak_mib = taken.peak_mib.max(taken.used_mib);
        let limit = u128::from(share) * u128::from(over_percent) / 100;
        if u128::from(taken.used_mib) > limit {
            taken.over = taken.over.saturating_add(1);
            taken.over_all += 1;
            over.push(record.job.0);
        } else {
            taken.over = 0;
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::fixtures::record;

    fn takes(mib: u64) -> Held {
        Held {
            mib,
            ..Held::default()
        }
    }

    #[test]
    fn samples_over_the_share_are_counted_in_a_row_and_neighbours_are_not() {
        let records = [record(1, 3), record(2, 1)];
        let mut account = Account::new();
        let mut sample = |first: u64| {
            let held = BTreeMap::from([(1, takes(first)), (2, takes(900))]);
            judge(&mut account, &held, &records, 105)
        };
        // 3000 MiB and 5 % are the limit.
        assert_eq!(sample(3150), [] as [u32; 0]);
        assert_eq!(sample(3151), [1]);
        assert_eq!(sample(4000), [1]);
        assert_eq!(account[&1].over, 2);
        let held = BTreeMap::from([(1, takes(100))]);
        judge(&mut account, &held, &records, 105);
        assert_eq!(
            (account[&1].over, account[&1].over_all, account[&1].peak_mib),
            (0, 2, 4000)
        );
        judge(&mut account, &held, &records[1..], 105);
        assert_eq!(account.keys().collect::<Vec<_>>(), [&2]);
    }
}
