//! Shared GPUs on a real Slurm: made-up device nodes, NVML from a file.

use std::fs;
use std::os::unix::fs::symlink;

use cdylib_tests::efa_cluster;
use cdylib_tests::gres::{self, GENERATED};
use cdylib_tests::health;
use cdylib_tests::logins::{Logins, Site};
use cdylib_tests::modules;
use cdylib_tests::testbed::{JobId, JobState, LIMIT, Progress, Running, Testbed};
use mock_nvml::{Here, Process};

/// A node with four H100 whose files were generated, and these lines of [gres].
fn cluster(toml: &str) -> (Testbed, Here) {
    let tb = gres::cluster("H100x4", toml)
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    let nvml = gres::nvml(&tb);
    (tb, nvml)
}

/// A job of this user that waits until it is cancelled or its process is ended.
fn waiting_job(tb: &Testbed, user: &str, gres: &str) -> (JobId, u32) {
    let script = "#!/bin/bash\necho $$ > $HOME/pid.$SLURM_JOB_ID\nexec sleep 600\n";
    let job = tb.sbatch(user, script, &[gres, "--mem=0"]).unwrap();
    let file = tb.user(user).unwrap().home.join(format!("pid.{job}"));
    let pid = tb
        .wait_until("the job's first words", LIMIT, || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            Ok(match text.trim().parse::<u32>() {
                Ok(pid) => Progress::Done(pid),
                Err(_) => Progress::Waiting(tb.log("slurmd n1")),
            })
        })
        .unwrap();
    (job, pid)
}

fn helper(tb: &Testbed, args: &[&str]) -> cdylib_tests::testbed::Output {
    gres::helper(tb, args)
}

#[test]
fn a_login_during_a_job_is_told_its_gpus() {
    let efa = format!(
        "required {} config={{dir}}/site/gres.toml",
        modules::plugin().display()
    );
    let program = modules::program("slurm-efa-job");
    let tb = gres::cluster("H100x4", "").plugstack(&efa);
    let tb = efa_cluster::with_job_program(tb, &program, gres::CONFIG)
        .prepare(|dir| {
            // In one folder, as setup puts them there.
            for (name, script) in [("prolog", "prolog.sh"), ("epilog", "epilog.sh")] {
                let link = format!("site/{name}.d/gres-helper-{name}");
                symlink(dir.join(script), dir.join(link))?;
            }
            Ok(())
        })
        .start()
        .unwrap();
    let site = Site {
        state: tb.dir().join("run-n1"),
        ..Site::default()
    };
    let logins = Logins::start(&tb, &site).unwrap();
    let visible = || {
        let said = logins
            .ssh("alice", &["echo", "$CUDA_VISIBLE_DEVICES."])
            .output();
        said.unwrap().stdout.trim().to_owned()
    };
    let cpu_only = logins.job("alice").unwrap();
    assert_eq!(visible(), ".");
    tb.scancel(cpu_only).unwrap();
    let script = "#!/bin/bash\nsleep 600\n";
    logins
        .job_with("alice", script, &["--gres=gpu:h100:2", "--mem=0"])
        .unwrap();
    let machine = gres::nvml(&tb).read().unwrap();
    let uuid = |index: usize| machine.gpus[index].uuid.clone();
    assert_eq!(visible(), format!("{},{}.", uuid(0), uuid(1)));
}

#[test]
fn the_generated_files_are_accepted_and_give_the_counts_asked_for() {
    let (tb, _) = cluster("");
    let shown = tb.scontrol(&["show", "node", "-o", "n1"]).unwrap().stdout;
    assert!(
        shown.contains(" Gres=gpu:h100:4,shard:h100:28 ")
            || shown.contains(" Gres=gpu:h100:4,shard:28 "),
        "{shown}"
    );
    let said = helper(&tb, &["verify"]);
    assert_eq!(said.code(), 0, "{said}");
    // What slurmctld counts is part of the comparison.
    let path = tb.dir().join(GENERATED);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("Count=7", "Count=6", 1)).unwrap();
    let said = helper(&tb, &["verify"]);
    assert!(
        said.code() == 2 && said.stdout.contains("drain n1 first"),
        "{said}"
    );
}

