//! Registry and sockets against a real slurmd and its slurmstepds.

use std::path::PathBuf;
use std::time::Duration;

use cdylib_tests::testbed::{JobId, JobState, LIMIT, Progress, Testbed};
use host::BootId;
use host::Deadline;
use host::state_dir::StateDir;
use host::{Gid, Uid};
use jobs::registry;
use jobs::registry::{Registry, Start};
use jobs::{Existence, JobIndex};
use slurm::JobKey;
use slurm::NodeName;
use slurm::stepd_sockets;
use slurm::stepd_sockets::{JobState as Steps, Limits, LiveJobs};

const SLEEP: &str = "#!/bin/bash\nsrun sleep 600\n";

struct Node<'a> {
    tb: &'a Testbed,
    name: NodeName,
}

impl<'a> Node<'a> {
    fn of(tb: &'a Testbed) -> Self {
        let name = tb.nodes()[0].parse().unwrap();
        Self { tb, name }
    }

    fn spool(&self) -> PathBuf {
        self.tb.dir().join("spool").join(self.name.as_str())
    }

    fn live(&self, each: Duration) -> LiveJobs {
        let all = Deadline::after(LIMIT);
        stepd_sockets::live_jobs(&self.spool(), &self.name, Limits { each, all }).unwrap()
    }

    /// Waits until the node's jobs are these; slurmstepd announces nothing.
    fn wait_for(&self, expected: &LiveJobs) {
        self.wait_while(expected, LIMIT / 4, || ());
    }

    /// As [`Node::wait_for`], with something done before each look.
    fn wait_while(&self, expected: &LiveJobs, each: Duration, mut act: impl FnMut()) {
        self.tb
            .wait_until("the node's jobs", LIMIT, || {
                act();
                let live = self.live(each);
                Ok(if live == *expected {
                    Progress::Done(())
                } else {
                    Progress::Waiting(format!("{live:?}"))
                })
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn submit(&self, user: &str) -> JobId {
        let job = self.tb.sbatch::<&str>(user, SLEEP, &["-n1"]).unwrap();
        self.tb
            .wait_job_until(job, LIMIT, |state| *state == JobState::Running)
            .unwrap();
        job
    }

    /// Sends a signal to every slurmstepd of the testbed.
    fn signal_stepds(&self, signal: &str) {
        let script = "for comm in $(grep -l '^slurmstepd' /proc/[0-9]*/comm); do \
                      pid=${comm#/proc/}; kill -\"$0\" \"${pid%/comm}\" || true; done";
        let sent = self.tb.run("root", &["sh", "-c", script, signal], &[]);
        assert!(sent.unwrap().success());
    }
}

fn id(job: JobId) -> slurm::JobId {
    slurm::JobId(job.to_string().parse().unwrap())
}

fn alive(job: JobId, uid: u32) -> (slurm::JobId, Steps) {
    (id(job), Steps::Alive { uid: Uid(uid) })
}

#[test]
fn the_sockets_tell_each_users_jobs_until_they_end_and_across_a_restart_of_slurmd() {
    let tb = Testbed::builder().start().unwrap();
    let node = Node::of(&tb);
    assert_eq!(node.live(LIMIT), LiveJobs::new());
    let first = node.submit("alice");
    let second = node.submit("bob");
    let both: LiveJobs = [alive(first, 20_001), alive(second, 20_002)].into();
    node.wait_for(&both);
    tb.restart_slurmd(node.name.as_str()).unwrap();
    assert_eq!(node.live(LIMIT), both);
    tb.scancel(first).unwrap();
    node.wait_for(&[alive(second, 20_002)].into());
    tb.scancel(second).unwrap();
    node.wait_for(&LiveJobs::new());
}

#[test]
fn a_stopped_slurmstepd_is_unknown_and_a_killed_one_is_gone_although_its_socket_stays() {
    let tb = Testbed::builder().start().unwrap();
    let node = Node::of(&tb);
    let job = node.submit("alice");
    node.wait_for(&[alive(job, 20_001)].into());
    // Again and again: a step of the job may only now be starting.
    let unknown = [(id(job), Steps::Unknown)].into();
    node.wait_while(&unknown, Duration::from_millis(200), || {
        node.signal_stepds("STOP");
    });
    node.signal_stepds("CONT");
    node.wait_for(&[alive(job, 20_001)].into());
    // Otherwise slurmd would remove the sockets when it is told of the end.
    tb.stop_slurmd(node.name.as_str()).unwrap();
    node.wait_while(&LiveJobs::new(), LIMIT / 4, || {
        node.signal_stepds("KILL");
    });
    let sockets = stepd_sockets::Sockets::list(&node.spool(), &node.name).unwrap();
    assert!(sockets.has(id(job)), "no dead socket to be seen");
}

#[test]
fn a_job_exists_by_its_record_or_its_sockets_and_is_gone_without_both() {
    let tb = Testbed::builder().start().unwrap();
    let node = Node::of(&tb);
    let state = tempfile::tempdir().unwrap();
    let state = StateDir::open(state.path()).unwrap();
    let mut registry = Registry::open(&state).unwrap();
    let boot = BootId::current().unwrap();
    let job = node.submit("alice");
    node.wait_for(&[alive(job, 20_001)].into());
    let key = JobKey {
        job: id(job),
        node: node.name.clone(),
    };
    let start = Start::now(boot.clone()).unwrap();
    let record = registry::Job::new(&key, start, Uid(20_001), Gid(20_001), node.spool());
    let existence = |registry: &Registry| {
        let deadline = Deadline::after(LIMIT);
        JobIndex::read(registry, boot.clone(), Some(node.spool()), deadline).existence(&key, None)
    };
    assert_eq!(existence(&registry), Existence::Exists, "by its sockets");
    registry.put(&record).unwrap();
    tb.scancel(job).unwrap();
    node.wait_for(&LiveJobs::new());
    assert_eq!(existence(&registry), Existence::Exists, "by its record");
    registry.note_contained(&key).unwrap();
    // Its epilog was missed. A slurmstepd that no longer answers may still have
    // its socket for a moment.
    let gone = || match existence(&registry) {
        Existence::Gone => Ok(Progress::Done(())),
        other => Ok(Progress::Waiting(format!("{other:?}"))),
    };
    tb.wait_until("the job's end", LIMIT, gone)
        .unwrap_or_else(|error| panic!("{error}"));
    registry.end(&state, &record).unwrap();
    assert_eq!(existence(&registry), Existence::Gone, "without both");
}
