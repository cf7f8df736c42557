//! slurmstepd: the node's side, as root, once for each step.
//!
//! `init_post_opt` decides, sets the environment and has the counters read; `user_init`
//! speaks, since from there words reach the user's stderr;
//! `task_init_privileged` lifts the limit of locked memory; `task_init` fails
//! the tasks of a job that cannot run here; `task_exit`, with the last task,
//! tells what EFA moved: later words no longer reach srun. No hook returns an
//! error: a failed `init_post_opt` or `user_init` drains the node for a batch
//! job.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{Config, Memlock};
use efa::counter_reader::CounterReader;
use efa::counters::since_boot_ns;
use efa::{Stack, instance_types};
use host::Sysroot;
use host::exec;
use host::state_dir::StateDir;
use hugepages::hugetlb_cgroup::Controller;
use hugepages::{Bytes, OnShortfall, PageSize, Request, Settings};
use jobs::registry;
use jobs::registry::{Job, Registry};
use slurm::JobKey;
use slurm::NodeName;
use spank::{JobId, OptionValue, Overwrite, Spank, SpankError, StepId, Uid, log};

use crate::arguments::Arguments;
use crate::client::{INHERITED_EXPLAIN, INHERITED_HUGEPAGES, INHERITED_PROFILE};
use crate::components::{self, Listed};
use crate::options;
use profiles::explain;
use profiles::hugepage_request;
use profiles::hugepage_request::{Source, Wanted};
use profiles::plan;
use profiles::plan::{Action, NodeFacts, Plan};
use profiles::profile;
use profiles::profile::Profile;
use profiles::provenance;
use profiles::request;
use profiles::request::{BadValue, Explain, ProfileRequest};
use slurm::slurmstepd::node_name;
use usage::counting::{self, Before, Books, Counters};
use usage::{Step, UsageRecord};

/// Variables whose presence means that the step runs in an image's software.
/// The first two are pyxis' options as its users' environment carries them,
/// before and after Slurm's clean-up; the last is Slurm's own `--container`.
const CONTAINER: &[(&str, &str)] = &[
    (
        "_SLURM_SPANK_OPTION_pyxis_container_image",
        "--container-image",
    ),
    (
        "_SLURM_SPANK_OPTION_pyxis_container_name",
        "--container-name",
    ),
    (
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_image",
        "--container-image",
    ),
    (
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_name",
        "--container-name",
    ),
    ("SLURM_CONTAINER", "--container"),
];

/// The state of one step on one node.
#[derive(Default)]
pub struct Stepd {
    request: Option<Result<ProfileRequest, BadValue>>,
    explain: Explain,
    hugepages: Option<Result<Request, BadValue>>,
    container: Option<&'static str>,
    outcome: Outcome,
    /// The tasks' locked memory has no limit.
    unlimited_memlock: bool,
    /// The fence that tasks enter.
    fence: Option<Fence>,
    /// The job goes back to the queue instead of running short of pages.
    requeue: bool,
    account: Option<Account>,
    tasks_ended: u32,
}

/// What keeps the tasks from other jobs' hugepages.
struct Fence {
    controller: Controller,
    key: JobKey,
    limits: Vec<(PageSize, Bytes)>,
}

/// What is reported when the step ends.
struct Account {
    books: Books,
    record: UsageRecord,
    /// The step's own reading at its start; `None` where the job's is as good.
    before: Option<Result<CounterReader, String>>,
    /// The program that reads counters.
    reader: PathBuf,
    /// When the tasks were about to start, in ns since boot.
    start_ns: u64,
    sysroot: Sysroot,
    /// The state directory.
    state: PathBuf,
    key: JobKey,
    job: Option<(StateDir, Job)>,
    /// Nobody else speaks for the job.
    alone: bool,
}

/// Set to the MiB of hugepages that the job has on the node.
const HUGEPAGES_MIB: &str = "SLURM_EFA_HUGEPAGES_MIB";

/// What was decided.
#[derive(Default)]
enum Outcome {
    /// Nothing was asked, or this is the extern step.
    #[default]
    Nothing,
    /// The tasks run; the lines are for the user.
    Run {
        warnings: Vec<String>,
        explanation: Vec<String>,
        in_force: Option<Box<InForce>>,
    },
    /// The tasks fail with this sentence.
    Fail(String),
}