#[test]
fn every_type_that_is_generated_can_be_asked_for() {
    let tb = gres::cluster(gres::MIXED, "").start().unwrap();
    let said = helper(&tb, &["verify"]);
    assert_eq!(said.code(), 0, "{said}");
    for (kind, gpus) in [
        ("rtx_pro_6000:2", "0,1"),
        ("rtx_pro_6000", "0"),
        ("a100-sxm4-40gb:1", "2"),
        ("a100-sxm4-80gb", "3"),
    ] {
        let gres = format!("--gres=gpu:{kind}");
        let seen = tb.srun("alice", &[&gres, "bash", "-c", "echo $SLURM_STEP_GPUS"]);
        assert_eq!(seen.unwrap().stdout, format!("{gpus}\n"), "{kind}");
    }
}

#[test]
fn jobs_of_three_users_share_a_gpu_and_each_task_is_told_its_share() {
    let (tb, _) = cluster("");
    let show = "echo $SLURM_SHARDS_ON_NODE $SLURM_GPU_SHARE_MIB $CUDA_VISIBLE_DEVICES";
    for (user, shards) in [("alice", 3), ("bob", 2), ("carol", 1)] {
        let gres = format!("--gres=shard:{shards}");
        let seen = tb.srun(user, &[&gres, "-n2", "bash", "-c", show]).unwrap();
        let expected = format!("{shards} {} 0\n", shards * 10_240).repeat(2);
        assert_eq!(seen.stdout, expected, "{seen}");
    }
    // Whole GPUs and shards on one node; a job without shards is told nothing.
    let (_, _) = waiting_job(&tb, "alice", "--gres=gpu:h100:2");
    let seen = tb
        .srun("bob", &["--gres=shard:2", "bash", "-c", show])
        .unwrap();
    assert!(seen.stdout.starts_with("2 20480 "), "{seen}");
    let seen = tb
        .srun("carol", &["bash", "-c", "echo [$SLURM_GPU_SHARE_MIB]"])
        .unwrap();
    assert_eq!(seen.stdout, "[]\n", "{seen}");
}

#[test]
fn a_share_that_a_user_makes_up_is_none() {
    let (tb, _) = cluster("");
    let env = [
        ("SLURM_SHARDS_ON_NODE", "50"),
        ("SLURM_GPU_SHARE_MIB", "99999"),
    ];
    let argv = [
        "srun",
        "--gres=shard:1",
        "bash",
        "-c",
        "echo $SLURM_GPU_SHARE_MIB",
    ];
    let seen = tb.run("alice", &argv, &env).unwrap();
    assert_eq!(seen.stdout, "10240\n", "{seen}");
}

#[test]
fn a_job_over_its_share_is_ended_as_configured_and_its_neighbour_is_not() {
    let (tb, nvml) =
        cluster("on_over = \"end\"\nsamples = 2\nsample_every = \"1s\"\ngrace = \"1s\"\n");
    let (greedy, pid) = waiting_job(&tb, "alice", "--gres=shard:1");
    let (modest, other) = waiting_job(&tb, "bob", "--gres=shard:3");
    let process = |pid, used_mib| Process {
        pid,
        used_mib: Some(used_mib),
        mps: false,
        instance: None,
    };
    nvml.change(|machine| {
        machine.gpus[0].processes = vec![process(pid, 30_000), process(other, 30_000)];
    })
    .unwrap();
    let status = helper(&tb, &["status"]).stdout;
    let line = |job: JobId| {
        status
            .lines()
            .find(|line| line.contains(&format!("job {job} ")))
            .unwrap()
    };
    assert!(line(greedy).contains("OVER ITS SHARE"), "{status}");
    assert!(!line(modest).contains("OVER"), "{status}");
    let watch = gres::spawn(&tb, &["watch"]);
    let state = tb.wait_job(greedy).unwrap();
    drop(watch);
    assert_ne!(state, JobState::Completed);
    assert_eq!(tb.job(modest).unwrap().state(), JobState::Running);
    tb.scancel(modest).unwrap();
    tb.wait_idle().unwrap();
    assert!(!tb.node_state("n1").unwrap().is_drained());
}

/// A process of this user in no job, and its number.
fn outside<'tb>(tb: &'tb Testbed, user: &str) -> (Running<'tb>, u32) {
    let file = tb.user(user).unwrap().home.join("pid.outside");
    let script = "echo $$ > pid.new && mv pid.new pid.outside && exec sleep 600";
    let command = tb.command(user, &["sh", "-c", script]);
    let running = command
        .cwd(file.parent().unwrap())
        .timeout(LIMIT * 4)
        .spawn()
        .unwrap();
    let pid = tb.wait_until("its number", LIMIT, || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok(match text.trim().parse() {
            Ok(pid) => Progress::Done(pid),
            Err(_) => Progress::Waiting(text),
        })
    });
    (running, pid.unwrap())
}

