//! `watch`: what jobs take of their GPUs' memory against their shares.
//!
//! This sees and accounts; it protects nobody. A job that takes more than its
//! share has already done so when it is seen.

mod account;
mod daemon;
mod held;

pub use account::{Account, Taken, account, judge};
pub use daemon::{run, runs};
pub use held::{Held, Places, held};

#[cfg(test)]
mod fixtures {
    use gpu::shares::Record;
    use host::{BootId, Uid};
    use jobs::registry::Start;
    use slurm::{JobId, JobKey};

    /// A share of this many shards of 1,000 MiB.
    pub(super) fn record(job: u32, shards: u64) -> Record {
        let key = JobKey {
            job: JobId(job),
            node: "n1".parse().unwrap(),
        };
        let start = Start::now(BootId::current().unwrap()).unwrap();
        let mut record = Record::new(&key, start, Uid(1000));
        (record.shards, record.shard_mib) = (Some(shards), Some(1000));
        record
    }
}
