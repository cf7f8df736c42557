//! `gres-helper` over the mock of NVML, without Slurm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cdylib_tests::load::Load;
use cdylib_tests::sigkill::{killed_after, sweep};
use cdylib_tests::stuck::Stuck;
use gpu::inventory::{Ask, MigPlacement};
use gpu::nvml_worker::{Agent, AgentError};
use gpu::shares;
use gres_helper::mig::{self, Applied, Cell, Plan, Slot, Step};
use host::Deadline;
use host::state_dir::StateDir;
use mock_nvml::machine::{LOST, UNKNOWN};
use mock_nvml::mig::{Compute, Instance, Profile};
use mock_nvml::{Fault, Here, Machine, Process};
use slurm::{JobId, JobKey};

fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_gres-helper"))
}

/// A node: a tree, state, a configuration and a machine of GPUs.
struct Node {
    dir: tempfile::TempDir,
    nvml: Here,
}

fn mps_control() -> PathBuf {
    cdylib_tests::modules::program("nvidia-cuda-mps-control")
}

impl Node {
    fn new(model: &str, gres: &str) -> Self {
        Self::without(model, gres, &[])
    }

    /// With a library that lacks these functions.
    fn without(model: &str, gres: &str, symbols: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Machine::model(model, 8).unwrap();
        let library = cdylib_tests::modules::mock_nvml();
        let nvml =
            mock_nvml::install_without(&library, &path.join("nvml"), &machine, symbols).unwrap();
        for cpu in 0..8 {
            let topology = path.join(format!("root/sys/devices/system/cpu/cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(
                topology.join("physical_package_id"),
                format!("{}\n", cpu / 4),
            )
            .unwrap();
            fs::write(topology.join("core_id"), format!("{}\n", cpu % 4)).unwrap();
        }
        let toml = format!(
            "sysroot = \"{0}/root\"\nstate_dir = \"{0}/state\"\n[gres]\nnvml_library = \"{1}\"\n\
             gres_conf = \"{0}/gres.conf\"\nspool_dir = \"{0}/spool\"\nmps_control = \"{2}\"\n\
             scontrol = \"{0}/scontrol\"\n{gres}\n",
            path.display(),
            nvml.library().display(),
            cdylib_tests::modules::put(&mps_control(), path)
                .unwrap()
                .display()
        );
        fs::write(path.join("slurm-efa.toml"), toml).unwrap();
        fs::create_dir(path.join("spool")).unwrap();
        Self { dir, nvml }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(helper());
        command.arg("--config").arg(self.path("slurm-efa.toml"));
        command
            .args(["--node-name", "n1"])
            .args(args)
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    fn job(&self, phase: &str, job: u32, uid: u32, gpus: &str) -> Said {
        Said::of(self.for_job(phase, job, uid, gpus).output().unwrap())
    }

    fn for_job(&self, phase: &str, job: u32, uid: u32, gpus: &str) -> Command {
        let mut command = self.command(&[phase]);
        command
            .env("SLURM_JOB_ID", job.to_string())
            .env("SLURM_JOB_UID", uid.to_string())
            .env("SLURM_JOB_GPUS", gpus);
        command
    }

    /// What the plugin notes in the job's first step, after which a job without
    /// a socket has ended.
    fn note_step(&self, job: u32, uid: u32) {
        let state = StateDir::open(&self.path("state")).unwrap();
        let key = JobKey {
            job: JobId(job),
            node: "n1".parse().unwrap(),
        };
        let deadline = Deadline::after(Duration::from_secs(20));
        let noted = |record: &mut shares::Record| record.seen = true;
        shares::change(
            &mut state.folder("gres").unwrap(),
            &key,
            host::Uid(uid),
            None,
            deadline,
            noted,
        )
        .unwrap();
    }

    /// Records of jobs and daemons, and daemons' directories.
    fn left(&self) -> Vec<String> {
        let names = |dir: &str| -> Vec<String> {
            let Ok(entries) = fs::read_dir(self.path(dir)) else {
                return Vec::new();
            };
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let mut left = names("state/gres");
        left.retain(|name| name.starts_with("job-") || name.starts_with("mps-"));
        left.extend(names("state/gres/mps"));
        left
    }

    /// Waits until so many MPS daemons run: one that was told to quit answers
    /// before it has.
    fn wait_daemons(&self, wanted: usize) {
        let late = Instant::now() + Duration::from_secs(20);
        while self.daemons() != wanted {
            assert!(Instant::now() < late, "{} daemons", self.daemons());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many MPS daemons of this node run.
    fn daemons(&self) -> usize {
        let own = self.dir.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let is_ours = |path: PathBuf| {
            let read = |name| fs::read(path.join(name)).unwrap_or_default();
            read("comm").starts_with(b"nvidia-cuda-mp")
                && String::from_utf8_lossy(&read("environ")).contains(&own)
        };
        processes.filter(|entry| is_ours(entry.path())).count()
    }

    fn change(&self, change: impl FnOnce(&mut Machine)) {
        self.nvml.change(change).unwrap();
    }

    fn agent(&self) -> Agent {
        Agent::new(self.nvml.library(), Duration::from_secs(20)).with_program(helper())
    }

    /// Puts a script in the place of MPS' control program.
    fn fake_mps_control(&self, script: &str) {
        let program = self.path("nvidia-cuda-mps-control");
        fs::remove_file(&program).unwrap();
        fs::write(&program, script).unwrap();
        set_mode(&program, 0o755);
    }

    /// Generates gres.conf, and puts it where the running one is.
    fn generate(&self) -> String {
        let said = self.run(&["generate", "--file", "gres"]);
        assert_eq!(said.code, 0, "{said:?}");
        fs::write(self.path("gres.conf"), &said.out).unwrap();
        said.out
    }

    fn mode(&self, gpu: usize) -> u32 {
        self.nvml.read().unwrap().gpus[gpu].compute_mode
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        let control = |c: char| c.is_control() && c != '\n';
        assert!(
            !out.contains(control) && !err.contains(control),
            "{out:?} {err:?}"
        );
        let code = output.status.code().unwrap_or(-1);
        Self { code, out, err }
    }
}

fn process(pid: u32, used_mib: Option<u64>) -> Process {
    Process {
        pid,
        used_mib,
        mps: false,
        instance: None,
    }
}

fn fault(function: &str, call: u32, code: u32) -> Fault {
    Fault {
        function: function.to_owned(),
        gpu: None,
        call,
        code,
    }
}

#[test]
fn a_generated_file_has_a_line_for_each_gpu_with_the_cores_of_its_socket() {
    let node = Node::new("8xH100", "shard_size = \"10G\"");
    let root = node.path("root").display().to_string();
    let text = node.generate();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 16);
    let gpu = format!("NodeName=n1 Name=gpu Type=h100 File={root}/dev/nvidia");
    assert_eq!(lines[0], format!("{gpu}0 Cores=0-3"));
    assert_eq!(lines[7], format!("{gpu}7 Cores=4-7"));
    assert_eq!(
        lines[8],
        format!("NodeName=n1 Name=shard Count=7 File={root}/dev/nvidia0")
    );
    let all = node.run(&["generate", "--node", "n9"]).out;
    assert!(
        all.contains("NodeName=n9 Gres=gpu:h100:8,shard:56\n"),
        "{all}"
    );
    assert!(all.contains("ConstrainDevices=yes"), "{all}");
}

#[test]
fn every_model_gets_a_file_that_agrees_with_it() {
    for model in Machine::models() {
        let node = Node::new(model, "shards_per_gpu = 4");
        node.generate();
        let said = node.run(&["verify", "--offline"]);
        assert_eq!(said.code, 0, "{model}: {said:?}");
    }
}

#[test]
fn nvlinks_are_counted_and_half_a_socket_is_widened_with_advice() {
    let node = Node::new("8xA100", "");
    node.change(|machine| {
        machine.gpus[0].nvlinks = vec![1, 1, 3];
        machine.gpus[0].cpus = vec![0, 1];
    });
    let text = node.generate();
    assert!(
        text.contains("dev/nvidia0 Cores=0-3 Links=-1,2,0,1,0,0,0,0\n"),
        "{text}"
    );
    assert!(
        text.starts_with("# the CPUs near a GPU are only a part of a socket"),
        "{text}"
    );
}

#[test]
fn lines_are_in_pci_order_whatever_the_minors_are() {
    let node = Node::new("12xL40S", "");
    node.change(|machine| {
        (machine.gpus[0].minor, machine.gpus[11].minor) = (11, 0);
    });
    let text = node.generate();
    let place = |name: &str| text.find(name).unwrap();
    assert!(place("nvidia11 ") < place("nvidia1 ") && place("nvidia10 ") < place("nvidia0 "));
}

#[test]
fn verify_finds_each_single_edit() {
    let node = Node::new("8xH100", "shard_size = \"10G\"");
    let good = node.generate();
    let swapped = good
        .replace("dev/nvidia0 ", "dev/nvidiaX ")
        .replace("dev/nvidia7 ", "dev/nvidia0 ")
        .replace("dev/nvidiaX ", "dev/nvidia7 ");
    let edits: [(&str, String, i32); 9] = [
        ("count", good.replacen("Count=7", "Count=8", 1), 2),
        ("file", good.replacen("dev/nvidia1 ", "dev/nvidiaX ", 1), 2),
        ("type", good.replacen("Type=h100", "Type=h200", 1), 2),
        ("cores", good.replacen("Cores=0-3", "Cores=4-7", 1), 1),
        (
            "missing GPU",
            good.split_once('\n').unwrap().1.to_owned(),
            2,
        ),
        ("swapped minor", swapped, 2),
        (
            "extra GPU",
            format!("{good}Name=gpu Type=h100 File=/dev/nvidia8\n"),
            2,
        ),
        ("no File", good.replacen(" File=", " # File=", 1), 2),
        ("no type", good.replacen(" Type=h100", "", 1), 1),
    ];
    for (what, text, code) in edits {
        assert_ne!(text, good, "{what}");
        fs::write(node.path("gres.conf"), text).unwrap();
        let said = node.run(&["verify", "--offline"]);
        assert_eq!(said.code, code, "{what}: {said:?}");
        assert_eq!(
            said.out.contains("drain n1 first"),
            what != "cores",
            "{what}: {said:?}"
        );
    }
    fs::write(node.path("gres.conf"), &good).unwrap();
    node.change(|machine| machine.gpus.truncate(7));
    let said = node.run(&["verify", "--offline"]);
    assert!(
        said.code == 2 && said.out.contains("there is no such GPU"),
        "{said:?}"
    );
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_library_that_others_may_change_is_not_loaded_as_nvml() {
    let node = Node::new("A10G", "");
    let library = node.nvml.library();
    for spoilt in [library.as_path(), library.parent().unwrap()] {
        set_mode(spoilt, 0o777);
        let said = node.run(&["status"]);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(
            said.err.contains("is not loaded, because others"),
            "{said:?}"
        );
        // A node's fault, but none of its GPUs'.
        assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
        set_mode(spoilt, 0o755);
    }
    assert_eq!(node.run(&["status"]).code, 0);
}

#[test]
fn a_state_directory_that_others_may_write_is_not_used() {
    let node = Node::new("A10G", "");
    assert_eq!(node.run(&["status"]).code, 0);
    let state = node.path("state");
    fs::create_dir_all(&state).unwrap();
    set_mode(&state, 0o777);
    let said = node.job("prolog", 1, 1000, "0");
    let advice = format!("chmod go-w {}", state.display());
    assert!(said.err.contains(&advice), "{said:?}");
}

#[test]
fn an_mps_control_that_others_may_change_is_not_run() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let ran = node.path("ran");
    let folder = node.path("folder");
    fs::create_dir(&folder).unwrap();
    node.fake_mps_control(&format!("#!/bin/sh\necho >>{}\n", ran.display()));
    let program = node.path("nvidia-cuda-mps-control");
    let control = folder.join("control");
    fs::rename(&program, &control).unwrap();
    std::os::unix::fs::symlink(&control, &program).unwrap();
    for spoilt in [&control, &folder] {
        set_mode(spoilt, 0o777);
        assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
        let status = node.run(&["status", "--json"]).out;
        assert!(status.contains("not run, because others"), "{status}");
        assert!(!ran.exists());
        set_mode(spoilt, 0o755);
        node.job("epilog", 1, 1000, "0");
        fs::remove_file(&ran).unwrap();
    }
}

#[test]
fn a_descendant_that_keeps_mps_controls_output_does_not_hold_the_epilog() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let before = node.nvml.read().unwrap();
    let fifo = node.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    node.fake_mps_control(&format!(
        "#!/bin/sh\n[ \"$1\" = -d ] && exit 0\nread words\n(read line <{} && :) &\n",
        fifo.display()
    ));
    assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
    assert_eq!(node.mode(0), 3);
    let mut command = node.for_job("epilog", 1, 1000, "0");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut epilog = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let ended = host::exec::ended_by(&mut epilog, deadline);
    // The descendant waits at its end of the FIFO and ends with this line.
    fs::write(&fifo, "\n").unwrap();
    epilog.wait().unwrap();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert_eq!(node.nvml.read().unwrap().gpus, before.gpus);
    assert_eq!(node.left(), [] as [&str; 0]);
}

#[test]
fn verify_accepts_every_way_of_writing_that_slurm_accepts() {
    let node = Node::new("8xH100", "shard_size = \"10G\"");
    let good = node.generate();
    for (what, text) in [
        ("blanks around =", good.replace('=', " = ")),
        ("continuation", good.replace(" File=", " \\ \nFile=")),
        ("cores", good.replacen("Cores=0-3", "Cores=0,1,2,3", 1)),
        (
            "Slurm's long name",
            good.replace("=h100", "=nvidia_h100_80gb_hbm3"),
        ),
        ("a part of it", good.replace("=h100", "=H100_80GB")),
    ] {
        assert_ne!(text, good, "{what}");
        fs::write(node.path("gres.conf"), text).unwrap();
        let said = node.run(&["verify", "--offline"]);
        assert_eq!(said.code, 0, "{what}: {said:?}");
    }
    fs::create_dir(node.path("gres.d")).unwrap();
    fs::write(node.path("gres.conf"), "include gres.d/a.conf\n").unwrap();
    fs::write(node.path("gres.d/a.conf"), "include b.conf\n").unwrap();
    fs::write(node.path("gres.d/b.conf"), &good).unwrap();
    let said = node.run(&["verify", "--offline"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn shards_without_a_file_agree_where_each_gpu_gets_what_it_should() {
    let node = Node::new("8xH100", "shard_size = \"10G\"");
    let good = node.generate();
    let gpus: Vec<&str> = good
        .lines()
        .filter(|line| !line.contains("=shard"))
        .collect();
    for (count, code) in [(56, 0), (55, 2), (64, 2)] {
        let text = format!("{}\nName=shard Count={count}\n", gpus.join("\n"));
        fs::write(node.path("gres.conf"), text).unwrap();
        let said = node.run(&["verify", "--offline"]);
        assert_eq!(said.code, code, "{count}: {said:?}");
    }
}

#[test]
fn where_slurm_finds_the_gpus_itself_one_warning_says_what_was_not_compared() {
    let node = Node::new("8xH100", "");
    for (text, code) in [
        ("AutoDetect=nvml\n", 1),
        ("AutoDetect=nvml\nName=gpu Type=h100 Count=8\n", 1),
        (
            "AutoDetect=nvml\nName=gpu Type=nvidia_h100_80gb_hbm3 Count=8\n",
            1,
        ),
        ("AutoDetect=nvml\nName=gpu Type=h100 Count=7\n", 2),
        ("AutoDetect=off\n", 2),
    ] {
        fs::write(node.path("gres.conf"), text).unwrap();
        let said = node.run(&["verify", "--offline"]);
        assert_eq!(said.code, code, "{text}: {said:?}");
        let is_warned = said.out.contains("cannot be compared in full");
        assert_eq!(is_warned, text.contains("nvml"), "{text}: {said:?}");
        assert_eq!(said.out.contains("drain n1 first"), code == 2, "{said:?}");
    }
}

#[test]
fn a_type_that_is_generated_is_no_number_and_of_one_model() {
    let node = Node::new("8xH100", "");
    node.change(|machine| {
        for gpu in &mut machine.gpus[..4] {
            gpu.name = "NVIDIA RTX PRO 6000 Blackwell Server Edition".to_owned();
        }
        machine.gpus[4].name = "NVIDIA A100-SXM4-40GB".to_owned();
        machine.gpus[5].name = "NVIDIA A100-SXM4-80GB".to_owned();
    });
    let text = node.generate();
    for (kind, count) in [
        ("rtx_pro_6000", 4),
        ("a100-sxm4-40gb", 1),
        ("a100-sxm4-80gb", 1),
        ("h100", 2),
    ] {
        let lines = text.matches(&format!(" Type={kind} ")).count();
        assert_eq!(lines, count, "{kind}: {text}");
    }
    assert_eq!(node.run(&["verify", "--offline"]).code, 0);
}

#[test]
fn a_shard_that_is_larger_than_every_gpu_is_an_error() {
    let node = Node::new("8xH100", "");
    let said = node.run(&["generate", "--shard-size", "200G"]);
    assert_eq!((said.code, said.out.as_str()), (3, ""), "{said:?}");
    assert!(
        said.err
            .contains("a shard of 204800 MiB does not fit on GPU 0"),
        "{said:?}"
    );
    // Of two models one may be large enough.
    node.change(|machine| machine.gpus[7].memory_mib = 8 * 1024);
    let said = node.run(&["generate", "--shard-size", "20G"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out
            .contains("# a shard of 20480 MiB does not fit on GPU 7"),
        "{said:?}"
    );
}

#[test]
fn without_nvml_or_driver_the_reason_is_said_and_a_prolog_drains_nothing() {
    let node = Node::new("A10G", "");
    node.change(|machine| machine.loaded = false);
    let said = node.run(&["status"]);
    assert!(
        said.code == 3 && said.err.contains("driver is not loaded"),
        "{said:?}"
    );
    assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
    fs::remove_file(node.nvml.library()).unwrap();
    let said = node.job("prolog", 1, 1000, "0");
    assert!(
        said.code == 0 && said.err.contains("NVML is not there"),
        "{said:?}"
    );
}

#[test]
fn a_status_in_json_has_version_node_time_findings() {
    let node = Node::new("8xH100", "");
    node.change(|machine| machine.gpus[2].lost = true);
    let said = node.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&status["version"], &status["node"]),
        (&1.into(), &"n1".into())
    );
    let time = status["time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!((said.code, &status["severity"]), (2, &"fatal".into()));
    let found = &status["findings"][0];
    assert_eq!(found["id"], "lost");
    assert_eq!(found["severity"], "fatal");
    assert_eq!(found["subject"], "GPU 2");
    assert_eq!(found["sentence"], "GPU 2 has fallen off the bus");
    let remedy = found["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("reboot the node"), "{remedy}");
    assert_eq!(status["gpus"].as_array().map(Vec::len), Some(8));
}

#[test]
fn a_status_in_json_has_the_keys_of_the_last_release_too() {
    let node = Node::new("8xH100", "");
    node.change(|machine| machine.gpus[2].lost = true);
    let said = node.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let found = &status["findings"][0];
    assert_eq!(found["grade"], "fatal");
    assert_eq!(found["check"], "lost");
    let text = "GPU 2 has fallen off the bus; reboot the node, replace it if that does not help";
    assert_eq!(found["text"], text);
}

/// A scontrol that shows the node in this state, and notes what it is asked.
fn scontrol(node: &Node, shown: &str) {
    let dir = node.dir.path().display();
    let script = format!(
        "#!/bin/sh\ncd {dir}\ncase $1 in show) echo 'NodeName=n1 {shown}' ;;\n\
         *) printf '%s|' \"$@\" >>called ;; esac\n"
    );
    fs::write(node.path("scontrol"), script).unwrap();
    fs::set_permissions(node.path("scontrol"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// What Slurm was asked to do with the node.
fn asked(node: &Node) -> String {
    let late = Instant::now() + Duration::from_secs(30);
    loop {
        let called = fs::read_to_string(node.path("called")).unwrap_or_default();
        if !called.is_empty() {
            return called;
        }
        assert!(Instant::now() < late, "scontrol was not called");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_node_whose_gpu_fails_the_prolog_is_drained_with_the_gpu_as_reason() {
    let node = Node::new("8xH100", "");
    scontrol(&node, "State=IDLE Owner=N/A");
    node.change(|machine| machine.gpus[2].lost = true);
    assert_eq!(node.job("prolog", 1, 1000, "0").code, 2);
    let reason = "update|NodeName=n1|State=DRAIN|Reason=GPU: GPU 2 has fallen off the bus|";
    assert_eq!(asked(&node), reason);
}

#[test]
fn the_reason_of_a_gpu_that_fails_the_epilog_replaces_slurms_words() {
    let node = Node::new("8xH100", "");
    let slurms = "State=IDLE+DRAIN Reason=Epilog error [slurm@2026-11-22T09:12:00]";
    scontrol(&node, slurms);
    node.change(|machine| machine.gpus[2].lost = true);
    assert_eq!(node.job("epilog", 1, 1000, "0").code, 2);
    let reason = "update|NodeName=n1|State=DRAIN|Reason=GPU: GPU 2 has fallen off the bus|";
    assert_eq!(asked(&node), reason);
}

#[test]
fn a_warning_about_a_gpu_drains_nothing() {
    let node = Node::new("8xH100", "");
    scontrol(&node, "State=IDLE Owner=N/A");
    node.change(|machine| machine.gpus[2].ecc_uncorrected = Some(2));
    let said = node.job("prolog", 1, 1000, "0");
    assert!(
        said.code == 0 && said.err.contains("2 uncorrected memory errors"),
        "{said:?}"
    );
    // Slurm is asked for the next fault, and was asked for nothing before it.
    node.change(|machine| machine.gpus[3].lost = true);
    assert_eq!(node.job("prolog", 2, 1000, "0").code, 2);
    let asked = asked(&node);
    assert_eq!(asked.matches("update|").count(), 1, "{asked}");
    assert!(asked.contains("GPU 3 has fallen off the bus|"), "{asked}");
}

#[test]
fn a_numbered_link_or_one_with_an_extension_is_the_command_of_its_name() {
    let node = Node::new("8xH100", "");
    node.change(|machine| machine.gpus[2].lost = true);
    for name in [
        "50-gres-helper-prolog",
        "10_gres-helper-prolog",
        "gres-helper-prolog.sh",
        "50-gres-helper-epilog",
    ] {
        let link = node.path(name);
        std::os::unix::fs::symlink(helper(), &link).unwrap();
        let mut command = Command::new(&link);
        command
            .arg("--config")
            .arg(node.path("slurm-efa.toml"))
            .env_clear()
            .env("SLURMD_NODENAME", "n1")
            .env("SLURM_JOB_ID", "1")
            .env("SLURM_JOB_UID", "1000");
        let said = Said::of(command.output().unwrap());
        assert_eq!(said.code, 2, "{name}: {said:?}");
        assert!(said.err.contains("fallen off the bus"), "{name}: {said:?}");
    }
}

#[test]
fn a_script_that_names_gres_helper_in_its_first_line_is_the_command_of_its_name() {
    let node = Node::new("8xH100", "");
    node.change(|machine| machine.gpus[2].lost = true);
    let config = node.path("slurm-efa.toml");
    for (name, code) in [("50-gres-helper-prolog", 2), ("50-check-gpus", 0)] {
        let path = node.path(name);
        let text = format!("#!{} --config={}\n", helper().display(), config.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&path);
        command
            .env_clear()
            .env("SLURMD_NODENAME", "n1")
            .env("SLURM_JOB_ID", "1")
            .env("SLURM_JOB_UID", "1000");
        let said = Said::of(command.output().unwrap());
        assert_eq!(said.code, code, "{name}: {said:?}");
    }
}

#[test]
fn wrong_use_by_slurmd_fails_no_prolog() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("50-check-gpus");
    std::os::unix::fs::symlink(helper(), &link).unwrap();
    let by_slurmd: [&[(&str, &str)]; 2] = [
        &[("SLURM_SCRIPT_CONTEXT", "epilog_slurmd")],
        &[("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "7")],
    ];
    for variables in by_slurmd {
        let mut command = Command::new(&link);
        command.env_clear().envs(variables.iter().copied());
        let said = Said::of(command.output().unwrap());
        assert_eq!((said.code, said.err.lines().count()), (0, 1), "{said:?}");
        for words in ["50-check-gpus was called without", "gres-helper-epilog"] {
            assert!(said.err.contains(words), "{said:?}");
        }
    }
    for wrong in [
        &["no-such-command"][..],
        &["status", "--no-such-option"],
        &["status", "--config", "/nonexistent.toml"],
    ] {
        let mut command = Command::new(&link);
        command.args(wrong).env_clear();
        let by_a_person = Said::of(command.output().unwrap()).code;
        assert!(by_a_person >= 64, "{wrong:?}");
        command.envs(by_slurmd[0].iter().copied());
        assert_eq!(Said::of(command.output().unwrap()).code, 0, "{wrong:?}");
    }
}

#[test]
fn a_driver_that_hangs_in_the_kernel_makes_the_node_unfit() {
    let node = Node::new("8xH100", "nvml_limit = \"1s\"");
    let place = node.path("stuck");
    fs::create_dir(&place).unwrap();
    let stuck = Stuck::mount(&place).unwrap_or_else(|error| panic!("{error}"));
    fs::remove_file(node.nvml.library()).unwrap();
    std::os::unix::fs::symlink(stuck.file(), node.nvml.library()).unwrap();
    for phase in ["prolog", "epilog"] {
        let said = node.job(phase, 1, 1000, "0");
        let reason = "did not answer within 1 s (Machine); a GPU or its driver hangs";
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(reason), "{said:?}");
    }
    drop(stuck);
}

#[test]
fn an_answer_that_is_late_without_a_hang_in_the_kernel_drains_nothing() {
    let node = Node::new("8xH100", "nvml_limit = \"1s\"");
    node.change(|machine| {
        let mut hang = fault("nvmlDeviceGetMemoryInfo_v2", 0, 0);
        hang.gpu = Some(3);
        machine.faults.push(hang);
    });
    for phase in ["prolog", "epilog"] {
        let said = node.job(phase, 1, 1000, "0");
        assert_eq!(said.code, 0, "{said:?}");
        let reason =
            "did not answer within 1 s (Machine), but the process that asked does not hang";
        assert!(said.err.contains(reason), "{said:?}");
    }
}

#[test]
fn load_on_the_cpus_drains_nothing() {
    let node = Node::new("8xH100", "nvml_limit = \"1s\"");
    let load = Load::begin().unwrap();
    let mut prolog = load.under(&node.for_job("prolog", 1, 1000, "0"));
    let said = Said::of(prolog.stdin(Stdio::null()).output().unwrap());
    drop(load);
    assert_eq!(said.code, 0, "{said:?}");
    // Otherwise nothing was tested.
    assert!(said.err.contains("did not answer within 1 s"), "{said:?}");
}

#[test]
fn a_gpu_lost_in_mid_job_is_found_by_the_epilog() {
    let node = Node::new("8xH100", "");
    node.generate();
    assert_eq!(node.job("prolog", 1, 1000, "2").code, 0);
    node.change(|machine| machine.gpus[2].lost = true);
    let said = node.job("epilog", 1, 1000, "2");
    assert!(
        said.code == 2 && said.err.contains("fallen off the bus"),
        "{said:?}"
    );
    // One that the driver does not even list any more.
    node.change(|machine| drop(machine.gpus.remove(2)));
    let said = node.job("prolog", 2, 1000, "0");
    assert!(
        said.code == 2 && said.err.contains("was here and is not any more"),
        "{said:?}"
    );
}

#[test]
fn calls_that_fail_are_said_and_nothing_panics() {
    for code in [LOST, UNKNOWN, 13, 25] {
        for first in 1..20 {
            let node = Node::new("H100", "");
            node.change(|machine| {
                machine.gpus[0].mig = Some(true);
                machine.faults = vec![fault("*", first, code), fault("*", first * 2 + 1, code)];
            });
            let said = node.run(&["status", "--json"]);
            assert!(
                [0, 1, 2, 3].contains(&said.code),
                "{code}, {first}: {said:?}"
            );
        }
    }
}

#[test]
fn an_older_library_is_used_as_far_as_it_goes() {
    let missing = [
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceSetMemoryLimits_v1",
        "nvmlDeviceGetGpuFabricInfo",
        "nvmlDeviceGetRemappedRows",
    ];
    let node = Node::without("4xL40S", "shard_size = \"10G\"", &missing);
    node.change(|machine| machine.gpus[0].processes = vec![process(1, Some(100))]);
    let said = node.run(&["status"]);
    assert!(
        said.code == 0 && said.out.contains("of 46068 MiB used"),
        "{said:?}"
    );
    let machine = node.agent().machine().unwrap();
    assert!(!machine.can_limit);
    assert_eq!(machine.gpus[0].processes[0].pid, host::Pid(1));
}

#[test]
fn a_name_that_is_no_utf8_and_a_hundred_thousand_processes_are_borne() {
    let node = Node::new("H100", "");
    node.change(|machine| {
        machine.gpus[0].name = "H\u{ff}\u{1b}[2J".to_owned();
        machine.gpus[0].processes = (0..100_000).map(|n| process(4_200_000 + n, None)).collect();
    });
    let said = node.run(&["status"]);
    assert!(
        said.out.contains("(no name)") && said.out.contains("not known"),
        "{said:?}"
    );
}

#[test]
fn status_claims_no_more_than_a_count_until_something_more_is_there() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"watchdog\"");
    node.generate();
    node.job("prolog", 7, 1000, "0");
    assert!(node.run(&["status"]).out.contains("in force: count only"));
    let mut watch = node
        .command(&["watch"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = false;
    for _ in 0..500 {
        seen = seen || node.run(&["status"]).out.contains("in force: watchdog");
        if seen {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(seen);
    assert!(node.run(&["status"]).out.contains("in force: count only"));
}

#[test]
fn mps_serves_one_user_of_a_gpu_and_leaves_it_as_it_was() {
    let node = Node::new("8xH100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let before = node.nvml.read().unwrap();
    assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
    assert_eq!(node.mode(0), 3);
    let daemon = node.path(&format!("state/gres/mps/{}-1000", before.gpus[0].uuid));
    assert!(daemon.join("pipe/control").exists());
    // The same user joins; another one, and a job with two GPUs, are refused.
    node.job("prolog", 2, 1000, "0");
    node.job("prolog", 3, 2000, "0");
    node.job("prolog", 4, 1000, "1,2");
    let status = node.run(&["status", "--json"]).out;
    assert!(status.contains("serves one user at a time"), "{status}");
    assert!(status.contains("several GPUs get no MPS"), "{status}");
    // Out of order, twice, and of a job that never had a prolog.
    for job in [9, 1, 1, 3, 4] {
        node.job("epilog", job, 1000, "0");
    }
    assert_eq!(node.mode(0), 3);
    node.job("epilog", 2, 1000, "0");
    assert_eq!(node.nvml.read().unwrap().gpus, before.gpus);
    assert!(!daemon.exists());
    assert_eq!(node.left(), [] as [&str; 0]);
}

/// A node whose configuration names no spool directory, with the record of job
/// 1, which has no socket any more and had no epilog.
fn with_a_job_that_ended_unseen() -> Node {
    let node = Node::new("H100", "shard_size = \"10G\"");
    node.generate();
    let path = node.path("slurm-efa.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("spool_dir"))
        .collect();
    fs::write(&path, text.join("\n")).unwrap();
    node.job("prolog", 1, 1000, "0");
    node.note_step(1, 1000);
    node
}

/// Runs the prolog of job 2 under a slurmd with this slurm.conf.
fn next_prolog(node: &Node, slurm_conf: &str) -> Vec<String> {
    let mut prolog = node.for_job("prolog", 2, 1000, "0");
    let said = Said::of(prolog.env("SLURM_CONF", slurm_conf).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    node.left()
}

#[test]
fn jobs_that_ended_unseen_are_swept_wherever_slurm_conf_puts_the_spool_directory() {
    let node = with_a_job_that_ended_unseen();
    let spool = node.path("spool");
    let text = format!("SlurmdSpoolDir= \\ \n  {}\n", spool.display());
    fs::write(node.path("slurm.conf"), text).unwrap();
    let left = next_prolog(&node, node.path("slurm.conf").to_str().unwrap());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains('2'), "{left:?}");
}

#[test]
fn no_job_counts_as_ended_where_the_spool_directory_is_unknown() {
    let node = with_a_job_that_ended_unseen();
    let left = next_prolog(&node, node.path("gone.conf").to_str().unwrap());
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A running job of user 1000 with this many shards, as its plugin notes them.
fn share(node: &Node, job: u32, shards: u64) {
    let socket = node.path(&format!("spool/n1_{job}.4294967292"));
    // It listens until the test ends and never answers, so that nobody knows
    // whether the job is gone.
    std::mem::forget(std::os::unix::net::UnixListener::bind(socket).unwrap());
    let state = StateDir::open(&node.path("state")).unwrap();
    let key = JobKey {
        job: JobId(job),
        node: "n1".parse().unwrap(),
    };
    let deadline = Deadline::after(Duration::from_secs(20));
    let noted = |record: &mut shares::Record| {
        (record.seen, record.shards) = (true, Some(shards));
    };
    shares::change(
        &mut state.folder("gres").unwrap(),
        &key,
        host::Uid(1000),
        None,
        deadline,
        noted,
    )
    .unwrap();
}

#[test]
fn a_server_that_serves_already_gets_the_smallest_share_too_and_only_then_is_mps_in_force() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let uuid = node.nvml.read().unwrap().gpus[0].uuid.clone();
    let say = |words: &str| {
        let mut control = Command::new(mps_control())
            .env(
                "CUDA_MPS_PIPE_DIRECTORY",
                node.path(&format!("state/gres/mps/{uuid}-1000/pipe")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = control.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, format!("{words}\n").as_bytes()).unwrap();
        drop(input);
        Said::of(control.wait_with_output().unwrap()).out
    };
    let in_force = |words: &str| {
        let status = node.run(&["status"]).out;
        assert!(status.contains(&format!("in force: {words}")), "{status}");
    };
    node.job("prolog", 1, 1000, "0");
    share(&node, 1, 4);
    in_force("count only");
    assert_eq!(node.run(&["fence", "1", "1"]).code, 0);
    in_force("MPS");
    say("start_server -uid 1000");
    assert_eq!(say("get_device_pinned_mem_limit 4000 0"), "40960M\n");
    node.job("prolog", 2, 1000, "0");
    share(&node, 2, 1);
    assert_eq!(node.run(&["fence", "2", "1"]).code, 0);
    assert_eq!(say("get_device_pinned_mem_limit 4000 0"), "10240M\n");
    assert_eq!(say("get_active_thread_percentage 4000"), "13.0\n");
    // A daemon that died is started again for the next job.
    say("quit");
    node.wait_daemons(0);
    node.job("prolog", 3, 1000, "0");
    node.wait_daemons(1);
    for job in 1..=3 {
        node.job("epilog", job, 1000, "0");
    }
    node.wait_daemons(0);
    assert_eq!((node.mode(0), node.left().len()), (0, 0));
}

#[test]
fn a_daemon_that_does_not_say_that_it_quits_is_not_forgotten() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let program = node.path("nvidia-cuda-mps-control");
    let (script, hang) = (node.path("control"), node.path("hang"));
    let text = format!(
        "#!/bin/sh\n[ -n \"$1\" ] || [ ! -e {} ] || exec sleep 600\nexec {} \"$@\"\n",
        hang.display(),
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let toml = node.path("slurm-efa.toml");
    let text = fs::read_to_string(&toml).unwrap();
    let text = text.replace(
        &program.display().to_string(),
        &script.display().to_string(),
    );
    fs::write(&toml, text).unwrap();
    node.job("prolog", 1, 1000, "0");
    fs::write(&hang, "").unwrap();
    let said = node.job("epilog", 1, 1000, "0");
    assert!(
        said.code == 0 && said.err.contains("MPS `quit`: no answer"),
        "{said:?}"
    );
    assert_eq!((node.mode(0), node.daemons()), (3, 1));
    fs::remove_file(&hang).unwrap();
    assert_eq!(node.job("epilog", 1, 1000, "0").code, 0);
    node.wait_daemons(0);
    assert_eq!((node.mode(0), node.left().len()), (0, 0));
}

#[test]
fn a_watchdog_that_cannot_be_asked_for_is_not_claimed() {
    let node = Node::new("H100", "shard_size = \"10G\"");
    fs::create_dir_all(node.path("state/gres/watch.lock")).unwrap();
    let said = node.run(&["status"]);
    assert!(said.out.contains("in force: count only"), "{said:?}");
    assert!(said.out.contains("whether a watchdog runs"), "{said:?}");
}

#[test]
fn a_fatal_xid_keeps_jobs_away_until_it_is_forgotten() {
    let node = Node::new("H100", "shard_size = \"10G\"");
    node.generate();
    let uuid = node.nvml.read().unwrap().gpus[0].uuid.clone();
    node.job("prolog", 1, 1000, "0");
    let mut state = StateDir::open(&node.path("state/gres")).unwrap();
    gres_helper::job::note_xids(&mut state, &[(uuid.clone(), 79)]).unwrap();
    let said = node.job("prolog", 2, 1000, "0");
    let remedy = format!("gres-helper forget-xids {uuid}");
    assert!(said.code == 2 && said.err.contains(&remedy), "{said:?}");
    assert_eq!(node.run(&["forget-xids", "GPU-0"]).code, 3);
    assert_eq!(node.job("prolog", 2, 1000, "0").code, 2);
    assert_eq!(node.run(&["forget-xids", &uuid]).code, 0);
    assert_eq!(node.job("prolog", 2, 1000, "0").code, 0);
}

/// Kills this phase of job 1 after each of its system calls. The next job, of
/// another user, must be served, and leave the node as it was.
fn killed_anywhere(phase: &str) {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    let before = node.nvml.read().unwrap().gpus;
    let calls = sweep(|calls| {
        if phase == "epilog" {
            assert_eq!(node.job("prolog", 1, 1000, "0").code, 0);
            node.note_step(1, 1000);
        }
        let end = killed_after(calls, &mut node.for_job(phase, 1, 1000, "0"))?;
        if phase == "prolog" {
            // Slurm runs the epilog of a job whose prolog failed, too.
            node.job("epilog", 1, 1000, "0");
        }
        let next = node.job("prolog", 2, 2000, "0");
        let its_daemon = node.path(&format!(
            "state/gres/mps/{}-2000/pipe/control",
            before[0].uuid
        ));
        assert!(its_daemon.exists(), "{calls}: {next:?}");
        assert_eq!(node.mode(0), 3, "{calls}");
        node.wait_daemons(1);
        node.job("epilog", 2, 2000, "0");
        assert_eq!(node.nvml.read().unwrap().gpus, before, "{calls}");
        assert_eq!(node.left(), [] as [&str; 0], "{calls}");
        node.wait_daemons(0);
        Ok::<_, std::io::Error>(end)
    })
    .unwrap();
    assert!(calls > 100, "{calls}: it was not the program");
}

#[test]
fn what_a_prolog_killed_anywhere_left_is_undone_by_the_next() {
    killed_anywhere("prolog");
}

#[test]
fn what_an_epilog_killed_anywhere_left_is_undone_by_the_next_prolog() {
    killed_anywhere("epilog");
}

#[test]
fn a_daemon_whose_epilog_was_killed_is_ended_by_the_next_prolog() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    node.job("prolog", 1, 1000, "0");
    fs::remove_file(node.path("state/gres/job-1@n1.json")).unwrap();
    node.job("prolog", 2, 2000, "0");
    let status = node.run(&["status", "--json"]).out;
    assert!(
        status.contains("\"refused\": null") && status.contains("\"uid\": 2000"),
        "{status}"
    );
    node.job("epilog", 2, 2000, "0");
    assert_eq!(node.mode(0), 0);
}

#[test]
fn a_state_directory_of_a_user_or_with_a_link_in_it_is_not_used() {
    let node = Node::new("H100", "tier = \"mps\"");
    node.generate();
    let state = node.path("state");
    fs::create_dir_all(&state).unwrap();
    std::os::unix::fs::symlink("/tmp", state.join("gres")).unwrap();
    let said = node.job("prolog", 1, 1000, "0");
    assert!(said.code == 0 && said.err.contains("gres"), "{said:?}");
    fs::remove_file(state.join("gres")).unwrap();
    std::os::unix::fs::chown(&state, Some(12345), None).unwrap();
    let said = node.job("prolog", 1, 1000, "0");
    assert!(said.code == 0 && said.err.contains("12345"), "{said:?}");
    assert_eq!(node.mode(0), 0);
}

#[test]
fn a_directory_of_mps_that_a_user_made_beforehand_is_not_used() {
    let node = Node::new("H100", "shard_size = \"10G\"\ntier = \"mps\"");
    node.generate();
    // Makes the directories above, as root.
    node.job("prolog", 1, 1000, "0");
    node.job("epilog", 1, 1000, "0");
    let uuid = node.nvml.read().unwrap().gpus[0].uuid.clone();
    let place = node.path(&format!("state/gres/mps/{uuid}-1000"));
    let elsewhere = node.path("elsewhere");
    fs::create_dir_all(elsewhere.join("pipe")).unwrap();
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(1000), None).unwrap();
    for trap in ["directory", "link"] {
        if trap == "link" {
            std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        } else {
            fs::create_dir_all(place.join("pipe")).unwrap();
            own(&place.join("pipe"));
            own(&place);
        }
        let said = node.job("prolog", 2, 1000, "0");
        assert_eq!(said.code, 0, "{trap}: {said:?}");
        let status = node.run(&["status"]).out;
        assert!(status.contains("in force: count only"), "{trap}: {status}");
        assert_eq!((node.mode(0), node.daemons()), (0, 0), "{trap}: {said:?}");
        assert_eq!(fs::read_dir(elsewhere.join("pipe")).unwrap().count(), 0);
        node.job("epilog", 2, 1000, "0");
        let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
    }
}

/// A layout of the mock as ours.
fn layout(slots: &[(u32, u32)], placed: bool) -> Vec<Slot> {
    let slot = |(profile, start): &(u32, u32)| {
        let known = Profile::of(*profile).unwrap();
        let whole = MigPlacement {
            start: 0,
            size: known.slices,
        };
        Slot {
            place: MigPlacement {
                start: *start,
                size: known.size,
            },
            profile: *profile,
            compute: vec![Cell {
                slices: known.slices,
                place: placed.then_some(whole),
            }],
        }
    };
    slots.iter().map(slot).collect()
}

#[test]
fn every_legal_layout_of_every_model_is_applied_and_read_back() {
    // Each waits for the disk most of the time.
    std::thread::scope(|scope| {
        for model in ["8xA100", "8xH100", "8xH200", "8xB200"] {
            scope.spawn(move || bring_every_layout(model));
        }
    });
}

fn bring_every_layout(model: &str) {
    let node = Node::new(model, "");
    node.change(|machine| {
        machine.gpus.truncate(1);
        machine.gpus[0].mig = Some(true);
    });
    let uuid = node.nvml.read().unwrap().gpus[0].uuid.clone();
    let mut agent = node.agent();
    for slots in mock_nvml::mig::layouts() {
        mig::bring(&mut agent, &uuid, &layout(&slots, false)).unwrap();
        let now = agent.instances(&uuid).unwrap();
        let read: Vec<_> = now.iter().map(|it| (it.profile, it.place.start)).collect();
        assert_eq!(read, slots, "{model}");
        assert!(now.iter().all(|it| it.compute.len() == 1), "{model}");
    }
}

/// Two A100 with a layout in which one instance is divided, and a plan to
/// another such.
struct Switch {
    node: Node,
}

impl Switch {
    const OLD: [(u32, u32); 3] = [(14, 0), (14, 2), (9, 4)];
    const NEW: [(u32, u32); 4] = [(9, 0), (19, 4), (20, 5), (19, 6)];

    fn new() -> Self {
        Self {
            node: Node::new("8xA100", ""),
        }
    }

    /// The old layout: its 3g is three compute instances of a slice each.
    fn old() -> Vec<Slot> {
        let mut old = layout(&Self::OLD, true);
        let place = |start| Some(MigPlacement { start, size: 1 });
        let cell = |start| Cell {
            slices: 1,
            place: place(start),
        };
        old[2].compute = (0..3).map(cell).collect();
        old
    }

    /// The new one: its 3g is of two slices and of one.
    fn new_layout() -> Vec<Slot> {
        let mut new = layout(&Self::NEW, false);
        let cell = |slices| Cell {
            slices,
            place: None,
        };
        new[0].compute = vec![cell(2), cell(1)];
        new
    }

    fn begin(&self, fault: Fault) {
        self.node.change(|machine| {
            machine.gpus.truncate(2);
            machine.faults = vec![fault];
            for gpu in &mut machine.gpus {
                gpu.mig = Some(true);
                let slots = Self::old();
                gpu.instances = (1..).zip(&slots).map(instance).collect();
            }
        });
    }

    fn plan(&self) -> Plan {
        let step = |gpu: &mock_nvml::Gpu| Step {
            gpu: gpu.uuid.clone(),
            label: gpu.uuid.clone(),
            before: Self::old(),
            after: Self::new_layout(),
        };
        Plan {
            modes: Vec::new(),
            steps: self
                .node
                .nvml
                .read()
                .unwrap()
                .gpus
                .iter()
                .map(step)
                .collect(),
        }
    }

    /// Each GPU's instances, and the slices of the compute instances in each.
    fn now(&self) -> Vec<Vec<(u32, u32, Vec<u32>)>> {
        let gpus = self.node.nvml.read().unwrap().gpus;
        gpus.iter()
            .map(|gpu| {
                let slot = |it: &Instance| {
                    let cells = it.compute.iter().map(Compute::slices).collect();
                    (it.start, it.profile, cells)
                };
                let mut all: Vec<_> = gpu.instances.iter().map(slot).collect();
                all.sort();
                all
            })
            .collect()
    }

    fn is(&self, wanted: &[Slot]) -> bool {
        let slot = |it: &Slot| {
            let cells: Vec<u32> = it.compute.iter().map(|cell| cell.slices).collect();
            (it.place.start, it.profile, cells)
        };
        let wanted: Vec<_> = wanted.iter().map(slot).collect();
        self.now().iter().all(|gpu| *gpu == wanted)
    }
}

/// A slot with places, as an instance of the mock.
fn instance((id, slot): (u32, &Slot)) -> Instance {
    let cell = |(id, cell): (u32, &Cell)| {
        let index = mock_nvml::mig::COMPUTE_SLICES
            .iter()
            .position(|slices| *slices == cell.slices);
        Compute {
            id,
            profile: u32::try_from(index.unwrap()).unwrap(),
            start: cell.place.unwrap().start,
        }
    };
    Instance {
        id,
        profile: slot.profile,
        start: slot.place.start,
        compute: (0..).zip(&slot.compute).map(cell).collect(),
    }
}

#[test]
fn with_each_call_of_an_apply_failed_once_the_layout_is_the_new_or_the_old() {
    let switch = Switch::new();
    let (mut news, mut olds) = (0, 0);
    for call in 1.. {
        switch.begin(fault("*", call, UNKNOWN));
        match mig::apply(&mut switch.node.agent(), &switch.plan()) {
            Applied::New => {
                assert!(switch.is(&Switch::new_layout()), "call {call}");
                news += 1;
            }
            Applied::Old { reason } => {
                assert!(switch.is(&Switch::old()), "call {call}: {reason}");
                olds += 1;
            }
            Applied::Between { reason, back } => panic!("call {call}: {reason}; {back}"),
        }
        if !switch.node.nvml.read().unwrap().faults.is_empty() {
            break;
        }
    }
    println!("{olds} failed calls led back, {news} did not matter");
    assert!(olds > 50, "{olds}");
}

#[test]
fn a_driver_that_hangs_in_mid_apply_is_led_back_by_another_child() {
    let switch = Switch::new();
    for function in [
        "nvmlComputeInstanceDestroy",
        "nvmlGpuInstanceDestroy",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ] {
        switch.begin(fault(function, 2, 0));
        let mut agent =
            Agent::new(switch.node.nvml.library(), Duration::from_secs(2)).with_program(helper());
        let Applied::Old { reason } = mig::apply(&mut agent, &switch.plan()) else {
            panic!("{function}: {:?}", switch.now());
        };
        assert!(reason.contains("did not answer within 2 s"), "{reason}");
        assert!(switch.is(&Switch::old()), "{function}: {:?}", switch.now());
    }
}

#[test]
fn an_apply_that_was_killed_is_taken_back_by_rollback() {
    let switch = Switch::new();
    switch.begin(fault("nvmlDeviceCreateGpuInstanceWithPlacement", 3, 0));
    let node = &switch.node;
    let file = node.path("mig.yaml");
    fs::write(
        &file,
        "version: v1\nmig-configs:\n  small:\n    - devices: all\n      mig-enabled: true\n      \
         mig-devices: {\"1g.5gb\": 7}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let mut apply = node
        .command(&["mig", "apply", "-f", file, "-c", "small", "--without-slurm"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !node.nvml.read().unwrap().faults.is_empty() {
        assert!(Instant::now() < until, "the third instance is not made");
        std::thread::sleep(Duration::from_millis(10));
    }
    apply.kill().unwrap();
    apply.wait().unwrap();
    assert!(!switch.is(&Switch::old()));
    let said = node.run(&["mig", "rollback", "--without-slurm"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(switch.is(&Switch::old()), "{:?}", switch.now());
}

#[test]
fn a_rollback_that_fails_loses_nothing_and_the_next_one_goes_all_the_way() {
    let switch = Switch::new();
    let node = &switch.node;
    switch.begin(fault("nothing", 1, UNKNOWN));
    let state = node.path("state/gres");
    fs::create_dir_all(&state).unwrap();
    let mut state = StateDir::open(&state).unwrap();
    mig::keep(&mut state, &switch.plan()).unwrap();
    // An apply was killed when it had made one of many.
    node.change(|machine| {
        for gpu in &mut machine.gpus {
            gpu.instances.truncate(1);
        }
        machine.faults = vec![fault(
            "nvmlDeviceCreateGpuInstanceWithPlacement",
            2,
            UNKNOWN,
        )];
    });
    let said = node.run(&["mig", "rollback", "--without-slurm"]);
    assert!(
        said.code == 2 && said.err.contains("what it was before this rollback"),
        "{said:?}"
    );
    assert!(!switch.is(&Switch::old()));
    // Nor does another apply that fails take the way back away.
    mig::keep(&mut state, &Plan::default()).unwrap();
    let said = node.run(&["mig", "rollback", "--without-slurm"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(switch.is(&Switch::old()), "{:?}", switch.now());
}

#[test]
fn a_layout_that_cannot_be_looked_at_is_not_taken_for_an_empty_one() {
    let switch = Switch::new();
    let node = &switch.node;
    let file = node.path("mig.yaml");
    fs::write(
        &file,
        "version: v1\nmig-configs:\n  small:\n    - devices: all\n      mig-enabled: true\n      \
         mig-devices: {\"1g.5gb\": 7}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for call in 1..=20 {
        switch.begin(fault("nvmlDeviceGetGpuInstances", call, UNKNOWN));
        let said = node.run(&["mig", "plan", "-f", file, "-c", "small"]);
        let whole = said.out.matches("1g.5gb@").count() >= 14 && !said.out.contains("nothing →");
        assert!(said.code == 3 || whole, "call {call}: {said:?}");
        switch.begin(fault("nvmlDeviceGetGpuInstances", call, UNKNOWN));
        let said = node.run(&["generate", "--file", "gres"]);
        assert!(said.code == 3 || !said.out.is_empty(), "{said:?}");
        let failed = node.nvml.read().unwrap().faults.is_empty();
        assert!(!failed || said.code == 3, "call {call}: {said:?}");
    }
}

#[test]
fn mig_follows_mig_parteds_file_from_the_command_line() {
    let node = Node::new("8xA100", "");
    node.change(|machine| machine.gpus.truncate(2));
    let file = node.path("mig.yaml");
    fs::write(
        &file,
        "version: v1\nmig-configs:\n  half:\n    - devices: [0]\n      mig-enabled: true\n      \
         mig-devices: {\"1g.5gb\": 2, \"3g.20gb\": 1}\n    - devices: [1]\n      mig-enabled: false\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let mig = |verb: &str, more: &[&str]| {
        node.run(&[&["mig", verb, "-f", file, "-c", "half"], more].concat())
    };
    let said = mig("apply", &["--without-slurm"]);
    assert!(
        said.code == 2 && said.err.contains("apply --mode"),
        "{said:?}"
    );
    let said = mig("apply", &["--without-slurm", "--mode"]);
    assert!(
        said.code == 1 && said.out.contains("after a reset"),
        "{said:?}"
    );
    node.change(|machine| machine.gpus[0].mig = machine.gpus[0].mig_pending.take());
    assert_eq!(mig("verify", &[]).code, 2);
    node.change(|machine| machine.gpus[0].processes = vec![process(1, Some(1))]);
    let said = mig("apply", &["--without-slurm"]);
    assert!(
        said.code == 2 && said.err.contains("in use by process 1"),
        "{said:?}"
    );
    node.change(|machine| machine.gpus[0].processes.clear());
    // The capabilities that the driver makes.
    for instance in 1..=3 {
        for (path, minor) in [("", 10 * instance), ("/ci0", 10 * instance + 1)] {
            let gpu = "root/proc/driver/nvidia/capabilities/gpu0/mig";
            let dir = node.path(&format!("{gpu}/gi{instance}{path}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("access"), format!("DeviceFileMinor: {minor}\n")).unwrap();
        }
    }
    let said = mig("apply", &["--without-slurm"]);
    assert_eq!(said.code, 0, "{said:?}");
    let root = node.path("root").display().to_string();
    let line = format!("Type=1g.5gb MultipleFiles={root}/dev/nvidia0,{root}/dev/nvidia-caps/");
    assert_eq!(said.out.matches(&line).count(), 2, "{said:?}");
    assert_eq!(mig("verify", &[]).code, 0);
    let exported = node.run(&["mig", "export"]).out;
    assert!(
        exported.contains("\"1g.5gb\": 2") && exported.contains("\"3g.20gb\": 1"),
        "{exported}"
    );
    assert!(node.run(&["status"]).out.contains("in force: MIG"));
    assert_eq!(node.run(&["mig", "rollback", "--without-slurm"]).code, 0);
    assert!(node.nvml.read().unwrap().gpus[0].instances.is_empty());
    // A profile that the GPU does not have, and more than fits.
    for (devices, words) in [
        ("{\"1g.10tb\": 1}", "it offers 1g.5gb"),
        ("{\"3g.20gb\": 2, \"1g.5gb\": 1}", "do not fit"),
        ("{\"1g.5gb+me\": 2}", "has room for 1"),
    ] {
        let text = format!(
            "version: v1\nmig-configs:\n  half:\n    - devices: [0]\n      mig-enabled: true\n      \
             mig-devices: {devices}\n"
        );
        fs::write(file, text).unwrap();
        let said = mig("plan", &[]);
        assert!(said.code == 3 && said.err.contains(words), "{said:?}");
    }
}

#[test]
fn a_cgroups_limit_is_set_and_read_back_and_missing_with_an_older_driver() {
    let node = Node::new("H100", "");
    let uuid = node.nvml.read().unwrap().gpus[0].uuid.clone();
    let cgroup = node.path("spool");
    let ask = Ask::Limit(uuid, cgroup.clone(), 10_240);
    node.agent().order(&ask).unwrap();
    let limits = node.nvml.read().unwrap().gpus[0].limits.clone();
    assert_eq!(
        limits,
        [(cgroup.to_str().unwrap().to_owned(), 0, 10_240 << 20)]
    );
    let old = Node::without("H100", "", &["nvmlDeviceSetMemoryLimits_v1"]);
    let error = old.agent().order(&ask).unwrap_err();
    assert!(
        matches!(&error, AgentError::Failed(it) if it.contains("newer driver")),
        "{error}"
    );
}

#[test]
fn metrics_are_written_whole_with_numbers_of_each_gpu() {
    let node = Node::new("4xL40S", "shard_size = \"10G\"");
    let file = node.path("gpu.prom");
    assert_eq!(node.run(&["metrics", file.to_str().unwrap()]).code, 0);
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(text.matches("gres_gpu_shards{").count(), 4, "{text}");
    assert_eq!(node.run(&["metrics", "/nonexistent/x.prom"]).code, 73);
}

#[test]
fn nonsense_on_the_command_line_is_refused() {
    let node = Node::new("H100", "");
    assert_eq!(node.run(&["generate", "--shard-size", "lots"]).code, 64);
    assert_eq!(node.run(&["generate", "--shards-per-gpu", "0"]).code, 64);
    assert_eq!(node.run(&["generate", "--mig"]).code, 3);
    assert_eq!(node.run(&["frobnicate"]).code, 64);
    let missing = Command::new(helper())
        .args(["--config", "/nonexistent", "status"])
        .output();
    assert_eq!(missing.unwrap().status.code(), Some(78));
}
