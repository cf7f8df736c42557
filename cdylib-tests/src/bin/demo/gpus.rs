//! The section on shared GPUs, on a cluster of its own: four made-up H100.

use cdylib_tests::gres;
use cdylib_tests::modules;
use cdylib_tests::testbed::{JobId, LIMIT, Progress, Testbed};
use mock_nvml::{Fault, Machine, Process};

use crate::stage::{Outcome, Stage, expect, expect_lines};

/// A configuration in mig-parted's format.
const MIG: &str = "version: v1\nmig-configs:\n  halves:\n    - devices: [3]\n      mig-enabled: true\n      \
                   mig-devices: {\"3g.40gb\": 2}\n";

pub fn shared_gpus() -> Outcome {
    // A driver before r615, which cannot limit a cgroup.
    let tb = gres::cluster_without("H100x4", "", &["nvmlDeviceSetMemoryLimits_v1"]).start()?;
    let nvml = gres::nvml(&tb);
    let stage = Stage::new(&tb);
    stage.title(
        "Two users on one GPU",
        "Another cluster: one node with four H100, all made up: device nodes of their own, and a file\n\
         in place of NVML. A shard is 10 GiB. What follows a # is run by root.",
    );
    let seen = stage.run("srun --gres=shard:3 bash -c 'echo share: $SLURM_GPU_SHARE_MIB MiB'")?;
    expect_lines(&seen.stdout, &["share: 30720 MiB"])?;
    let (greedy, one) = waiting(&tb, "alice", 1)?;
    let (modest, other) = waiting(&tb, "bob", 3)?;
    let process = |pid| Process {
        pid,
        used_mib: Some(25_000),
        mps: false,
        instance: None,
    };
    nvml.change(|machine| machine.gpus[0].processes = vec![process(one), process(other)])?;
    stage.say("alice's job has one shard, bob's three, and each holds 25000 MiB of the same GPU:");
    let helper = format!(
        "gres-helper() {{ {} --config {}/site/gres.toml --node-name n1 \"$@\"; }}",
        modules::program("gres-helper").display(),
        tb.dir().display()
    );
    let root = |line: &str| stage.run_as_root(&helper, line);
    let seen = root("gres-helper status | head -4")?.stdout;
    let line = |job: JobId| {
        seen.lines()
            .find(|line| line.contains(&format!("job {job} ")))
    };
    expect(
        line(greedy).is_some_and(|line| line.contains("OVER ITS SHARE")),
        "alice's job over its share",
    )?;
    expect(
        line(modest).is_some_and(|line| !line.contains("OVER")),
        "bob's job within its share",
    )?;
    expect(
        seen.contains("in force: count only"),
        "that nothing holds them",
    )?;
    stage.say(
        "It says what holds them: nothing but a count, since no watchdog runs here and this driver\n\
         cannot limit. docs/gpu-sharing.md says what each tier stops.",
    );
    tb.scancel(greedy)?;
    tb.scancel(modest)?;
    stage.title(
        "A MIG layout that fails halfway",
        "The second GPU instance cannot be made: the old layout comes back, and is verified.",
    );
    nvml.change(divided)?;
    tb.command("root", &["tee", "mig.yaml"])
        .stdin(MIG)
        .success()?;
    let before = nvml.read()?.gpus[3].instances.clone();
    root("gres-helper mig plan -f mig.yaml -c halves")?;
    let seen = root("gres-helper mig apply -f mig.yaml -c halves --without-slurm")?;
    expect(
        seen.stdout.contains("the old layout is back and verified"),
        "the way back",
    )?;
    let places = |instances: &[mock_nvml::mig::Instance]| -> Vec<(u32, u32)> {
        instances.iter().map(|it| (it.profile, it.start)).collect()
    };
    let after = nvml.read()?.gpus[3].instances.clone();
    expect(
        places(&before) == places(&after),
        "the same layout in the GPU itself",
    )
}

/// GPU 3 in three parts; the second GPU instance made from now on fails.
fn divided(machine: &mut Machine) {
    let gpu = &mut machine.gpus[3];
    gpu.mig = Some(true);
    let instance = |(id, (profile, start, compute))| mock_nvml::mig::Instance {
        id,
        profile,
        start,
        compute: vec![mock_nvml::mig::Compute {
            id: 0,
            profile: compute,
            start: 0,
        }],
    };
    gpu.instances = (1..)
        .zip([(14, 0, 1), (14, 2, 1), (9, 4, 2)])
        .map(instance)
        .collect();
    machine.faults.push(Fault {
        function: "nvmlDeviceCreateGpuInstanceWithPlacement".to_owned(),
        gpu: Some(3),
        call: 2,
        code: mock_nvml::machine::UNKNOWN,
    });
}

/// A job that waits, and its process.
fn waiting(
    tb: &Testbed,
    user: &str,
    shards: u32,
) -> Result<(JobId, u32), Box<dyn std::error::Error>> {
    let script = "#!/bin/bash\necho $$ > $HOME/pid\nexec sleep 600\n";
    let job = tb.sbatch(user, script, &[&format!("--gres=shard:{shards}")])?;
    let file = tb.user(user)?.home.join("pid");
    let pid = tb.wait_until("the job to run", LIMIT, || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Ok(match text.trim().parse() {
            Ok(pid) => Progress::Done(pid),
            Err(_) => Progress::Waiting(format!("job {job}")),
        })
    })?;
    Ok((job, pid))
}
