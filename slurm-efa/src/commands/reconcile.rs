//! `slurm-efa reconcile`: makes the kernel's hugepages what the ledger says, and
//! removes what jobs left whose epilog was killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use config::Config;
use config::values::duration;
use findings::{Envelope, Finding, Findings, Severity};
use gpu::shares::Record;
use gpu::{mps, shares};
use host::BootId;
use host::Deadline;
use host::printable;
use host::state_dir::{StateDir, StateError};
use host::state_layout::gres;
use hugepages::hugetlb_cgroup::Groups;
use hugepages::machine::{self, Due, Pages};
use hugepages::reconcile::PoolReport;
use hugepages::{HugePages, Pool, ReconcileError, Report};
use jobs::registry::{Job, Problem, Registry};
use jobs::sweep::{self, Census, Remains, Swept, View};
use serde::Serialize;
use slurm::{Installation, JobKey, NodeName, installation, node_name};

use super::arguments::SiteArguments;
use super::output::print;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Change nothing, and tell what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Print every pool and all that was done as JSON
    #[arg(long)]
    json: bool,
    /// slurmd's SlurmdSpoolDir, instead of slurm.conf's: where jobs with damaged files are looked for
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
    /// How long the record of a job that is gone waits for the job's epilog, from
    /// when that was first seen
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    epilog_time: Duration,
    #[command(flatten)]
    site: SiteArguments,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let config = arguments.site.load()?;
    let mode = if arguments.dry_run {
        Mode::DryRun
    } else {
        Mode::Apply
    };
    let node = arguments.site.node.as_ref();
    let spool_dir = arguments.spool_dir.or_else(|| spool_dir(node));
    let reconciled = Reconciled::run(&config, node, spool_dir, arguments.epilog_time, mode)?;
    let findings = reconciled.findings();
    if arguments.json {
        print(&reconciled.to_json(node, &findings)?)?;
    } else {
        let lines = reconciled.done();
        print(
            &lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )?;
    }
    for finding in findings.0.iter().filter(|it| it.id != PLANNED) {
        eprintln!("slurm-efa: {}", finding.advice());
    }
    Ok(findings.exit_code())
}

/// The findings of a dry run that are no fault.
const PLANNED: &str = "planned";

/// SlurmdSpoolDir by the slurm.conf of this machine; where that is not known,
/// jobs whose files are damaged keep their pages.
fn spool_dir(node: Option<&NodeName>) -> Option<PathBuf> {
    let slurm = Installation::discover(installation::slurm_conf_of_environment().as_deref());
    slurm.spool_dir(node.or(slurm.node.as_ref())?).ok()
}

/// For the lock, for jobs that do not answer, and for the kernel's work.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Apply,
    /// It is only told what would be.
    DryRun,
}

/// What was done, or would be.
#[derive(Debug)]
pub struct Reconciled {
    mode: Mode,
    state: PathBuf,
    report: Report,
    /// Jobs whose record outlived them.
    outlived: Vec<JobKey>,
    /// Jobs that are gone, whose record waits for the epilog.
    waiting: Vec<JobKey>,
    /// Jobs whose GPU share outlived them.
    shares: Vec<JobKey>,
    /// What is wrong with the registry, or could not be removed.
    registry_problems: Vec<String>,
}

impl Reconciled {
    /// Does it.
    ///
    /// # Errors
    /// [`ReconcileError`], and a state directory whose place is not known.
    pub fn run(
        config: &Config,
        node: Option<&NodeName>,
        spool_dir: Option<PathBuf>,
        epilog_time: Duration,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        let path = config.state_dir(node)?;
        let deadline = Deadline::after(LIMIT);
        let state = StateDir::open_existing(&path).map_err(ReconcileError::from)?;
        let census = Census {
            boot: BootId::current()?,
            node: None,
            spool: spool_dir,
            deadline,
            epilog_time,
            starting: None,
        };
        match (mode, &state) {
            (Mode::Apply, Some(state)) => Self::apply(path, state, &census),
            // No job has ever been here since the boot: there is nothing to do.
            (Mode::DryRun, _) | (Mode::Apply, None) => {
                Self::rehearse(path, state.as_ref(), &census)
            }
        }
    }

    fn apply(path: PathBuf, state: &StateDir, census: &Census) -> anyhow::Result<Self> {
        let mut registry = Registry::open_existing(state)?;
        let mut pages = Pages::of(state, Due::Now);
        let mut shares = Shares {
            state,
            removed: Vec::new(),
        };
        let remains: &mut [&mut dyn Remains] = &mut [&mut pages, &mut Groups, &mut shares];
        let swept = sweep::sweep(registry.as_mut(), state, census, remains);
        let report = pages.outcome().transpose()?.unwrap_or_default();
        Ok(Self::new(Mode::Apply, path, report, &swept, shares.removed))
    }

