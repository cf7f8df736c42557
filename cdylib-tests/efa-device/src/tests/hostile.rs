//! A guest, or a client, that means harm: nothing panics, loops or grows.

use super::driver::{Driver, Failure, MEMORY, owned, words};
use super::program::{
    Endpoint, Pair, RECEIVES, SENDS, SRD, What, completion_queue, create_pair, register, sent,
};
use super::{World, model};
use crate::bytes::{Fields, u32_at};
use crate::limits::{LIMITS, SEND_RING};
use crate::send_rings::SendRings;
use crate::vfio_user::CONFIG;
use crate::{Guest, Unmapped, pci, registers};

#[test]
fn a_message_with_an_impossible_length_ends_the_connection_and_not_the_device() {
    for size in [0u32, 15, (2 << 20) + 1, u32::MAX] {
        let world = World::new(model("p5"), 1);
        let mut driver = Driver::connect(world.port(0));
        let message = Fields::default().u16(1).u16(9).u32(size).u64(0).done();
        driver.raw(&message);
        assert!(driver.thrown_out().is_err(), "{size}");
        world.driver(0).stats(0).unwrap();
    }
}

#[test]
fn requests_that_are_too_short_or_unknown_are_errors() {
    let world = World::new(model("p5"), 1);
    let mut driver = Driver::connect(world.port(0));
    for command in 0..20 {
        for len in [0, 1, 3, 4, 7, 8, 15, 16, 19, 20, 31] {
            // Whether it is one or not, there is a reply.
            let _ = driver.request(command, &vec![0xff; len], &[]);
        }
    }
    assert_eq!(driver.request(99, &[], &[]), Err(libc::ENOSYS as u32));
    let read = Fields::default().u64(0).u32(CONFIG).u32(u32::MAX).done();
    assert!(driver.request(9, &read, &[]).is_err());
    let write = Fields::default().u64(0).u32(CONFIG).u32(u32::MAX).done();
    assert!(driver.request(10, &write, &[]).is_err());
}

#[test]
fn reads_and_writes_anywhere_in_any_region_are_harmless() {
    let world = World::new(model("p5"), 1);
    let mut driver = Driver::connect(world.port(0));
    let offsets = [
        0,
        1,
        3,
        0x57,
        0x5c,
        0x6c,
        0x70,
        0xfff,
        0x2000,
        0xffff,
        16 << 20,
    ];
    for region in 0..12 {
        for offset in offsets
            .into_iter()
            .chain([u64::from(u32::MAX), u64::MAX, u64::MAX - 3])
        {
            for len in [0u32, 1, 2, 4, 8, 64] {
                driver.write_region(region, offset, &vec![0xff; len as usize]);
                assert_eq!(driver.read_region(region, offset, len).len(), len as usize);
            }
        }
    }
    assert_eq!(
        driver.vendor() & 0xffff,
        0x1d0f,
        "what it is cannot be changed"
    );
}

#[test]
fn interrupts_out_of_range_are_refused() {
    let world = World::new(model("p5"), 1);
    let mut driver = Driver::connect(world.port(0));
    for (start, count) in [(9, 1), (0, 10), (u32::MAX, 1), (1, u32::MAX)] {
        assert!(
            driver
                .request(8, &words(&[20, 4, 2, start, count]), &[])
                .is_err()
        );
    }
}

#[test]
fn memory_that_overlaps_wraps_or_is_longer_than_its_file_is_refused() {
    let world = World::new(model("p5"), 1);
    let mut driver = Driver::connect(world.port(0));
    assert!(driver.map(4096, 4096, 0).is_err(), "it overlaps");
    assert!(driver.map(u64::MAX - 4095, 8192, 0).is_err(), "it wraps");
    assert!(driver.map(1 << 40, 0, 0).is_err(), "it is empty");
    assert!(
        driver.map(1 << 40, MEMORY + 1, 0).is_err(),
        "it is too long"
    );
    assert!(
        driver.map(1 << 40, 4096, u64::MAX).is_err(),
        "its offset wraps"
    );
    driver.map(1 << 40, 4096, 0).unwrap();
}

