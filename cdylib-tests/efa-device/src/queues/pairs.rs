//! Queue pairs: what is posted to them, what arrives at them. Entries and completions
//! as in the driver's headers; the head of a datagram is known from rdma-core.

use std::collections::BTreeMap;

use super::handles::Gid;
use super::work::Entry;
use super::{Operation, Payload, Queues, Work};
use crate::bytes::{Fields, u8_at, u16_at, u32_at, u64_at};
use crate::guest::Guest;
use crate::limits::{LIMITS, SEND_ENTRY, SEND_RING};
use crate::status::{CompletionStatus, Status};

const RECEIVE_ENTRY: u32 = 16;

/// The head of a datagram's receive buffer that is left free, and counted.
const GRH: usize = 40;

const READY_TO_RECEIVE: u32 = 2;
const READY_TO_SEND: u32 = 3;
const DRAINING: u32 = 4;
const FAILED: u32 = 6;

/// CREATE_QP.
pub(crate) struct Request {
    datagrams: bool,
    pub(crate) send_cq: u16,
    pub(crate) receive_cq: u16,
    send_entries: u16,
    receive_base: u64,
    receive_entries: u16,
}

impl Request {
    pub(crate) fn parse(command: &[u8; 64]) -> Result<Self, Status> {
        const UNRELIABLE: u8 = 1;
        const RELIABLE: u8 = 2;
        /// Rings in virtual memory.
        const VIRTUAL: u8 = 0b11;
        let kind = u8_at(command, 6);
        if !matches!(kind, UNRELIABLE | RELIABLE) || u8_at(command, 7) & VIRTUAL != 0 {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        let entries = |at: usize, size: u32, most: u32| {
            let entries = u32_at(command, at) / size;
            let valid = entries <= most && (entries == 0 || entries.is_power_of_two());
            let entries = u16::try_from(entries).ok().filter(|_| valid);
            entries.ok_or(Status::ILLEGAL_PARAMETER)
        };
        let queue = |at: usize| {
            let number = u16::try_from(u32_at(command, at));
            number.map_err(|_| Status::ILLEGAL_PARAMETER)
        };
        Ok(Self {
            datagrams: kind == UNRELIABLE,
            send_cq: queue(24)?,
            receive_cq: queue(28)?,
            send_entries: entries(40, SEND_ENTRY, LIMITS.send_depth)?,
            receive_base: u64_at(command, 16),
            receive_entries: entries(48, RECEIVE_ENTRY, LIMITS.receive_depth)?,
        })
    }
}

#[derive(Debug)]
struct Pair {
    serial: u64,
    datagrams: bool,
    send_cq: u16,
    receive_cq: u16,
    send_entries: u16,
    /// The index after the last send that was read.
    sent: u16,
    /// Sends that were read and not yet answered.
    in_flight: u16,
    receive_base: u64,
    receive_entries: u16,
    /// The index after the last buffer that was filled.
    received: u16,
    /// The index after the last buffer that was posted.
    posted: u16,
    state: u32,
    qkey: u32,
    sequence: u32,
    retries: u8,
}

impl Pair {
    fn receives(&self) -> bool {
        matches!(self.state, READY_TO_RECEIVE | READY_TO_SEND | DRAINING)
    }
}

/// What arrives at a queue pair.
pub(crate) struct Arrival<'a> {
    pub(crate) work: &'a Work,
    /// The bytes of a send.
    pub(crate) payload: &'a [u8],
}

#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pairs: BTreeMap<u16, Pair>,
    last_serial: u64,
    last_number: u16,
}

impl Pairs {
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// None of these, but with serial numbers that go on.
    pub(crate) fn successor(&self) -> Self {
        Self {
            pairs: BTreeMap::new(),
            last_serial: self.last_serial,
            last_number: 0,
        }
    }

    /// Whether a queue pair completes to this queue.
    pub(crate) fn uses(&self, queue: u16) -> bool {
        let mut pairs = self.pairs.values();
        pairs.any(|pair| pair.send_cq == queue || pair.receive_cq == queue)
    }

