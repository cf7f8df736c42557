//! The rule: the kernel has the baseline and what the jobs were granted.
//!
//! For each pool, `target = baseline + Σ granted`, computed anew every time.
//! The order of the effects makes every crash harmless:
//!
//! 1. Before the kernel is written to, `baseline.json` says what it has and
//!    what it shall have. What it has afterwards, wherever we were killed, lies
//!    between the two.
//! 2. When the kernel has given what it can, `baseline.json` says what that is.
//! 3. Only then is the new job's file written. If we are killed before, the job
//!    has no pages (its prolog failed), and the next reconciliation gives back
//!    what the kernel set aside for it.
//!
//! A count outside what step 1 allows was changed by someone else. **The
//! administrator's number is taken as the pool's total, jobs included**, as
//! `cat nr_hugepages` shows it, and the difference goes to the baseline, which
//! never falls below zero: jobs keep their pages. One number is taken
//! otherwise: if all pools of a size together have exactly the old baseline,
//! the boot-time setting was applied again (`sysctl --system`), and the
//! baseline stays.
//!
//! Not told apart: a change by someone else between a crash and the next
//! reconciliation, if the count stays within what our own interrupted write
//! could have left.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::ledger::{Entry, Ledger, PageClaim, Row, Rows, Spread};
use crate::pool::{Counts, Pool, PoolError, Pools, at};
use config::size::{HugePages, PageSize};
use host::BootId;
use host::Deadline;
use host::Gather;
use host::ReadError;
use host::state_dir::{StateError, Store};
use jobs::Existence;
use jobs::registry::{Problem, Start};
use slurm::JobKey;

/// Why the kernel's pages are not what they should be. The next reconciliation
/// that succeeds puts everything right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The ledger's files.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel's pools.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Which boot this is.
    #[error(transparent)]
    Boot(#[from] ReadError),
}

/// A job that wants pages: what its prolog brings.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job.
    pub key: JobKey,
    /// Which start of it, as in the registry.
    pub start: Start,
    /// Where the sockets of this node's steps lie.
    pub spool_dir: PathBuf,
    /// What it wants, validated and capped; one for each page size.
    pub wishes: Vec<PageClaim>,
}

/// A change of a pool that was not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// The pool.
    pub pool: Pool,
    /// What it should have had.
    pub expected: HugePages,
    /// What it had.
    pub found: HugePages,
    /// The baseline from now on.
    pub baseline: HugePages,
}

/// A pool after a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolReport {
    /// The pool.
    pub pool: Pool,
    /// The administrator's pages.
    pub baseline: HugePages,
    /// The jobs' pages.
    pub held: HugePages,
    /// What the kernel had before.
    pub found: HugePages,
    /// What the kernel has.
    pub actual: HugePages,
}

impl PoolReport {
    /// What the kernel should have.
    #[must_use]
    pub fn target(&self) -> HugePages {
        self.baseline.plus(self.held)
    }
}

/// What a reconciliation found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// The claim's entry: wishes and grants. Compare [`Entry::total`] with what
    /// was wished for.
    pub claimed: Option<Entry>,
    /// Jobs that are gone; their pages are given back.
    pub dropped: Vec<JobKey>,
    /// Jobs of which nobody could tell whether they exist; they keep their
    /// pages.
    pub unclear: Vec<JobKey>,
    /// Changes by others, which are kept.
    pub noticed: Vec<Noticed>,
    /// Files that cannot be believed, and what else went wrong. A job whose
    /// file is torn keeps its pages until it is gone.
    pub problems: Vec<Problem>,
    /// Every pool. One whose `actual` differs from `baseline + held` is put
    /// right next time, if the kernel can.
    pub pools: Vec<PoolReport>,
}

/// Makes the kernel have what it should, and grants `claim` what can be had.
///
/// `exists` tells whether the job exists, given its entry if that is readable;
/// [`Existence::Unknown`] keeps its pages. See
/// [`JobIndex::existence`](jobs::JobIndex::existence). It is not asked
/// for the claim's own job.
///
/// `deadline` ends the search for pages, not the accounting, and no single
/// write to the kernel.
///
/// # Errors
/// Nothing that exists lost a page, and the next reconciliation makes the
/// totals exact. The claim may have got its pages, some, or none.
pub fn reconcile<S: Store, P: Pools>(
    ledger: &mut Ledger<S>,
    pools: &mut P,
    boot: &BootId,
    exists: &mut dyn FnMut(&JobKey, Option<&Entry>) -> Existence,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let books = ledger.load(boot)?;
    let mut work = Work {
        ledger,
        kernel: pools,
        boot,
        deadline,
        stored: books.rows,
        stored_there: books.rows_there,
        rows: Rows::new(),
        unclear: Counts::new(),
        entries: books.entries,
        claim: None,
        found: Counts::new(),
        actual: Counts::new(),
        report: Report {
            problems: books.problems,
            ..Report::default()
        },
    };
    let mut torn = books.torn;
    torn.retain(|key| claim.is_none_or(|claim| claim.key != *key));
    let torn_pages = work.pages_of_the_torn();
    work.drop_the_gone(&mut torn, exists, claim)?;
    if !torn.is_empty() {
        work.unclear = torn_pages;
    }
    work.look()?;
    work.notice();
    if let Some(claim) = claim {
        work.enter(claim);
    }
    work.fulfil()?;
    work.close(torn.is_empty())?;
    Ok(work.finish())
}

