//! Which users have jobs on this node: the registry and slurmstepd's sockets
//! together, without libslurm and without asking a controller.
//!
//! Failure direction: whatever cannot be read leaves a *doubt*, and with a
//! doubt no user is said to have no job.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::BootId;
use host::Deadline;
use host::printable;
use host::state_dir::{StateDir, StateError};
use host::state_layout::job::RECORDS;
use host::{Pid, Uid};
use jobs::registry;
use jobs::registry::Registry;
use jobs::{Existence, JobIndex};
use slurm::NodeName;
use slurm::installation::USUAL_SPOOLS;
use slurm::stepd_sockets::{JobState, Limits, Sockets};
use slurm::{JobId, JobKey};

use crate::settings::Settings;

/// A job that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// When its prolog ran, in milliseconds since boot, if the registry knows.
    pub since_boot_ms: Option<u64>,
    /// Its EFA profile, if the registry knows.
    pub profile: Option<String>,
    /// Its GPUs' UUIDs, if the registry knows.
    pub gpus: Vec<String>,
}

/// What is known of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The user has a job here.
    Has,
    /// Registry and sockets both say that there is none.
    None,
    /// It could not be found out.
    Unknown,
}

/// One look at the node's jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    by_user: BTreeMap<Uid, Vec<Job>>,
    doubts: Vec<String>,
    spools: BTreeSet<PathBuf>,
}

impl Jobs {
    /// Looks. Never longer than `limit`, apart from reading local files.
    #[must_use]
    pub fn look(settings: &Settings, limit: Duration) -> Self {
        let deadline = Deadline::after(limit);
        let mut jobs = Self::default();
        let recorded = jobs.add_recorded(settings, deadline);
        jobs.choose_spools(settings);
        for spool in jobs.spools.clone() {
            jobs.add_live(&spool, &recorded, deadline);
        }
        jobs
    }

    /// Looks for one user only, until a job is found: of those in the registry
    /// the one that started last, or if it knows none, the highest id that a
    /// slurmstepd answers for. So a login waits neither for all records nor for
    /// all slurmstepds of a node.
    #[must_use]
    pub fn look_for(settings: &Settings, uid: Uid, limit: Duration) -> Self {
        let deadline = Deadline::after(limit);
        let mut jobs = Self::default();
        let recorded = jobs.find_recorded(settings, uid, deadline);
        if jobs.of(uid) == Presence::Has {
            return jobs;
        }
        jobs.choose_spools(settings);
        for spool in jobs.spools.clone() {
            jobs.find_live(&spool, uid, &recorded, deadline);
        }
        jobs
    }

    /// Whether the user has a job.
    #[must_use]
    pub fn of(&self, uid: Uid) -> Presence {
        if self.by_user.contains_key(&uid) {
            Presence::Has
        } else if self.doubts.is_empty() {
            Presence::None
        } else {
            Presence::Unknown
        }
    }

    /// The user's jobs, oldest first as far as the registry knows, then by id.
    #[must_use]
    pub fn list(&self, uid: Uid) -> &[Job] {
        self.by_user.get(&uid).map_or(&[], Vec::as_slice)
    }

    /// Everyone who has a job.
    pub fn users(&self) -> impl Iterator<Item = (Uid, &[Job])> {
        self.by_user.iter().map(|(uid, jobs)| (*uid, &jobs[..]))
    }

    /// Why it is not certain that these are all jobs; safe to print.
    #[must_use]
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// The spool directories that were looked at.
    #[must_use]
    pub fn spools(&self) -> &BTreeSet<PathBuf> {
        &self.spools
    }

    /// The slurmstepds of these users' jobs.
    #[must_use]
    pub fn stepds(&self, users: &BTreeSet<Uid>) -> BTreeSet<Pid> {
        let ids: BTreeSet<JobId> = users
            .iter()
            .flat_map(|uid| self.list(*uid))
            .map(|job| job.id)
            .collect();
        let mut pids = BTreeSet::new();
        for spool in &self.spools {
            for sockets in Sockets::of_all_nodes(spool).unwrap_or_default().values() {
                let ours = sockets.jobs().filter(|job| ids.contains(job));
                pids.extend(ours.flat_map(|job| sockets.listeners(job)));
            }
        }
        pids
    }

