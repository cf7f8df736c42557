//! The prolog: records the job, has the counters read and reserves its hugepages.

use efa::instance_types;
use host::{Gid, Sysroot};
use hugepages::hugetlb_cgroup::Controller;
use hugepages::machine::{Due, Pages};
use hugepages::{Claim, HugePages, KernelPools, PageClaim, Report};
use jobs::registry::{Job, Registry, Reservation, Start};
use profiles::hugepage_request::{self, Source, Wanted};
use profiles::profile::{self, Profile};
use profiles::request::{self, ProfileRequest};
use slurm::job_control::{self, JobOption};

use crate::called_for::CalledFor;
use crate::log::complain;
use crate::node::{Here, outcome, said};

/// What a record has of a job whose group is not known: chown(2)'s "no group".
const NO_GROUP: Gid = Gid(u32::MAX);

/// What the job asked for, as the prolog sees it: forgeable by its user.
struct Asked {
    profile: Option<ProfileRequest>,
    hugepages: Option<Result<hugepages::Request, String>>,
}

impl Asked {
    fn of_environment() -> Self {
        let value = |option: JobOption| option.value(|name| std::env::var_os(name));
        let (profile, hugepages) = (value(job_control::PROFILE), value(job_control::HUGEPAGES));
        Self {
            // A wrong one is for the steps to report.
            profile: profile.and_then(|value| ProfileRequest::parse(Some(&value)).ok()),
            hugepages: hugepages.map(|value| request::hugepages(Some(&value)).map_err(said)),
        }
    }
}

/// Before the job's first step on this node.
pub fn prolog(called: &CalledFor) -> Result<(), String> {
    let mut here = Here::new(called)?;
    let asked = Asked::of_environment();
    let (profile, devices) = profile_in_force(&here, asked.profile).unzip();
    let mut registry = Registry::open(&here.state).map_err(said)?;
    let start = Start::now(here.boot.clone()).map_err(said)?;
    let gid = called.gid.unwrap_or(NO_GROUP);
    let mut job = Job::new(&here.key, start, called.uid, gid, here.spool());
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
