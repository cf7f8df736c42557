//! The rule of [`crate::reconcile()`] on this machine: its kernel, its jobs.

use std::path::PathBuf;

use crate::dry_run::OverlayPools;
use crate::ledger::Ledger;
use crate::pool::{KernelPools, Pools};
use crate::reconcile::{Claim, ReconcileError, Report, reconcile};
use host::BootId;
use host::Deadline;
use host::Sysroot;
use host::state_dir::{StateDir, Store};
use host::state_layout::job::LEDGER;
use jobs::registry::Registry;
use jobs::sweep::{Remains, View};
use jobs::{Existence, JobIndex};

/// Reconciles the running kernel with the ledger in `state`, and grants `claim`
/// what can be had.
///
/// `default_spool` is slurmd's `SlurmdSpoolDir`, for jobs whose files cannot
/// tell theirs. `deadline` bounds waiting for the lock, asking the jobs and
/// looking for pages, together.
///
/// # Errors
/// See [`reconcile()`]; also where the lock was not to be had, and then nothing
/// changed.
pub fn settle(
    state: &StateDir,
    default_spool: Option<PathBuf>,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    settle_on(None, state, default_spool, claim, deadline)
}

fn settle_on(
    kernel: Option<&mut dyn Pools>,
    state: &StateDir,
    default_spool: Option<PathBuf>,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let ledger = Ledger::open(state, deadline)?;
    let mut real;
    let kernel = match kernel {
        Some(kernel) => kernel,
        None => {
            real = KernelPools::new(Sysroot::real())?;
            &mut real
        }
    };
    apply(ledger, kernel, Some(state), default_spool, claim, deadline)
}

/// When a sweep reconciles the hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Always.
    Now,
    /// Where any job has pages.
    IfGranted,
    /// Where any job has pages and a job was found to be gone.
    IfGone,
}

/// The jobs' hugepages as a part of the one sweep, which gives back those of
/// jobs that are gone.
pub struct Pages<'a> {
    state: &'a StateDir,
    due: Due,
    claim: Option<&'a Claim>,
    kernel: Option<&'a mut dyn Pools>,
    outcome: Option<Result<Report, ReconcileError>>,
}

impl<'a> Pages<'a> {
    /// Those of the ledger in `state`.
    #[must_use]
    pub fn of(state: &'a StateDir, due: Due) -> Self {
        Self {
            state,
            due,
            claim: None,
            kernel: None,
            outcome: None,
        }
    }

    /// Instead of the running kernel's.
    #[must_use]
    pub fn on(self, kernel: &'a mut dyn Pools) -> Self {
        Self {
            kernel: Some(kernel),
            ..self
        }
    }

    /// Grants a job that starts what can be had, in the same reconciliation.
    #[must_use]
    pub fn with_claim(state: &'a StateDir, claim: &'a Claim) -> Self {
        Self {
            claim: Some(claim),
            ..Self::of(state, Due::Now)
        }
    }

    /// What the reconciliation did; `None` where none was due.
    #[must_use]
    pub fn outcome(self) -> Option<Result<Report, ReconcileError>> {
        self.outcome
    }

    fn is_due(&self, view: &View<'_>) -> Result<bool, ReconcileError> {
        if self.due == Due::Now {
            return Ok(true);
        }
        if self.due == Due::IfGone && view.gone.is_empty() {
            return Ok(false);
        }
        // Without the ledger's lock: whoever claims pages at this moment
        // reconciles, too.
        Ok(match self.state.existing_folder(LEDGER)? {
            Some(ledger) => !ledger.names()?.is_empty(),
            None => false,
        })
    }
}

impl Remains for Pages<'_> {
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String> {
        let census = view.census;
        self.outcome = match self.is_due(view) {
            Ok(false) => None,
            Ok(true) => {
                let spool = census.spool.clone();
                let kernel = self.kernel.take();
                let (state, deadline) = (self.state, census.deadline);
                Some(settle_on(kernel, state, spool, self.claim, deadline))
            }
            Err(error) => Some(Err(error)),
        };
        // The caller has the outcome.
        Ok(())
    }
}

/// What [`settle`] would do now without a claim, had the kernel all the memory
/// that is asked of it. Neither the files nor the kernel change. `state` is
/// `None` where there is no such directory.
///
/// # Errors
/// As [`settle`].
pub fn rehearse(
    state: Option<&StateDir>,
    default_spool: Option<PathBuf>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let ledger = Ledger::rehearse(state, deadline)?;
    let kernel = OverlayPools::over(KernelPools::new(Sysroot::real())?);
    apply(ledger, kernel, state, default_spool, None, deadline)
}

