//! Every family, healthy and with each defect: the expected finding and no other.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cdylib_tests::simnode::Spec;

use crate::{Node, eventually, fifo};

/// A defect: what it is, how it is done to a node, and what shall be found.
struct Defect {
    name: &'static str,
    /// The nodes that can have it.
    applies: fn(&str) -> bool,
    health: &'static str,
    top: &'static str,
    done: fn(&mut Node),
    found: &'static str,
}

const fn defect(
    name: &'static str,
    applies: fn(&str) -> bool,
    done: fn(&mut Node),
    found: &'static str,
) -> Defect {
    Defect {
        name,
        applies,
        health: "probe_limit = \"1s\"",
        top: "",
        done,
        found,
    }
}

fn any(_: &str) -> bool {
    true
}

fn has_p2p(node: &str) -> bool {
    node != "g5.8xlarge"
}

fn has_new_driver(node: &str) -> bool {
    node != "p4d_old_stack"
}

fn has_nvidia(node: &str) -> bool {
    node != "trn1.32xlarge"
}

fn device_dir(node: &Node) -> std::path::PathBuf {
    let name = &node.sim.devices()[0];
    node.sim.path("sys/class/infiniband").join(name)
}

fn uverbs(node: &Node) -> std::path::PathBuf {
    let folder = device_dir(node).join("device/infiniband_verbs");
    let name = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    node.sim.path("dev/infiniband").join(name)
}

fn rename(node: &Node, name: &str) {
    let entry = device_dir(node);
    fs::rename(&entry, entry.with_file_name(name)).unwrap();
}

/// A second entry for the first device.
fn twin(node: &Node) {
    let entry = device_dir(node);
    let target = fs::canonicalize(&entry).unwrap();
    std::os::unix::fs::symlink(target, entry.with_file_name("efa_twin")).unwrap();
}

/// An RDMA device of another vendor, and one that is software.
fn stranger(node: &Node) {
    let write = |file: &str, text: &str| {
        let place = format!("sys/class/infiniband/mlx5_9/{file}");
        node.sim.write(&place, text).unwrap();
    };
    write("device/vendor", "0x15b3\n");
    write("device/device", "0x1021\n");
    write("node_guid", "0000:0000:0000:0000\n");
    node.sim
        .write("sys/class/infiniband/rxe0/node_type", "1: CA\n")
        .unwrap();
}

/// The kernel's own efa driver has neither `p2p` nor a version.
fn kernels_driver(node: &mut Node) {
    for name in node.sim.devices() {
        let device = node.sim.path("sys/class/infiniband").join(name);
        let _ = fs::remove_file(device.join("device/p2p"));
    }
    node.sim.remove("sys/module/efa/version").unwrap();
}