    pub(crate) fn create(&mut self, request: Request) -> Result<Vec<u8>, Status> {
        let limit = LIMITS.pairs as u16;
        // A number that was just freed comes last: what is on its way to it is lost.
        let after = (1..=limit).map(|step| (self.last_number + step - 1) % limit + 1);
        let mut free = after.filter(|number| !self.pairs.contains_key(number));
        let number = free.next().ok_or(Status::NO_RESOURCE)?;
        self.last_number = number;
        self.last_serial += 1;
        let pair = Pair {
            serial: self.last_serial,
            datagrams: request.datagrams,
            send_cq: request.send_cq,
            receive_cq: request.receive_cq,
            send_entries: request.send_entries,
            sent: 0,
            in_flight: 0,
            receive_base: request.receive_base,
            receive_entries: request.receive_entries,
            received: 0,
            posted: 0,
            state: 0,
            qkey: 0,
            sequence: 0,
            retries: 0,
        };
        self.pairs.insert(number, pair);
        let doorbell = u32::from(number) * 8;
        let reply = Fields::default().u32(u32::from(number)).u16(number).u16(0);
        let reply = reply.u16(0).u16(0).u32(doorbell).u32(doorbell + 4);
        Ok(reply.u32(u32::from(number) * SEND_RING).done())
    }

    fn by_handle(&mut self, handle: u32) -> Result<(u16, &mut Pair), Status> {
        let number = u16::try_from(handle).map_err(|_| Status::ILLEGAL_PARAMETER)?;
        let pair = self.pairs.get_mut(&number);
        pair.map(|pair| (number, pair))
            .ok_or(Status::ILLEGAL_PARAMETER)
    }

    pub(crate) fn modify(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let mask = u32_at(command, 4);
        let (_, pair) = self.by_handle(u32_at(command, 8))?;
        if mask & 1 != 0 {
            let state = u32_at(command, 12);
            if state > FAILED {
                return Err(Status::ILLEGAL_PARAMETER);
            }
            pair.state = state;
        }
        if mask & 1 << 2 != 0 {
            pair.qkey = u32_at(command, 20);
        }
        if mask & 1 << 3 != 0 {
            pair.sequence = u32_at(command, 24);
        }
        if mask & 1 << 5 != 0 {
            pair.retries = u8_at(command, 29);
        }
        Ok(Vec::new())
    }

    pub(crate) fn query(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let (_, pair) = self.by_handle(u32_at(command, 4))?;
        let reply = Fields::default().u32(pair.state).u32(pair.qkey);
        Ok(reply
            .u32(pair.sequence)
            .u8(0)
            .u8(pair.retries)
            .u16(0)
            .done())
    }

    pub(crate) fn destroy(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let (number, _) = self.by_handle(u32_at(command, 4))?;
        self.pairs.remove(&number);
        Ok(Vec::new())
    }

    /// Receive buffers were posted.
    pub(crate) fn posted(&mut self, number: u16, producer: u16) {
        if let Some(pair) = self.pairs.get_mut(&number) {
            if producer.wrapping_sub(pair.received) > pair.receive_entries {
                // More than the ring holds: the driver's index is wrong.
                pair.state = FAILED;
            } else {
                pair.posted = producer;
            }
        }
    }
}