    fn doubt(&mut self, reason: impl std::fmt::Display) {
        self.doubts.push(printable(&reason.to_string(), 300));
    }

    fn add(&mut self, uid: Uid, job: Job) {
        let jobs = self.by_user.entry(uid).or_default();
        jobs.push(job);
        jobs.sort_by_key(|job| (job.since_boot_ms, job.id));
    }

    /// The registry, if there is one; in doubt, none.
    fn registry(&mut self, settings: &Settings) -> Option<(StateDir, Registry, BootId)> {
        let open = || {
            let Some(state) = StateDir::open_existing(&settings.state_dir)? else {
                return Ok(None);
            };
            let registry = Registry::open_existing(&state)?;
            Ok(registry.map(|registry| (state, registry)))
        };
        let opened: Result<_, StateError> = open();
        let (state, registry) = opened.unwrap_or_else(|error| {
            self.doubt(error);
            None
        })?;
        match BootId::current() {
            Ok(boot) => Some((state, registry, boot)),
            Err(error) => {
                self.doubt(error);
                None
            }
        }
    }

    /// Adds what the registry knows; returns the jobs that it answers for.
    fn add_recorded(&mut self, settings: &Settings, deadline: Deadline) -> BTreeSet<JobKey> {
        let mut recorded = BTreeSet::new();
        let Some((_, registry, boot)) = self.registry(settings) else {
            return recorded;
        };
        let mut known = JobIndex::read(&registry, boot, None, deadline);
        let records: Vec<_> = known.jobs().cloned().collect();
        for record in records {
            self.spools.insert(record.spool_dir.clone());
            let key = record.key();
            if self.judge(&mut known, record) {
                recorded.insert(key);
            }
        }
        self.doubt_unless_complete(&known, settings);
        recorded
    }

    /// The same until a job of this user is found; returns the jobs that have
    /// a record.
    fn find_recorded(
        &mut self,
        settings: &Settings,
        uid: Uid,
        deadline: Deadline,
    ) -> BTreeSet<JobKey> {
        let mut recorded = BTreeSet::new();
        let Some((state, registry, boot)) = self.registry(settings) else {
            return recorded;
        };
        let mut known = JobIndex::of_none(boot, None, deadline);
        if let Some(key) = registry::latest(&state, uid)
            && let Some(record) = known.learn(&registry, &key).cloned()
            && record.uid == uid
            && known.existence(&key, None) == Existence::Exists
        {
            self.add_record(record);
            return recorded;
        }
        let keys = registry.keys().unwrap_or_else(|error| {
            self.doubt(error);
            Vec::new()
        });
        let mut own = Vec::new();
        for key in keys {
            let Some(record) = known.learn(&registry, &key).cloned() else {
                continue;
            };
            self.spools.insert(record.spool_dir.clone());
            recorded.insert(key);
            if record.uid == uid {
                own.push(record);
            }
        }
        own.sort_by_key(|record| Reverse((record.start.since_boot_ms, record.job)));
        for record in own {
            if self.judge(&mut known, record) {
                return recorded;
            }
        }
        self.doubt_unless_complete(&known, settings);
        recorded
    }

    fn add_record(&mut self, record: registry::Job) {
        let job = Job {
            id: record.job,
            since_boot_ms: Some(record.start.since_boot_ms),
            profile: record.profile,
            gpus: record.gpus,
        };
        self.add(record.uid, job);
    }

    /// Adds a job with a record if it exists.
    fn judge(&mut self, known: &mut JobIndex, record: registry::Job) -> bool {
        let key = record.key();
        match known.existence(&key, None) {
            Existence::Exists => {
                self.add_record(record);
                true
            }
            Existence::Gone => false,
            Existence::Unknown => {
                self.doubt(format_args!("job {key}: whether it exists is unknown"));
                false
            }
        }
    }

    fn doubt_unless_complete(&mut self, known: &JobIndex, settings: &Settings) {
        if known.in_doubt() {
            self.doubt(format_args!(
                "{}: a job's record there cannot be read",
                settings.state_dir.join(RECORDS).display()
            ));
        }
    }