/// The profile that holds for the step, and the node that it holds on.
struct InForce {
    profile: Profile,
    facts: NodeFacts,
}

impl Outcome {
    fn in_force(&self) -> Option<&InForce> {
        match self {
            Self::Run { in_force, .. } => in_force.as_deref(),
            Self::Nothing | Self::Fail(_) => None,
        }
    }

    fn warn(&mut self, sentence: String) {
        match self {
            Self::Run { warnings, .. } => warnings.push(sentence),
            Self::Nothing => {
                *self = Self::Run {
                    warnings: vec![sentence],
                    explanation: Vec::new(),
                    in_force: None,
                };
            }
            Self::Fail(_) => {}
        }
    }
}

impl Stepd {
    /// Looks for a container before Slurm clears the options of other plugins
    /// out of the environment.
    pub fn init(&mut self, spank: &Spank<'_>) {
        self.container = container(spank);
    }

    /// An option came with the step.
    pub fn option(&mut self, index: usize, value: OptionValue<'_>) {
        match index {
            options::PROFILE => self.request = Some(ProfileRequest::parse(value)),
            options::HUGEPAGES => self.hugepages = Some(request::hugepages(value)),
            _ => self.explain = Explain::parse(value).unwrap_or_default(),
        }
    }

    /// Decides and sets the environment.
    pub fn init_post_opt(&mut self, spank: &mut Spank<'_>, arguments: &Arguments) {
        let Ok(step) = spank.step_id() else { return };
        if step == StepId::Extern {
            note_contained(spank, arguments);
            return;
        }
        self.container = self.container.or_else(|| container(spank));
        if step == StepId::Batch {
            self.inherit(spank);
        }
        let asked = match self.request.take().transpose() {
            Ok(asked) => asked,
            Err(error) => {
                self.outcome = Outcome::Fail(error.to_string());
                return;
            }
        };
        let hugepages = match self.hugepages.take().transpose() {
            Ok(hugepages) => hugepages,
            Err(error) => {
                self.outcome = Outcome::Fail(error.to_string());
                return;
            }
        };
        let hugepages = own_hugepages(spank, hugepages);
        let config = arguments.load_config();
        let own = own_profile(spank, asked.clone());
        let foreign = own.is_none() && asked.is_some();
        self.outcome = match serve(spank, own, foreign, &config, self.container) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Fail(format!("the EFA environment could not be set: {error}")),
        };
        match &config {
            Ok(config) => {
                if let Err(reason) = self.node_side(spank, step, config, hugepages) {
                    log::info(&format!("spank_efa: {reason}"));
                }
            }
            Err(reason) if hugepages.request.is_some_and(|it| it != Request::None) => {
                self.outcome = Outcome::Fail(format!(
                    "--efa-hugepages cannot be used: {reason}; tell the administrator"
                ));
            }
            Err(_) => {}
        }
    }

    /// Everything beside the environment. An error costs what it is about,
    /// never the job.
    fn node_side(
        &mut self,
        spank: &mut Spank<'_>,
        step: StepId,
        config: &Config,
        hugepages: OwnHugepages,
    ) -> Result<(), String> {
        if matches!(self.outcome, Outcome::Fail(_)) {
            return Ok(());
        }
        let settings = Settings::of(config).map_err(|error| error.to_string())?;
        let profile = self.outcome.in_force().map(|it| &it.profile);
        let wanted = hugepage_request::in_force(hugepages.request, profile, &settings);
        // A batch script's environment says what its own component has.
        let inherits_mib = matches!(spank.env(HUGEPAGES_MIB), Ok(Some(_)));
        // Nothing of ours: not a file is touched.
        if wanted.is_none() && profile.is_none() && !settings.isolate && !inherits_mib {
            return Ok(());
        }
        let key = own_key(spank)?;
        let place = config
            .state_dir(Some(&key.node))
            .map_err(|error| error.to_string())?;
        let registered = registered(&place, &key);
        let recorded = match &registered {
            Ok(Some((_, job))) => Ok(job),
            Ok(None) => Err(Unrecorded::Nothing),
            Err(reason) => Err(Unrecorded::Unreadable(reason)),
        };
        let reservation = recorded.ok().and_then(|job| job.reservation.as_ref());
        if let Some(sentence) = reservation.and_then(|it| it.refused.clone()) {
            self.outcome = Outcome::Fail(sentence);
            return Ok(());
        }
        if settings.isolate
            && let Ok(Some(controller)) = Controller::find()
        {
            self.fence = Some(Fence {
                controller,
                key: key.clone(),
                limits: hugepage_request::limits(&settings, reservation),
            });
        }
        if let Some(reservation) = reservation {
            let mib = reservation.mib.to_string();
            spank
                .set_env(HUGEPAGES_MIB, &mib, Overwrite::Yes)
                .map_err(|error| error.to_string())?;
        } else if inherits_mib {
            spank
                .unset_env(HUGEPAGES_MIB)
                .map_err(|error| error.to_string())?;
        }
        // Whether a component's script asked may be uncertain; its record is not.
        let certain = |wanted: &Wanted| wanted.source != Source::Option || hugepages.certain;
        if let Some(wanted) = wanted.filter(|it| reservation.is_some() || certain(it)) {
            if let Some(short) = shortfall(&wanted, recorded, &key.node) {
                if settings.on_shortfall == OnShortfall::Requeue {
                    self.requeue = true;
                    self.outcome = Outcome::Fail(format!(
                        "{short}; this site sends such a job back to the queue (on_shortfall = \
                         \"requeue\"), and one that Slurm cannot requeue fails"
                    ));
                    return Ok(());
                }
                self.outcome.warn(short);
            } else if reservation.is_none() && wanted.source == Source::Option {
                self.outcome.warn(format!(
                    "{}: nothing was reserved on {}: hugepages belong to the whole job, so the \
                     option must be given where the job is made (sbatch, salloc, or srun outside \
                     of a job)",
                    wanted.label(),
                    key.node
                ));
            }
        }
        let Some(in_force) = self.outcome.in_force() else {
            return Ok(());
        };
        if in_force.profile.memlock == Memlock::Unlimited {
            self.unlimited_memlock = true;
            // Slurm sets the submitting shell's limit after the last hook, from here.
            spank
                .unset_env("SLURM_RLIMIT_MEMLOCK")
                .map_err(|error| error.to_string())?;
        }
        self.account = Some(open_account(
            spank,
            step,
            config,
            in_force,
            (place, key),
            registered.ok().flatten(),
        )?);
        Ok(())
    }

    /// A batch step gets its options in the environment; `--export=NONE` drops
    /// one of the two forms before 23.11.
    fn inherit(&mut self, spank: &Spank<'_>) {
        if self.request.is_none()
            && let Ok(Some(value)) = spank.env(INHERITED_PROFILE)
        {
            self.request = Some(ProfileRequest::parse(Some(&value)));
        }
        if self.explain == Explain::No
            && let Ok(Some(value)) = spank.env(INHERITED_EXPLAIN)
        {
            let value = Some(&value[..]).filter(|value| !value.is_empty() && *value != b"(null)");
            self.explain = Explain::parse(value).unwrap_or_default();
        }
        if self.hugepages.is_none()
            && let Ok(Some(value)) = spank.env(INHERITED_HUGEPAGES)
        {
            self.hugepages = Some(request::hugepages(Some(&value)));
        }
    }

    /// Speaks to the user. The tasks start next.
    pub fn user_init(&mut self, spank: &Spank<'_>) {
        if let Some(account) = &mut self.account {
            account.start_ns = since_boot_ns();
            if let Some(Ok(reader)) = &mut account.before {
                reader.reap();
            }
        }
        match &self.outcome {
            Outcome::Nothing => {}
            Outcome::Fail(sentence) => log::user(&format!("efa: error: {sentence}")),
            Outcome::Run {
                warnings,
                explanation,
                ..
            } => {
                for warning in warnings {
                    log::user(&format!("efa: warning: {warning}"));
                }
                let speaks = match self.explain {
                    Explain::No => false,
                    Explain::First => spank.node_index() == Ok(0),
                    Explain::All => true,
                };
                for line in explanation.iter().filter(|_| speaks) {
                    log::user(&format!("efa: {line}"));
                }
            }
        }
    }

    /// Whether the tasks must not run.
    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }

    /// In a task's child, as root: its limit of locked memory, and its fence.
    pub fn task_init_privileged(&self) {
        if self.unlimited_memlock
            && let Err(error) = lift_memlock()
        {
            // For the administrator: a task is not worse off than without us.
            log::info(&format!(
                "spank_efa: the limit of locked memory cannot be lifted: {error}; slurmd's unit \
                 needs LimitMEMLOCK=infinity"
            ));
        }
        if let Some(fence) = &self.fence
            && let Err(error) = fence.controller.enter(&fence.key, &fence.limits)
        {
            log::info(&format!("spank_efa: isolate: {error}"));
        }
    }

    /// In a task's child, as the user, whose job it is: becomes `scontrol
    /// requeue` if that is what the site wants. Returns where there is nothing
    /// to do or it cannot be run.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing is waited for: the child becomes the program that host::exec believes"
    )]
    pub fn requeue(&self, spank: &Spank<'_>) {
        // One task of a step says it for all.
        if !self.requeue || spank.local_task() != Ok(0) {
            return;
        }
        let (Ok(JobId(job)), Some(scontrol)) = (spank.job_id(), scontrol()) else {
            return;
        };
        let scontrol = match exec::program(&scontrol) {
            Ok(scontrol) => scontrol,
            Err(error) => return log::user(&format!("efa: error: {error}")),
        };
        let mut command = Command::new(scontrol.real());
        command.arg0(scontrol.named());
        command.args(["requeue", &job.to_string()]).env_clear();
        if let Some(conf) = std::env::var_os("SLURM_CONF") {
            command.env("SLURM_CONF", conf);
        }
        let error = command.exec();
        log::user(&format!("efa: error: scontrol could not be run: {error}"));
    }

    /// A task has ended; with the last one, what EFA moved is reported.
    pub fn task_exit(&mut self, spank: &Spank<'_>) {
        self.tasks_ended += 1;
        if spank
            .local_task_count()
            .is_ok_and(|count| self.tasks_ended < count)
        {
            return;
        }
        let Some(mut account) = self.account.take() else {
            return;
        };
        if let Some((state, job)) = &account.job {
            account.record.shared = registry::shared(state, job);
        }
        let counters = Counters {
            program: &account.reader,
            sysroot: &account.sysroot,
            state: &account.state,
            known: account.job.as_ref().map_or(&[], |(_, job)| &job.devices),
        };
        let before = match (account.before, &account.job) {
            (None, Some((state, _))) => Before::Kept(state, &account.key),
            (own, _) => Before::Own(own.unwrap_or_else(|| Err("none was begun".to_owned()))),
        };
        tell(&counters.close(&mut account.record, before, account.start_ns));
        for line in counting::lines(&account.record, account.alone) {
            log::user(&line);
        }
        // The whole job's record is the epilog's to write.
        if account.record.step.is_some() {
            tell(&account.books.write(&account.record));
        }
    }
}