#[test]
fn what_a_user_left_on_a_gpu_ends_with_the_last_job_and_nothing_of_others_does() {
    let (tb, nvml) = cluster("");
    let (first, _) = waiting_job(&tb, "alice", "--gres=shard:1");
    let (last, own) = waiting_job(&tb, "alice", "--gres=shard:1");
    let (_, neighbour) = waiting_job(&tb, "bob", "--gres=shard:1");
    let (mut of_alice, left) = outside(&tb, "alice");
    let (mut of_bob, other) = outside(&tb, "bob");
    let process = |pid| Process {
        pid,
        used_mib: Some(100),
        mps: false,
        instance: None,
    };
    nvml.change(|machine| {
        machine.gpus[0].processes = [own, neighbour, left, other, 1].map(process).to_vec();
    })
    .unwrap();
    let end = |job: JobId| {
        tb.scancel(job).unwrap();
        let name = format!("job {job} ");
        let over = tb.wait_until("its epilog", LIMIT, || {
            let status = helper(&tb, &["status"]).stdout;
            Ok(match status.contains(&name) {
                false => Progress::Done(()),
                true => Progress::Waiting(status),
            })
        });
        over.unwrap();
    };
    end(first);
    assert!(
        !of_alice.ended().unwrap(),
        "her other job may be its parent"
    );
    let alive = |pid: u32| {
        let kill = tb.command("root", &["kill", "-0", &pid.to_string()]);
        kill.output().unwrap().success()
    };
    assert!(alive(own));
    end(last);
    let left = of_alice.wait().unwrap();
    assert!(!left.success(), "{left}");
    assert!(!of_bob.ended().unwrap() && alive(neighbour));
    assert!(!tb.node_state("n1").unwrap().is_drained());
}

#[test]
fn a_limit_on_the_jobs_cgroup_is_set_before_its_first_task() {
    let (tb, nvml) = cluster("tier = \"cgroup\"\nrequire_fence = true\n");
    let (job, _) = waiting_job(&tb, "alice", "--gres=shard:2");
    let limits = nvml.read().unwrap().gpus[0].limits.clone();
    assert_eq!(limits.len(), 1, "{limits:?}\n{}", tb.log("slurmd n1"));
    assert!(limits[0].0.ends_with(&format!("/job_{job}")), "{limits:?}");
    assert_eq!(limits[0].2, 20_480 << 20);
    let status = helper(&tb, &["status"]).stdout;
    assert!(status.contains("in force: cgroup memory limit"), "{status}");
}

#[test]
fn where_a_fence_is_required_and_cannot_be_had_the_job_fails_and_the_node_stays() {
    let toml = "tier = \"cgroup\"\nrequire_fence = true\n";
    let tb = gres::cluster_without("H100x4", toml, &["nvmlDeviceSetMemoryLimits_v1"])
        .start()
        .unwrap();
    let seen = tb.srun("alice", &["--gres=shard:2", "true"]).unwrap();
    assert!(
        !seen.success() && seen.stderr.contains("cannot be fenced"),
        "{seen}"
    );
    let job = tb
        .sbatch("bob", "#!/bin/bash\ntrue\n", &["--gres=shard:2"])
        .unwrap();
    assert_eq!(tb.wait_job(job).unwrap(), JobState::Failed);
    // One that needs none is not bothered.
    assert!(
        tb.srun("alice", &["--gres=gpu:1", "true"])
            .unwrap()
            .success()
    );
    assert!(!tb.node_state("n1").unwrap().is_drained());
}

#[test]
fn a_job_whose_share_cannot_be_noted_does_not_run_where_a_fence_is_required() {
    let (tb, _nvml) = cluster("tier = \"watchdog\"\nrequire_fence = true\n");
    // Another's file in the place of the record that the prolog wrote.
    let prolog = tb.dir().join("prolog.sh");
    let text = fs::read_to_string(&prolog).unwrap();
    let (text, records) = (text.replace("exec ", ""), tb.dir().join("run-n1/gres"));
    let torn = format!(
        "{text}echo torn >{}/job-$SLURM_JOB_ID@n1.json\n",
        records.display()
    );
    fs::write(&prolog, torn).unwrap();
    let seen = tb
        .srun("alice", &["--gres=shard:1", "echo", "ran"])
        .unwrap();
    assert!(!seen.success() && !seen.stdout.contains("ran"), "{seen}");
    assert!(seen.stderr.contains("cannot be fenced"), "{seen}");
    assert!(!tb.node_state("n1").unwrap().is_drained());
}