    fn rehearse(path: PathBuf, state: Option<&StateDir>, census: &Census) -> anyhow::Result<Self> {
        let report = machine::rehearse(state, census.spool.clone(), census.deadline)?;
        let registry = state.map(Registry::open_existing).transpose()?.flatten();
        let swept = match &registry {
            Some(registry) => sweep::find(registry, census)?,
            None => Swept::default(),
        };
        let view = View {
            census,
            registry: registry.as_ref(),
            gone: &swept.gone,
        };
        let shares = match state.map(gres_folder).transpose()?.flatten() {
            Some(gres) => shares::gone(&gres, &view).map_err(anyhow::Error::msg)?,
            None => Vec::new(),
        };
        let shares = shares.iter().map(Record::key).collect();
        let swept = swept.with_those_that_wait(census);
        Ok(Self::new(Mode::DryRun, path, report, &swept, shares))
    }

    fn new(mode: Mode, state: PathBuf, report: Report, swept: &Swept, shares: Vec<JobKey>) -> Self {
        let unreadable = swept.unreadable.iter().map(|problem| {
            format!(
                "{}/jobs: {problem}; a job with such a record counts as running, so remove the \
                 file once that job has ended",
                shown(&state)
            )
        });
        Self {
            mode,
            outlived: swept.gone.iter().map(Job::key).collect(),
            waiting: swept.waiting.iter().map(Job::key).collect(),
            registry_problems: unreadable.chain(swept.failed.iter().cloned()).collect(),
            state,
            report,
            shares,
        }
    }

    /// What was changed, a line each; none if all was as it should be.
    pub fn done(&self) -> Vec<String> {
        let report = &self.report;
        let waits = self
            .waiting
            .iter()
            .map(|key| format!("job {key} is gone; its record waits for its epilog"));
        let (dropped, forgotten, unshared, change) = match self.mode {
            Mode::Apply => (
                "is gone; its pages are given back",
                "ended without its epilog; its record is removed",
                "is gone; its GPU share is removed",
                "changed",
            ),
            Mode::DryRun => (
                "is gone; its pages would be given back",
                "ended without its epilog; its record would be removed",
                "is gone; its GPU share would be removed",
                "would change",
            ),
        };
        let outlived = self
            .outlived
            .iter()
            .filter(|key| !report.dropped.contains(key))
            .map(|key| format!("job {key} {forgotten}"));
        let jobs = report
            .dropped
            .iter()
            .map(|key| format!("job {key} {dropped}"));
        let shares = self
            .shares
            .iter()
            .map(|key| format!("job {key} {unshared}"));
        let noticed = report.noticed.iter().map(|it| {
            let (pool, expected, found, baseline) = (it.pool, it.expected, it.found, it.baseline);
            format!(
                "{pool}: {found} instead of {expected}: somebody else changed it, which is kept; \
                 {baseline} besides those of jobs from now on"
            )
        });
        let pools = report.pools.iter().filter(|pool| pool.found != pool.actual);
        let pools = pools.map(|it| {
            let (pool, found, actual) = (it.pool, it.found, it.actual);
            format!("{pool}: {change} from {found} to {actual}: {}", parts(it))
        });
        jobs.chain(outlived)
            .chain(waits)
            .chain(shares)
            .chain(noticed)
            .chain(pools)
            .collect()
    }

    /// What somebody has to look at: a warning, or fatal where the kernel did not
    /// do as it was asked. In a dry run also what would be changed.
    pub fn findings(&self) -> Findings {
        let report = &self.report;
        let finding = |id, sentence| Finding {
            id,
            severity: Severity::Warning,
            subject: None,
            sentence,
            remedy: None,
        };
        let problems = report.problems.iter().map(|problem| Finding {
            subject: Some(problem.file.clone()),
            ..finding("ledger", self.about(problem))
        });
        let records = self.registry_problems.iter().cloned();
        let records = records.map(|sentence| finding("job-record", sentence));
        let unclear = report.unclear.iter().map(|key| {
            let sentence =
                format!("job {key}: whether it still exists is unknown, so it keeps its pages");
            let remedy = "if its file is damaged, give slurmd's SlurmdSpoolDir with --spool-dir";
            Finding {
                subject: Some(key.to_string()),
                remedy: Some(remedy.to_owned()),
                ..finding("job-unknown", sentence)
            }
        });
        let inexact = report.pools.iter().filter(|it| !is_exact(it));
        let inexact = inexact.map(|it| {
            let (pool, actual, target) = (it.pool, it.actual, it.target());
            let sentence = format!(
                "{pool}: the kernel has {actual} and should have {target}: {}",
                parts(it)
            );
            Finding {
                severity: Severity::Fatal,
                subject: Some(pool.to_string()),
                remedy: Some("memory may be too scattered, so try again".to_owned()),
                ..finding("pool", sentence)
            }
        });
        let planned = match self.mode {
            Mode::DryRun => self.done(),
            Mode::Apply => Vec::new(),
        };
        let planned = planned.into_iter().map(|line| finding(PLANNED, line));
        let all = problems.chain(records).chain(unclear).chain(inexact);
        Findings(all.chain(planned).collect())
    }

