//! Completion queues: rings in guest memory that the device writes. A program that
//! waits (fi_wait, ibv_get_cq_event) arms its queue, and gets one event for it. Entries
//! as in the driver's headers; the doorbell that arms is known from rdma-core.

use std::collections::BTreeMap;

use crate::bytes::{Fields, phase, u8_at, u16_at, u64_at};
use crate::guest::Guest;
use crate::limits::{CQ_DOORBELLS, LIMITS};
use crate::status::Status;

/// CREATE_CQ.
pub(crate) struct Request {
    base: u64,
    depth: u16,
    entry: usize,
    pub(crate) events: Option<u16>,
}

impl Request {
    pub(crate) fn parse(command: &[u8; 64]) -> Result<Self, Status> {
        const INTERRUPTS: u8 = 1 << 5;
        const VIRTUAL: u8 = 1 << 6;
        let flags = u8_at(command, 4);
        let depth = u16_at(command, 6);
        let entry = usize::from(u8_at(command, 5) & 0x1f) * 4;
        let valid = flags & VIRTUAL == 0
            && matches!(entry, 16 | 32)
            && (1..=LIMITS.completion_depth).contains(&u32::from(depth))
            && u16_at(command, 24) <= 1;
        if !valid {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        Ok(Self {
            base: u64_at(command, 12),
            depth,
            entry,
            events: (flags & INTERRUPTS != 0).then(|| u16_at(command, 8)),
        })
    }
}

#[derive(Debug)]
struct CompletionQueue {
    base: u64,
    depth: u16,
    entry: usize,
    /// Entries ever written.
    produced: u64,
    events: Option<u16>,
    armed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct CompletionQueues(BTreeMap<u16, CompletionQueue>);

impl CompletionQueues {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, queue: u16) -> bool {
        self.0.contains_key(&queue)
    }

    pub(crate) fn create(&mut self, request: Request) -> Result<Vec<u8>, Status> {
        const DOORBELL_VALID: u32 = 1;
        let limit = LIMITS.completion_queues as u16;
        let free = (0..limit).find(|number| !self.0.contains_key(number));
        let number = free.ok_or(Status::NO_RESOURCE)?;
        let depth = request.depth;
        let queue = CompletionQueue {
            base: request.base,
            depth,
            entry: request.entry,
            produced: 0,
            events: request.events,
            armed: false,
        };
        self.0.insert(number, queue);
        let reply = Fields::default().u16(number).u16(depth);
        let doorbell = CQ_DOORBELLS + u32::from(number) * 8;
        Ok(reply.u32(doorbell).u32(DOORBELL_VALID).done())
    }

    pub(crate) fn destroy(&mut self, queue: u16) -> Result<Vec<u8>, Status> {
        let queue = self.0.remove(&queue);
        queue.map(|_| Vec::new()).ok_or(Status::ILLEGAL_PARAMETER)
    }

    /// The event queue that gets an event at once, because there are completions
    /// that the driver has not read.
    pub(crate) fn arm(&mut self, queue: u16, consumer: u16) -> Option<u16> {
        let queue = self.0.get_mut(&queue)?;
        queue.armed = queue.produced as u16 == consumer;
        if queue.armed { None } else { queue.events }
    }

    /// Writes an entry. The event queue that gets an event for it.
    pub(crate) fn complete(
        &mut self,
        queue: u16,
        mut entry: [u8; 32],
        guest: &Guest,
    ) -> Option<u16> {
        /// The byte with the phase bit.
        const FLAGS: usize = 3;
        let queue = self.0.get_mut(&queue)?;
        let depth = u64::from(queue.depth);
        let index = queue.produced;
        queue.produced += 1;
        entry[FLAGS] |= phase(index, depth);
        let at = queue.base.wrapping_add(index % depth * queue.entry as u64);
        // The phase says that the rest is valid, so its byte goes last.
        let parts = [
            (FLAGS + 1, &entry[FLAGS + 1..queue.entry]),
            (0, &entry[..FLAGS]),
            (FLAGS, &entry[FLAGS..=FLAGS]),
        ];
        for (offset, part) in parts {
            guest.store(at.wrapping_add(offset as u64), part).ok()?;
        }
        let armed = std::mem::take(&mut queue.armed);
        queue.events.filter(|_| armed)
    }
}
