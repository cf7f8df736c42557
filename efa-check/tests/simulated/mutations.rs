//! Healthy trees, changed in every place and way: never a crash, never a hang,
//! never "healthy" for a tree that lost a device.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use efa::reader_locks::ReaderLocks;

use crate::{Node, Said, fifo, said};

/// Every file, link and directory of a tree, links not followed.
fn everything(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                open.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    all
}

/// What is put in the place of something that was taken away.
type Mutation = (&'static str, fn(&Path));

const MUTATIONS: [Mutation; 9] = [
    ("removed", |_| {}),
    ("empty", |path| fs::write(path, "").unwrap()),
    ("garbled", |path| {
        fs::write(path, b"\xff\x00\x1b[2J99999999999999999999999\n").unwrap()
    }),
    ("a long text", |path| {
        fs::write(path, [b'7'; 100_000]).unwrap()
    }),
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a link to itself", |path| {
        symlink(path.file_name().unwrap(), path).unwrap()
    }),
    ("an endless device", |path| {
        symlink("/dev/zero", path).unwrap()
    }),
    ("a FIFO that never answers", fifo),
    ("swapped for another file", |path| {
        symlink("/proc/version", path).unwrap()
    }),
];

/// What waits for a FIFO waits forever: anything less than that is the work of
/// the program's own limits, and the rest is what a busy machine adds.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn no_change_of_any_file_or_directory_makes_it_crash_or_hang_or_miss_a_lost_device() {
    let node = Node::named("g5.8xlarge");
    node.configure("probe_limit = \"200ms\"");
    // Beside the tree, where a rename can put it.
    let aside = node.sim.root().with_file_name("aside");
    for path in everything(node.sim.root()) {
        for (name, mutate) in MUTATIONS {
            fs::rename(&path, &aside).unwrap();
            mutate(&path);
            let start = Instant::now();
            let said = node.run(&["node", "--json"]);
            assert!(start.elapsed() < DEADLINE, "{name}: {}", path.display());
            assert!(
                (0..=3).contains(&said.code),
                "{name}: {}: {said:?}",
                path.display()
            );
            assert!(!said.err.contains("panicked"), "{name}: {said:?}");
            assert!(
                !said.out.chars().any(|c| c.is_control() && c != '\n'),
                "{name}: {}: {said:?}",
                path.display()
            );
            if visible(&node) == 0 {
                assert_ne!(said.code, 0, "{name}: {}: {said:?}", path.display());
            }
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => fs::remove_dir(&path).unwrap(),
                Ok(_) => fs::remove_file(&path).unwrap(),
                Err(_) => {}
            }
            fs::rename(&aside, &path).unwrap();
        }
    }
    assert_eq!(node.findings(), [""; 0], "the tree is whole again");
}

/// The EFA devices of a tree, found in the plainest way.
fn visible(node: &Node) -> usize {
    let Ok(entries) = fs::read_dir(node.sim.path("sys/class/infiniband")) else {
        return 0;
    };
    let id = |path: PathBuf| {
        let regular = fs::metadata(&path).is_ok_and(|meta| meta.is_file());
        regular.then(|| fs::read_to_string(path).ok()).flatten()
    };
    entries
        .filter(|entry| {
            let device = entry.as_ref().unwrap().path().join("device");
            id(device.join("vendor")).is_some_and(|text| text.trim() == "0x1d0f")
                && id(device.join("device")).is_some_and(|text| text.starts_with("0xefa"))
        })
        .count()
}

#[test]
fn directories_of_a_million_files_cost_no_more_than_a_look() {
    let node = Node::named("g5.8xlarge");
    let device = node.sim.devices()[0].clone();
    let class = node.sim.path("sys/class/infiniband");
    let crowd = node.sim.root().with_file_name("crowd");
    fs::create_dir(&crowd).unwrap();
    for n in 0..1_000_000 {
        symlink("x", crowd.join(format!("x{n}"))).unwrap();
    }
    let counters = class.join(&device).join("ports/1/hw_counters");
    // The list of devices is not read to its end, so it proves nothing.
    for (place, expected) in [(counters, 0), (class, 3)] {
        let aside = node.sim.root().with_file_name("aside");
        let own: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        let exchange = |from: &Path, to: &Path| {
            for name in &own {
                fs::rename(from.join(name), to.join(name)).unwrap();
            }
        };
        exchange(&place, &crowd);
        fs::rename(&place, &aside).unwrap();
        fs::rename(&crowd, &place).unwrap();
        let start = Instant::now();
        let said = node.run(&["node", "--json"]);
        assert!(start.elapsed() < DEADLINE, "{}", place.display());
        assert_eq!(said.code, expected, "{said:?}");
        fs::rename(&place, &crowd).unwrap();
        fs::rename(&aside, &place).unwrap();
        exchange(&crowd, &place);
    }
}

