//! A driver binds: reset, queues, features, counters, events.

use super::driver::{Driver, Failure};
use super::{World, configuration, model};
use crate::bytes::{Fields, u16_at, u32_at, u64_at};
use crate::vfio_user::CONFIG;
use crate::{Configuration, CounterSet, MODELS, pci, registers};

#[test]
fn a_driver_binds_to_every_model() {
    for model in MODELS {
        let world = World::new(*model, 1);
        let mut driver = world.driver(0);
        assert_eq!(driver.vendor(), 0x1d0f | u32::from(model.device_id) << 16);
        for bar in [pci::REGISTERS, pci::SEND_RINGS, pci::DOORBELLS] {
            assert!(driver.region_size(bar).is_power_of_two(), "{bar}");
        }
        for feature in 1..=5 {
            driver.feature(feature).unwrap();
        }
        assert_eq!(driver.feature(8), Err(Failure::Status(5)));
    }
}

#[test]
fn only_models_of_nitro_v4_and_later_write_by_rdma() {
    let capabilities = |name| {
        let world = World::new(model(name), 1);
        let device = world.driver(0).feature(1).unwrap();
        u32_at(&device, 32)
    };
    const READ: u32 = 1;
    const WRITE: u32 = 1 << 3;
    assert_eq!(capabilities("p4d") & (READ | WRITE), READ);
    for name in ["p5", "p5en", "p6"] {
        assert_eq!(capabilities(name) & (READ | WRITE), READ | WRITE, "{name}");
    }
}

#[test]
fn the_time_limit_of_the_admin_queue_is_in_the_capabilities() {
    let world = World::new(model("p5"), 1);
    let caps = world.driver(0).register(registers::CAPS).unwrap();
    assert_eq!(caps >> 16 & 0xf, 5);
    assert_ne!(caps >> 1 & 0x1f, 0, "a reset has a time limit");
}

#[test]
fn counters_are_answered_in_the_order_of_the_driver() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let names: [&[&str]; 5] = [
        &["tx_bytes", "tx_pkts", "rx_bytes", "rx_pkts", "rx_drops"],
        &["send_bytes", "send_wrs", "recv_bytes", "recv_wrs"],
        &[
            "rdma_read_wrs",
            "rdma_read_bytes",
            "rdma_read_wr_err",
            "rdma_read_resp_bytes",
        ],
        &[
            "rdma_write_wrs",
            "rdma_write_bytes",
            "rdma_write_wr_err",
            "rdma_write_recv_bytes",
        ],
        &[
            "retrans_bytes",
            "retrans_pkts",
            "retrans_timeout_events",
            "unresponsive_remote_events",
            "impaired_remote_conn_events",
        ],
    ];
    for (number, name) in names.iter().copied().flatten().enumerate() {
        world
            .tell(0, &format!("set {name} {}", u64::MAX - number as u64))
            .unwrap();
    }
    let mut number = 0;
    for (group, names) in (0..).zip(names) {
        let values = driver.stats(group).unwrap();
        for index in 0..names.len() {
            assert_eq!(
                u64_at(&values, index * 8),
                u64::MAX - number,
                "{group} {index}"
            );
            number += 1;
        }
    }
    assert_eq!(number, 22);
}

#[test]
fn a_device_with_17_counters_refuses_those_of_the_network() {
    let mut old = model("p5");
    old.counters = CounterSet::Old;
    let mut driver = World::new(old, 1).driver(0);
    assert!(driver.stats(3).is_ok());
    assert_eq!(driver.stats(4), Err(Failure::Status(3)));
    assert_eq!(driver.stats(5), Err(Failure::Status(3)));
}

#[test]
fn the_admin_queue_goes_round_many_times() {
    let mut driver = World::new(model("p5"), 1).driver(0);
    for _ in 0..500 {
        driver.stats(0).unwrap();
    }
    // Vector 0 is for commands.
    assert!(driver.raised(0) >= 500);
}

#[test]
fn commands_that_were_written_together_are_all_answered() {
    let mut driver = World::new(model("p5"), 1).driver(0);
    for _ in 0..20 {
        driver.submit(14, 0, &[]);
    }
    let answers: Vec<u16> = (0..20)
        .map(|_| u16_at(&driver.completion().unwrap(), 0))
        .collect();
    assert_eq!(answers, (0..20).collect::<Vec<u16>>());
}

