//! The files of the registry, the rule of existence and the sweep together.

use crate::counters_at_start;
use crate::index::{Existence, JobIndex};
use crate::registry::*;
use crate::sweep::{Census, find, sweep};
use efa::counters::{Moment, Snapshot};
use host::BootId;
use host::Deadline;
use host::interleaving::{Actor, every_order};
use host::state_dir::StateDir;
use host::state_layout::job::{COUNTERS, LATEST, RECORDS};
use host::{Gid, Uid};
use proptest::prelude::*;
use slurm::{JobId, JobKey, NodeName};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn key(job: u32, node: &str) -> JobKey {
    JobKey {
        job: JobId(job),
        node: node.parse().unwrap(),
    }
}

fn boot() -> BootId {
    BootId::for_test("this")
}

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    spool: PathBuf,
    registry: Registry,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    let registry = Registry::open(&StateDir::open(&path).unwrap()).unwrap();
    Place {
        _dir: dir,
        path: path.join(RECORDS),
        spool,
        registry,
    }
}

impl Place {
    fn job(&self, key: &JobKey) -> Job {
        let start = Start::now(boot()).unwrap();
        Job::new(key, start, Uid(20_001), Gid(20_001), self.spool.clone())
    }

    fn state(&self) -> StateDir {
        StateDir::open(self.path.parent().unwrap()).unwrap()
    }

    fn known(&self) -> JobIndex {
        let deadline = Deadline::after(Duration::from_secs(5));
        JobIndex::read(&self.registry, boot(), Some(self.spool.clone()), deadline)
    }

    /// A sweep of the node n1.
    fn census(&self) -> Census {
        Census {
            boot: boot(),
            node: Some("n1".parse().unwrap()),
            spool: Some(self.spool.clone()),
            deadline: Deadline::after(Duration::from_secs(60)),
            epilog_time: Duration::ZERO,
            starting: None,
        }
    }

