//! Event queues: which completion queue has something to read. The driver makes one
//! for each MSI-X vector but the first. Entries as in the driver's headers.

use std::collections::BTreeMap;

use crate::bytes::{Fields, phase, u8_at, u16_at, u64_at};
use crate::guest::Guest;
use crate::limits::MAX_EVENTS;
use crate::status::Status;

#[derive(Debug)]
struct EventQueue {
    base: u64,
    depth: u16,
    vector: u8,
    /// Entries ever written.
    produced: u64,
    armed: bool,
    /// There are entries that came after the last interrupt.
    unannounced: bool,
}

impl EventQueue {
    fn announce(&mut self, guest: &Guest) {
        if self.armed && self.unannounced {
            self.armed = false;
            self.unannounced = false;
            guest.interrupt(usize::from(self.vector));
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct EventQueues(BTreeMap<u16, EventQueue>);

impl EventQueues {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, queue: u16) -> bool {
        self.0.contains_key(&queue)
    }

    /// CREATE_EQ, on a device with `vectors` MSI-X vectors and as many queues less
    /// one.
    pub(crate) fn create(&mut self, command: &[u8; 64], vectors: u16) -> Result<Vec<u8>, Status> {
        /// In words of 32 bits.
        const ENTRY: u8 = 4;
        let (depth, vector) = (u16_at(command, 4), u8_at(command, 6));
        let valid = (1..=MAX_EVENTS).contains(&u32::from(depth))
            && u16::from(vector) < vectors
            && u8_at(command, 7) == ENTRY;
        if !valid {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        let limit = vectors.saturating_sub(1);
        let free = (0..limit).find(|number| !self.0.contains_key(number));
        let number = free.ok_or(Status::NO_RESOURCE)?;
        let queue = EventQueue {
            base: u64_at(command, 8),
            depth,
            vector,
            produced: 0,
            armed: false,
            unannounced: false,
        };
        self.0.insert(number, queue);
        Ok(Fields::default().u16(number).u16(0).done())
    }

    pub(crate) fn destroy(&mut self, queue: u16) -> Result<Vec<u8>, Status> {
        let queue = self.0.remove(&queue);
        queue.map(|_| Vec::new()).ok_or(Status::ILLEGAL_PARAMETER)
    }

    /// The register with the doorbell of all event queues.
    pub(crate) fn doorbell(&mut self, value: u32, guest: &Guest) {
        const ARM: u32 = 1 << 31;
        if let Some(queue) = self.0.get_mut(&(value as u16)) {
            queue.armed = value & ARM != 0;
            queue.announce(guest);
        }
    }

    /// Writes the event that a completion queue has something to read.
    pub(crate) fn post(&mut self, queue: u16, completions: u16, guest: &Guest) {
        let Some(queue) = self.0.get_mut(&queue) else {
            return;
        };
        let (index, depth) = (queue.produced, u64::from(queue.depth));
        queue.produced += 1;
        let at = queue.base.wrapping_add(index % depth * 16);
        let event = Fields::default().u32(0).u16(completions).u16(0).u32(0);
        let head = u32::from(phase(index, depth));
        let stored = guest.store(at.wrapping_add(4), &event.done());
        // The phase says that the rest is valid, so its word goes last.
        if stored.and(guest.store(at, &head.to_le_bytes())).is_ok() {
            queue.unannounced = true;
            queue.announce(guest);
        }
    }
}