#[test]
fn a_masked_admin_queue_raises_no_interrupt() {
    let mut driver = World::new(model("p5"), 1).driver(0);
    driver.set(registers::INTERRUPT_MASK, 1);
    driver.raised(0);
    driver.stats(0).unwrap();
    assert_eq!(driver.raised(0), 0);
    driver.set(registers::INTERRUPT_MASK, 0);
    driver.stats(0).unwrap();
    assert_eq!(driver.raised(0), 1);
}

#[test]
fn an_event_reaches_the_drivers_queue_and_raises_its_interrupt() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    driver.raised(0);
    for number in 0..40u16 {
        world.tell(0, &format!("event 4 {number}")).unwrap();
        let at = driver.events_base + u64::from(number % 16) * 64;
        let entry = driver.get(at, 64);
        assert_eq!((u16_at(&entry, 0), u16_at(&entry, 2)), (4, number));
        assert_eq!(entry[4] & 1, u8::from(number / 16 % 2 == 0), "{number}");
    }
    assert_eq!(driver.raised(0), 40);
}

#[test]
fn an_event_without_a_driver_is_an_error_for_who_asked() {
    let world = World::new(model("p5"), 1);
    assert!(world.tell(0, "event 4 0").is_err());
}

#[test]
fn a_driver_binds_again_after_it_was_unbound() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    driver.admin(14, &[]).unwrap();
    driver.event_queues.clear();
    driver.probe().unwrap();
    assert_eq!(
        world
            .port(0)
            .lock()
            .unwrap()
            .device
            .counts()
            .protection_domains,
        0
    );
    driver.stats(0).unwrap();
}

#[test]
fn a_reset_of_the_function_forgets_what_the_driver_made() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    driver.admin(14, &[]).unwrap();
    driver.write_region(CONFIG, 0x58, &0x8000_u16.to_le_bytes());
    let counts = world.port(0).lock().unwrap().device.counts();
    assert_eq!((counts.protection_domains, counts.event_queues), (0, 0));
    let control = driver.read_region(CONFIG, 0x58, 2);
    assert_eq!(control, [0, 0], "the bit that asks for it reads as zero");
}

#[test]
fn a_guest_that_leaves_takes_its_queues_with_it() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    driver.admin(14, &[]).unwrap();
    driver.leave().unwrap();
    let port = world.port(0);
    assert_eq!(port.lock().unwrap().device.counts().protection_domains, 0);
    assert!(!port.lock().unwrap().guest.is_present());
    // The next one finds a device as after power-on, with its counters.
    world.driver(0).stats(0).unwrap();
}

#[test]
fn every_interrupt_but_the_first_has_an_event_queue() {
    for vectors in [1, 2, 33] {
        let configuration = Configuration {
            vectors,
            ..configuration(model("p5"))
        };
        let world = World::with(&configuration, 1);
        let driver = world.driver(0);
        assert_eq!(driver.interrupts.len(), usize::from(vectors));
        assert_eq!(driver.event_queues.len(), usize::from(vectors) - 1);
    }
}

#[test]
fn numbers_of_protection_domains_come_back() {
    let mut driver = World::new(model("p5"), 1).driver(0);
    let numbers: Vec<u16> = (0..256)
        .map(|_| u16_at(&driver.admin(14, &[]).unwrap(), 0))
        .collect();
    assert_eq!(numbers.len(), 256);
    assert_eq!(driver.admin(14, &[]), Err(Failure::Status(1)));
    let body = Fields::default().u16(7).done();
    driver.admin(15, &body).unwrap();
    assert_eq!(driver.admin(15, &body), Err(Failure::Status(5)));
    assert_eq!(u16_at(&driver.admin(14, &[]).unwrap(), 0), 7);
}

#[test]
fn memory_in_pieces_is_one_memory_to_the_device() {
    let world = World::new(model("p5"), 1);
    let mut driver = Driver::connect(world.port(0));
    driver.unmap(0, super::driver::MEMORY);
    // As QEMU cuts the first megabyte into pieces.
    for (from, to) in [
        (0, 0x1800),
        (0x1800, 0x2040),
        (0x2040, super::driver::MEMORY),
    ] {
        driver.map(from, to - from, from).unwrap();
    }
    driver.probe().unwrap();
    driver.stats(0).unwrap();
}

#[test]
fn a_reset_forgets_where_registers_are_answered() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    driver.set(registers::CONTROL, 1);
    driver.set(registers::CONTROL, 0);
    assert_eq!(driver.register(registers::VERSION), None);
}
