//! Data between two devices: SRD and UD, RDMA, interrupts, loss, delay, a closed
//! fabric.

use std::time::Duration;

use super::program::{
    Completion, Endpoint, Pair, QKEY, SRD, Send, UD, What, modify, register, sent,
};
use super::{World, model};
use crate::bytes::Fields;

/// Bytes that are not the same in any two places.
fn pattern(len: usize) -> Vec<u8> {
    let words = (0..len as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56);
    words.map(|word| word as u8).collect()
}

fn received(request: u16, length: u16, source: u16) -> Completion {
    Completion {
        receive: true,
        length,
        source,
        ..sent(request, 0)
    }
}

#[test]
fn a_message_over_srd_arrives_as_it_was_sent() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let data = pattern(8000);
    // Not at the start of a page, and from two pieces.
    pair.a.fill(&pair.one, 100, &data[..5000]);
    pair.a.fill(&pair.one, 20_000, &data[5000..]);
    pair.b.post_receive(&mut pair.two, 7, 4000, 8928);
    pair.send(3, What::Pieces(&[(100, 5000), (20_000, 3000)]));
    world.settle();
    assert_eq!(pair.b.poll(&pair.two), [received(7, 8000, pair.a.number)]);
    assert_eq!(pair.a.poll(&pair.one), [sent(3, 0)]);
    assert_eq!(pair.b.content(&pair.two, 4000, 8000), data);
    // One byte before and one after are as they were.
    assert_eq!(pair.b.content(&pair.two, 3999, 1), [0]);
    assert_eq!(pair.b.content(&pair.two, 12_000, 1), [0]);
}

#[test]
fn a_datagram_leaves_forty_bytes_for_its_head() {
    let mut world = World::new(model("p4d"), 2);
    let mut pair = Pair::new(&world, UD, None);
    pair.b.post_receive(&mut pair.two, 1, 0, 200);
    pair.send(2, What::Inline(b"a message in the request"));
    world.settle();
    assert_eq!(pair.b.poll(&pair.two), [received(1, 64, pair.a.number)]);
    assert_eq!(
        pair.b.content(&pair.two, 40, 24),
        b"a message in the request"
    );
    assert_eq!(pair.a.poll(&pair.one), [sent(2, 0)]);
}

#[test]
fn many_messages_go_round_all_rings() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    for number in 0..300u16 {
        pair.b.post_receive(&mut pair.two, number, 0, 100);
        pair.send(number, What::Inline(&number.to_le_bytes()));
        world.settle();
        let source = pair.a.number;
        assert_eq!(pair.b.poll(&pair.two), [received(number, 2, source)]);
        assert_eq!(pair.b.content(&pair.two, 0, 2), number.to_le_bytes());
        assert_eq!(pair.a.poll(&pair.one), [sent(number, 0)]);
    }
    let port = world.port(0);
    assert_eq!(port.lock().unwrap().device.in_transit, 0);
}

#[test]
fn counters_agree_with_what_was_moved_to_the_byte() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    for number in 0..3 {
        pair.b.post_receive(&mut pair.two, number, 0, 8928);
        pair.send(number, What::Pieces(&[(0, 1000 + u32::from(number))]));
    }
    let remote = (pair.b.key, Endpoint::address(0));
    pair.send(4, What::Rdma(2, 0, remote, 10_000, None));
    pair.send(5, What::Rdma(1, 0, remote, 20_000, None));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one).len(), 5);
    let expected = [
        (0, "send_bytes", 3003),
        (0, "send_wrs", 3),
        (0, "rdma_write_bytes", 10_000),
        (0, "rdma_write_wrs", 1),
        (0, "rdma_read_bytes", 20_000),
        (0, "rdma_read_wrs", 1),
        (0, "tx_bytes", 13_003),
        // Three messages, two packets of the write, one request.
        (0, "tx_pkts", 6),
        (0, "rx_bytes", 20_000),
        (0, "rx_pkts", 3),
        (1, "recv_bytes", 3003),
        (1, "recv_wrs", 3),
        (1, "rdma_write_recv_bytes", 10_000),
        (1, "rdma_read_resp_bytes", 20_000),
        (1, "rx_bytes", 13_003),
        (1, "rx_pkts", 6),
        (1, "tx_bytes", 20_000),
        (1, "tx_pkts", 3),
        (1, "rx_drops", 0),
    ];
    for (device, name, value) in expected {
        assert_eq!(
            world.counter(device, name),
            value,
            "{name} of device {device}"
        );
    }
}

