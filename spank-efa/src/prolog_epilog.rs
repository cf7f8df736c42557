//! `slurmstepd spank prolog` and `epilog`: root, once for each job on each node.
//!
//! The prolog records the job, has the counters read and reserves its hugepages;
//! the epilog reports, forgets the job and gives back. Neither ever returns an
//! error: that would drain the node. What is wrong with a *job* is written into
//! its record, and its tasks end with that sentence (see `slurmstepd.rs`); what is
//! wrong with the *node* is logged, and the job runs as it would without us.

use std::path::{Path, PathBuf};

use config::Config;
use efa::instance_types;
use host::BootId;
use host::Deadline;
use host::Sysroot;
use host::state_dir::StateDir;
use host::{Gid, Uid};
use hugepages::hugetlb_cgroup::{Controller, Groups};
use hugepages::machine::{Due, Pages};
use hugepages::{Claim, HugePages, KernelPools, PageClaim, Report, Settings};
use jobs::registry;
use jobs::registry::{Job, Registry, Reservation, Start};
use jobs::sweep::{self, Census, EPILOG_TIME, Remains, Swept};
use slurm::hostlist;
use slurm::installation;
use slurm::{Installation, NodeName};
use slurm::{JobId, JobKey};
use spank::{Spank, log};

use crate::arguments::Arguments;
use crate::options;
use crate::options::OPTIONS;
use crate::usage::{self, Before, Books, Counters};
use profiles::hugepage_request;
use profiles::hugepage_request::{Source, Wanted};
use profiles::profile;
use profiles::profile::Profile;
use profiles::request;
use profiles::request::ProfileRequest;
use slurm::slurmstepd::node_name;

/// What prolog and epilog work with.
struct Here {
    config: Config,
    settings: Settings,
    key: JobKey,
    sysroot: Sysroot,
    state: StateDir,
    boot: BootId,
    spool: Result<PathBuf, String>,
}

impl Here {
    fn new(spank: &Spank<'_>, arguments: &Arguments) -> Result<Self, String> {
        let config = arguments.load_config()?;
        let settings = Settings::of(&config).map_err(said)?;
        let node = node_name().ok_or("Slurm does not tell this node's name")?;
        let sysroot = config.sysroot(Some(&node)).map_err(said)?;
        let place = config.state_dir(Some(&node)).map_err(said)?;
        let state = StateDir::open(&place).map_err(said)?;
        let spank::JobId(job) = spank.job_id().map_err(said)?;
        let conf = installation::slurm_conf_of_environment();
        let slurm = Installation::discover(conf.as_deref());
        Ok(Self {
            settings,
            spool: slurm.spool_dir(&node),
            key: JobKey {
                job: JobId(job),
                node,
            },
            config,
            sysroot,
            state,
            boot: BootId::current().map_err(said)?,
        })
    }

    fn node(&self) -> &NodeName {
        &self.key.node
    }

    fn counters<'a>(&'a self, job: &'a Job) -> Counters<'a> {
        Counters {
            sysroot: &self.sysroot,
            state: self.state.path(),
            known: &job.devices,
        }
    }

    /// Where the sockets of this node's steps lie. Where that is not known, a
    /// place without any: jobs then count as existing rather than gone.
    fn spool(&self) -> PathBuf {
        self.spool
            .clone()
            .unwrap_or_else(|_| PathBuf::from("/nonexistent"))
    }

    /// For whatever reconciles: the jobs of this node.
    fn census(&self) -> Census {
        Census {
            boot: self.boot.clone(),
            node: Some(self.node().clone()),
            spool: self.spool.clone().ok(),
            deadline: Deadline::after(self.settings.time_limit),
            epilog_time: EPILOG_TIME,
            starting: None,
        }
    }

    /// Removes what jobs left whose epilogs were killed.
    fn sweep(&self, registry: &mut Registry, pages: &mut Pages<'_>) -> Swept {
        let mut groups = Groups;
        let mut owners = self.owners(pages, &mut groups);
        let census = Census {
            starting: Some(self.key.clone()),
            ..self.census()
        };
        let swept = sweep::sweep(Some(registry), &self.state, &census, &mut owners);
        complain_of(&swept.failed);
        swept
    }

