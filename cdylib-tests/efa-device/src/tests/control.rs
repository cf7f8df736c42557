//! Steering: requests as lines, answers as lines.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use super::{World, configuration, model};
use crate::control::{Request, tell};
use crate::fabric::Fabric;
use crate::server;

#[test]
fn a_request_that_is_misspelt_says_what_there_is() {
    for line in [
        "",
        "dead-admin",
        "dead-admin maybe",
        "dead on",
        "slow x",
        "slow -1",
        "slow 99999999999",
        "refuse 300 1",
        "loss 101",
        "loss NaN",
        "event 1",
        "set rx_drops",
        "counters now",
        "guid",
        "guid 18446744073709551616",
    ] {
        let error = line.parse::<Request>().unwrap_err();
        assert!(!error.is_empty(), "{line}");
    }
    assert_eq!("loss 0.5".parse(), Ok(Request::Loss(5000)));
}

#[test]
fn the_state_names_faults_queues_and_commands() {
    let world = World::new(model("p6"), 1);
    let mut driver = world.driver(0);
    driver.stats(0).unwrap();
    world.tell(0, "slow 7").unwrap();
    let state: serde_json::Value = world.tell(0, "state").unwrap().parse().unwrap();
    assert_eq!(state["model"], "p6");
    assert_eq!(state["faults"]["slow_ms"], 7);
    assert_eq!(state["faults"]["dead_admin"], false);
    assert_eq!(state["queues"]["event_queues"], 8);
    assert_eq!(state["commands"]["13"], 1);
}

#[test]
fn counters_are_json_and_can_be_set_to_any_value() {
    let world = World::new(model("p5"), 1);
    world.tell(0, "set rx_drops 18446744073709551615").unwrap();
    assert!(world.tell(0, "set no_such 1").is_err());
    let counters: serde_json::Value = world.tell(0, "counters").unwrap().parse().unwrap();
    assert_eq!(counters["rx_drops"], u64::MAX);
    assert_eq!(counters["tx_bytes"], 0);
    // The 22 of the driver, and the violations that newer ones show.
    assert_eq!(counters.as_object().unwrap().len(), 23);
}

#[test]
fn a_device_claims_the_guid_that_it_is_told_to() {
    const GUID: std::ops::Range<usize> = 40..48;
    let world = World::new(model("p5"), 2);
    let own = world.driver(1).feature(1).unwrap()[GUID].to_vec();
    assert_ne!(own, world.driver(0).feature(1).unwrap()[GUID]);
    for guid in [0, 0x0102_0304_0506_0708_u64] {
        world.tell(1, &format!("guid {guid}")).unwrap();
        let claimed = world.driver(1).feature(1).unwrap();
        assert_eq!(claimed[GUID], guid.to_be_bytes());
    }
    world.tell(1, "guid own").unwrap();
    assert_eq!(world.driver(1).feature(1).unwrap()[GUID], own);
}

#[test]
fn a_served_device_takes_guests_and_requests_at_its_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("efa0");
    let control = server::control_socket(&socket);
    let sockets = [socket.clone()];
    // What an earlier process left is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        let fabric = Fabric::new(&configuration(model("p5")), 1, 1);
        server::serve(fabric, &sockets, || ready.send(()).unwrap())
    });
    is_ready.recv().unwrap();
    assert_eq!(tell(&control, "dead-admin on"), Ok("ok".to_owned()));
    assert_eq!(
        tell(&control, "hang-up"),
        Err("no guest is connected".to_owned())
    );
    assert!(tell(&control, "nonsense").unwrap_err().contains("hang-up"));
    // A guest that says nothing, until it is hung up on.
    let mut guest = UnixStream::connect(&socket).unwrap();
    while !tell(&control, "state")
        .unwrap()
        .contains("\"connected\":true")
    {
        thread::yield_now();
    }
    tell(&control, "hang-up").unwrap();
    assert_eq!(std::io::Read::read(&mut guest, &mut [0]).unwrap(), 0);
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("efa0");
    fs::write(&path, "precious").unwrap();
    let fabric = Fabric::new(&configuration(model("p5")), 1, 1);
    let error = server::serve(fabric, std::slice::from_ref(&path), || {}).unwrap_err();
    assert!(error.to_string().contains("efa0"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