#[test]
fn rdma_reads_and_writes_move_megabytes_between_scattered_pages() {
    const LENGTH: usize = 3 << 20;
    let mut world = World::new(model("p5en"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let data = pattern(LENGTH);
    pair.a.fill(&pair.one, 300, &data);
    let remote = (pair.b.key, Endpoint::address(5000));
    pair.send(1, What::Rdma(2, 300, remote, LENGTH as u32, None));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 0)]);
    assert!(pair.b.content(&pair.two, 5000, LENGTH) == data);
    assert!(
        pair.b.poll(&pair.two).is_empty(),
        "nobody is told of a write"
    );
    pair.send(2, What::Rdma(1, 12_345, remote, LENGTH as u32, None));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(2, 0)]);
    assert!(pair.a.content(&pair.one, 12_345, LENGTH) == data);
}

#[test]
fn a_write_with_immediate_data_uses_a_receive() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    pair.a.fill(&pair.one, 0, b"data");
    pair.b.post_receive(&mut pair.two, 9, 0, 0);
    let remote = (pair.b.key, Endpoint::address(64));
    pair.send(1, What::Rdma(2, 0, remote, 4, Some(0xabcd)));
    world.settle();
    let arrived = Completion {
        immediate: Some(0xabcd),
        ..received(9, 4, pair.a.number)
    };
    assert_eq!(pair.b.poll(&pair.two), [arrived]);
    assert_eq!(pair.b.content(&pair.two, 64, 4), b"data");
}

#[test]
fn a_model_without_rdma_write_ends_it_as_unsupported() {
    let mut world = World::new(model("p4d"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let remote = (pair.b.key, Endpoint::address(0));
    pair.send(1, What::Rdma(2, 0, remote, 4, None));
    pair.send(2, What::Rdma(1, 0, remote, 4, None));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 3), sent(2, 0)]);
}

#[test]
fn memory_moves_only_where_its_owner_permits() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let page = pair.two.allocate(4096);
    let mut region =
        |permissions| register(&mut pair.two, 0x1000, &[page], 4096, permissions).unwrap();
    let (local, readable, writable) = (region(1), region(1 << 2), region(1 << 1));
    for (request, operation, key, address, length, status) in [
        (1, 1, readable, 0x1000, 4096, 0),
        (2, 2, writable, 0x1000, 4096, 0),
        (3, 2, readable, 0x1000, 1, 7),
        (4, 1, writable, 0x1000, 1, 7),
        (5, 1, local, 0x1000, 1, 7),
        // One byte too far, before the start, round the end of addresses, no region.
        (6, 1, readable, 0x1001, 4096, 7),
        (7, 1, readable, 0xfff, 1, 7),
        (8, 1, readable, u64::MAX, 2, 7),
        (9, 1, 12_345, 0x1000, 1, 7),
    ] {
        pair.send(
            request,
            What::Rdma(operation, 0, (key, address), length, None),
        );
        world.settle();
        assert_eq!(pair.a.poll(&pair.one), [sent(request, status)]);
    }
    // Five of them failed at the remote, which is not the remote's error.
    assert_eq!(world.counter(0, "rdma_read_wr_err"), 6);
    assert_eq!(world.counter(0, "rdma_write_wr_err"), 1);
}

#[test]
fn a_program_that_waits_gets_one_interrupt_for_the_queue_that_it_armed() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, Some(3));
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    pair.b.post_receive(&mut pair.two, 2, 0, 100);
    pair.b.post_receive(&mut pair.two, 3, 0, 100);
    pair.b.arm(&mut pair.two);
    assert_eq!(pair.two.raised(4), 0, "nothing has arrived yet");
    pair.send(1, What::Inline(b"one"));
    pair.send(2, What::Inline(b"two"));
    world.settle();
    // Event queue 3 has vector 4.
    assert_eq!(pair.two.raised(4), 1);
    assert_eq!(pair.two.events(), [pair.b.cq]);
    assert_eq!(pair.b.poll(&pair.two).len(), 2);
    // Not armed, a queue is silent.
    pair.send(3, What::Inline(b"three"));
    world.settle();
    assert_eq!((pair.two.raised(4), pair.two.events()), (0, Vec::new()));
    // What came before it was armed is an event at once: no wake-up is lost.
    pair.b.arm(&mut pair.two);
    assert_eq!(pair.two.raised(4), 1);
    assert_eq!(pair.two.events(), [pair.b.cq]);
    // The sender did not wait.
    assert_eq!(pair.one.events(), Vec::<u16>::new());
}