    fn choose_spools(&mut self, settings: &Settings) {
        if let Some(spool) = &settings.spool_dir {
            self.spools.insert(spool.clone());
            return;
        }
        let usual = USUAL_SPOOLS.iter().map(Path::new);
        let present = usual.filter(|path| path.is_dir()).map(Path::to_owned);
        self.spools.extend(present);
        if self.spools.is_empty() {
            self.doubt(format_args!(
                "none of {} exists; set spool_dir in [logout] to SlurmdSpoolDir of \
                 `scontrol show config`",
                USUAL_SPOOLS.join(", ")
            ));
        }
    }

    fn add_live(&mut self, spool: &Path, recorded: &BTreeSet<JobKey>, deadline: Deadline) {
        for (node, sockets) in self.sockets(spool) {
            let known = |job| recorded.contains(&key(job, &node));
            let live = sockets.live(|job| !known(job), limits(deadline));
            for (job, state) in live {
                self.note(spool, job, state);
            }
        }
    }

    fn find_live(
        &mut self,
        spool: &Path,
        uid: Uid,
        recorded: &BTreeSet<JobKey>,
        deadline: Deadline,
    ) {
        for (node, sockets) in self.sockets(spool) {
            let jobs = sockets.jobs();
            let mut unknown: Vec<JobId> = jobs
                .filter(|job| !recorded.contains(&key(*job, &node)))
                .collect();
            // The highest id is the newest, as far as sockets tell. Where that is
            // another's, twice as many are asked together each time.
            let mut together = 1;
            while !unknown.is_empty() {
                let highest = unknown.split_off(unknown.len().saturating_sub(together));
                together *= 2;
                let live = sockets.live(|job| highest.contains(&job), limits(deadline));
                for (job, state) in live.into_iter().rev() {
                    self.note(spool, job, state);
                    if self.of(uid) == Presence::Has {
                        return;
                    }
                }
            }
        }
    }

    /// All sockets in a spool directory; in doubt, none.
    fn sockets(&mut self, spool: &Path) -> BTreeMap<NodeName, Sockets> {
        Sockets::of_all_nodes(spool).unwrap_or_else(|error| {
            self.doubt(error);
            BTreeMap::new()
        })
    }

    fn note(&mut self, spool: &Path, id: JobId, state: JobState) {
        match state {
            JobState::Alive { uid } | JobState::Ending { uid } => self.add(
                uid,
                Job {
                    id,
                    since_boot_ms: None,
                    profile: None,
                    gpus: Vec::new(),
                },
            ),
            JobState::Unknown => self.doubt(format_args!(
                "job {id}: its slurmstepd in {} does not answer",
                spool.display()
            )),
            JobState::Gone => {}
        }
    }
}

fn limits(deadline: Deadline) -> Limits {
    Limits {
        each: Duration::from_secs(1),
        all: deadline,
    }
}