/// A process that calls itself slurmd.
fn slurmd(node: &mut Node, pid: u32, uid: u32, exe: &str) {
    let place = format!("proc/{pid}");
    let write = |file: &str, text: &str| node.sim.write(&format!("{place}/{file}"), text).unwrap();
    write("comm", "slurmd\n");
    write(
        "status",
        &format!("Name:\tslurmd\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
    );
    std::os::unix::fs::symlink(exe, node.sim.path(&format!("{place}/exe"))).unwrap();
}

/// Rounds of `watch`, since only a second round can find that something rose.
fn rose(node: &mut Node, counter: &str, by: u64) {
    node.run(&["prolog"]);
    node.add(0, counter, by);
}

#[rustfmt::skip]
const DEFECTS: &[Defect] = &[
    defect("a device left the bus", any, |n| n.sim.remove_device(0).unwrap(), "device-count: fatal"),
    defect("a device's vendor is garbage", any,
        |n| fs::write(device_dir(n).join("device/vendor"), "\x1b[2J\0").unwrap(), "device-count: fatal"),
    defect("no device directory at all", any,
        |n| fs::remove_dir_all(n.sim.path("sys/class/infiniband")).unwrap(), "device-count: fatal"),
    defect("efa is not loaded", any, |n| n.sim.remove("sys/module/efa").unwrap(), "modules: fatal"),
    defect("ib_uverbs is not loaded", any, |n| n.sim.remove("sys/module/ib_uverbs").unwrap(), "modules: fatal"),
    defect("ib_core is not loaded", any, |n| n.sim.remove("sys/module/ib_core").unwrap(), "modules: fatal"),
    defect("a uverbs node is missing", any, |n| fs::remove_file(uverbs(n)).unwrap(), "uverbs: fatal"),
    defect("a uverbs node is closed to users", any,
        |n| fs::set_permissions(uverbs(n), fs::Permissions::from_mode(0o600)).unwrap(), "uverbs: fatal"),
    defect("the kernel made no uverbs device", any,
        |n| fs::remove_dir_all(device_dir(n).join("device/infiniband_verbs")).unwrap(), "uverbs: fatal"),
    defect("a counter hangs in the kernel", |node| node == "g5.8xlarge", |n| n.hang(0, "rx_drops"), "counters: fatal"),
    defect("a counter is late, but its reader can be ended", any,
        |n| fifo(&n.counter(0, "rx_drops")), "counters: unknown"),
    defect("a counter is an error", any,
        |n| { let c = n.counter(0, "rx_drops"); fs::remove_file(&c).unwrap(); fs::create_dir(&c).unwrap(); },
        "counters: fatal"),
    defect("a counter is no number", any,
        |n| fs::write(n.counter(0, "rx_drops"), "-1\n").unwrap(), "counters: fatal"),
    defect("a counter is empty", any,
        |n| fs::write(n.counter(0, "no_completion_cmds"), "").unwrap(), "counters: fatal"),
    defect("a counter goes backwards", any,
        |n| { n.add(0, "no_completion_cmds", 9); n.run(&["prolog"]);
              fs::write(n.counter(0, "no_completion_cmds"), "1\n").unwrap(); }, ""),
    defect("a counter is as large as it can be", any,
        |n| { fs::write(n.counter(0, "tx_pkts"), format!("{}\n", u64::MAX)).unwrap();
              fs::write(n.counter(0, "rx_drops"), format!("{}\n", u64::MAX)).unwrap(); }, ""),
    defect("a counter rises to the largest number", any,
        |n| { n.run(&["prolog"]); fs::write(n.counter(0, "rx_drops"), format!("{}\n", u64::MAX)).unwrap(); },
        "rx-drops: warning"),
    defect("a counter is larger than it can be", any,
        |n| fs::write(n.counter(0, "rx_drops"), "18446744073709551616\n").unwrap(), "counters: fatal"),
    defect("a device's name has 255 bytes", any, |n| { n.run(&["healthcheck"]); rename(n, &"x".repeat(255)); }, ""),
    defect("a GUID is zero", any,
        |n| fs::write(device_dir(n).join("node_guid"), "0000:0000:0000:0000\n").unwrap(), ""),
    defect("a device appears twice", any, |n| twin(n), ""),
    defect("a device appears twice, and another is gone", |node| node != "g5.8xlarge",
        |n| { twin(n); n.sim.remove_device(1).unwrap(); }, "device-count: fatal"),
    defect("other vendors' devices are beside EFA's", any, |n| stranger(n), ""),
    defect("the counters are gone", any,
        |n| fs::remove_dir_all(device_dir(n).join("ports/1/hw_counters")).unwrap(), "counters: fatal"),
    defect("p2p is empty", has_p2p, |n| fs::write(device_dir(n).join("device/p2p"), "\n").unwrap(), "gpudirect: fatal"),
    defect("p2p is missing", has_p2p, |n| fs::remove_file(device_dir(n).join("device/p2p")).unwrap(), "gpudirect: unknown"),
    defect("the driver is the kernel's own", has_p2p, kernels_driver, "gpudirect: unknown"),
    defect("the driver is the kernel's own where GPUDirect is not required", |node| !has_p2p(node), kernels_driver, ""),
    defect("the driver is the kernel's own, and p2p is empty all the same", has_p2p,
        |n| { kernels_driver(n); fs::write(device_dir(n).join("device/p2p"), "\n").unwrap(); }, "gpudirect: fatal"),
    defect("libfabric is missing", any,
        |n| for lib in ["lib", "lib64"] { let _ = fs::remove_dir_all(n.sim.path("opt/amazon/efa").join(lib)); },
        "stack: warning"),
    Defect { top: "default_profile = \"auto\"", ..defect("libfabric is missing and every job needs it", any,
        |n| for lib in ["lib", "lib64"] { let _ = fs::remove_dir_all(n.sim.path("opt/amazon/efa").join(lib)); },
        "stack: fatal") },
    defect("the plugin is missing", has_nvidia,
        |n| for place in ["opt/amazon/ofi-nccl", "opt/aws-ofi-nccl"] { let _ = n.sim.remove(place); },
        "stack: warning"),
    Defect { health: "stack = \"container\"", ..defect("the plugin is missing where images bring it", has_nvidia,
        |n| for place in ["opt/amazon/ofi-nccl", "opt/aws-ofi-nccl"] { let _ = n.sim.remove(place); }, "") },
    defect("an admin command went unanswered", any, |n| rose(n, "no_completion_cmds", 1), "admin-queue: fatal"),
    defect("packets are dropped", any, |n| rose(n, "rx_drops", 1000), "rx-drops: warning"),
    defect("a few packets are dropped", any, |n| rose(n, "rx_drops", 100), ""),
    defect("RDMA reads fail", any, |n| rose(n, "rdma_read_wr_err", 1000), "rdma-errors: warning"),
    defect("RDMA writes fail", any, |n| rose(n, "rdma_write_wr_err", 1000), "rdma-errors: warning"),
    defect("remotes are silent", has_new_driver,
        |n| rose(n, "unresponsive_remote_events", 1000), "unresponsive-remote: warning"),
    defect("connections are impaired", has_new_driver,
        |n| rose(n, "impaired_remote_conn_events", 1000), "impaired-remote: warning"),
    defect("packets are sent again", has_new_driver, |n| rose(n, "retrans_pkts", 5000), "retransmissions: warning"),
    defect("bytes are sent again", has_new_driver, |n| rose(n, "retrans_bytes", 5_000_000), "retransmissions: warning"),
    defect("timeouts", has_new_driver, |n| rose(n, "retrans_timeout_events", 500), "retransmissions: warning"),
    defect("nothing ever comes back", has_new_driver,
        |n| { n.add(0, "tx_pkts", 500); n.add(0, "unresponsive_remote_events", 5); }, "security-group: warning"),
    defect("slurmd may lock little memory", any,
        |n| { slurmd(n, 77, 0, "/usr/sbin/slurmd");
              n.sim.write("proc/77/limits", "Limit Soft Hard Units\nMax locked memory  65536  65536  bytes\n").unwrap(); },
        "memlock: warning"),
    defect("slurmd may lock all memory", any,
        |n| { slurmd(n, 77, 0, "/usr/sbin/slurmd");
              n.sim.write("proc/77/limits", "Max locked memory  unlimited  unlimited  bytes\n").unwrap(); }, ""),
    defect("a user's process is called slurmd", any,
        |n| { slurmd(n, 77, 1000, "/home/u/slurmd");
              n.sim.write("proc/77/limits", "Max locked memory  65536  65536  bytes\n").unwrap(); }, ""),
    defect("a slurmd is in a container", any,
        |n| { slurmd(n, 77, 0, "/usr/sbin/slurmd");
              for (process, namespace) in [("77", 2), ("self", 1)] {
                  let folder = n.sim.path(&format!("proc/{process}/ns"));
                  fs::create_dir_all(&folder).unwrap();
                  std::os::unix::fs::symlink(format!("pid:[{namespace}]"), folder.join("pid")).unwrap();
              }
              n.sim.write("proc/77/limits", "Max locked memory  65536  65536  bytes\n").unwrap(); }, ""),
    defect("another program of root's is called slurmd", any,
        |n| { slurmd(n, 77, 0, "/usr/bin/bash");
              n.sim.write("proc/77/limits", "Max locked memory  65536  65536  bytes\n").unwrap(); }, ""),
    defect("ptrace is restricted", any,
        |n| n.sim.write("proc/sys/kernel/yama/ptrace_scope", "1\n").unwrap(), "ptrace-scope: warning"),
    defect("ptrace is free", any,
        |n| n.sim.write("proc/sys/kernel/yama/ptrace_scope", "0\n").unwrap(), ""),
    Defect { health: "hugepages = 5128", ..defect("too few hugepages", any,
        |n| n.sim.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5127\n").unwrap(),
        "hugepages: warning") },
    Defect { health: "hugepages = 5128", ..defect("enough hugepages", any,
        |n| n.sim.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5128\n").unwrap(), "") },
    // What the driver says whatever happens must not be believed, nor doubted.
    defect("port state and guid", any,
        |n| { fs::write(device_dir(n).join("ports/1/state"), "1: DOWN\n").unwrap();
              fs::write(device_dir(n).join("ports/1/phys_state"), "3: Disabled\n").unwrap();
              fs::write(device_dir(n).join("node_guid"), "0000:0000:0000:0000\n").unwrap(); }, ""),
];

#[test]
fn a_healthy_node_of_every_family_has_no_finding_and_exits_with_0() {
    for name in Spec::NAMES {
        for spec in [
            Spec::named(name).unwrap(),
            Spec::named(name).unwrap().hyperpod(),
        ] {
            let node = Node::new(&spec);
            assert_eq!(node.findings(), [""; 0], "{name}");
            assert_eq!(node.run(&["prolog"]).code, 0, "{name}");
            assert_eq!(node.run(&["healthcheck"]).code, 0, "{name}");
        }
    }
}

#[test]
fn every_defect_of_every_family_is_found_and_nothing_else_is() {
    for name in Spec::NAMES {
        for defect in DEFECTS.iter().filter(|defect| (defect.applies)(name)) {
            // Two devices make a smaller tree; the record says that it is whole.
            let spec = Spec::named(name).unwrap().with_devices(2);
            let mut node = Node::new(&spec);
            node.configure_all(defect.top, defect.health);
            let devices = node.sim.devices().len().to_string();
            let recorded = node.run(&["baseline", "--expect", &devices]);
            assert_eq!(recorded.code, 0, "{name}: {recorded:?}");
            (defect.done)(&mut node);
            let expected: Vec<&str> = Some(defect.found)
                .filter(|f| !f.is_empty())
                .into_iter()
                .collect();
            assert_eq!(node.findings(), expected, "{name}: {}", defect.name);
        }
    }
}

#[test]
fn a_prolog_fails_for_exactly_the_fatal_defects() {
    for defect in DEFECTS {
        let mut node = Node::named(if (defect.applies)("g5.8xlarge") {
            "g5.8xlarge"
        } else {
            "p4d.24xlarge"
        });
        // No scontrol: this is about the exit code.
        let health = format!("{}\nscontrol = \"/nonexistent/scontrol\"", defect.health);
        node.configure_all(defect.top, &health);
        assert_eq!(node.run(&["baseline"]).code, 0);
        (defect.done)(&mut node);
        let said = node.run(&["prolog"]);
        let expected = if defect.found.ends_with("fatal") {
            2
        } else {
            0
        };
        assert_eq!(said.code, expected, "{}: {said:?}", defect.name);
    }
}

#[test]
fn gpudirect_that_cannot_be_checked_is_reported_with_the_reason() {
    let mut node = Node::named("p5.48xlarge");
    kernels_driver(&mut node);
    let said = node.run(&["node"]);
    assert_eq!(said.code, 3, "{said:?}");
    let reason = "the kernel's own efa driver has no p2p file; GPUDirect goes by dma-buf there and \
                  cannot be checked this way";
    assert!(said.out.contains(reason), "{said:?}");
    node.configure("disable = [\"gpudirect\"]");
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn the_kernels_own_driver_makes_no_noise_in_prolog_and_watch() {
    let mut node = Node::named("p5.48xlarge");
    kernels_driver(&mut node);
    for command in ["prolog", "healthcheck"] {
        let said = node.run(&[command]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert!(!said.out.contains("gpudirect"), "{said:?}");
    }
    assert_eq!(node.run(&["baseline"]).code, 0);
}

#[test]
fn a_check_that_no_round_can_make_does_not_keep_a_node_drained() {
    let mut node = Node::named("p5.48xlarge");
    kernels_driver(&mut node);
    let scontrol = node.path("scontrol");
    fs::write(
        &scontrol,
        format!(
            "#!/bin/sh\ntouch {}\necho NodeName=n1 State=IDLE\n",
            node.path("asked").display()
        ),
    )
    .unwrap();
    fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o755)).unwrap();
    node.configure(&format!(
        "scontrol = \"{}\"\nresume = true\nresume_after = 1",
        scontrol.display()
    ));
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    eventually("a question to Slurm about the resume", || {
        node.path("asked").exists().then_some(())
    });
}

#[test]
fn nvlink_controllers_of_a_p6_b200_are_not_counted() {
    let mut node = Node::named("p6-b200.48xlarge");
    assert_eq!(node.findings(), [""; 0]);
    node.sim.remove_device(0).unwrap();
    // Nine RDMA devices are still there.
    assert_eq!(node.findings(), ["device-count: fatal"]);
}

#[test]
fn a_soft_roce_device_beside_them_is_not_counted_and_not_judged() {
    let mut node = Node::named("g5.8xlarge");
    let recorded = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soft-roce/rxe0");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(recorded)
        .arg(node.sim.path("sys/class/infiniband/rxe0"))
        .status()
        .unwrap();
    assert!(copied.success());
    assert_eq!(node.findings(), [""; 0]);
    node.sim.remove_device(0).unwrap();
    let said = node.run(&["node"]);
    assert!(said.out.contains("0/1 devices"), "{said:?}");
}

#[test]
fn a_node_with_fewer_devices_than_its_type_can_have_is_told_how_to_say_so() {
    let node = Node::new(&Spec::named("p4d.24xlarge").unwrap().with_devices(1));
    let said = node.run(&["node"]);
    assert_eq!(said.code, 2);
    assert!(said.out.contains("1/4 devices"), "{said:?}");
    assert!(
        said.out
            .contains("nothing is recorded: if 1 is right, run `efa-check baseline --expect 1`"),
        "{said:?}"
    );
    assert_eq!(node.run(&["baseline", "--expect", "1"]).code, 0);
    assert_eq!(node.findings(), [""; 0]);
    // The site's word outweighs the record.
    node.configure("expected_devices = { \"p4d.24xlarge\" = 2 }");
    assert_eq!(node.findings(), ["device-count: fatal"]);
    node.configure("expected_devices = 1");
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn a_type_that_nobody_knows_is_not_called_healthy() {
    let node = Node::named("g5.8xlarge");
    let product = node.sim.path("sys/devices/virtual/dmi/id/product_name");
    fs::write(&product, "p99.48xlarge\n").unwrap();
    assert_eq!(node.findings(), ["device-count: unknown"]);
    assert_eq!(node.run(&["prolog"]).code, 0);
    assert_eq!(node.run(&["baseline", "--force"]).code, 0);
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn a_record_of_another_type_or_one_that_is_torn_is_not_used() {
    let node = Node::named("p4d.24xlarge");
    assert_eq!(node.run(&["baseline"]).code, 0);
    let record = node.path("record/efa.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("p4d.24xlarge", "p5.48xlarge")).unwrap();
    assert_eq!(node.findings(), [""; 0]);
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn the_device_that_is_gone_is_named_with_its_place_and_since_when() {
    let mut node = Node::named("p5.48xlarge");
    assert_eq!(node.run(&["baseline"]).code, 0);
    let name = node.sim.devices()[17].clone();
    node.sim.remove_device(17).unwrap();
    // No round has seen it yet: the record knows name and place.
    let said = node.run(&["node"]);
    assert!(
        said.out
            .contains(&format!("31/32 devices, {name} gone (pci 0000:")),
        "{said:?}"
    );
    let mut node = Node::named("p5.48xlarge");
    node.run(&["healthcheck"]);
    node.sim.remove_device(17).unwrap();
    node.configure("scontrol = \"/nonexistent\"");
    let said = node.run(&["healthcheck"]);
    assert!(
        said.out
            .contains(&format!("31/32 devices, {name} gone since ")),
        "{said:?}"
    );
    assert!(said.out.contains(" UTC (pci 0000:"), "{said:?}");
}