/// For the administrator. As errors they would reach the user's terminal, too.
fn tell(sentences: &[String]) {
    for sentence in sentences {
        log::info(&format!("spank_efa: {sentence}"));
    }
}

/// Why a job has no record that its steps can use.
#[derive(Clone, Copy)]
enum Unrecorded<'a> {
    /// No prolog wrote one.
    Nothing,
    /// There is one, or it is not known whether there is.
    Unreadable(&'a str),
}

/// Why the job has fewer hugepages on this node than it should have: a
/// sentence for its user. `None` if it has them, and also where its prolog was
/// not asked for any.
fn shortfall(
    wanted: &Wanted,
    recorded: Result<&Job, Unrecorded<'_>>,
    node: &NodeName,
) -> Option<String> {
    let reason = match recorded {
        Ok(job) => match &job.reservation {
            Some(reservation) => return reservation.short.clone(),
            None if job.hugepages.is_none() => return None,
            None => "the job's prolog did not finish".to_owned(),
        },
        Err(Unrecorded::Nothing) => {
            return Some(format!(
                "{}: no hugepages could be reserved on {node}: slurm-efa-job did not record this job \
                 before it started; tell the administrator, who finds the cause with `slurm-efa \
                 doctor` on {node}",
                wanted.label()
            ));
        }
        Err(Unrecorded::Unreadable(reason)) => {
            format!("the node's record of this job cannot be used ({reason})")
        }
    };
    Some(format!(
        "{}: no hugepages could be reserved on {node}: {reason}; tell the administrator, who finds \
         the cause in the system's log on {node} (journalctl -t slurm-efa-job)",
        wanted.label()
    ))
}

