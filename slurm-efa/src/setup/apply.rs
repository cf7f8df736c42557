//! Makes a plan true, or puts everything back; then what follows from it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use host::Deadline;
use host::state_dir::{Lock, StateDir};
use host::state_layout::DEFAULT as STATE_DIR;
use host::state_layout::setup::LOCK;

use slurm::Program;

use super::discover::Site;
use super::error::SetupError;
use super::files::{self, Content};
use super::parts::Item;
use super::paths::{BACKUPS, EFA_CHECK, EPILOGS, PROLOGS, SSHD};
use super::plan::Plan;
use super::run;
use super::units;
use super::verify;
use cluster::Role;

/// How long another set-up is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// Takes the lock of set-ups.
///
/// # Errors
/// Another one has it.
pub fn lock(site: &Site) -> Result<Lock, SetupError> {
    let busy = |error: host::state_dir::StateError| SetupError::Busy(error.to_string());
    let state = StateDir::open(&site.place(STATE_DIR)).map_err(busy)?;
    state.lock(LOCK, Deadline::after(LOCK_LIMIT)).map_err(busy)
}

/// Makes a plan true, or puts everything back.
///
/// # Errors
/// What refused.
pub fn apply(site: &Site, plan: &Plan) -> Result<(), SetupError> {
    let backup = site.place(BACKUPS).join(stamp());
    // Also beside what needs no change any more: a run that was killed had changed it.
    let role = site.role().ok();
    let edited = role.map_or_else(Vec::new, |it| site.edited(Some(it)));
    let edited = edited.iter().map(|it| files::resolved(it));
    let changed = plan.changes.iter().map(|it| it.path.clone());
    changed.chain(edited).for_each(|it| files::sweep_path(&it));
    let before = verify::before_pam(site, plan)?;
    if !plan.changes.is_empty() {
        files::back_up(&backup, &plan.changes)?;
    }
    let made = files::make(plan.changes.clone()).inspect_err(|_| drop_backup(&backup))?;
    match verify::judge(site, plan, &before) {
        Ok(()) => {
            made.keep();
            remove_empty(site, plan);
            Ok(())
        }
        Err(reason) => match made.put_back() {
            Ok(()) => {
                drop_backup(&backup);
                Err(SetupError::Refused(reason))
            }
            Err(error) => Err(SetupError::Stuck(
                reason,
                error.to_string(),
                backup.to_string_lossy().into_owned(),
            )),
        },
    }
}

/// Removes the copies of what is as it was: a setup that is refused may be tried again
/// and again, by a lifecycle script at each boot.
fn drop_backup(backup: &Path) {
    // There is none where nothing was to be changed.
    let _ = std::fs::remove_dir_all(backup);
}

/// A folder that set-up made for its links goes with the last of them. One with
/// programs of the site's is not empty and stays.
fn remove_empty(site: &Site, plan: &Plan) {
    let mut folders = [PROLOGS, EPILOGS].map(|it| site.place(it)).to_vec();
    let drop_ins = units::DAEMONS.iter().map(|it| it.drop_in(site));
    folders.extend(drop_ins.filter_map(|it| Some(it.parent()?.to_owned())));
    for folder in folders {
        let links = plan
            .changes
            .iter()
            .filter(|it| it.path.starts_with(&folder));
        if links.into_iter().any(|it| it.after == Content::Nothing) {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn stamp() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map(|it| it.as_secs()).unwrap_or_default();
    format!("{seconds}-{}", std::process::id())
}

/// What is run once the files are in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// slurmctld reads its files again.
    Reconfigure,
    /// The number of the node's devices is recorded.
    Baseline,
    /// A daemon is enabled and started.
    Start(&'static str),
    /// A daemon is stopped and disabled.
    Stop(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reconfigure => f.write_str("scontrol reconfigure"),
            Self::Baseline => f.write_str("efa-check baseline"),
            Self::Start(unit) => write!(f, "systemctl enable --now {unit}"),
            Self::Stop(unit) => write!(f, "systemctl disable --now {unit}"),
        }
    }
}

/// The steps that follow from a plan.
#[must_use]
pub fn steps(site: &Site, role: Role, plan: &Plan, reconfigure: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // Also where nothing changed: another node may have, of files that all share.
    if reconfigure && role == Role::Controller {
        steps.push(Step::Reconfigure);
    }
    let records = role == Role::Compute && plan.scope.makes(Item::EfaCheck);
    if records && !super::discover::expectation(site).exists() {
        steps.push(Step::Baseline);
    }
    if units::systemctl(site).is_some() {
        let gres = role == Role::Compute && site.has_section("gres");
        let units = units::units(plan, &stack_after(site, plan), gres);
        steps.extend(units.start.into_iter().map(Step::Start));
        steps.extend(units.stop.into_iter().map(Step::Stop));
    }
    steps
}

/// The text of sshd's stack once the plan is carried out.
fn stack_after(site: &Site, plan: &Plan) -> String {
    let sshd = site.place(SSHD);
    let change = plan
        .changes
        .iter()
        .find(|it| verify::is_same(&sshd, &it.path));
    match change.map(|it| &it.after) {
        Some(Content::Text(text)) => text.clone(),
        Some(_) => String::new(),
        None => std::fs::read_to_string(&sshd).unwrap_or_default(),
    }
}

/// What did not succeed once the files were in place; it undoes nothing.
#[derive(Debug, Default)]
pub struct Followed {
    /// What somebody should look at.
    pub notes: Vec<String>,
    /// Daemons that did not start.
    pub failures: Vec<String>,
}

/// Runs the steps.
#[must_use]
pub fn follow_up(site: &Site, plan: &Plan, steps: &[Step]) -> Followed {
    let mut followed = Followed::default();
    for step in steps {
        match step {
            Step::Reconfigure => followed.notes.extend(ask_controller(site).err()),
            Step::Baseline => followed.notes.extend(record(site).err()),
            Step::Start(unit) => followed
                .failures
                .extend(units::start(site, plan, unit).err()),
            Step::Stop(unit) => units::stop(site, unit),
        }
    }
    followed
}

/// slurmctld reads its files again and hands them to configless nodes. No daemon
/// is restarted.
fn ask_controller(site: &Site) -> Result<(), String> {
    let ran = run::slurms(site, Program::Scontrol, &["reconfigure"])?;
    if ran.success() {
        return Ok(());
    }
    Err(format!(
        "could not reconfigure slurmctld ({}); run `scontrol reconfigure` once it is up",
        run::complaint(&ran)
    ))
}

/// What efa-check expects from now on, unless it knows.
fn record(site: &Site) -> Result<(), String> {
    let program = site.place(EFA_CHECK);
    let config = site.wanted.config.as_deref().map(Path::to_string_lossy);
    let mut arguments = vec!["baseline"];
    arguments.extend(config.as_deref().map(|_| "--config"));
    arguments.extend(config.as_deref());
    let ran = run::run(&program, &arguments)?;
    if ran.success() {
        return Ok(());
    }
    Err(format!(
        "the number of this node's EFA devices is not recorded: {}",
        run::complaint(&ran)
    ))
}