    /// What is wrong with a file, and what became of it.
    fn about(&self, problem: &Problem) -> String {
        let Some(key) = &problem.key else {
            return format!("{}: {problem}", shown(&self.state));
        };
        let (file, reason) = (&problem.file, &problem.reason);
        let fate = if self.report.dropped.contains(key) {
            "it is removed with its job"
        } else {
            "its job keeps its pages until it is gone"
        };
        format!(
            "{}: {file} cannot be believed ({reason}); {fate}",
            shown(&self.state)
        )
    }

    /// One JSON document.
    pub fn to_json(&self, node: Option<&NodeName>, findings: &Findings) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Keys {
            dry_run: bool,
            exact: bool,
            pools: Vec<PoolLine>,
            dropped: Vec<String>,
            ended_without_epilog: Vec<String>,
            waiting_for_epilog: Vec<String>,
            shares_removed: Vec<String>,
            unclear: Vec<String>,
            noticed: Vec<NoticedLine>,
            problems: Vec<ProblemLine>,
        }
        #[derive(Serialize)]
        struct PoolLine {
            #[serde(flatten)]
            pool: PoolName,
            baseline: HugePages,
            held: HugePages,
            found: HugePages,
            actual: HugePages,
        }
        #[derive(Serialize)]
        struct NoticedLine {
            #[serde(flatten)]
            pool: PoolName,
            expected: HugePages,
            found: HugePages,
            baseline: HugePages,
        }
        #[derive(Serialize)]
        struct ProblemLine {
            file: String,
            reason: String,
        }
        let report = &self.report;
        let names = |keys: &[JobKey]| keys.iter().map(ToString::to_string).collect();
        let pools = report.pools.iter().map(|it| PoolLine {
            pool: it.pool.into(),
            baseline: it.baseline,
            held: it.held,
            found: it.found,
            actual: it.actual,
        });
        let noticed = report.noticed.iter().map(|it| NoticedLine {
            pool: it.pool.into(),
            expected: it.expected,
            found: it.found,
            baseline: it.baseline,
        });
        let problems = report.problems.iter().map(|it| ProblemLine {
            file: it.file.clone(),
            reason: it.reason.clone(),
        });
        let keys = Keys {
            dry_run: self.mode == Mode::DryRun,
            exact: report.pools.iter().all(is_exact),
            pools: pools.collect(),
            dropped: names(&report.dropped),
            ended_without_epilog: names(&self.outlived),
            waiting_for_epilog: names(&self.waiting),
            shares_removed: names(&self.shares),
            unclear: names(&report.unclear),
            noticed: noticed.collect(),
            problems: problems.collect(),
        };
        let own = node_name::of_this_process();
        let node = node.or(own.as_ref()).map(NodeName::as_str);
        let document = Envelope::of_now(node, findings.body(|it| it, keys));
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        Ok(text)
    }
}

/// The GPU shares as a part of the one sweep. Those that an MPS daemon serves
/// are for gres-helper, which can end it.
struct Shares<'a> {
    state: &'a StateDir,
    removed: Vec<JobKey>,
}

impl Remains for Shares<'_> {
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String> {
        let said = |error: StateError| error.to_string();
        let Some(mut gres) = gres_folder(self.state).map_err(said)? else {
            return Ok(());
        };
        let _lock = gres
            .lock(shares::LOCK, view.census.deadline)
            .map_err(said)?;
        let served = mps::all(&gres)?;
        for record in shares::gone(&gres, view)? {
            let has = |daemon: &mps::Daemon| daemon.jobs.iter().any(|(job, _)| *job == record.job);
            if !served.iter().any(has) {
                shares::remove(&mut gres, &record.key())?;
                self.removed.push(record.key());
            }
        }
        Ok(())
    }
}

fn gres_folder(state: &StateDir) -> Result<Option<StateDir>, StateError> {
    state.existing_folder(gres::FOLDER)
}

/// A pool in JSON: `"size": "2M", "numa": 0`.
#[derive(Serialize)]
struct PoolName {
    size: hugepages::PageSize,
    numa: hugepages::NumaNode,
}

impl From<Pool> for PoolName {
    fn from(pool: Pool) -> Self {
        Self {
            size: pool.size,
            numa: pool.numa,
        }
    }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 300)
}

fn is_exact(pool: &PoolReport) -> bool {
    pool.actual == pool.target()
}

fn parts(pool: &PoolReport) -> String {
    format!("{} of jobs and {} besides", pool.held, pool.baseline)
}