#[test]
fn memory_that_is_cut_short_is_an_error_and_no_signal() {
    let mut guest = Guest::default();
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    guest.map(0, 8192, 0, owned(&file)).unwrap();
    guest.store(4096, b"x").unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(guest.load(4096, &mut [0]), Err(Unmapped));
    assert_eq!(guest.load(u64::MAX, &mut [0; 2]), Err(Unmapped));
}

#[test]
fn a_driver_that_names_no_memory_has_no_answer() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    for (register, value) in [
        (registers::READ_ANSWER, u32::MAX),
        (registers::READ_ANSWER + 4, u32::MAX),
        (registers::AQ_BASE + 4, u32::MAX),
        (registers::ACQ_BASE + 4, u32::MAX),
        (registers::AENQ_BASE + 4, u32::MAX),
    ] {
        driver.set(register, value);
    }
    assert_eq!(driver.register(0), None);
    assert_eq!(driver.stats(0), Err(Failure::NoAnswer));
    let _ = world.tell(0, "event 1 1");
}

#[test]
fn an_admin_doorbell_beyond_the_ring_is_not_heard() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let before = world.port(0).lock().unwrap().device.commands.clone();
    driver.set(registers::AQ_DOORBELL, 0xffff);
    assert_eq!(world.port(0).lock().unwrap().device.commands, before);
    // Depths that no index runs through.
    for caps in [0, 3, 0xffff, 0x8000, 32, 32 | 63 << 16] {
        driver.set(registers::AQ_CAPS, caps);
        driver.submit(13, 0, &[]);
        assert_eq!(
            world.port(0).lock().unwrap().device.commands,
            before,
            "{caps}"
        );
    }
}

#[test]
fn every_command_with_any_bytes_has_an_answer() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    for opcode in 0..=40 {
        for fill in [0x00, 0x01, 0x0f, 0x7f, 0x80, 0xff] {
            for flags in [0, 1 << 1, 1 << 2, 3 << 1] {
                let answer = driver.admin_with(opcode, flags, &[fill; 60]);
                assert_ne!(answer, Err(Failure::NoAnswer), "{opcode} {fill}");
            }
        }
    }
    driver.stats(0).unwrap();
}

#[test]
fn what_a_driver_can_make_is_bounded() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let (cq, ..) = completion_queue(&mut driver, None);
    let until_refused = |driver: &mut Driver, opcode, body: &mut dyn FnMut(u32) -> Vec<u8>| {
        (0..100_000)
            .find(|number| driver.admin(opcode, &body(*number)) == Err(Failure::Status(1)))
            .expect("an end")
    };
    let pairs = until_refused(&mut driver, 1, &mut |_| create_pair(SRD, cq, 0));
    assert_eq!(pairs, LIMITS.pairs);
    let queues = until_refused(&mut driver, 9, &mut |_| {
        Fields::default()
            .u8(0)
            .u8(4)
            .u16(16)
            .u32(0)
            .u64(0)
            .u32(0)
            .u16(1)
            .done()
    });
    assert_eq!(queues, LIMITS.completion_queues - 1);
    let handles = until_refused(&mut driver, 5, &mut |number| {
        Fields::default().bytes(&[0; 12]).u32(number).done()
    });
    assert_eq!(handles, LIMITS.handles);
    assert_eq!(
        until_refused(&mut driver, 16, &mut |_| Vec::new()),
        LIMITS.domains
    );
    assert!(
        driver
            .admin(18, &Fields::default().u16(16).u8(1).u8(4).done())
            .is_err()
    );
}