/// This job on this node.
fn own_key(spank: &Spank<'_>) -> Result<JobKey, String> {
    let JobId(job) = spank.job_id().map_err(|error| error.to_string())?;
    Ok(JobKey {
        job: slurm::JobId(job),
        node: node_name().ok_or("Slurm does not tell this node's name")?,
    })
}

/// The job's record on this node, for its steps. `None`: its prolog did not run.
fn registered(place: &Path, key: &JobKey) -> Result<Option<(StateDir, Job)>, String> {
    let Some((state, registry)) = records(place)? else {
        return Ok(None);
    };
    let job = registry.get(key).map_err(|error| error.to_string())?;
    Ok(job.map(|job| (state, job)))
}

/// The node's records of jobs, if there are any.
fn records(place: &Path) -> Result<Option<(StateDir, Registry)>, String> {
    let Some(state) = StateDir::open_existing(place).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let registry = Registry::open_existing(&state).map_err(|error| error.to_string())?;
    Ok(registry.map(|registry| (state, registry)))
}

/// For the extern step: notes in the job's record that there is one.
fn note_contained(spank: &Spank<'_>, arguments: &Arguments) {
    let noted = own_key(spank).and_then(|key| {
        let config = arguments.load_config()?;
        let place = config
            .state_dir(Some(&key.node))
            .map_err(|error| error.to_string())?;
        note_in_record(&place, &key)
    });
    if let Err(reason) = noted {
        log::info(&format!("spank_efa: {reason}"));
    }
}

