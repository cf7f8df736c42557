//! What a program makes by rdma-core: a queue pair with its completion queue, and
//! registered memory.

use super::driver::{Driver, Failure};
use crate::bytes::{Fields, phase, u8_at, u16_at, u32_at};
use crate::pci;
use crate::queues::Gid;
use crate::vfio_user::lock;

pub(super) const SRD: u8 = 2;
pub(super) const UD: u8 = 1;
pub(super) const QKEY: u32 = 0x1111;
pub(super) const ALL: u8 = 0b111;

const CQ_DEPTH: u16 = 64;
pub(super) const SENDS: u16 = 16;
pub(super) const RECEIVES: u16 = 32;

pub(super) struct Endpoint {
    pub(super) handle: u32,
    pub(super) number: u16,
    send_doorbell: u32,
    receive_doorbell: u32,
    ring: u64,
    receive_base: u64,
    pub(super) cq: u16,
    cq_base: u64,
    cq_doorbell: u32,
    read: u64,
    pub(super) sent: u16,
    received: u16,
    pub(super) key: u32,
    pub(super) buffer: u64,
}

pub(super) const BUFFER: u64 = 4 << 20;

/// A completion as a program sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) request: u16,
    pub(super) status: u8,
    pub(super) receive: bool,
    pub(super) length: u16,
    pub(super) source: u16,
    pub(super) immediate: Option<u32>,
}

pub(super) fn sent(request: u16, status: u8) -> Completion {
    Completion {
        request,
        status,
        receive: false,
        length: 0,
        source: 0,
        immediate: None,
    }
}

/// A send work request.
pub(super) struct Send<'a> {
    pub(super) request: u16,
    pub(super) handle: u16,
    pub(super) to: u16,
    pub(super) qkey: u32,
    pub(super) what: What<'a>,
}