#[test]
fn registered_pages_are_bounded_and_come_back() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    // The list is the same memory for every region.
    let list = driver.allocate(1 << 20);
    let register = |driver: &mut Driver, pages: u64| {
        let body = Fields::default().u32(0).u32(0).u64(list).bytes(&[0; 20]);
        let body = body.u64(pages * 4096).u8(12).u8(1).u16(0).u32(0).u64(0);
        driver.admin_with(7, 1 << 1, &body.done())
    };
    let mut keys = Vec::new();
    while let Ok(answer) = register(&mut driver, 1 << 17) {
        keys.push(answer[..4].to_vec());
    }
    assert_eq!(keys.len() as u32, LIMITS.pages >> 17);
    assert_eq!(register(&mut driver, 1 << 50), Err(Failure::Status(1)));
    driver.admin(8, &keys[0]).unwrap();
    assert_eq!(driver.admin(8, &keys[0]), Err(Failure::Status(5)));
    register(&mut driver, 1 << 17).unwrap();
}

#[test]
fn a_region_that_wraps_is_empty_or_has_pages_of_no_size_is_refused() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let page = driver.allocate(4096);
    assert!(register(&mut driver, 0, &[page], 0, 1).is_err());
    assert!(register(&mut driver, u64::MAX, &[page], 2, 1).is_err());
    assert!(register(&mut driver, u64::MAX, &[page], u64::MAX, 1).is_err());
    for shift in [0u8, 11, 0x80 | 12] {
        let body = Fields::default().u32(0).bytes(&[0; 32]).u64(4096).u8(shift);
        assert!(
            driver.admin(7, &body.bytes(&[0; 15]).done()).is_err(),
            "{shift}"
        );
    }
    // Five pages, and a command has room for four.
    let body = Fields::default()
        .u32(0)
        .bytes(&[0; 32])
        .u64(5 * 4096)
        .u8(12);
    assert!(driver.admin(7, &body.bytes(&[0; 15]).done()).is_err());
}

#[test]
fn a_chain_of_page_lists_that_leads_to_itself_ends() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let chunk = driver.allocate(4096);
    for (length, leads_to) in [(4096u32, chunk), (12, chunk), (0, chunk), (20, 1 << 50)] {
        // Pieces of the list are the chunk itself; the next chunk is the same.
        let mut bytes = vec![0; 4096];
        for place in bytes[..4080].chunks_exact_mut(8) {
            place.copy_from_slice(&chunk.to_le_bytes());
        }
        let end = (length.clamp(12, 4096) - 12) as usize;
        bytes[end..end + 4].copy_from_slice(&length.to_le_bytes());
        bytes[end + 4..end + 12].copy_from_slice(&leads_to.to_le_bytes());
        driver.put(chunk, &bytes);
        let body = Fields::default()
            .u32(0)
            .u32(length)
            .u64(chunk)
            .bytes(&[0; 20]);
        let body = body.u64(1 << 32).u8(12).u8(1).u16(0).u32(0).u64(0);
        let answer = driver.admin_with(7, 3 << 1, &body.done());
        // Only a full chunk gives a page list, of pages that are not memory.
        assert_eq!(answer.is_ok(), length == 4096, "{length}");
    }
}

#[test]
fn queues_of_impossible_depth_are_refused() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let (cq, ..) = completion_queue(&mut driver, None);
    for (send, receive) in [
        (SENDS as u32 * 64 + 64, 512),
        (u32::MAX, 512),
        (8192 * 64, 512),
        (1024, 48),
        (1024, u32::MAX),
    ] {
        let mut body = create_pair(SRD, cq, 0);
        body[36..40].copy_from_slice(&send.to_le_bytes());
        body[44..48].copy_from_slice(&receive.to_le_bytes());
        assert_eq!(
            driver.admin(1, &body),
            Err(Failure::Status(5)),
            "{send} {receive}"
        );
    }
    assert!(
        driver.admin(1, &create_pair(SRD, 500, 0)).is_err(),
        "no such queue"
    );
    assert!(
        driver.admin(1, &create_pair(7, cq, 0)).is_err(),
        "no such kind"
    );
    for (entry, depth) in [(0, 16), (5, 16), (8, 0), (8, 40_000)] {
        let body = Fields::default().u8(0).u8(entry).u16(depth).u32(0).u64(0);
        let body = body.u32(0).u16(1).done();
        assert_eq!(
            driver.admin(9, &body),
            Err(Failure::Status(5)),
            "{entry} {depth}"
        );
    }
}

