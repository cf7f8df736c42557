//! A dead device is brought back, once, and only where no job loses it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::{Node, eventually, fifo};

const DRIVER: &str = "sys/bus/pci/drivers/efa";

/// A p4d whose first device does not answer, and whose Slurm shows it so.
fn with_dead_device(shown: &str, health: &str) -> Node {
    let node = Node::named("p4d.24xlarge");
    for name in node.sim.devices() {
        let device = node.sim.path("sys/class/infiniband").join(name);
        symlink("/sys/bus/pci/drivers/efa", device.join("device/driver")).unwrap();
    }
    for file in ["unbind", "bind"] {
        node.sim.write(&format!("{DRIVER}/{file}"), "").unwrap();
    }
    let scontrol = node.path("scontrol");
    let text = format!("#!/bin/sh\n[ $1 = show ] && echo 'NodeName=n1 {shown} Owner=N/A'\n");
    fs::write(&scontrol, text).unwrap();
    fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o755)).unwrap();
    node.configure(&format!("scontrol = \"{}\"\n{health}", scontrol.display()));
    die(&node);
    node
}

/// A read fails with EIO, as the driver lets it once the admin queue is closed.
fn die(node: &Node) {
    let counter = node.counter(0, "rx_drops");
    let _ = fs::remove_file(&counter);
    symlink("/proc/self/mem", counter).unwrap();
}

fn file(node: &Node, name: &str) -> PathBuf {
    node.sim.path(DRIVER).join(name)
}

/// What was written to a file of the driver that is no FIFO.
fn written(node: &Node, name: &str) -> String {
    fs::read_to_string(file(node, name)).unwrap()
}