pub(super) enum What<'a> {
    Inline(&'a [u8]),
    /// Offset and length in the endpoint's buffer.
    Pieces(&'a [(u64, u32)]),
    /// Operation, offset in the own buffer, remote key and address, length,
    /// immediate data.
    Rdma(u8, u64, (u32, u64), u32, Option<u32>),
}

pub(super) fn register(
    driver: &mut Driver,
    start: u64,
    pages: &[u64],
    length: u64,
    permissions: u8,
) -> Result<u32, Failure> {
    let list = driver.allocate(pages.len() as u64 * 8);
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.put(list, &bytes);
    let body = Fields::default()
        .u16(0)
        .u16(0)
        .u32(bytes.len() as u32)
        .u64(list);
    let body = body
        .bytes(&[0; 20])
        .u64(length)
        .u8(12)
        .u8(permissions)
        .u16(0);
    let answer = driver.admin_with(7, 1 << 1, &body.u32(0).u64(start).done())?;
    Ok(u32_at(&answer, 0))
}

pub(super) fn modify(driver: &mut Driver, handle: u32, state: u32) {
    let body = Fields::default().u32(0b101).u32(handle).u32(state).u32(0);
    driver.admin(2, &body.u32(QKEY).done()).unwrap();
}

pub(super) fn address_handle(driver: &mut Driver, to: Gid) -> u16 {
    let body = Fields::default().bytes(&to).u16(0).u16(0);
    u16_at(&driver.admin(5, &body.done()).unwrap(), 0)
}

pub(super) fn completion_queue(driver: &mut Driver, events: Option<u16>) -> (u16, u64, u32) {
    let base = driver.allocate(u64::from(CQ_DEPTH) * 32);
    driver.put(base, &vec![0; usize::from(CQ_DEPTH) * 32]);
    let flags = if events.is_some() { 1 << 5 } else { 0 };
    let body = Fields::default().u8(flags).u8(8).u16(CQ_DEPTH);
    let body = body.u32(u32::from(events.unwrap_or(0))).u64(base);
    let answer = driver.admin(9, &body.u32(0).u16(1).done()).unwrap();
    assert_eq!(u16_at(&answer, 2), CQ_DEPTH);
    assert_eq!(u32_at(&answer, 8), 1, "the doorbell is valid");
    (u16_at(&answer, 0), base, u32_at(&answer, 4))
}

pub(super) fn create_pair(kind: u8, cq: u16, receive_base: u64) -> Vec<u8> {
    let body = Fields::default()
        .u16(0)
        .u8(kind)
        .u8(0)
        .u64(0)
        .u64(receive_base);
    let body = body.u32(cq.into()).u32(cq.into()).u32(0).u32(0);
    let body = body.u32(u32::from(SENDS) * 64).u32(SENDS.into());
    body.u32(u32::from(RECEIVES) * 16)
        .u32(RECEIVES.into())
        .done()
}

impl Endpoint {
    pub(super) fn new(driver: &mut Driver, kind: u8, events: Option<u16>) -> Self {
        let (cq, cq_base, cq_doorbell) = completion_queue(driver, events);
        let receive_base = driver.allocate(u64::from(RECEIVES) * 16);
        let pair = driver
            .admin(1, &create_pair(kind, cq, receive_base))
            .unwrap();
        let handle = u32_at(&pair, 0);
        for state in 1..=3 {
            modify(driver, handle, state);
        }
        let buffer = driver.allocate(BUFFER);
        // Every second page is somewhere else, so that one page is never taken
        // for the next.
        let mut pages: Vec<u64> = (0..BUFFER / 4096)
            .map(|page| buffer + page * 4096)
            .collect();
        pages.reverse();
        let key = register(driver, 0x7000_0000, &pages, BUFFER, ALL).unwrap();
        Self {
            handle,
            number: u16_at(&pair, 4),
            send_doorbell: u32_at(&pair, 12),
            receive_doorbell: u32_at(&pair, 16),
            ring: u32_at(&pair, 20).into(),
            receive_base,
            cq,
            cq_base,
            cq_doorbell,
            read: 0,
            sent: 0,
            received: 0,
            key,
            buffer,
        }
    }

    /// A virtual address in the buffer.
    pub(super) fn address(offset: u64) -> u64 {
        0x7000_0000 + offset
    }

    fn each_page(
        &self,
        offset: u64,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>),
    ) {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let some = ((4096 - at % 4096) as usize).min(len - done);
            let page = BUFFER / 4096 - 1 - at / 4096;
            each(self.buffer + page * 4096 + at % 4096, done..done + some);
            done += some;
        }
    }

    pub(super) fn fill(&self, driver: &Driver, offset: u64, data: &[u8]) {
        self.each_page(offset, data.len(), |at, range| driver.put(at, &data[range]));
    }

    pub(super) fn content(&self, driver: &Driver, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.each_page(offset, len, |at, range| {
            let part = driver.get(at, range.len());
            data[range].copy_from_slice(&part);
        });
        data
    }

    pub(super) fn post_receive(
        &mut self,
        driver: &mut Driver,
        request: u16,
        offset: u64,
        len: u16,
    ) {
        let at = self.receive_base + u64::from(self.received % RECEIVES) * 16;
        let entry = Fields::default()
            .u64(Self::address(offset))
            .u16(request)
            .u16(len);
        driver.put(at, &entry.u32(self.key | 3 << 30).done());
        self.received = self.received.wrapping_add(1);
        self.ring(driver, self.receive_doorbell, u32::from(self.received));
    }

    pub(super) fn post(&mut self, driver: &mut Driver, send: &Send<'_>) {
        let own_key = self.key;
        let (operation, inline, length, immediate) = match &send.what {
            What::Inline(data) => (0, 1 << 5, data.len() as u16, None),
            What::Pieces(pieces) => (0, 0, pieces.len() as u16, None),
            What::Rdma(operation, _, _, _, immediate) => (*operation, 0, 1, *immediate),
        };
        let has_immediate = u8::from(immediate.is_some()) << 4;
        let entry = Fields::default().u16(send.request);
        let entry = entry.u8(operation | inline | has_immediate | 1 << 7);
        let entry = entry.u8(1 << 4 | 1 << 2 | 1 << 3).u16(send.to).u16(length);
        let entry = entry.u32(immediate.unwrap_or(0)).u16(send.handle).u16(0);
        let mut entry = entry.u32(send.qkey).bytes(&[0; 12]);
        match &send.what {
            What::Inline(data) => entry = entry.bytes(data),
            What::Pieces(pieces) => {
                for (offset, len) in *pieces {
                    entry = entry.u32(*len).u32(own_key).u64(Self::address(*offset));
                }
            }
            What::Rdma(_, offset, (key, address), len, _) => {
                entry = entry.u32(*len).u32(*key).u64(*address);
                entry = entry.u32(*len).u32(own_key).u64(Self::address(*offset));
            }
        }
        let mut entry = entry.done();
        entry.resize(64, 0);
        let at = self.ring + u64::from(self.sent % SENDS) * 64;
        driver.write_region(pci::SEND_RINGS, at, &entry);
        self.sent = self.sent.wrapping_add(1);
        self.ring_sends(driver);
    }

    pub(super) fn ring_sends(&self, driver: &mut Driver) {
        self.ring(driver, self.send_doorbell, u32::from(self.sent));
    }

    pub(super) fn ring(&self, driver: &mut Driver, doorbell: u32, value: u32) {
        driver.write_region(pci::DOORBELLS, doorbell.into(), &value.to_le_bytes());
    }

    /// As before fi_wait: from the next completion on, an event.
    pub(super) fn arm(&self, driver: &mut Driver) {
        let value = u32::from(self.read as u16) | 1 << 31;
        self.ring(driver, self.cq_doorbell, value);
    }

    /// Completions that were not read yet.
    pub(super) fn poll(&mut self, driver: &Driver) -> Vec<Completion> {
        let depth = u64::from(CQ_DEPTH);
        let mut found = Vec::new();
        loop {
            let entry = driver.get(self.cq_base + self.read % depth * 32, 32);
            let flags = u8_at(&entry, 3);
            if flags & 1 != phase(self.read, depth) {
                return found;
            }
            self.read += 1;
            assert_eq!(u16_at(&entry, 4), self.number);
            let receive = flags >> 1 & 3 == 2;
            let when = |value: u16| if receive { value } else { 0 };
            found.push(Completion {
                request: u16_at(&entry, 0),
                status: u8_at(&entry, 2),
                receive,
                length: when(u16_at(&entry, 6)),
                source: when(u16_at(&entry, 10)),
                immediate: (flags & 1 << 3 != 0).then(|| u32_at(&entry, 12)),
            });
        }
    }
}