#[test]
fn a_user_who_may_not_read_a_counter_is_told_so_and_not_that_all_is_well() {
    let node = Node::named("g5.8xlarge");
    let counter = node.counter(0, "rx_drops");
    fs::set_permissions(&counter, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = node.path("efa-check");
    fs::copy(env!("CARGO_BIN_EXE_efa-check"), &program).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid=20001", "--regid=20001", "--clear-groups"])
        .arg(&program)
        .args(["node", "--config"])
        .arg(node.config());
    let said = said(&mut command);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains("rx_drops: Permission denied"), "{said:?}");
}

#[test]
fn a_tree_with_every_counter_hanging_costs_the_limit_once_and_names_devices() {
    let mut node = Node::named("p5.48xlarge");
    for device in 0..32 {
        node.hang(device, "rx_drops");
    }
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    let start = Instant::now();
    let said = node.run(&["prolog"]);
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("a read hangs") && said.err.contains("and 30 more"),
        "{said:?}"
    );
}

#[test]
fn one_hanging_device_is_named_and_the_others_are_still_judged() {
    let mut node = Node::named("p5.48xlarge");
    node.hang(7, "rx_drops");
    fs::write(node.counter(30, "tx_pkts"), "no number").unwrap();
    node.configure("probe_limit = \"2s\"");
    let said = node.run(&["node"]);
    let (stuck, bad) = (&node.sim.devices()[7], &node.sim.devices()[30]);
    assert!(said.out.contains(&format!("{stuck} (pci ")), "{said:?}");
    assert!(said.out.contains("a read hangs"), "{said:?}");
    assert!(
        said.out.contains(bad) && said.out.contains("`no number` is no number"),
        "{said:?}"
    );
}

#[test]
fn no_second_process_hangs_on_a_device_whoever_looks() {
    let mut node = Node::named("p4d.24xlarge");
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    node.hang(1, "rx_drops");
    let root = node.sim.root().display().to_string();
    let readers =
        || crate::processes(|line| line.contains("counter-reader") && line.contains(&root));
    // A person's look keeps nothing for the next round.
    assert_eq!(node.run(&["node"]).code, 2);
    let first = readers();
    assert_eq!(first.len(), 1);
    for command in ["node", "prolog", "healthcheck", "node"] {
        let said = node.run(&[command]);
        assert_eq!(said.code, 2, "{command}: {said:?}");
        assert!((said.out + &said.err).contains("a read hangs"), "{command}");
        assert_eq!(readers(), first, "{command}");
    }
}

#[test]
fn no_second_process_hangs_on_a_node_that_nothing_is_known_of_yet() {
    let mut node = Node::named("p4d.24xlarge");
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    node.hang(1, "rx_drops");
    let root = node.sim.root().display().to_string();
    let readers =
        || crate::processes(|line| line.contains("counter-reader") && line.contains(&root));
    assert!(!node.path("state").exists());
    assert_eq!(node.run(&["node"]).code, 2);
    let first = readers();
    assert_eq!(first.len(), 1);
    assert_eq!(node.run(&["node"]).code, 2);
    assert_eq!(readers(), first);
}