#[test]
fn events_that_come_while_the_driver_reads_raise_an_interrupt_when_it_is_done() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, Some(0));
    for request in 0..2 {
        pair.b.post_receive(&mut pair.two, request, 0, 100);
        pair.b.arm(&mut pair.two);
        pair.send(request, What::Inline(b"x"));
        world.settle();
        pair.b.poll(&pair.two);
    }
    // Two events, and the driver has armed its queue only once.
    assert_eq!(pair.two.raised(1), 1);
    assert_eq!(pair.two.events(), [pair.b.cq, pair.b.cq]);
    // `events` armed it: the second event could have been missed.
    assert_eq!(pair.two.raised(1), 1);
    assert_eq!(pair.two.events(), Vec::<u16>::new());
    assert_eq!(pair.two.raised(1), 0);
}

#[test]
fn srd_loses_nothing_on_a_fabric_that_loses_packets() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.tell(0, "loss 30").unwrap();
    let data = pattern(1 << 20);
    pair.a.fill(&pair.one, 0, &data);
    let remote = (pair.b.key, Endpoint::address(0));
    pair.send(99, What::Rdma(2, 0, remote, 1 << 20, None));
    for number in 0..50u16 {
        pair.b.post_receive(&mut pair.two, number, 2 << 20, 100);
        pair.send(number, What::Inline(b"x"));
        world.settle();
        let source = pair.a.number;
        assert_eq!(pair.b.poll(&pair.two), [received(number, 1, source)]);
        let statuses: Vec<u8> = pair.a.poll(&pair.one).iter().map(|it| it.status).collect();
        assert!(statuses.iter().all(|status| *status == 0), "{statuses:?}");
    }
    assert!(pair.b.content(&pair.two, 0, 1 << 20) == data);
    let again = world.counter(0, "retrans_pkts");
    // 118 packets of the write and 50 of messages: some 70 of them twice or more.
    assert!((35..150).contains(&again), "{again}");
    assert!(world.counter(0, "retrans_bytes") > 0);
    assert_eq!(world.counter(0, "unresponsive_remote_events"), 0);
    assert_eq!(world.counter(1, "recv_wrs"), 50);
}

#[test]
fn datagrams_that_are_lost_are_sent_and_never_arrive() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, UD, None);
    world.tell(0, "loss 50").unwrap();
    let mut arrived = 0;
    for number in 0..200u16 {
        if number < 32 {
            pair.b.post_receive(&mut pair.two, number, 0, 100);
        }
        pair.send(number, What::Inline(b"x"));
        world.settle();
        arrived += pair.b.poll(&pair.two).len();
        assert_eq!(pair.a.poll(&pair.one), [sent(number, 0)]);
        if arrived == 32 {
            break;
        }
    }
    let sends = world.counter(0, "send_wrs");
    assert_eq!(arrived, 32);
    assert!((45..100).contains(&sends), "{sends} to lose about half");
    assert_eq!(world.counter(0, "retrans_pkts"), 0);
}

#[test]
fn a_fabric_that_loses_everything_is_an_unresponsive_remote() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.tell(1, "loss 100").unwrap();
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 13)]);
    assert_eq!(world.counter(0, "retrans_timeout_events"), 1);
    assert_eq!(world.counter(0, "unresponsive_remote_events"), 1);
    assert!(world.counter(0, "retrans_pkts") > 1);
}

#[test]
fn a_closed_fabric_is_an_unresponsive_remote_until_it_is_open() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.tell(0, "closed on").unwrap();
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 13)]);
    assert!(pair.b.poll(&pair.two).is_empty());
    assert_eq!(world.counter(0, "unresponsive_remote_events"), 1);
    assert_eq!(world.counter(1, "rx_pkts"), 0);
    world.tell(1, "closed off").unwrap();
    pair.send(2, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(2, 0)]);
    assert_eq!(pair.b.poll(&pair.two).len(), 1);
}

#[test]
fn a_device_off_the_bus_is_an_unresponsive_remote() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.tell(1, "gone on").unwrap();
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 13)]);
}

#[test]
fn a_device_whose_guest_has_left_is_an_unresponsive_remote() {
    let mut world = World::new(model("p5"), 2);
    let Pair {
        mut one,
        two,
        mut a,
        b,
        to_b,
        ..
    } = Pair::new(&world, SRD, None);
    two.leave().unwrap();
    let send = Send {
        request: 1,
        handle: to_b,
        to: b.number,
        qkey: QKEY,
        what: What::Inline(b"x"),
    };
    a.post(&mut one, &send);
    world.settle();
    assert_eq!(a.poll(&one), [sent(1, 13)]);
    assert_eq!(world.counter(0, "unresponsive_remote_events"), 1);
}