/// The registry is read here, *after* the lock was taken: a prolog records its
/// job before it claims pages, so every job in the locked ledger is in the
/// registry by now. Read before, a job that started in between would look gone
/// and lose its pages.
fn apply<S: Store, P: Pools>(
    mut ledger: Ledger<S>,
    mut kernel: P,
    state: Option<&StateDir>,
    default_spool: Option<PathBuf>,
    claim: Option<&Claim>,
    deadline: Deadline,
) -> Result<Report, ReconcileError> {
    let boot = BootId::current()?;
    let registry = match state {
        Some(state) => Registry::open_existing(state)?,
        None => None,
    };
    // Of the jobs in the ledger only, and read when asked for.
    let mut index = JobIndex::of_none(boot.clone(), default_spool, deadline);
    reconcile(
        &mut ledger,
        &mut kernel,
        &boot,
        &mut |key, entry| match &registry {
            Some(registry) => {
                index.learn(registry, key);
                index.existence(key, entry.map(|entry| (&entry.start, &*entry.spool_dir)))
            }
            // A ledger without a registry: somebody removed it.
            None => Existence::Unknown,
        },
        claim,
        deadline,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{NumaNode, Pool, PoolError};
    use config::size::{HugePages, PageSize};
    use host::state_layout::job::{LEDGER_BASELINE, RECORDS};
    use jobs::sweep::{Census, sweep};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    const POOL: Pool = Pool {
        size: PageSize::TwoMiB,
        numa: NumaNode(0),
    };

    /// A kernel with one pool.
    struct Kernel(u64);

    impl Pools for Kernel {
        fn pools(&self) -> Result<Vec<Pool>, PoolError> {
            Ok(vec![POOL])
        }

        fn persistent(&self, _: Pool) -> Result<HugePages, PoolError> {
            Ok(HugePages(self.0))
        }

        fn set_persistent(&mut self, _: Pool, pages: HugePages) -> Result<(), PoolError> {
            self.0 = pages.0;
            Ok(())
        }

        fn compact(&mut self) -> Result<(), PoolError> {
            Ok(())
        }
    }

    fn put(dir: &Path, folder: &str, name: &str, text: &str) {
        fs::create_dir_all(dir.join(folder)).unwrap();
        let file = dir.join(folder).join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The files of version 0.2.0 about a job that has 5 pages besides the
    /// administrator's 10; the ledger's entry is of the format `version`.
    fn files_of_0_2(dir: &Path, version: u32, contained: bool) {
        let boot = BootId::current().unwrap();
        let boot = serde_json::to_string(&boot).unwrap();
        let spool = dir.display();
        let job = format!(
            r#""job":7,"node":"n1","start":{{"boot":{boot},"since_boot_ms":5,"nonce":"0123"}},
               "spool_dir":"{spool}""#
        );
        let record = format!(
            r#"{{"version":1,{job},"uid":20001,"gid":20001,"profile":"p5","devices":["rdmap1"],
               "hugepages":"10M","reservation":{{"mib":10,"wanted_mib":10}},
               "others_at_start":false,"contained":{contained},"gpus":[]}}"#
        );
        put(dir, RECORDS, "7@n1.json", &record);
        let wish = r#""wishes":[{"size":"2M","pages":5,"spread":"even"}]"#;
        let granted = r#""granted":[{"size":"2M","numa":0,"pages":5}]"#;
        let entry = format!(r#"{{"version":{version},{job},{wish},{granted}}}"#);
        put(dir, LEDGER, "7@n1.json", &entry);
        let row = r#"{"size":"2M","numa":0,"baseline":10,"held":5,"seen":15}"#;
        let baseline = format!(r#"{{"version":1,"boot":{boot},"pools":[{row}]}}"#);
        put(dir, LEDGER, LEDGER_BASELINE, &baseline);
    }

    fn swept(dir: &Path) -> u64 {
        let state = StateDir::open(dir).unwrap();
        let census = Census {
            boot: BootId::current().unwrap(),
            node: None,
            spool: None,
            deadline: Deadline::after(Duration::from_secs(20)),
            epilog_time: Duration::ZERO,
            starting: None,
        };
        let mut kernel = Kernel(15);
        let mut pages = Pages::of(&state, Due::Now).on(&mut kernel);
        let mut registry = Registry::open_existing(&state).unwrap();
        let swept = sweep(registry.as_mut(), &state, &census, &mut [&mut pages]);
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        assert!(swept.unreadable.is_empty(), "{:?}", swept.unreadable);
        pages.outcome().unwrap().unwrap();
        kernel.0
    }

    #[test]
    fn a_job_that_runs_during_an_upgrade_keeps_its_pages() {
        for version in [1, 99] {
            let dir = tempfile::tempdir().unwrap();
            files_of_0_2(dir.path(), version, false);
            assert_eq!(swept(dir.path()), 15, "{version}");
        }
    }

    #[test]
    fn the_pages_of_a_job_that_ended_around_an_upgrade_are_given_back() {
        for version in [1, 99] {
            let dir = tempfile::tempdir().unwrap();
            files_of_0_2(dir.path(), version, true);
            assert_eq!(swept(dir.path()), 10, "{version}");
            let left = fs::read_dir(dir.path().join(RECORDS)).unwrap();
            let names = left.map(|entry| entry.unwrap().file_name());
            assert_eq!(names.filter(|name| name != ".lock").count(), 0, "{version}");
        }
    }
}