/// A node whose second device hangs its readers, which a user may look at as well:
/// his command, and every process that reads this node's counters.
fn hanging_for_a_user() -> (Node, impl Fn(&Node) -> Said, impl Fn(&Node) -> Vec<String>) {
    let mut node = Node::named("p4d.24xlarge");
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    node.hang(1, "rx_drops");
    let tmp = node.path("tmp");
    fs::create_dir(&tmp).unwrap();
    for (path, mode) in [(node.dir.path(), 0o755), (&tmp, 0o1777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_efa-check"), node.path("efa-check")).unwrap();
    let as_user = |node: &Node| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=20001", "--regid=20001", "--clear-groups"])
            .arg(node.path("efa-check"))
            .args(["node", "--config"])
            .arg(node.config())
            .env_remove("XDG_RUNTIME_DIR")
            .env("TMPDIR", node.path("tmp"));
        said(&mut command)
    };
    let readers = |node: &Node| {
        let root = node.sim.root().display().to_string();
        crate::processes(|line| line.contains("counter-reader") && line.contains(&root))
    };
    (node, as_user, readers)
}

#[test]
fn as_root_a_user_who_looks_again_leaves_no_second_process_that_hangs() {
    let (node, as_user, readers) = hanging_for_a_user();
    let device = node.sim.devices()[1].clone();
    let first = as_user(&node);
    assert_eq!(first.code, 2, "{first:?}");
    let left = readers(&node);
    assert_eq!(left.len(), 1, "{left:?}");
    let second = as_user(&node);
    assert_eq!(second.code, 2, "{second:?}");
    assert!(second.out.contains(&device), "{second:?}");
    assert_eq!(readers(&node), left);
    // His lock is gone with its folder: he knows by the process that something hangs.
    fs::remove_dir_all(node.path("tmp/slurm-efa-20001")).unwrap();
    let third = as_user(&node);
    assert_eq!(third.code, 3, "{third:?}");
    assert_eq!(readers(&node), left);
}

#[test]
fn as_root_a_user_reads_no_counter_while_a_reader_of_roots_hangs() {
    let (node, as_user, readers) = hanging_for_a_user();
    assert_eq!(node.run(&["node"]).code, 2);
    let left = readers(&node);
    assert_eq!(left.len(), 1, "{left:?}");
    let said = as_user(&node);
    assert_eq!(said.code, 3, "{said:?}");
    let reason = format!("process {} hangs", left[0]);
    assert!(said.out.contains(&reason), "{said:?}");
    assert_eq!(readers(&node), left);
}

#[test]
fn a_device_on_which_the_plugins_reader_hangs_keeps_the_next_job_away() {
    let mut node = Node::named("p4d.24xlarge");
    node.configure("probe_limit = \"2s\"\nscontrol = \"/nonexistent\"");
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    node.hang(1, "tx_bytes");
    // As at the start of a job, when nothing has ended that reader yet.
    let state = node.path("state");
    let started = Command::new(env!("CARGO_BIN_EXE_efa-counter-reader"))
        .arg(node.sim.root())
        .arg(&state)
        .arg("600000")
        .args([""; 3])
        .stdout(Stdio::null())
        .status();
    assert!(started.unwrap().success());
    let locks = ReaderLocks::open(&state).unwrap();
    let device = node.sim.devices()[1].clone();
    crate::eventually("the reader at the device", || locks.holder(&device));
    let said = node.run(&["prolog"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!((said.out + &said.err).contains("a read hangs"));
}

#[test]
fn no_process_is_left_when_a_read_hangs_or_the_program_is_killed() {
    let node = Node::named("g5.8xlarge");
    fifo(&node.counter(0, "rx_drops"));
    node.configure("probe_limit = \"60s\"");
    let mut child = node
        .command(&["node"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let root = node.sim.root().display().to_string();
    let readers = || {
        let mut found = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            found += usize::from(line.contains("counter-reader") && line.contains(&root));
        }
        found
    };
    crate::eventually("the reader's start", || (readers() == 1).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    crate::eventually("the reader's end", || (readers() == 0).then_some(()));
}

#[test]
fn a_state_file_of_any_content_is_a_first_round() {
    let node = Node::named("g5.8xlarge");
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    let state = node.path("state/efa-check.json");
    let whole = fs::read(&state).unwrap();
    node.add(0, "no_completion_cmds", 1);
    let mut contents: Vec<Vec<u8>> = (0..whole.len())
        .step_by(41)
        .map(|n| whole[..n].to_vec())
        .collect();
    contents.push(b"{}".to_vec());
    contents.push(b"\xff".repeat(10_000));
    contents.push([b'['].repeat(60_000));
    for content in contents {
        let mut file = fs::File::create(&state).unwrap();
        file.write_all(&content).unwrap();
        let said = node.run(&["healthcheck"]);
        assert_eq!(
            said.code,
            0,
            "{:?}: {said:?}",
            String::from_utf8_lossy(&content)
        );
        // And the next is a second one.
        assert!(fs::read(&state).unwrap().starts_with(b"{\"version\":2"));
    }
}