#[test]
fn a_completion_queue_that_is_used_cannot_be_destroyed() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    let endpoint = Endpoint::new(&mut driver, SRD, None);
    let cq = Fields::default().u16(endpoint.cq).done();
    assert_eq!(driver.admin(10, &cq), Err(Failure::Status(7)));
    driver.admin(4, &endpoint.handle.to_le_bytes()).unwrap();
    driver.admin(10, &cq).unwrap();
    assert_eq!(driver.admin(10, &cq), Err(Failure::Status(5)));
}

#[test]
fn a_doorbell_beyond_a_ring_breaks_its_own_queue_pair_only() {
    const FAILED: u32 = 6;
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    let state = |driver: &mut Driver, handle: u32| {
        let answer = driver.admin(3, &handle.to_le_bytes()).unwrap();
        u32_at(&answer, 0)
    };
    let mut sender = Endpoint::new(&mut pair.one, SRD, None);
    sender.sent = SENDS + 1;
    sender.ring_sends(&mut pair.one);
    assert_eq!(state(&mut pair.one, sender.handle), FAILED);
    let receiver = Endpoint::new(&mut pair.one, SRD, None);
    let doorbell = u32::from(receiver.number) * 8 + 4;
    receiver.ring(&mut pair.one, doorbell, u32::from(RECEIVES) + 1);
    assert_eq!(state(&mut pair.one, receiver.handle), FAILED);
    world.settle();
    assert!(sender.poll(&pair.one).is_empty());
    pair.b.post_receive(&mut pair.two, 1, 0, 100);
    pair.send(1, What::Inline(b"x"));
    world.settle();
    assert_eq!(pair.a.poll(&pair.one), [sent(1, 0)]);
}

#[test]
fn doorbells_of_what_is_not_there_are_not_heard() {
    let world = World::new(model("p5"), 1);
    let mut driver = world.driver(0);
    for at in (0..0x10000).step_by(4) {
        driver.write_region(pci::DOORBELLS, at, &u32::MAX.to_le_bytes());
    }
    driver.stats(0).unwrap();
}

#[test]
fn a_queue_pair_never_has_more_work_on_its_way_than_its_ring_holds() {
    let mut world = World::new(model("p5"), 2);
    let mut pair = Pair::new(&world, SRD, None);
    world.set_delay(1000);
    for number in 0..SENDS {
        pair.send(number, What::Inline(b"x"));
    }
    let in_transit = || world.port(0).lock().unwrap().device.in_transit;
    assert_eq!(in_transit(), usize::from(SENDS));
    pair.send(SENDS, What::Inline(b"x"));
    assert_eq!(in_transit(), usize::from(SENDS));
    world.settle();
    assert_eq!(world.port(0).lock().unwrap().device.in_transit, 0);
}

#[test]
fn a_write_across_two_send_rings_fills_both() {
    let mut rings = SendRings::default();
    let border = u64::from(SEND_RING) * 2;
    rings.write(border - 3, b"abcdef");
    assert_eq!(rings.ring(1)[SEND_RING as usize - 3..], *b"abc");
    assert_eq!(rings.ring(2)[..3], *b"def");
    assert!(rings.ring(3).is_empty());
    rings.write(SendRings::SIZE - 2, b"abcdef");
    rings.write(SendRings::SIZE, b"abcdef");
    rings.write(u64::MAX, b"abcdef");
    assert_eq!(
        rings.ring(LIMITS.pairs as u16)[SEND_RING as usize - 2..],
        *b"ab"
    );
}