fn note_in_record(place: &Path, key: &JobKey) -> Result<(), String> {
    let Some((_state, mut registry)) = records(place)? else {
        return Ok(());
    };
    registry
        .note_contained(key)
        .map_err(|error| error.to_string())
}

/// Takes the limit of locked memory away; where root may not, the hard one holds.
fn lift_memlock() -> io::Result<()> {
    let lifted = set_memlock(libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    if lifted.is_err() {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: getrlimit(2) writes to the structure, which is ours.
        if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0 {
            set_memlock(limit.rlim_max, limit.rlim_max)?;
        }
    }
    lifted
}

fn set_memlock(soft: libc::rlim_t, hard: libc::rlim_t) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: setrlimit(2) reads the structure, which lives until it returns.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Slurm's own scontrol: it lies beside the folder of slurmstepd, which we are.
fn scontrol() -> Option<PathBuf> {
    let stepd = std::env::current_exe().ok()?;
    Some(stepd.parent()?.parent()?.join("bin/scontrol"))
}

/// Reads the counters at the start of the step. The batch step speaks for the
/// job, from its prolog on.
fn open_account(
    spank: &Spank<'_>,
    step: StepId,
    config: &Config,
    in_force: &InForce,
    (state, key): (PathBuf, JobKey),
    job: Option<(StateDir, Job)>,
) -> Result<Account, String> {
    let sysroot = config
        .sysroot(Some(&key.node))
        .map_err(|error| error.to_string())?;
    let Uid(uid) = spank.uid().map_err(|error| error.to_string())?;
    let text = |name: &str| {
        let value = spank.env(name).ok()??;
        String::from_utf8(value).ok()
    };
    let batch = step == StepId::Batch;
    let mut record = counting::blank(key.job.0, &key.node, uid);
    record.profile = Some(in_force.profile.name.clone());
    record.instance_type = in_force
        .facts
        .instance
        .as_ref()
        .ok()
        .map(ToString::to_string);
    record.start_id = job.as_ref().map(|(_, job)| job.start.nonce.clone());
    record.restart = spank.restart_count().ok();
    record.lustre = counting::lustre(&sysroot);
    if batch {
        record.node_index = Some(0);
        record.nodes = text("SLURM_JOB_NUM_NODES").and_then(|text| text.parse().ok());
        record.node_list = text("SLURM_JOB_NODELIST");
    } else {
        record.step = Some(match step {
            StepId::Number(number) => Step::Number(number),
            StepId::Interactive => Step::Interactive,
            StepId::Batch | StepId::Extern => Step::Batch,
        });
        record.node_index = spank.node_index().ok();
        record.nodes = spank.node_count().ok();
        record.node_list = text("SLURM_STEP_NODELIST").or_else(|| text("SLURM_JOB_NODELIST"));
    }
    // Slurm sets this for batch scripts, and the steps inside inherit it.
    let alone = batch || text("ENVIRONMENT").as_deref() != Some("BATCH");
    let file = spank::host::own_file().ok_or("the plugin's own file is not known")?;
    let reader = counting::reader_beside(&file);
    let counters = Counters {
        program: &reader,
        sysroot: &sysroot,
        state: &state,
        known: job.as_ref().map_or(&[], |(_, job)| &job.devices),
    };
    let first = batch || (alone && step == StepId::Number(0));
    let own = !job.as_ref().is_some_and(|(_, job)| {
        first && job.counting && (batch || has_just_started(job, since_boot_ns()))
    });
    Ok(Account {
        books: Books::of(config, &key.node)?,
        record,
        before: own.then(|| counters.start()),
        reader,
        start_ns: since_boot_ns(),
        sysroot,
        state,
        key,
        job,
        alone,
    })
}

/// Whether the job's first step has as good a reading in the job's own: nothing
/// can have run in between.
fn has_just_started(job: &Job, now_ns: u64) -> bool {
    const LATELY_MS: u64 = 1000;
    (now_ns / 1_000_000).saturating_sub(job.start.since_boot_ms) < LATELY_MS
}

fn container(spank: &Spank<'_>) -> Option<&'static str> {
    CONTAINER
        .iter()
        .find(|(variable, _)| matches!(spank.env(variable), Ok(Some(_))))
        .map(|(_, option)| *option)
}

/// The profile of this step: its component's own, where it has several. What
/// the job around the step asked for is component 0's.
fn own_profile(spank: &Spank<'_>, delivered: Option<ProfileRequest>) -> Option<ProfileRequest> {
    match components::listed(spank, components::PROFILES) {
        Listed::Delivered => delivered,
        Listed::Own(name) => ProfileRequest::parse(Some(&name?)).ok(),
        Listed::Unknown => None,
    }
}

/// The value of `--efa-hugepages` that holds for a step.
#[derive(Clone, Copy)]
struct OwnHugepages {
    request: Option<Request>,
    /// Not perhaps another component's.
    certain: bool,
}

/// As [`own_profile`]. Component 0's value holds for those that a batch
/// script's list does not reach, unless their own job said otherwise.
fn own_hugepages(spank: &Spank<'_>, delivered: Option<Request>) -> OwnHugepages {
    let listed = components::listed(spank, components::HUGEPAGES);
    let certain = listed != Listed::Unknown;
    let request = match listed {
        Listed::Delivered | Listed::Unknown => delivered,
        Listed::Own(value) => value.and_then(|value| request::hugepages(Some(&value)).ok()),
    };
    OwnHugepages { request, certain }
}

/// Carries out what the configuration and the pure middle decide. `foreign`:
/// the environment is that of another component, which did ask.
fn serve(
    spank: &mut Spank<'_>,
    asked: Option<ProfileRequest>,
    foreign: bool,
    config: &Result<Config, String>,
    container: Option<&'static str>,
) -> Result<Outcome, SpankError> {
    if asked == Some(ProfileRequest::None) {
        return withdraw(spank, "--efa-profile=none");
    }
    let config = match config {
        Ok(config) => config,
        Err(reason) if asked.is_some() => {
            return Ok(Outcome::Fail(format!(
                "--efa-profile cannot be used: {reason}; tell the administrator"
            )));
        }
        // slurmd said so when it started; a job that asked for nothing runs on.
        Err(_) => return nothing_asked(spank, foreign),
    };
    let (request, by_default) = match (asked, config.default_profile.as_deref()) {
        (Some(asked), _) => (asked, false),
        (None, Some(default)) => match ProfileRequest::parse(Some(default.as_bytes())) {
            Ok(ProfileRequest::None | ProfileRequest::List) | Err(_) => {
                return nothing_asked(spank, foreign);
            }
            Ok(default) => (default, true),
        },
        (None, None) => return nothing_asked(spank, foreign),
    };
    match plan_for(spank, &request, config, container) {
        Ok((plan, facts, profile)) => {
            apply(spank, &plan, Some(&facts))?;
            let asked = if by_default {
                format!(
                    "{}: default_profile = \"{}\"",
                    config.path.display(),
                    request.as_str()
                )
            } else {
                format!("--efa-profile={}", request.as_str())
            };
            let explanation = explain::lines(&plan, Some(&facts), &asked);
            // `none`: the node has no EFA devices.
            let in_force = plan.profile.as_deref() == Some(profile.name.as_str());
            Ok(Outcome::Run {
                warnings: plan.warnings,
                explanation,
                in_force: in_force.then(|| Box::new(InForce { profile, facts })),
            })
        }
        // Nobody asked: the job runs without.
        Err(reason) if by_default => {
            log::info(&format!("spank_efa: default profile not used: {reason}"));
            Ok(Outcome::Nothing)
        }
        Err(reason) => Ok(Outcome::Fail(reason)),
    }
}

fn nothing_asked(spank: &mut Spank<'_>, foreign: bool) -> Result<Outcome, SpankError> {
    if foreign {
        withdraw(spank, "another component's profile")
    } else {
        Ok(Outcome::Nothing)
    }
}

/// Takes back what an outer step's profile set.
fn withdraw(spank: &mut Spank<'_>, asked: &str) -> Result<Outcome, SpankError> {
    let plan = plan::none(&|name| spank.env(name).ok().flatten());
    apply(spank, &plan, None)?;
    Ok(Outcome::Run {
        warnings: Vec::new(),
        explanation: explain::lines(&plan, None, asked),
        in_force: None,
    })
}

fn plan_for(
    spank: &Spank<'_>,
    request: &ProfileRequest,
    config: &Config,
    container: Option<&'static str>,
) -> Result<(Plan, NodeFacts, Profile), String> {
    let facts = observe(config, container)?;
    let (profile, auto) = match request {
        ProfileRequest::Named(name) => (profile::resolve(name, config), false),
        _ => (
            profile::for_node(facts.instance.as_ref().ok(), config),
            true,
        ),
    };
    let profile = profile.map_err(|error| error.to_string())?;
    let env = |name: &str| spank.env(name).ok().flatten();
    let plan = plan::plan(&profile, auto, config.harmful, &facts, &env)
        .map_err(|misfit| misfit.to_string())?;
    Ok((plan, facts, profile))
}

/// Reads what this node is.
fn observe(config: &Config, container: Option<&'static str>) -> Result<NodeFacts, String> {
    let name = node_name();
    let sysroot = config
        .sysroot(name.as_ref())
        .map_err(|error| format!("{}: {error}", config.path.display()))?;
    Ok(NodeFacts {
        instance: instance_types::detect(&sysroot).map_err(|error| error.to_string()),
        devices: efa::devices::count(&sysroot)
            .map_err(|error| error.to_string())
            .and_then(|count| u32::try_from(count).map_err(|error| error.to_string())),
        // In a container the host's software says nothing.
        stack: if container.is_some() {
            Stack::default()
        } else {
            Stack::probe(&sysroot)
        },
        name,
        container,
    })
}

/// Sets and removes what the plan says, and tells the job about it.
fn apply(spank: &mut Spank<'_>, plan: &Plan, facts: Option<&NodeFacts>) -> Result<(), SpankError> {
    for entry in &plan.entries {
        match &entry.action {
            Action::Set { value } => spank.set_env(&entry.variable, value, Overwrite::Yes)?,
            Action::Removed => spank.unset_env(&entry.variable)?,
            Action::Kept { .. } | Action::NotSet | Action::Harmful => {}
        }
    }
    let list = provenance::list(plan.entries.iter().filter_map(|entry| match &entry.action {
        Action::Set { value } => Some((entry.variable.as_str(), value.as_str())),
        _ => None,
    }));
    let facts = facts.filter(|_| plan.profile.is_some());
    let values = [
        plan.profile.clone(),
        facts
            .and_then(|facts| facts.instance.as_ref().ok())
            .map(ToString::to_string),
        facts
            .and_then(|facts| facts.devices.as_ref().ok())
            .map(ToString::to_string),
        (!list.is_empty()).then_some(list),
    ];
    for (variable, value) in provenance::REPORT.iter().zip(values) {
        match value {
            Some(value) => spank.set_env(variable, &value, Overwrite::Yes)?,
            None => spank.unset_env(variable)?,
        }
    }
    Ok(())
}