#[test]
fn under_mps_a_job_with_a_whole_gpu_finds_its_daemon_and_is_not_limited() {
    let (tb, nvml) = cluster("tier = \"mps\"\n");
    let show = "echo $CUDA_MPS_PIPE_DIRECTORY; ls $CUDA_MPS_PIPE_DIRECTORY; \
                cat $CUDA_MPS_LOG_DIRECTORY/control.log; echo [$SLURM_GPU_SHARE_MIB]";
    let seen = tb
        .srun("alice", &["--gres=gpu:1", "bash", "-c", show])
        .unwrap();
    let uuid = &nvml.read().unwrap().gpus[0].uuid;
    let uid = tb.user("alice").unwrap().uid;
    let pipe = format!("/gres/mps/{uuid}-{uid}/pipe\ncontrol\n");
    assert!(seen.stdout.contains(&pipe), "{seen}");
    assert!(seen.stdout.ends_with("[]\n"), "{seen}");
    assert!(!seen.stdout.contains("limit"), "{seen}");
    tb.wait_idle().unwrap();
    assert_eq!(nvml.read().unwrap().gpus[0].compute_mode, 0);
}

#[test]
fn under_mps_a_job_finds_its_own_daemon_and_loses_what_would_loosen_it() {
    let (tb, nvml) = cluster("tier = \"mps\"\n");
    let show = "echo $CUDA_MPS_PIPE_DIRECTORY [$CUDA_MPS_PINNED_DEVICE_MEM_LIMIT]; \
                ls $CUDA_MPS_PIPE_DIRECTORY; cat $CUDA_MPS_LOG_DIRECTORY/control.log";
    let env = [
        ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "9=1M"),
        ("CUDA_MPS_PIPE_DIRECTORY", "/tmp/mine"),
    ];
    let argv = ["srun", "--gres=shard:3", "bash", "-c", show];
    let seen = tb.run("alice", &argv, &env).unwrap();
    let uuid = &nvml.read().unwrap().gpus[0].uuid;
    let uid = tb.user("alice").unwrap().uid;
    assert!(
        seen.stdout
            .contains(&format!("/gres/mps/{uuid}-{uid}/pipe []\ncontrol\n")),
        "{seen}"
    );
    assert!(
        seen.stdout
            .contains("set_default_device_pinned_mem_limit 0 30720M"),
        "{seen}"
    );
    tb.wait_idle().unwrap();
    assert_eq!(nvml.read().unwrap().gpus[0].compute_mode, 0);
}

#[test]
fn a_gpu_that_is_lost_in_mid_job_drains_the_node_by_the_epilog() {
    let (tb, nvml) = cluster("");
    let (job, _) = waiting_job(&tb, "alice", "--gres=shard:1");
    nvml.change(|machine| machine.gpus[3].lost = true).unwrap();
    tb.scancel(job).unwrap();
    tb.wait_until("the node to be drained", LIMIT, || {
        Ok(match tb.node_state("n1")?.is_drained() {
            true => Progress::Done(()),
            false => Progress::Waiting(tb.log("slurmd n1")),
        })
    })
    .unwrap();
}

#[test]
fn twelve_gpus_are_shared_as_well_as_four() {
    let tb = gres::cluster("12xL40S", "").start().unwrap();
    assert_eq!(helper(&tb, &["verify"]).code(), 0);
    let seen = tb.srun(
        "alice",
        &[
            "--gres=gpu:l40s:12",
            "bash",
            "-c",
            "echo $CUDA_VISIBLE_DEVICES",
        ],
    );
    assert_eq!(seen.unwrap().stdout, "0,1,2,3,4,5,6,7,8,9,10,11\n");
    assert!(
        tb.srun("bob", &["--gres=shard:4", "true"])
            .unwrap()
            .success()
    );
}

#[test]
fn a_node_that_is_drained_for_a_gpu_shows_the_gpu_as_its_reason() {
    let (tb, nvml) = cluster("");
    nvml.change(|machine| machine.gpus[2].lost = true).unwrap();
    let job = tb
        .sbatch("alice", "#!/bin/bash\ntrue\n", &["--gres=gpu:h100:1"])
        .unwrap();
    let drained = |tb: &Testbed| {
        health::wait_node(tb, "n1", "a drain with its reason", |reason, drained| {
            drained && reason.starts_with("GPU: GPU 2 has fallen off the bus [root@")
        })
    };
    drained(&tb).unwrap();
    // It stays: Slurm's own words, which come by another way, do not replace it.
    health::wait_for_speakers(&tb).unwrap();
    drained(&tb).unwrap();
    tb.scancel(job).unwrap();
}