/// Jobs with a record have been judged, and are not asked: each question makes
/// slurmstepd start a thread.
fn key(job: JobId, node: &NodeName) -> JobKey {
    let node = node.clone();
    JobKey { job, node }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobs::registry;
    use jobs::registry::Start;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A node of its own: a state directory and a spool directory.
    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            std::fs::create_dir(place.spool()).unwrap();
            place
        }

        fn spool(&self) -> PathBuf {
            self.dir.path().join("spool")
        }

        fn state(&self) -> StateDir {
            StateDir::open(&self.dir.path().join("state")).unwrap()
        }

        fn settings(&self) -> Settings {
            let path = Path::new("/x.toml");
            let config = config::parse("", path).unwrap();
            Settings {
                state_dir: self.dir.path().join("state"),
                spool_dir: Some(self.spool()),
                ..Settings::of(&config).unwrap()
            }
        }

        fn look(&self) -> Jobs {
            Jobs::look(&self.settings(), LIMIT)
        }

        /// A slurmstepd of this user's job, which answers everyone.
        fn stepd(&self, socket: &str, uid: i32) {
            let listener = UnixListener::bind(self.spool().join(socket)).unwrap();
            std::thread::spawn(move || {
                while let Ok((mut client, _)) = listener.accept() {
                    let mut questions = [0; 12];
                    let _ = client.read_exact(&mut questions);
                    for number in [40 << 8, uid, 2] {
                        let _ = client.write_all(&number.to_ne_bytes());
                    }
                }
            });
        }

        fn record(&self, job: u32, uid: u32, contained: bool) {
            let key = JobKey {
                job: JobId(job),
                node: "n1".parse().unwrap(),
            };
            let mut start = Start::now(BootId::current().unwrap()).unwrap();
            // The higher its id, the older it is: ids count per cluster.
            start.since_boot_ms = u64::from(1000 - job);
            let mut record =
                registry::Job::new(&key, start, Uid(uid), host::Gid(uid), self.spool());
            record.contained = contained;
            Registry::open(&self.state()).unwrap().put(&record).unwrap();
        }

        /// As the job's prolog does.
        fn note(&self, job: u32) {
            let mut state = self.state();
            let mut registry = Registry::open(&state).unwrap();
            let key = JobKey {
                job: JobId(job),
                node: "n1".parse().unwrap(),
            };
            let job = registry.get(&key).unwrap().unwrap();
            registry.begin(&mut state, &job).unwrap();
        }
    }

    #[test]
    fn a_user_has_a_job_by_the_registry_or_by_a_socket_and_none_without_both() {
        let place = Place::new();
        assert_eq!(place.look().of(Uid(1)), Presence::None);
        place.stepd("n1_7.4294967292", 1);
        place.record(8, 2, false);
        let jobs = place.look();
        assert_eq!(jobs.of(Uid(1)), Presence::Has);
        assert_eq!(jobs.of(Uid(2)), Presence::Has, "its prolog runs");
        assert_eq!(jobs.of(Uid(3)), Presence::None);
    }

    #[test]
    fn the_nodes_name_need_not_be_known() {
        let place = Place::new();
        place.stepd("ip-10-0_1.a_7.0", 1);
        place.stepd("n2_8.0.1", 2);
        let jobs = place.look();
        assert_eq!(
            (jobs.of(Uid(1)), jobs.of(Uid(2))),
            (Presence::Has, Presence::Has)
        );
    }

    #[test]
    fn a_job_whose_extern_step_is_gone_is_gone_even_if_its_epilog_was_missed() {
        let place = Place::new();
        place.record(8, 2, true);
        assert_eq!(place.look().of(Uid(2)), Presence::None);
    }

    #[test]
    fn with_any_doubt_nobody_is_said_to_have_no_job() {
        let hung = Place::new();
        let _listener = UnixListener::bind(hung.spool().join("n1_7.0")).unwrap();
        let jobs = Jobs::look(&hung.settings(), Duration::from_millis(50));
        assert_eq!(jobs.of(Uid(1)), Presence::Unknown);
        assert!(jobs.doubts()[0].contains("job 7"), "{:?}", jobs.doubts());

        let torn = Place::new();
        torn.record(8, 2, false);
        let file = torn.dir.path().join("state/jobs/8@n1.json");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(torn.look().of(Uid(1)), Presence::Unknown);

        let missing = Place::new();
        std::fs::remove_dir(missing.spool()).unwrap();
        assert_eq!(missing.look().of(Uid(1)), Presence::Unknown);
        missing.record(9, 3, false);
        assert_eq!(
            missing.look().of(Uid(3)),
            Presence::Has,
            "what is certain stays so"
        );
    }

    #[test]
    fn a_state_directory_that_others_can_write_to_is_a_doubt() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        place.record(8, 2, false);
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(place.dir.path().join("state"), mode).unwrap();
        assert_eq!(place.look().of(Uid(2)), Presence::Unknown);
    }

    #[test]
    fn a_login_is_given_the_newest_job_without_asking_for_all() {
        let place = Place::new();
        for job in 1..=3 {
            place.stepd(&format!("n1_{job}.0"), 1);
        }
        // An older job of nobody knows whom: it is not asked.
        let _hung = UnixListener::bind(place.spool().join("n1_0.0")).unwrap();
        let jobs = Jobs::look_for(&place.settings(), Uid(1), LIMIT);
        assert_eq!(jobs.list(Uid(1)).last().map(|job| job.id), Some(JobId(3)));
        assert!(jobs.doubts().is_empty());
        let none = Jobs::look_for(&place.settings(), Uid(2), Duration::from_millis(50));
        assert_eq!(none.of(Uid(2)), Presence::Unknown);
        place.record(7, 1, false);
        let recorded = Jobs::look_for(&place.settings(), Uid(1), LIMIT);
        assert_eq!(
            recorded.list(Uid(1)).last().map(|job| job.id),
            Some(JobId(7))
        );
    }

    #[test]
    fn a_login_is_given_its_users_job_although_a_hundred_of_others_are_newer() {
        let place = Place::new();
        for job in 2..=100 {
            place.stepd(&format!("n1_{job}.0"), 2);
        }
        place.stepd("n1_1.0", 1);
        let jobs = Jobs::look_for(&place.settings(), Uid(1), LIMIT);
        assert_eq!(jobs.list(Uid(1)).last().map(|job| job.id), Some(JobId(1)));
        assert!(jobs.doubts().is_empty(), "{:?}", jobs.doubts());
        let none = Jobs::look_for(&place.settings(), Uid(3), LIMIT);
        assert_eq!(none.of(Uid(3)), Presence::None);
    }

    #[test]
    fn a_login_is_given_the_job_that_started_last_whose_prolog_noted_it() {
        let place = Place::new();
        for job in 7..=9 {
            place.record(job, 1, false);
        }
        let given = || {
            let jobs = Jobs::look_for(&place.settings(), Uid(1), LIMIT);
            assert!(jobs.doubts().is_empty(), "{:?}", jobs.doubts());
            jobs.list(Uid(1)).last().map(|job| job.id.0)
        };
        assert_eq!(given(), Some(7), "by its time");
        place.note(8);
        std::fs::write(place.dir.path().join("state/jobs/6@n1.json"), "{").unwrap();
        assert_eq!(given(), Some(8), "no other record is read");
        // It ends, or its epilog was missed.
        let file = |job: u32| place.dir.path().join(format!("state/jobs/{job}@n1.json"));
        std::fs::remove_file(file(6)).unwrap();
        std::fs::remove_file(file(8)).unwrap();
        assert_eq!(given(), Some(7));
        std::fs::remove_file(file(7)).unwrap();
        place.record(7, 1, true);
        place.note(7);
        assert_eq!(given(), Some(9), "a job without its extern step is none");
    }

    #[test]
    fn a_note_of_the_latest_job_admits_nobody_by_itself() {
        let place = Place::new();
        place.record(8, 2, false);
        place.note(8);
        let latest = place.dir.path().join("state/latest");
        for text in ["8@n1.json", "9@n1.json", "../8@n1.json", "", "\u{0}"] {
            std::fs::write(latest.join("1"), text).unwrap();
            let jobs = Jobs::look_for(&place.settings(), Uid(1), LIMIT);
            assert_eq!(
                jobs.of(Uid(1)),
                Presence::None,
                "{text}: {:?}",
                jobs.doubts()
            );
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_could_be_anyones() {
        let place = Place::new();
        for job in 7..=9 {
            place.record(job, job, false);
        }
        let file = place.dir.path().join("state/jobs/8@n1.json");
        std::fs::write(&file, "{").unwrap();
        for (uid, presence) in [
            (9, Presence::Has),
            (7, Presence::Has),
            (1, Presence::Unknown),
        ] {
            let jobs = Jobs::look_for(&place.settings(), Uid(uid), LIMIT);
            assert_eq!(jobs.of(Uid(uid)), presence, "{uid}");
        }
    }

    #[test]
    fn jobs_come_oldest_first_so_that_the_last_is_the_newest() {
        let place = Place::new();
        place.record(9, 2, false);
        place.record(8, 2, false);
        let ids: Vec<u32> = place
            .look()
            .list(Uid(2))
            .iter()
            .map(|job| job.id.0)
            .collect();
        assert_eq!(ids, [9, 8]);
    }
}