    /// Gives back what a job had whose record was removed.
    fn give_back(&self, registry: &Registry, pages: &mut Pages<'_>) {
        let mut groups = Groups;
        let mut owners = self.owners(pages, &mut groups);
        complain_of(&sweep::remains(
            Some(registry),
            &self.census(),
            &[],
            &mut owners,
        ));
    }

    fn owners<'a>(
        &self,
        pages: &'a mut Pages<'_>,
        groups: &'a mut Groups,
    ) -> Vec<&'a mut dyn Remains> {
        match self.settings.isolate {
            true => vec![pages, groups],
            false => vec![pages],
        }
    }
}

fn complain_of(failed: &[String]) {
    for reason in failed {
        complain("what jobs left", reason);
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn complain(what: &str, reason: &str) {
    log::error(&format!("spank_efa: {what}: {reason}"));
}

/// For the administrator: what was changed by others, and what is wrong.
fn tell(report: &Report) {
    for it in &report.noticed {
        log::info(&format!(
            "spank_efa: others changed the {} from {} to {}; the pages beside the jobs' are now {}",
            it.pool, it.expected, it.found, it.baseline
        ));
    }
    for problem in &report.problems {
        complain("hugepages", &problem.to_string());
    }
}

/// What the job asked for, as the prolog sees it: forgeable by its user.
struct Asked {
    profile: Option<ProfileRequest>,
    hugepages: Option<Result<hugepages::Request, String>>,
}

impl Asked {
    fn of(spank: &Spank<'_>) -> Self {
        let mut asked = Self {
            profile: None,
            hugepages: None,
        };
        // A missing option is not an error, and a wrong one is for the steps to tell.
        let _ = spank.job_script_option(&OPTIONS[options::PROFILE], |value| {
            asked.profile = ProfileRequest::parse(value).ok();
        });
        let _ = spank.job_script_option(&OPTIONS[options::HUGEPAGES], |value| {
            asked.hugepages = Some(request::hugepages(value).map_err(said));
        });
        asked
    }
}

/// Before the job's first step on this node.
pub fn prolog(spank: &Spank<'_>, arguments: &Arguments) {
    if let Err(reason) = try_prolog(spank, arguments) {
        complain("prolog", &reason);
    }
}

fn try_prolog(spank: &Spank<'_>, arguments: &Arguments) -> Result<(), String> {
    let mut here = Here::new(spank, arguments)?;
    let asked = Asked::of(spank);
    let (profile, devices) = profile_in_force(&here, asked.profile).unzip();
    let mut registry = Registry::open(&here.state).map_err(said)?;
    let (spank::Uid(uid), spank::Gid(gid)) =
        (spank.uid().map_err(said)?, spank.gid().map_err(said)?);
    let start = Start::now(here.boot.clone()).map_err(said)?;
    let mut job = Job::new(&here.key, start, Uid(uid), Gid(gid), here.spool());
    if let Some(profile) = &profile {
        job.profile = Some(profile.name.clone());
        job.counting = true;
    }
    job.devices = devices.unwrap_or_default();
    // Known before the job has its pages: its steps can then tell that the
    // prolog did not come to its end.
    let wanted = match asked.hugepages {
        Some(Err(sentence)) => {
            job.reservation = Some(Reservation {
                refused: Some(sentence),
                ..Reservation::default()
            });
            None
        }
        option => {
            let option = option.and_then(Result::ok);
            hugepage_request::in_force(option, profile.as_ref(), &here.settings)
        }
    };
    job.hugepages = wanted.as_ref().map(|wanted| wanted.request.to_string());
    // Before anything is taken in its name: what has no record may be taken back.
    registry.begin(&mut here.state, &job).map_err(said)?;
    let mut failed_to_count = false;
    if profile.is_some()
        && let Err(reason) = here.counters(&job).keep(&job)
    {
        complain("the job's counters", &reason);
        failed_to_count = true;
    }
    job.others_at_start = sweep_and_reserve(&here, &mut registry, &mut job, wanted.as_ref());
    if here.settings.isolate {
        fence(&here, job.reservation.as_ref());
    }
    if job.others_at_start || wanted.is_some() || failed_to_count {
        let (others, reservation) = (job.others_at_start, job.reservation);
        registry
            .amend(&here.key, &job.start, |job| {
                job.others_at_start = others;
                job.reservation = reservation;
                job.counting &= !failed_to_count;
            })
            .map_err(said)?;
    }
    Ok(())
}

/// The sweep of a prolog, which reserves the pages that the job wants; whether
/// other jobs are on this node.
fn sweep_and_reserve(
    here: &Here,
    registry: &mut Registry,
    job: &mut Job,
    wanted: Option<&Wanted>,
) -> bool {
    let claim = wanted.map(|wanted| claim(here, job, wanted));
    let swept = match &claim {
        Some(Ok(claim)) => {
            let mut pages = Pages::with_claim(&here.state, claim);
            let swept = here.sweep(registry, &mut pages);
            job.reservation = Some(reservation(here, claim, outcome(pages)));
            swept
        }
        _ => {
            let mut pages = Pages::of(&here.state, Due::IfGone);
            let swept = here.sweep(registry, &mut pages);
            if let Some(Err(reason)) = outcome(pages) {
                complain("hugepages", &reason);
            }
            swept
        }
    };
    if let Some(Err(refused)) = claim {
        job.reservation = Some(refused);
    }
    swept.has_others(job.job)
}

/// What a reconciliation did, of which the administrator is told.
fn outcome(pages: Pages<'_>) -> Option<Result<Report, String>> {
    let outcome = pages.outcome()?.map_err(said);
    if let Ok(report) = &outcome {
        tell(report);
    }
    Some(outcome)
}

/// The profile that the job's steps will have on this node, if they will have
/// one, and the node's EFA devices.
fn profile_in_force(here: &Here, asked: Option<ProfileRequest>) -> Option<(Profile, Vec<String>)> {
    let default = || {
        let default = here.config.default_profile.as_deref()?;
        ProfileRequest::parse(Some(default.as_bytes())).ok()
    };
    let request = asked.or_else(default)?;
    if matches!(request, ProfileRequest::None | ProfileRequest::List) {
        return None;
    }
    let instance = instance_types::detect(&here.sysroot).ok();
    // A name that does not exist is for the steps to tell.
    let profile = match request {
        ProfileRequest::Named(name) => profile::resolve(&name, &here.config),
        _ => profile::for_node(instance.as_ref(), &here.config),
    }
    .ok()?;
    let fits = instance.is_none_or(|instance| profile.fit.accepts(&instance));
    let devices = efa::devices::names(&here.sysroot, &[]).ok()?.efa;
    (fits && !devices.is_empty()).then_some((profile, devices))
}

/// Why a job has no pages that this node should have given it.
fn no_pages(here: &Here, reason: &str) -> Reservation {
    complain("hugepages", reason);
    let node = here.node();
    Reservation {
        short: Some(format!(
            "no hugepages could be reserved on {node}: {reason}; tell the administrator"
        )),
        ..Reservation::default()
    }
}

/// The pages that the job is to have, or why it has none.
fn claim(here: &Here, job: &Job, wanted: &Wanted) -> Result<Claim, Reservation> {
    let none = |reason: &str| no_pages(here, reason);
    let memory = KernelPools::new(Sysroot::real())
        .and_then(|pools| pools.memory())
        .map_err(|error| none(&error.to_string()))?;
    // Without it nobody could tell when the job is gone.
    let spool_dir = here.spool.clone().map_err(|reason| none(&reason))?;
    let settings = &here.settings;
    let cpus = hugepage_request::cpus(&here.sysroot);
    let pages = hugepage_request::decide(wanted, settings, cpus, memory);
    let pages = pages.inspect_err(|refused| {
        if wanted.source != Source::Option {
            complain("hugepages", refused.short.as_deref().unwrap_or_default());
        }
    })?;
    Ok(Claim {
        key: here.key.clone(),
        start: job.start.clone(),
        spool_dir,
        wishes: vec![PageClaim {
            size: settings.page_size,
            pages,
            spread: settings.spread,
        }],
    })
}

/// What came of a claim.
fn reservation(here: &Here, claim: &Claim, outcome: Option<Result<Report, String>>) -> Reservation {
    let report = match outcome {
        Some(Ok(report)) => report,
        Some(Err(reason)) => return no_pages(here, &reason),
        None => return no_pages(here, "they were not reconciled"),
    };
    let size = here.settings.page_size;
    let wanted: HugePages = claim.wishes.iter().map(|wish| wish.pages).sum();
    let got = report.claimed.map_or(HugePages::ZERO, |it| it.total(size));
    let (got_mib, wanted_mib) = (size.total(got).mebibytes(), size.total(wanted).mebibytes());
    let short = (got < wanted).then(|| {
        let node = here.node();
        let why = "the other memory is in use, or too scattered for pages of this size";
        format!(
            "{got_mib} of {wanted_mib} MiB of hugepages could be reserved on {node}: {why}; \
             libfabric uses normal pages instead, which is a little slower"
        )
    });
    Reservation {
        mib: got_mib,
        wanted_mib,
        refused: None,
        short,
    }
}

/// Makes the job's fence, where the kernel has one. That it has none was said
/// when slurmd started.
fn fence(here: &Here, reservation: Option<&Reservation>) {
    let limits = hugepage_request::limits(&here.settings, reservation);
    let made = match Controller::find() {
        Ok(Some(controller)) => controller.prepare(&here.key, &limits).map_err(said),
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = made {
        complain("isolate", &reason);
    }
}

/// After the job's last step on this node; also where no prolog ran.
pub fn epilog(spank: &Spank<'_>, arguments: &Arguments) {
    if let Err(reason) = try_epilog(spank, arguments) {
        complain("epilog", &reason);
    }
}

fn try_epilog(spank: &Spank<'_>, arguments: &Arguments) -> Result<(), String> {
    let here = Here::new(spank, arguments)?;
    let mut registry = Registry::open(&here.state).map_err(said)?;
    // Whatever of this fails, the rest is tried: a later one repairs it.
    let ended = match registry.get(&here.key) {
        Ok(Some(job)) => {
            if let Err(reason) = report(&here, &job) {
                complain("the job's report", &reason);
            }
            registry.end(&here.state, &job)
        }
        Ok(None) => Ok(()),
        Err(problem) => {
            complain("registry", &problem.to_string());
            registry.end_unreadable(&here.state, &here.key)
        }
    };
    let mut pages = Pages::of(&here.state, Due::IfGranted);
    here.give_back(&registry, &mut pages);
    if let Some(Err(reason)) = outcome(pages) {
        complain("hugepages", &reason);
    }
    ended.map_err(said)
}

/// Writes the record of the whole job on this node, if its prolog counted.
fn report(here: &Here, job: &Job) -> Result<(), String> {
    if !job.counting {
        return Ok(());
    }
    let books = Books::of(&here.config, here.node())?;
    let mut record = usage::blank(job.job.0, here.node(), job.uid.0);
    record.profile.clone_from(&job.profile);
    record.start_id = Some(job.start.nonce.clone());
    record.instance_type = instance_types::detect(&here.sysroot)
        .ok()
        .map(|instance| instance.to_string());
    // slurmd's, not the user's: only SPANK_… comes from there.
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    record.restart = number("SLURM_JOB_RESTART_COUNT").or_else(|| number("SLURM_RESTART_COUNT"));
    record.node_list = std::env::var("SLURM_NODELIST")
        .or_else(|_| std::env::var("SLURM_JOB_NODELIST"))
        .ok();
    let names = record.node_list.as_deref().and_then(hostlist::expand);
    if let Some(names) = names {
        record.nodes = u32::try_from(names.len()).ok();
        let place = names.iter().position(|name| name == here.node());
        record.node_index = place.and_then(|place| u32::try_from(place).ok());
    }
    record.shared = registry::shared(&here.state, job);
    record.lustre = usage::lustre(&here.sysroot);
    let before = Before::Kept(&here.state, &here.key);
    let start_ns = job.start.since_boot_ms.saturating_mul(1_000_000);
    here.counters(job).close(&mut record, before, start_ns);
    books.write(&record);
    Ok(())
}

/// The job's record on this node, for its steps. `None`: its prolog did not run.
pub fn registered(place: &Path, key: &JobKey) -> Result<Option<(StateDir, Job)>, String> {
    let Some(state) = StateDir::open_existing(place).map_err(said)? else {
        return Ok(None);
    };
    let Some(registry) = Registry::open_existing(&state).map_err(said)? else {
        return Ok(None);
    };
    let job = registry.get(key).map_err(said)?;
    Ok(job.map(|job| (state, job)))
}

/// For the extern step: notes in the job's record that there is one.
pub fn note_contained(place: &Path, key: &JobKey) -> Result<(), String> {
    let Some(state) = StateDir::open_existing(place).map_err(said)? else {
        return Ok(());
    };
    match Registry::open_existing(&state).map_err(said)? {
        Some(mut registry) => registry.note_contained(key).map_err(said),
        None => Ok(()),
    }
}
