//! What the daemon knows, and what of it lies in files.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use host::process::ProcessIdentity;
use host::state_dir::{Lock, StateDir, Store};
use host::state_layout::job;
use host::state_layout::login::{DAEMON_LOCK, NOTICES};
use host::{BootId, Deadline, Uid};
use jobs::registry::Registry;
use logins::clock::BootTime;
use logins::group;
use logins::idle::Activity;
use logins::policy::Notice;
use logins::process::Processes;
use logins::session::{Records, Session};
use logins::settings::Settings;
use logins::terminate::PendingTermination;
use slurm::JobId;

use super::error::DaemonError;
use super::notices::{NoticeRecord, notice_name, read_notices};
use super::watches::{RECORDS, Watches};

/// How long a second daemon waits for the first one to end, at a restart.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// Sessions that are being ended.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) termination: PendingTermination,
    /// They end because they are idle, whether the user has a job or not.
    pub(super) idle: bool,
}

/// The daemon's knowledge.
pub struct Daemon {
    pub(super) settings: Settings,
    pub(super) boot: BootId,
    pub(super) records: Records,
    pub(super) notices_dir: StateDir,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) notices: BTreeMap<Uid, Notice>,
    pub(super) endings: Vec<Pending>,
    /// Of sessions without a group whose leader has ended: how many looks in a
    /// row have found nothing of them.
    pub(super) gone: BTreeMap<ProcessIdentity, u32>,
    /// When users were seen with a job last.
    pub(super) had_job: BTreeMap<Uid, BootTime>,
    pub(super) activity: Activity,
    pub(super) used: BTreeMap<ProcessIdentity, BootTime>,
    pub(super) idle_warned: BTreeMap<ProcessIdentity, BootTime>,
    pub(super) next_sample: Option<BootTime>,
    pub(super) watches: Watches,
    pub(super) watched_jobs: BTreeSet<JobId>,
    pub(super) last_doubts: Vec<String>,
    pub(super) said: BTreeSet<String>,
    /// The processes as this turn saw them, once it needed to.
    pub(super) processes: Option<Rc<Processes>>,
    _lock: Lock,
}

impl Daemon {
    /// Takes the daemon's lock and reads what an earlier daemon left.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn new(settings: Settings) -> Result<Self, DaemonError> {
        let state = StateDir::open(&settings.state_dir)?;
        let lock = state.lock(DAEMON_LOCK, Deadline::after(TAKE_OVER))?;
        let mut records = Records::open(&state)?;
        records.sweep()?;
        // Made here so that it can be watched before the first job.
        Registry::open(&state)?;
        let mut watches = Watches::new()?;
        watches.add(records.path(), RECORDS);
        watches.add(&settings.state_dir.join(job::RECORDS), RECORDS);
        let mut notices_dir = state.folder(NOTICES)?;
        notices_dir.sweep()?;
        group::thaw_all();
        group::sweep();
        let boot = BootId::current()?;
        let (notices, had_job) = read_notices(&mut notices_dir, &boot, settings.dry_run)?;
        Ok(Self {
            settings,
            boot,
            records,
            notices_dir,
            sessions: BTreeMap::new(),
            notices,
            endings: Vec::new(),
            gone: BTreeMap::new(),
            had_job,
            activity: Activity::default(),
            used: BTreeMap::new(),
            idle_warned: BTreeMap::new(),
            next_sample: None,
            watches,
            watched_jobs: BTreeSet::new(),
            last_doubts: Vec::new(),
            said: BTreeSet::new(),
            processes: None,
            _lock: lock,
        })
    }

    /// All processes, looked at once in a turn however many users it is about.
    /// Whoever sends a signal makes sure that the process is still the same.
    pub(super) fn processes(&mut self) -> Option<Rc<Processes>> {
        if self.processes.is_none() {
            self.processes = Processes::scan().ok().map(Rc::new);
        }
        self.processes.clone()
    }

    pub(super) fn keep(&mut self, uid: Uid, notice: Notice) {
        if self.notices.insert(uid, notice) == Some(notice) {
            return;
        }
        let kept = NoticeRecord {
            boot: self.boot.clone(),
            uid,
            notice,
            dry: self.settings.dry_run,
            had_job: self.had_job.get(&uid).copied(),
        };
        let written = serde_json::to_vec(&kept)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let name = notice_name(uid);
                self.notices_dir
                    .write(&name, &bytes)
                    .map_err(|error| error.to_string())
            });
        // The deadline is then known to this daemon only: a later one gives a
        // new grace, which ends nobody too early.
        if let Err(reason) = written {
            self.say_once(reason);
        }
    }

    pub(super) fn forget(&mut self, uid: Uid) {
        if self.notices.remove(&uid).is_some()
            && let Err(error) = self.notices_dir.remove(&notice_name(uid))
        {
            self.say_once(error.to_string());
        }
    }
}