impl Queues {
    /// Sends were posted: what leaves. `ring` is the queue pair's part of BAR 2.
    pub(crate) fn sends(
        &mut self,
        (device, source): (usize, Gid),
        number: u16,
        producer: u16,
        ring: &[u8],
    ) -> Vec<Work> {
        let Some(pair) = self.pairs.pairs.get_mut(&number) else {
            return Vec::new();
        };
        let new = producer.wrapping_sub(pair.sent);
        if new > pair.send_entries.saturating_sub(pair.in_flight) {
            // More than the ring holds: the driver's index is wrong.
            pair.state = FAILED;
            return Vec::new();
        }
        let first = pair.sent;
        pair.sent = producer;
        pair.in_flight += new;
        let pair = &*pair;
        let at = |step: u16| {
            let index = usize::from(first.wrapping_add(step) & (pair.send_entries - 1));
            let at = index * SEND_ENTRY as usize;
            Entry(ring.get(at..at + SEND_ENTRY as usize).unwrap_or_default())
        };
        let work = |entry: Entry<'_>| Work {
            device,
            source,
            pair: number,
            serial: pair.serial,
            request: entry.request(),
            operation: entry.operation(),
            wants_completion: entry.wants_completion(),
            immediate: entry.immediate(),
            to: self.handles.address(entry.handle()),
            to_pair: entry.to_pair(),
            qkey: entry.qkey(),
            payload: entry.payload().unwrap_or(Payload::Inline([0; 32], 0)),
            remote: entry.remote(),
            datagram: pair.datagrams,
            patient: pair.retries >= 7,
            failed: match entry.payload() {
                _ if pair.state != READY_TO_SEND => Some(CompletionStatus::FLUSHED),
                None => Some(CompletionStatus::BAD_LENGTH),
                Some(_) => None,
            },
        };
        (0..new).map(|step| work(at(step))).collect()
    }

    /// Whether the queue pair that work came from is still there.
    pub(crate) fn expects(&self, work: &Work) -> bool {
        let pair = self.pairs.pairs.get(&work.pair);
        pair.is_some_and(|pair| pair.serial == work.serial)
    }

    /// Whether work may be for one of these queue pairs.
    pub(crate) fn accepts(&self, work: &Work) -> Result<(), CompletionStatus> {
        let pair = self.pairs.pairs.get(&work.to_pair);
        let pair = pair.filter(|pair| pair.receives() && pair.datagrams == work.datagram);
        pair.map(|_| ()).ok_or(CompletionStatus::REMOTE_PAIR)
    }

    /// Whether work has the key of its queue pair.
    pub(crate) fn knows_key(&self, work: &Work) -> bool {
        let pair = self.pairs.pairs.get(&work.to_pair);
        pair.is_none_or(|pair| pair.qkey == work.qkey)
    }

    /// A send, or a write with immediate data, arrives and uses a receive buffer.
    pub(crate) fn receive(
        &mut self,
        arrival: &Arrival<'_>,
        guest: &Guest,
    ) -> Result<(), CompletionStatus> {
        let Arrival { work, payload } = *arrival;
        self.accepts(work)?;
        let pair = self.pairs.pairs.get_mut(&work.to_pair);
        let pair = pair.ok_or(CompletionStatus::REMOTE_PAIR)?;
        if pair.received == pair.posted {
            return Err(CompletionStatus::REMOTE_NOT_READY);
        }
        let index = u64::from(pair.received & (pair.receive_entries.max(1) - 1));
        let at = pair
            .receive_base
            .wrapping_add(index * u64::from(RECEIVE_ENTRY));
        let mut buffer = [0; RECEIVE_ENTRY as usize];
        if guest.load(at, &mut buffer).is_err() {
            return Err(CompletionStatus::REMOTE_STATUS);
        }
        let head = if pair.datagrams { GRH } else { 0 };
        let length = match work.operation {
            Operation::Send => {
                let length = payload.len() + head;
                if length > usize::from(u16_at(&buffer, 10)) {
                    return Err(CompletionStatus::REMOTE_LENGTH);
                }
                let place = (
                    u32_at(&buffer, 12),
                    u64_at(&buffer, 0).wrapping_add(head as u64),
                );
                let access = super::Access::LocalWrite;
                if !self.regions.store(guest, place, access, payload) {
                    return Err(CompletionStatus::REMOTE_STATUS);
                }
                length as u64
            }
            _ => work.payload.len(),
        };
        pair.received = pair.received.wrapping_add(1);
        let queue = pair.receive_cq;
        let entry = self.received(work, u16_at(&buffer, 8), length);
        self.complete(queue, entry, guest);
        Ok(())
    }

    /// The completion of a receive.
    fn received(&self, work: &Work, request: u16, length: u64) -> [u8; 32] {
        const RECEIVED: u8 = 2;
        const UNKNOWN: u16 = 0xffff;
        let immediate = u8::from(work.immediate.is_some());
        let known = self.handles.of(&work.source);
        let head = Fields::default().u16(request).u8(0);
        let head = head.u8(RECEIVED << 1 | immediate << 3 | work.operation.code() << 4);
        let head = head.u16(work.to_pair).u16(length as u16);
        let head = head.u16(known.unwrap_or(UNKNOWN)).u16(work.pair);
        let head = head.u32(work.immediate.unwrap_or(0));
        let rest = match work.operation {
            Operation::Write => head.u16((length >> 16) as u16),
            _ if known.is_none() => head.bytes(&work.source),
            _ => head,
        };
        entry(&rest.done())
    }

    /// The end of one's own work.
    pub(crate) fn answered(&mut self, work: &Work, status: CompletionStatus, guest: &Guest) {
        const SENT: u8 = 1;
        let pair = self.pairs.pairs.get_mut(&work.pair);
        let Some(pair) = pair.filter(|pair| pair.serial == work.serial) else {
            return;
        };
        pair.in_flight = pair.in_flight.saturating_sub(1);
        if status == CompletionStatus::OK && !work.wants_completion {
            return;
        }
        let queue = pair.send_cq;
        let fields = Fields::default().u16(work.request).u8(status.0);
        let fields = fields
            .u8(SENT << 1 | work.operation.code() << 4)
            .u16(work.pair);
        self.complete(queue, entry(&fields.done()), guest);
    }
}

fn entry(fields: &[u8]) -> [u8; 32] {
    let mut entry = [0; 32];
    let len = fields.len().min(entry.len());
    entry[..len].copy_from_slice(&fields[..len]);
    entry
}