    /// What is kept for jobs.
    fn files(&self) -> Vec<String> {
        let state = self.path.parent().unwrap();
        let mut files = Vec::new();
        for folder in [RECORDS, COUNTERS, LATEST] {
            for entry in fs::read_dir(state.join(folder)).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if entry.path().is_file() && name != ".lock" {
                    files.push(format!("{folder}/{name}"));
                }
            }
        }
        files.sort();
        files
    }

    fn put_text(&self, name: &str, text: &str) {
        let file = self.path.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_job_is_there_from_put_to_remove() {
    let mut it = place();
    let key = key(7, "n_1.x");
    assert_eq!(it.registry.get(&key).unwrap(), None);
    let mut job = it.job(&key);
    job.profile = Some("p5".to_owned());
    it.registry.put(&job).unwrap();
    assert_eq!(it.registry.get(&key).unwrap(), Some(job.clone()));
    assert_eq!(it.registry.list().unwrap().0, [job.clone()]);
    let state = it.state();
    it.registry.end(&state, &job).unwrap();
    it.registry.end(&state, &job).unwrap();
    assert_eq!(it.registry.get(&key).unwrap(), None);
}

#[test]
fn the_note_of_a_users_latest_job_goes_with_that_job_only() {
    let mut it = place();
    let mut state = it.state();
    let (first, second) = (it.job(&key(7, "n1")), it.job(&key(6, "n1")));
    assert_eq!(latest(&state, first.uid), None);
    for job in [&first, &second] {
        it.registry.begin(&mut state, job).unwrap();
        assert_eq!(latest(&state, job.uid), Some(job.key()));
    }
    assert_eq!(latest(&state, Uid(20_002)), None);
    it.registry.end(&state, &first).unwrap();
    assert_eq!(latest(&state, first.uid), Some(second.key()));
    it.registry.end(&state, &second).unwrap();
    assert_eq!(latest(&state, first.uid), None);
}

#[test]
fn a_requeued_job_keeps_its_id_and_gets_another_start() {
    let it = place();
    let key = key(7, "n1");
    assert_ne!(it.job(&key).start, it.job(&key).start);
}

#[test]
fn torn_alien_empty_and_misnamed_files_are_told_and_do_not_hide_the_others() {
    let mut it = place();
    let whole = it.job(&key(1, "n1"));
    it.registry.put(&whole).unwrap();
    let text = fs::read_to_string(it.path.join("1@n1.json")).unwrap();
    it.put_text("2@n1.json", &text[..text.len() / 2]);
    it.put_text("3@n1.json", "");
    it.put_text("4@n1.json", &text);
    it.put_text("05@n1.json", &text);
    it.put_text("readme", "hello");
    it.put_text("6@n1.json", &text.replace("\"version\":1", "\"version\":2"));
    std::os::unix::fs::symlink("1@n1.json", it.path.join("7@n1.json")).unwrap();
    let (jobs, problems) = it.registry.list().unwrap();
    assert_eq!(jobs, [whole]);
    let files: Vec<&str> = problems.iter().map(|it| it.file.as_str()).collect();
    assert_eq!(
        files,
        [
            "05@n1.json",
            "2@n1.json",
            "3@n1.json",
            "4@n1.json",
            "6@n1.json",
            "7@n1.json",
            "readme"
        ]
    );
    assert!(it.registry.get(&key(7, "n1")).is_err());
}

#[test]
fn a_job_with_a_record_exists_although_it_has_no_step() {
    let mut it = place();
    let key = key(7, "n1");
    let job = it.job(&key);
    it.registry.put(&job).unwrap();
    assert_eq!(it.known().existence(&key, None), Existence::Exists);
}

/// The counters of a node without a device.
fn nothing_counted() -> Snapshot {
    Snapshot::empty(Moment::now())
}

/// The state directory, and the registry in it as each process opens it.
fn stage() -> (Place, impl Fn() -> Registry) {
    let it = place();
    let state = it.state();
    (it, move || Registry::open(&state).unwrap())
}

#[test]
fn a_note_and_an_epilog_in_any_order_leave_no_record() {
    let orders = every_order(
        || {
            let (mut it, open) = stage();
            let job = it.job(&key(7, "n1"));
            it.registry.put(&job).unwrap();
            let (mut stepd, mut epilog, mut gres) = (open(), open(), open());
            let (state, ended) = (it.state(), job.clone());
            let actors: Vec<Actor> = vec![
                Box::new(move || stepd.note_contained(&key(7, "n1")).unwrap()),
                Box::new(move || epilog.end(&state, &ended).unwrap()),
                Box::new(move || gres.note_gpus(&key(7, "n1"), vec!["G".into()]).unwrap()),
            ];
            (it, actors)
        },
        |it, order| {
            assert_eq!(it.registry.keys().unwrap(), [], "{order}");
        },
    );
    assert!(orders > 5, "{orders}");
}

#[test]
fn notes_of_two_processes_in_any_order_are_both_kept() {
    every_order(
        || {
            let (mut it, open) = stage();
            let job = it.job(&key(7, "n1"));
            it.registry.put(&job).unwrap();
            let (mut stepd, mut gres, mut prolog) = (open(), open(), open());
            let actors: Vec<Actor> = vec![
                Box::new(move || stepd.note_contained(&key(7, "n1")).unwrap()),
                Box::new(move || gres.note_gpus(&key(7, "n1"), vec!["G".into()]).unwrap()),
                Box::new(move || {
                    let reserved = |job: &mut Job| job.reservation = Some(Reservation::default());
                    let same = prolog.amend(&key(7, "n1"), &job.start, reserved);
                    assert!(same.unwrap());
                }),
            ];
            (it, actors)
        },
        |it, order| {
            let job = it.registry.get(&key(7, "n1")).unwrap().unwrap();
            assert!(job.contained, "{order}");
            assert_eq!(job.gpus, ["G"], "{order}");
            assert!(job.reservation.is_some(), "{order}");
        },
    );
}

#[test]
fn the_end_of_an_earlier_start_in_any_order_spares_the_next_one() {
    every_order(
        || {
            let (mut it, open) = stage();
            let earlier = it.job(&key(7, "n1"));
            it.registry.put(&earlier).unwrap();
            let later = it.job(&key(7, "n1"));
            let (mut epilog, mut prolog) = (open(), open());
            let (before, after) = (it.state(), it.state());
            let (start, counters) = (later.start.clone(), nothing_counted());
            let actors: Vec<Actor> = vec![
                Box::new(move || epilog.end(&before, &earlier).unwrap()),
                Box::new(move || {
                    prolog.put(&later).unwrap();
                    prolog.keep_counters(&after, &later, &counters).unwrap();
                }),
            ];
            ((it, start), actors)
        },
        |(it, start), order| {
            let job = it.registry.get(&key(7, "n1")).unwrap();
            assert_eq!(job.map(|job| job.start), Some(start), "{order}");
            let counters = counters_at_start::kept(&it.state(), &key(7, "n1")).unwrap();
            assert!(counters.is_some(), "{order}: its counters are lost");
        },
    );
}

#[test]
fn two_jobs_that_start_together_keep_their_counters() {
    every_order(
        || {
            let (it, open) = stage();
            let actor = |number| -> Actor {
                let (job, state) = (it.job(&key(number, "n1")), it.state());
                let mut registry = open();
                Box::new(move || {
                    registry.put(&job).unwrap();
                    let counters = nothing_counted();
                    registry.keep_counters(&state, &job, &counters).unwrap();
                })
            };
            let actors = vec![actor(1), actor(2)];
            (it, actors)
        },
        |it, order| {
            for number in [1, 2] {
                let kept = counters_at_start::kept(&it.state(), &key(number, "n1"));
                assert!(kept.unwrap().is_some(), "{order}: {number}");
            }
        },
    );
}

/// A job whose epilog was killed, with everything that its prolog wrote.
fn left_behind(it: &mut Place, number: u32) -> Job {
    let (mut job, mut state) = (it.job(&key(number, "n1")), it.state());
    job.contained = true;
    it.registry.begin(&mut state, &job).unwrap();
    it.registry
        .keep_counters(&state, &job, &nothing_counted())
        .unwrap();
    job
}

#[test]
fn the_record_of_a_job_that_is_gone_waits_for_the_epilog_from_when_that_was_first_seen() {
    let mut it = place();
    let job = left_behind(&mut it, 7);
    let (state, mut census) = (it.state(), it.census());
    census.epilog_time = Duration::from_secs(3600);
    for _ in 0..2 {
        let swept = sweep(Some(&mut it.registry), &state, &census, &mut []);
        assert!(swept.gone.is_empty(), "its epilog would find no record");
        assert_eq!(swept.waiting.len(), 1);
        assert_eq!(swept.left, Some(vec![job.key()]));
        let kept = counters_at_start::kept(&state, &job.key()).unwrap();
        assert!(kept.is_some(), "its epilog could not report");
    }
    // As if that had first been seen when the machine booted.
    let long_ago = |job: &mut Job| {
        assert!(job.gone_since_boot_ms.is_some(), "no sweep noted it");
        job.gone_since_boot_ms = Some(0);
    };
    it.registry.amend(&job.key(), &job.start, long_ago).unwrap();
    census.epilog_time = Duration::from_millis(1);
    let swept = sweep(Some(&mut it.registry), &state, &census, &mut []);
    assert_eq!(swept.gone.len(), 1);
    assert_eq!(it.files(), [""; 0]);
}

#[test]
fn what_an_earlier_boot_left_waits_for_no_epilog() {
    let mut it = place();
    let mut old = it.job(&key(8, "n1"));
    old.start.boot = BootId::for_test("earlier");
    it.registry.put(&old).unwrap();
    let (state, mut census) = (it.state(), it.census());
    census.epilog_time = Duration::from_secs(3600);
    let swept = sweep(Some(&mut it.registry), &state, &census, &mut []);
    assert_eq!(swept.gone.len(), 1);
    assert_eq!(it.files(), [""; 0]);
}

#[test]
fn a_sweep_removes_every_file_of_a_job_that_is_gone() {
    let mut it = place();
    left_behind(&mut it, 7);
    let (state, census) = (it.state(), it.census());
    let swept = sweep(Some(&mut it.registry), &state, &census, &mut []);
    assert_eq!(swept.gone.len(), 1);
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert_eq!(it.files(), [""; 0]);
}

/// The first writer is the prolog of a job, the second the late epilog of the job
/// that was left behind, which the sweep removes at the same time.
#[test]
fn two_writers_and_the_sweep_in_any_order_lose_nothing_and_leave_nothing() {
    let orders = every_order(
        || {
            let (mut it, open) = stage();
            let left = left_behind(&mut it, 7);
            let job = it.job(&key(8, "n1"));
            let (mut prolog, mut epilog, mut sweeper) = (open(), open(), open());
            let (started, ended, swept) = (it.state(), it.state(), it.state());
            let (start, census) = (job.start.clone(), it.census());
            let counters = nothing_counted();
            let actors: Vec<Actor> = vec![
                Box::new(move || {
                    prolog.put(&job).unwrap();
                    prolog.keep_counters(&started, &job, &counters).unwrap();
                }),
                Box::new(move || epilog.end(&ended, &left).unwrap()),
                Box::new(move || {
                    let swept = sweep(Some(&mut sweeper), &swept, &census, &mut []);
                    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
                }),
            ];
            ((it, start), actors)
        },
        |(it, start), order| {
            let job = it.registry.get(&key(8, "n1")).unwrap();
            assert_eq!(job.map(|job| job.start), Some(start), "{order}");
            let expected = ["counters/8@n1.json", "jobs/8@n1.json"];
            assert_eq!(it.files(), expected, "{order}");
        },
    );
    println!("{orders} orders");
    assert!(orders > 50, "{orders}");
}

#[test]
fn a_job_that_starts_again_during_a_sweep_in_any_order_keeps_its_record() {
    let orders = every_order(
        || {
            let (mut it, open) = stage();
            left_behind(&mut it, 7);
            let job = it.job(&key(7, "n1"));
            let (mut prolog, mut sweeper) = (open(), open());
            let (mut started, swept) = (it.state(), it.state());
            let (start, census) = (job.start.clone(), it.census());
            let counters = nothing_counted();
            let actors: Vec<Actor> = vec![
                Box::new(move || {
                    prolog.begin(&mut started, &job).unwrap();
                    prolog.keep_counters(&started, &job, &counters).unwrap();
                }),
                Box::new(move || {
                    let swept = sweep(Some(&mut sweeper), &swept, &census, &mut []);
                    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
                }),
            ];
            ((it, start), actors)
        },
        |(it, start), order| {
            let job = it.registry.get(&key(7, "n1")).unwrap();
            assert_eq!(job.map(|job| job.start), Some(start), "{order}");
            let expected = ["counters/7@n1.json", "jobs/7@n1.json", "latest/20001"];
            assert_eq!(it.files(), expected, "{order}");
        },
    );
    println!("{orders} orders");
    assert!(orders > 20, "{orders}");
}

#[test]
fn a_sweep_of_the_whole_machine_removes_counters_and_notes_without_a_record() {
    let mut it = place();
    let job = left_behind(&mut it, 7);
    fs::remove_file(it.path.join(job.key().file_name())).unwrap();
    let (state, census) = (it.state(), it.census());
    let of_node = sweep(Some(&mut it.registry), &state, &census, &mut []);
    assert!(of_node.failed.is_empty(), "{:?}", of_node.failed);
    assert_eq!(it.files().len(), 2);
    let whole = Census {
        node: None,
        ..census
    };
    let swept = sweep(Some(&mut it.registry), &state, &whole, &mut []);
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert_eq!(it.files(), [""; 0]);
}

#[test]
fn a_job_whose_epilog_was_missed_is_found_by_what_it_left() {
    let mut it = place();
    let mut left = it.job(&key(7, "n1"));
    left.contained = true;
    it.registry.put(&left).unwrap();
    let mut old = it.job(&key(8, "n1"));
    old.start.boot = BootId::for_test("earlier");
    it.registry.put(&old).unwrap();
    it.registry.put(&it.job(&key(9, "n1"))).unwrap();
    let mut runs = it.job(&key(10, "n1"));
    runs.contained = true;
    it.registry.put(&runs).unwrap();
    let _extern = UnixListener::bind(it.spool.join("n1_10.4294967292")).unwrap();
    it.put_text("11@n1.json", "torn");
    let found = |node: Option<&NodeName>, spool| {
        let census = Census {
            node: node.cloned(),
            spool,
            ..it.census()
        };
        let swept = find(&it.registry, &census).unwrap();
        let gone: Vec<u32> = swept.gone.iter().map(|job| job.job.0).collect();
        let unreadable: Vec<String> = swept.unreadable.into_iter().map(|it| it.file).collect();
        (gone, unreadable)
    };
    let expected = (vec![7, 8], vec!["11@n1.json".to_owned()]);
    for spool in [None, Some(it.spool.clone())] {
        let (mut gone, problems) = found(None, spool.clone());
        gone.sort_unstable();
        assert_eq!((gone, problems), expected);
        let n1 = "n1".parse().unwrap();
        let (mut gone, problems) = found(Some(&n1), spool);
        gone.sort_unstable();
        assert_eq!((gone, problems), expected);
    }
    let n2 = "n2".parse().unwrap();
    assert_eq!(found(Some(&n2), None), (vec![], vec![]));
}

#[test]
fn a_job_without_record_and_socket_is_gone() {
    let it = place();
    assert_eq!(it.known().existence(&key(7, "n1"), None), Existence::Gone);
}

#[test]
fn a_job_that_had_an_extern_step_is_gone_with_its_last_socket_even_without_an_epilog() {
    let mut it = place();
    let key = key(7, "n1");
    let job = it.job(&key);
    it.registry.put(&job).unwrap();
    it.registry.note_contained(&key).unwrap();
    let socket = it.spool.join("n1_7.4294967292");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(it.known().existence(&key, None), Existence::Exists);
    fs::remove_file(&socket).unwrap();
    assert_eq!(it.known().existence(&key, None), Existence::Gone);
}

#[test]
fn an_earlier_start_of_a_requeued_job_is_gone_unless_it_still_has_a_step() {
    let mut it = place();
    let key = key(7, "n1");
    let earlier = it.job(&key).start;
    let job = it.job(&key);
    it.registry.put(&job).unwrap();
    let spool = it.spool.clone();
    let asked = |known: &mut JobIndex, start| known.existence(&key, Some((start, &spool)));
    assert_eq!(asked(&mut it.known(), &job.start), Existence::Exists);
    assert_eq!(asked(&mut it.known(), &earlier), Existence::Gone);
    let _listener = UnixListener::bind(it.spool.join("n1_7.0")).unwrap();
    let deadline = Deadline::after(Duration::from_millis(50));
    let mut known = JobIndex::read(&it.registry, boot(), None, deadline);
    assert_eq!(asked(&mut known, &earlier), Existence::Unknown);
}

#[test]
fn a_record_of_another_boot_is_void() {
    let mut it = place();
    let key = key(7, "n1");
    let mut job = it.job(&key);
    job.start.boot = BootId::for_test("earlier");
    it.registry.put(&job).unwrap();
    assert_eq!(it.known().existence(&key, None), Existence::Gone);
    assert_eq!(it.known().jobs().count(), 0);
}

#[test]
fn what_cannot_be_read_is_never_gone() {
    let mut it = place();
    it.put_text("7@n1.json", "torn");
    assert_eq!(
        it.known().existence(&key(7, "n1"), None),
        Existence::Unknown
    );
    let elsewhere = Path::new("/nonexistent");
    let other = key(8, "n1");
    let asked = Start::now(boot()).unwrap();
    assert_eq!(
        it.known().existence(&other, Some((&asked, elsewhere))),
        Existence::Unknown
    );
    let mut job = it.job(&key(9, "n1"));
    job.contained = true;
    job.spool_dir = elsewhere.to_owned();
    it.registry.put(&job).unwrap();
    assert_eq!(it.known().existence(&job.key(), None), Existence::Unknown);
}

#[test]
fn a_socket_that_never_answers_keeps_a_job_without_record() {
    let it = place();
    let _listener = UnixListener::bind(it.spool.join("n1_7.0")).unwrap();
    let deadline = Deadline::after(Duration::from_millis(50));
    let mut known = JobIndex::read(&it.registry, boot(), Some(it.spool.clone()), deadline);
    assert_eq!(known.existence(&key(7, "n1"), None), Existence::Unknown);
}

proptest! {
    #[test]
    fn a_file_name_is_of_one_job_only(job: u32, node in "[a-z0-9][a-z0-9._-]{0,20}") {
        prop_assume!(node.parse::<NodeName>().is_ok());
        let key = key(job, &node);
        prop_assert_eq!(JobKey::of_file(&key.file_name()), Some(key));
    }

    #[test]
    fn no_file_name_and_no_content_panics(name in ".{0,30}", bytes: Vec<u8>) {
        if let Some(key) = JobKey::of_file(&name) {
            prop_assert_eq!(key.file_name(), name);
        }
        let _ = serde_json::from_slice::<Job>(&bytes);
    }
}