/// Two endpoints that know each other, each on its own device.
pub(super) struct Pair {
    pub(super) one: Driver,
    pub(super) two: Driver,
    pub(super) a: Endpoint,
    pub(super) b: Endpoint,
    /// Each one's handle for the other.
    pub(super) to_b: u16,
    pub(super) to_a: u16,
}

impl Pair {
    pub(super) fn new(world: &super::World, kind: u8, events: Option<u16>) -> Self {
        let mut one = world.driver(0);
        let mut two = world.driver(1);
        let a = Endpoint::new(&mut one, kind, events);
        // Another number than that of its partner.
        let _ = Endpoint::new(&mut two, kind, events);
        let b = Endpoint::new(&mut two, kind, events);
        let gid = |device| lock(&world.port(device)).device.gid();
        let to_b = address_handle(&mut one, gid(1));
        let to_a = address_handle(&mut two, gid(0));
        Self {
            one,
            two,
            a,
            b,
            to_b,
            to_a,
        }
    }

    /// A sends to B.
    pub(super) fn send(&mut self, request: u16, what: What<'_>) {
        let send = Send {
            request,
            handle: self.to_b,
            to: self.b.number,
            qkey: QKEY,
            what,
        };
        self.a.post(&mut self.one, &send);
    }

    /// B sends to A.
    pub(super) fn answer(&mut self, request: u16, what: What<'_>) {
        let send = Send {
            request,
            handle: self.to_a,
            to: self.a.number,
            qkey: QKEY,
            what,
        };
        self.b.post(&mut self.two, &send);
    }
}