/// A driver that lets a device go, resets it and takes it again; what was
/// written to `unbind` and `bind`. The device is reset while `bind` is being opened,
/// which waits for this reader: a write would not wait, and the counters could be
/// read before.
fn driver(node: &Node) -> JoinHandle<[String; 2]> {
    let files = ["unbind", "bind"].map(|name| file(node, name));
    files.iter().for_each(|path| fifo(path));
    let counter = node.counter(0, "rx_drops");
    std::thread::spawn(move || {
        let [unbind, bind] = files;
        let mut unbind = fs::File::open(unbind).unwrap();
        fs::remove_file(&counter).unwrap();
        fs::write(&counter, "0\n").unwrap();
        let mut bind = fs::File::open(bind).unwrap();
        let read = |file: &mut fs::File| {
            let mut bytes = [0; 64];
            let length = file.read(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        [read(&mut unbind), read(&mut bind)]
    })
}

/// A step of a job.
fn step(node: &Node) {
    let write = |file: &str, text: &str| {
        let place = format!("proc/77/{file}");
        node.sim.write(&place, text).unwrap();
    };
    write("comm", "slurmstepd\n");
    write("status", "Uid:\t0\t0\t0\t0\n");
    write("cmdline", "slurmstepd: [18.0]\0");
}

const IDLE: &str = "State=IDLE";
const DRAINED: &str = "State=IDLE+DRAIN Reason=EFA: x [root@2026-11-22T09:12:00]";

#[test]
fn a_person_brings_a_dead_device_back() {
    let node = with_dead_device(IDLE, "");
    assert_eq!(node.findings(), ["counters: fatal"]);
    let driver = driver(&node);
    let said = node.run(&["rebind", &node.sim.devices()[0]]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains(": it answers again after "), "{said:?}");
    assert_eq!(driver.join().unwrap(), ["0000:10:1b.0", "0000:10:1b.0"]);
    assert_eq!(node.findings(), [""; 0]);
}

#[test]
fn a_device_that_is_still_dead_afterwards_is_reported_so() {
    let node = with_dead_device(IDLE, "");
    let said = node.run(&["rebind", &node.sim.devices()[0]]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err
            .contains("it came back and does not answer: rx_drops"),
        "{said:?}"
    );
}

#[test]
fn no_device_is_taken_from_a_job_unless_a_person_insists() {
    let device = |node: &Node| node.sim.devices()[0].clone();
    let with_step = with_dead_device(IDLE, "");
    step(&with_step);
    let in_slurm = with_dead_device("State=ALLOCATED", "");
    let unasked = with_dead_device(IDLE, "");
    fs::remove_file(unasked.path("scontrol")).unwrap();
    for node in [with_step, in_slurm, unasked] {
        let refused = node.run(&["rebind", &device(&node)]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.err.contains("was not rebound"), "{refused:?}");
        assert_eq!(written(&node, "unbind"), "");
        let forced = node.run(&["rebind", "--force", &device(&node)]);
        assert_eq!(forced.code, 2, "{forced:?}");
        assert_eq!(written(&node, "bind"), "0000:10:1b.0");
    }
}

/// Takes the driver from the first device, as an unbind does that no bind follows: the
/// kernel's name goes as well. Its name, and what brings it back.
fn without_driver(node: &Node) -> (String, impl FnOnce() + Send + use<>) {
    let name = node.sim.devices()[0].clone();
    let class = node.sim.path("sys/class/infiniband").join(&name);
    let driver = class.join("device/driver");
    let (driver, link) = (
        fs::canonicalize(driver.parent().unwrap())
            .unwrap()
            .join("driver"),
        fs::read_link(&class).unwrap(),
    );
    fs::remove_file(&driver).unwrap();
    fs::remove_file(&class).unwrap();
    (name, move || {
        symlink("/sys/bus/pci/drivers/efa", driver).unwrap();
        symlink(link, class).unwrap();
    })
}

/// A driver that takes a device; what was written to `bind`.
fn binds(node: &Node, back: impl FnOnce() + Send + 'static) -> JoinHandle<String> {
    let bind = file(node, "bind");
    fifo(&bind);
    std::thread::spawn(move || {
        let mut bind = fs::File::open(bind).unwrap();
        let mut bytes = [0; 64];
        let length = bind.read(&mut bytes).unwrap();
        back();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    })
}

#[test]
fn a_device_without_a_driver_is_bound_by_its_pci_address_or_its_last_name() {
    let by_round = |node: &Node| _ = node.run(&["healthcheck"]);
    let by_record = |node: &Node| assert_eq!(node.run(&["baseline"]).code, 0);
    let nothing = |_: &Node| {};
    for (given, know) in [
        ("0000:10:1b.0", &nothing as &dyn Fn(&Node)),
        ("0000:10:1B.0", &nothing),
        ("", &by_round),
        ("", &by_record),
    ] {
        let node = with_dead_device(IDLE, "");
        let counter = node.counter(0, "rx_drops");
        fs::remove_file(&counter).unwrap();
        fs::write(&counter, "0\n").unwrap();
        know(&node);
        let (name, back) = without_driver(&node);
        let driver = binds(&node, back);
        let device = if given.is_empty() { &name } else { given };
        let said = node.run(&["rebind", device]);
        assert_eq!(said.code, 0, "{device}: {said:?}");
        assert_eq!(driver.join().unwrap(), "0000:10:1b.0");
        assert_eq!(written(&node, "unbind"), "", "{device}");
        assert_eq!(node.findings(), [""; 0], "{device}");
    }
}

#[test]
fn a_device_that_another_driver_has_is_left_to_it() {
    let node = with_dead_device(IDLE, "");
    let device = node.sim.path("sys/bus/pci/devices/0000:10:1b.0");
    fs::remove_file(device.join("driver")).unwrap();
    symlink("/sys/bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
    let said = node.run(&["rebind", "--force", "0000:10:1b.0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("the driver vfio-pci has it"), "{said:?}");
    assert_eq!(written(&node, "bind"), "");
}

#[test]
fn a_device_that_is_not_efas_is_not_rebound_by_its_address() {
    let node = with_dead_device(IDLE, "");
    for (file, text) in [("vendor", "0x10de\n"), ("device", "0x2330\n")] {
        let place = format!("sys/bus/pci/devices/0000:99:00.0/{file}");
        node.sim.write(&place, text).unwrap();
    }
    let said = node.run(&["rebind", "--force", "0000:99:00.0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(written(&node, "bind"), "");
}

#[test]
fn a_name_that_is_no_efa_device_moves_nothing() {
    let node = with_dead_device(IDLE, "");
    for name in ["", "mlx5_0", "../../../etc", &"x".repeat(255)] {
        let said = node.run(&["rebind", "--force", name]);
        assert_eq!(said.code, 3, "{said:?}");
    }
    assert_eq!(written(&node, "unbind"), "");
}

/// Waits for the end of the process that a health check left behind to rebind.
fn wait_for_rebinder(node: &Node) {
    eventually("the end of the rebind", || {
        (!crate::commands::is_running(node, "device-rebinder")).then_some(())
    });
}

#[test]
fn a_health_check_brings_a_dead_device_back_once_a_day() {
    let node = with_dead_device(DRAINED, "rebind = \"idle\"");
    let driver = driver(&node);
    assert_eq!(node.run(&["healthcheck"]).code, 2);
    driver.join().unwrap();
    wait_for_rebinder(&node);
    assert_eq!(node.run(&["healthcheck"]).code, 0);
    die(&node);
    for name in ["unbind", "bind"] {
        fs::remove_file(file(&node, name)).unwrap();
        fs::write(file(&node, name), "").unwrap();
    }
    for _ in 0..2 {
        let said = node.run(&["healthcheck"]);
        assert_eq!(said.code, 2);
        assert!(said.out.contains(", though it was rebound at "), "{said:?}");
        wait_for_rebinder(&node);
    }
    assert_eq!(written(&node, "unbind"), "");
}

#[test]
fn a_health_check_leaves_alone_what_is_not_drained_by_it_or_has_a_job() {
    for (shown, health) in [
        (DRAINED, ""),
        (DRAINED, "rebind = \"idle\"\non_fatal = \"log\""),
        (
            "State=MIXED+DRAIN Reason=EFA: x [root@2026-11-22T09:12:00]",
            "rebind = \"idle\"",
        ),
        (DRAINED, "rebind = \"idle\" # with a step"),
    ] {
        let node = with_dead_device(shown, health);
        if health.contains("step") {
            step(&node);
        }
        assert_eq!(node.run(&["healthcheck"]).code, 2);
        wait_for_rebinder(&node);
        assert_eq!(written(&node, "unbind"), "", "{shown} {health}");
        // It may be healed later.
        assert!(!node.run(&["healthcheck"]).out.contains("was rebound"));
        wait_for_rebinder(&node);
    }
}