#[test]
fn each_side_answers_the_other() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    for round in 0..20u16 {
        pair.b.post_receive(&mut pair.two, round, 0, 100);
        pair.a.post_receive(&mut pair.one, round, 0, 100);
        pair.send(round, What::Inline(b"ping"));
        world.settle();
        assert_eq!(pair.b.poll(&pair.two), [received(round, 4, pair.a.number)]);
        pair.answer(round, What::Inline(b"pong!"));
        world.settle();
        let polled = pair.a.poll(&pair.one);
        assert_eq!(polled, [sent(round, 0), received(round, 5, pair.b.number)]);
        assert_eq!(pair.b.poll(&pair.two), [sent(round, 0)]);
        assert_eq!(pair.a.content(&pair.one, 0, 5), b"pong!");
    }
}

#[test]
fn work_takes_the_delay_of_the_fabric() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.set_delay(200);
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    let before = world.passed();
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert!(world.passed() - before >= Duration::from_millis(200));
    assert_eq!(pair.b.poll(&pair.two).len(), 1);
}

#[test]
fn a_remote_without_a_buffer_is_offered_the_message_again() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    pair.send(1, What::Inline(b"late"));
    world.pass(Duration::from_millis(50));
    assert!(pair.a.poll(&pair.one).is_empty());
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 0)]);
    assert_eq!(pair.b.content(&pair.two, 0, 4), b"late");
    // Never offered one, it gives up.
    pair.send(2, What::Inline(b"late"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(2, 10)]);
}

#[test]
fn what_the_sender_names_wrongly_ends_with_its_own_status() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let (handle, to, qkey) = (pair.to_b, pair.b.number, QKEY);
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    let remote = (pair.b.key, Endpoint::address(0));
    for (request, handle, to, qkey, what, status) in [
        (1, 77, to, qkey, What::Inline(b"x"), 4),
        (2, handle, 60, qkey, What::Inline(b"x"), 9),
        (3, handle, to, 1, What::Inline(b"x"), 9),
        // Outside of the region, more than a message holds.
        (4, handle, to, qkey, What::Pieces(&[(8 << 20, 4)]), 5),
        (5, handle, to, qkey, What::Pieces(&[(0, 8929)]), 6),
        (
            6,
            handle,
            to,
            qkey,
            What::Pieces(&[(0, u32::MAX), (0, u32::MAX)]),
            6,
        ),
        // More than the receiver's buffer holds.
        (7, handle, to, qkey, What::Pieces(&[(0, 101)]), 11),
        (8, handle, to, qkey, What::Rdma(3, 0, remote, 1, None), 3),
        (
            9,
            handle,
            to,
            qkey,
            What::Rdma(2, 8 << 20, remote, 1, None),
            5,
        ),
        (10, handle, to, qkey, What::Pieces(&[(0, 100)]), 0),
    ] {
        let send = Send {
            request,
            handle,
            to,
            qkey,
            what,
        };
        pair.a.post(&mut pair.one, &send);
        world.settle();
        assert_eq!(pair.a.poll(&pair.one), [sent(request, status)]);
    }
    assert_eq!(world.counter(1, "qkey_viol"), 1);
    assert_eq!(pair.b.poll(&pair.two).len(), 1);
}

#[test]
fn a_queue_pair_in_error_flushes_what_is_posted_and_takes_nothing() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    modify(&mut pair.two, pair.b.handle, 6);
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 9)]);
    modify(&mut pair.one, pair.a.handle, 6);
    pair.send(2, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(2, 1)]);
}

#[test]
fn work_of_a_queue_pair_that_was_destroyed_meets_no_later_one() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.set_delay(100);
    pair.send(1, What::Inline(b"x"));
    let body = Fields::default().u32(pair.a.handle).done();
    pair.one.admin(4, &body).unwrap();
    let mut later = Endpoint::new(&mut pair.one, SRD, None);
    world.settle();
    assert!(later.poll(&pair.one).is_empty());
    assert_eq!(world.counter(1, "rx_pkts"), 0);
    assert_eq!(world.port(0).lock().unwrap().device.in_transit, 0);
}

#[test]
fn two_processes_that_talk_to_one_remote_share_its_handle() {
    let world = World::new(model("p5"), 2);
    let mut driver = world.driver(0);
    let gid = world.port(1).lock().unwrap().device.gid();
    let body = Fields::default().bytes(&gid).u32(0).done();
    let first = driver.admin(5, &body).unwrap();
    assert_eq!(driver.admin(5, &body).unwrap()[..2], first[..2]);
    let destroy = Fields::default().bytes(&first[..2]).u16(0).done();
    driver.admin(6, &destroy).unwrap();
    assert_eq!(
        world
            .port(0)
            .lock()
            .unwrap()
            .device
            .counts()
            .address_handles,
        1
    );
    driver.admin(6, &destroy).unwrap();
    assert_eq!(
        world
            .port(0)
            .lock()
            .unwrap()
            .device
            .counts()
            .address_handles,
        0
    );
}
