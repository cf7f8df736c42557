//! Each fault as the driver sees it, and that the device is well after it.

use std::time::Duration;

use super::driver::{Driver, Failure};
use super::{World, model};

#[test]
fn a_dead_admin_queue_answers_no_command_and_reads_registers() {
    let world = World::new(model("p5"), 2);
    let mut driver = world.driver(0);
    world.tell(0, "dead-admin on").unwrap();
    assert_eq!(driver.stats(0), Err(Failure::NoAnswer));
    assert!(driver.register(0).is_some());
    // The other device of the fabric is well.
    world.driver(1).stats(0).unwrap();
    // What the kernel does to recover: unbind and bind.
    world.tell(0, "dead-admin off").unwrap();
    driver.event_queues.clear();
    driver.probe().unwrap();
    driver.stats(0).unwrap();
}

#[test]
fn commands_that_waited_for_a_dead_admin_queue_are_answered_when_it_is_well() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    world.tell(0, "dead-admin on").unwrap();
    driver.submit(13, 0, &[]);
    world.tell(0, "dead-admin off").unwrap();
    driver.submit(13, 0, &[]);
    driver.completion().unwrap();
    driver.completion().unwrap();
}

#[test]
fn a_muted_device_answers_and_raises_nothing() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    world.tell(0, "muted on").unwrap();
    driver.raised(0);
    driver.stats(0).unwrap();
    assert_eq!(driver.raised(0), 0);
    world.tell(0, "muted off").unwrap();
    driver.stats(0).unwrap();
    assert_eq!(driver.raised(0), 1);
}

#[test]
fn a_slow_device_takes_its_time_for_each_command() {
    let mut world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    world.tell(0, "slow 300").unwrap();
    for _ in 0..4 {
        driver.submit(13, 0, &[]);
    }
    assert_eq!(driver.completion(), Err(Failure::NoAnswer));
    let mut answered = 0;
    for third in 1..=12 {
        world.pass(Duration::from_millis(100));
        while driver.completion().is_ok() {
            answered += 1;
        }
        assert_eq!(answered, third / 3, "after {third} times 100 ms");
    }
    world.tell(0, "slow 0").unwrap();
    driver.stats(0).unwrap();
}

#[test]
fn a_refused_command_ends_with_the_status_and_the_others_well() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    world.tell(0, "refuse 13 1").unwrap();
    assert_eq!(driver.stats(0), Err(Failure::Status(1)));
    driver.feature(1).unwrap();
    world.tell(0, "refuse off").unwrap();
    driver.stats(0).unwrap();
}

#[test]
fn a_device_off_the_bus_reads_as_all_ones_and_hears_nothing() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    world.tell(0, "gone on").unwrap();
    assert_eq!(driver.vendor(), u32::MAX);
    assert_eq!(driver.read_region(0, 0x58, 4), [0xff; 4]);
    assert_eq!(driver.stats(0), Err(Failure::NoAnswer));
    assert_eq!(driver.register(0), None);
    world.tell(0, "gone off").unwrap();
    driver.event_queues.clear();
    driver.probe().unwrap();
}

#[test]
fn faults_of_a_probe_keep_the_driver_from_binding() {
    for (fault, error) in [
        ("not-ready", "not ready"),
        ("stuck-reset", "the reset does not end"),
        ("dead-registers", "registers do not answer"),
    ] {
        let world = World::new(model("p5"), 1);
        world.tell(0, &format!("{fault} on")).unwrap();
        let mut driver = Driver::connect(world.port(0));
        assert_eq!(driver.probe(), Err(error));
        world.tell(0, &format!("{fault} off")).unwrap();
        driver.probe().unwrap();
    }
}

#[test]
fn a_dead_admin_queue_keeps_the_driver_from_binding() {
    let world = World::new(model("p5"), 1);
    world.tell(0, "dead-admin on").unwrap();
    let mut driver = Driver::connect(world.port(0));
    assert_eq!(driver.probe(), Err("event queues"));
}