struct Work<'a, S: Store, P: Pools> {
    ledger: &'a mut Ledger<S>,
    kernel: &'a mut P,
    boot: &'a BootId,
    deadline: Deadline,
    /// What `baseline.json` holds.
    stored: Option<Rows>,
    /// It exists, even if it cannot be believed or is of another boot.
    stored_there: bool,
    /// What it shall hold; `held` and `seen` as of the last look.
    rows: Rows,
    /// Pages of jobs whose files are torn.
    unclear: Counts,
    entries: Vec<Entry>,
    /// The new job's, not written yet.
    claim: Option<Entry>,
    /// What the kernel had at first, and what it has.
    found: Counts,
    actual: Counts,
    report: Report,
}

impl<S: Store, P: Pools> Work<'_, S, P> {
    /// What the jobs had together, less what the readable files say: the torn
    /// ones' share.
    fn pages_of_the_torn(&self) -> Counts {
        let granted = self.granted();
        let rows = self.stored.iter().flatten();
        rows.map(|(pool, row)| (*pool, row.held.minus(at(&granted, *pool))))
            .gather()
    }

    fn drop_the_gone(
        &mut self,
        torn: &mut Vec<JobKey>,
        exists: &mut dyn FnMut(&JobKey, Option<&Entry>) -> Existence,
        claim: Option<&Claim>,
    ) -> Result<(), ReconcileError> {
        let mut gone = Vec::new();
        for entry in &self.entries {
            let key = entry.key();
            if claim.is_some_and(|claim| claim.key == key) {
                continue;
            }
            match exists(&key, Some(entry)) {
                Existence::Exists => {}
                Existence::Unknown => self.report.unclear.push(key),
                Existence::Gone => gone.push(key),
            }
        }
        for key in &gone {
            self.ledger.drop_entry(key)?;
        }
        self.entries.retain(|entry| !gone.contains(&entry.key()));
        self.report.dropped = gone;
        let mut kept = Vec::new();
        for key in torn.drain(..) {
            let existence = exists(&key, None);
            if existence == Existence::Unknown {
                self.report.unclear.push(key.clone());
            }
            if existence != Existence::Gone {
                kept.push(key);
                continue;
            }
            match self.ledger.drop_entry(&key) {
                Ok(()) => self.report.dropped.push(key),
                // A directory, say: nothing of ours, and the job is gone.
                Err(error) => {
                    let problem = Problem::new(&key.file_name(), error);
                    self.report.problems.push(problem);
                }
            }
        }
        *torn = kept;
        Ok(())
    }

    /// Reads what the kernel has. A pool that is not in the books yet has, as
    /// its baseline, what no job holds.
    fn look(&mut self) -> Result<(), ReconcileError> {
        let granted = self.granted();
        for pool in self.kernel.pools()? {
            let actual = self.kernel.persistent(pool)?;
            self.actual.insert(pool, actual);
            let known = self.stored.as_ref().and_then(|rows| rows.get(&pool));
            let held = at(&granted, pool);
            let new = Row {
                baseline: actual.minus(held),
                held,
                seen: actual,
            };
            self.rows.insert(pool, known.copied().unwrap_or(new));
        }
        self.found.clone_from(&self.actual);
        Ok(())
    }

    /// Gives what others changed to the baseline.
    fn notice(&mut self) {
        for size in PageSize::ALL {
            let total = |of: fn(&Row) -> HugePages| -> HugePages {
                let rows = self.rows.iter().filter(|(pool, _)| pool.size == size);
                rows.map(|(_, row)| of(row)).sum()
            };
            let of_size = |pool: &&Pool| pool.size == size;
            let found: HugePages = self
                .actual
                .iter()
                .filter(|(pool, _)| of_size(pool))
                .map(|(_, pages)| *pages)
                .sum();
            let applied_again = found == total(|row| row.baseline);
            for (pool, row) in self.rows.iter_mut().filter(|(pool, _)| of_size(pool)) {
                let found = at(&self.actual, *pool);
                let low = row.seen.min(row.target());
                let high = row.seen.max(row.target());
                if (low..=high).contains(&found) {
                    continue;
                }
                let expected = if found < low { low } else { high };
                if !applied_again {
                    row.baseline = row.baseline.plus(found).minus(expected);
                }
                self.report.noticed.push(Noticed {
                    pool: *pool,
                    expected,
                    found,
                    baseline: row.baseline,
                });
            }
        }
    }

    /// Plans the claim. What the job has already (its prolog ran before), it
    /// keeps.
    fn enter(&mut self, claim: &Claim) {
        let had = self
            .entries
            .iter()
            .position(|entry| entry.key() == claim.key)
            .map(|at| self.entries.remove(at).counts())
            .unwrap_or_default();
        let mut entry = Entry::new(&claim.key, claim.start.clone(), claim.spool_dir.clone());
        entry.wishes.clone_from(&claim.wishes);
        entry.set_counts(&self.within(&had, &claim.wishes));
        self.plan(&mut entry, &BTreeSet::new());
        self.claim = Some(entry);
    }

    /// Adds to the entry's grants what it lacks, evenly, from pools that are
    /// not exhausted. False where there is no such pool or it lacks nothing.
    fn plan(&self, entry: &mut Entry, exhausted: &BTreeSet<Pool>) -> bool {
        let mut counts = entry.counts();
        let mut more = false;
        for wish in &entry.wishes {
            let lacking = wish.pages.minus(entry.total(wish.size));
            let all: Vec<Pool> = self.pools_of(wish.size);
            let share = spread(wish.pages, all.len());
            let mut open: Vec<(Pool, HugePages)> = all
                .into_iter()
                .zip(share)
                .filter(|(pool, _)| !exhausted.contains(pool))
                .collect();
            let shares = match wish.spread {
                Spread::Even => spread(lacking, open.len()),
                Spread::Strict => open
                    .iter()
                    .map(|(pool, share)| share.minus(at(&counts, *pool)))
                    .collect(),
            };
            // Who has least gets the larger share.
            if wish.spread == Spread::Even {
                open.sort_by_key(|(pool, _)| at(&counts, *pool));
            }
            for ((pool, _), share) in open.into_iter().zip(shares) {
                more |= !share.is_zero();
                let pages = counts.entry(pool).or_default();
                *pages = pages.plus(share);
            }
        }
        entry.set_counts(&counts);
        more
    }

    /// As much of `had` as the wishes cover.
    fn within(&self, had: &Counts, wishes: &[PageClaim]) -> Counts {
        let mut kept = Counts::new();
        for wish in wishes {
            let pools = self.pools_of(wish.size);
            let shares = spread(wish.pages, pools.len());
            let mut left = wish.pages;
            for (pool, share) in pools.into_iter().zip(shares) {
                let most = match wish.spread {
                    Spread::Even => left,
                    Spread::Strict => share,
                };
                let pages = at(had, pool).min(most);
                left = left.minus(pages);
                kept.insert(pool, pages);
            }
        }
        kept
    }

    fn pools_of(&self, size: PageSize) -> Vec<Pool> {
        let of_size = self.rows.keys().filter(|pool| pool.size == size);
        of_size.copied().collect()
    }

    /// Applies, cuts what cannot be had, looks for it elsewhere, compacts.
    fn fulfil(&mut self) -> Result<(), ReconcileError> {
        let mut exhausted = BTreeSet::new();
        let mut at_last_compaction = None;
        loop {
            self.apply()?;
            exhausted.extend(self.cut());
            let Some(claim) = &self.claim else {
                return Ok(());
            };
            if exhausted.is_empty() || lacks_nothing(claim) || self.deadline.passed() {
                return Ok(());
            }
            let mut claim = claim.clone();
            if !self.plan(&mut claim, &exhausted) {
                // Nowhere left to look: once more everywhere, unless the last
                // compaction brought nothing.
                let had = Some(claim.counts());
                if at_last_compaction == had || self.kernel.compact().is_err() {
                    return Ok(());
                }
                at_last_compaction = had;
                exhausted.clear();
                self.plan(&mut claim, &exhausted);
            }
            self.claim = Some(claim);
        }
    }

    /// Makes the kernel have the targets, as far as it can.
    fn apply(&mut self) -> Result<(), ReconcileError> {
        self.settle_rows();
        let wrong: Vec<(Pool, HugePages)> = self
            .rows
            .iter()
            .map(|(pool, row)| (*pool, row.target()))
            .filter(|(pool, target)| *target != at(&self.actual, *pool))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        self.store_rows()?;
        // Less first: what one pool gives back, another may take.
        let (less, more): (Vec<_>, Vec<_>) = wrong
            .into_iter()
            .partition(|(pool, target)| *target < at(&self.actual, *pool));
        for (pool, target) in less.into_iter().chain(more) {
            self.approach(pool, target)?;
        }
        Ok(())
    }

    /// Changes one pool, growing it in steps so that the deadline is kept.
    fn approach(&mut self, pool: Pool, target: HugePages) -> Result<(), ReconcileError> {
        let mut now = at(&self.actual, pool);
        loop {
            let next = target.min(now.plus(step(pool.size)));
            let set = self.kernel.set_persistent(pool, next);
            now = self.kernel.persistent(pool)?;
            self.actual.insert(pool, now);
            // The kernel may refuse (gigantic pages in some virtual machines):
            // the pages are missing then, and the message says why.
            if let Err(error) = set {
                let problem = Problem::new("kernel", error);
                self.report.problems.push(problem);
                return Ok(());
            }
            if next == target || now < next || self.deadline.passed() {
                return Ok(());
            }
        }
    }

    /// Cuts what the kernel did not give from the claim, and tells which pools
    /// were short.
    fn cut(&mut self) -> BTreeSet<Pool> {
        let mut counts = self.claim.as_ref().map(Entry::counts).unwrap_or_default();
        let mut short = BTreeSet::new();
        for (pool, row) in &self.rows {
            let missing = row.target().minus(at(&self.actual, *pool));
            if !missing.is_zero() {
                short.insert(*pool);
                counts.insert(*pool, at(&counts, *pool).minus(missing));
            }
        }
        if let Some(claim) = &mut self.claim {
            claim.set_counts(&counts);
        }
        short
    }

    /// Notes down what the kernel has and what was granted.
    fn close(&mut self, nothing_torn: bool) -> Result<(), ReconcileError> {
        self.settle_rows();
        let clean = |row: &Row| row.held.is_zero() && row.seen == row.baseline;
        let nobody = self.entries.is_empty() && self.claim.is_none() && nothing_torn;
        if nobody && self.rows.values().all(clean) {
            // Without jobs, whatever the kernel has is the baseline.
            if self.stored_there {
                self.ledger.drop_rows()?;
            }
            return Ok(());
        }
        self.store_rows()?;
        match &self.claim {
            Some(claim) => Ok(self.ledger.write_entry(claim)?),
            None => Ok(()),
        }
    }

    /// What all jobs have, the new one included.
    fn granted(&self) -> Counts {
        let mut sum = Counts::new();
        let entries = self.entries.iter().chain(&self.claim);
        for (pool, pages) in entries.flat_map(Entry::counts) {
            let total = sum.entry(pool).or_default();
            *total = total.plus(pages);
        }
        sum
    }

    fn settle_rows(&mut self) {
        let granted = self.granted();
        for (pool, row) in &mut self.rows {
            row.held = at(&granted, *pool).plus(at(&self.unclear, *pool));
            row.seen = at(&self.actual, *pool);
        }
    }

    fn store_rows(&mut self) -> Result<(), ReconcileError> {
        if self.stored.as_ref() != Some(&self.rows) {
            self.ledger.write_rows(self.boot, &self.rows)?;
            self.stored = Some(self.rows.clone());
            self.stored_there = true;
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        self.report.claimed = self.claim;
        let pools = self.rows.iter().map(|(pool, row)| PoolReport {
            pool: *pool,
            baseline: row.baseline,
            held: row.held,
            found: at(&self.found, *pool),
            actual: row.seen,
        });
        self.report.pools = pools.collect();
        self.report
    }
}

/// Pages that the kernel is asked for at a time, between two looks at the
/// deadline: 2 GiB or 4 GiB, well under a second on a server.
fn step(size: PageSize) -> HugePages {
    match size {
        PageSize::TwoMiB => HugePages(1024),
        PageSize::OneGiB => HugePages(4),
    }
}

fn lacks_nothing(entry: &Entry) -> bool {
    let has = |wish: &PageClaim| entry.total(wish.size) >= wish.pages;
    entry.wishes.iter().all(has)
}

/// `pages` in `parts` that differ by at most one, larger ones first.
fn spread(pages: HugePages, parts: usize) -> Vec<HugePages> {
    let count = parts as u64;
    (0..count)
        .map(|part| HugePages(pages.0 / count + u64::from(part < pages.0 % count)))
        .collect()
}
