//! What a driver makes on a device by admin commands, and what data moves through:
//! queue pairs, completion and event queues, memory regions, address handles.
//!
//! The layouts of commands and entries are known from the kernel's driver and its
//! headers; rdma-core and libfabric ran on them. Not modelled: protection domains
//! are counted and never compared, queues in virtual memory, 128-byte send
//! entries, unsolicited receives.

mod completions;
mod events;
mod handles;
mod pairs;
mod regions;
mod work;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::bytes::{Fields, u16_at};
use crate::guest::Guest;
use crate::status::Status;
use completions::CompletionQueues;
use events::EventQueues;
use handles::Handles;
use pairs::Pairs;
use regions::Regions;

pub use handles::Gid;
pub(crate) use pairs::Arrival;
pub(crate) use regions::Access;
pub(crate) use work::{Operation, Payload, Piece, Work};

/// Numbers that are handed out and come back.
#[derive(Debug, Default)]
pub(crate) struct Numbers(BTreeSet<u16>);

impl Numbers {
    pub(crate) fn allocate(&mut self, limit: u32) -> Result<Vec<u8>, Status> {
        let limit = u16::try_from(limit).unwrap_or(u16::MAX);
        let free = (0..limit).find(|number| !self.0.contains(number));
        let number = free.ok_or(Status::NO_RESOURCE)?;
        self.0.insert(number);
        Ok(Fields::default().u16(number).u16(0).done())
    }

    pub(crate) fn free(&mut self, number: u16) -> Result<Vec<u8>, Status> {
        if !self.0.remove(&number) {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        Ok(Vec::new())
    }
}

/// All that a driver has made on one device.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub(crate) pairs: Pairs,
    pub(crate) completions: CompletionQueues,
    pub(crate) events: EventQueues,
    pub(crate) regions: Regions,
    pub(crate) handles: Handles,
    pub(crate) domains: Numbers,
    pub(crate) user_regions: Numbers,
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Queue pairs.
    pub queue_pairs: usize,
    /// Completion queues.
    pub completion_queues: usize,
    /// Event queues.
    pub event_queues: usize,
    /// Memory regions.
    pub memory_regions: usize,
    /// Pages of all memory regions.
    pub pages: usize,
    /// Address handles.
    pub address_handles: usize,
    /// Protection domains.
    pub protection_domains: usize,
}

impl Queues {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            queue_pairs: self.pairs.len(),
            completion_queues: self.completions.len(),
            event_queues: self.events.len(),
            memory_regions: self.regions.len(),
            pages: self.regions.pages(),
            address_handles: self.handles.len(),
            protection_domains: self.domains.0.len(),
        }
    }

    /// Forgets everything. Work that is on its way never meets what is made later.
    pub(crate) fn reset(&mut self) {
        let pairs = self.pairs.successor();
        *self = Self {
            pairs,
            ..Self::default()
        };
    }

    pub(crate) fn create_pair(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let created = pairs::Request::parse(command)?;
        let known = |queue: u16| self.completions.contains(queue);
        if !known(created.send_cq) || !known(created.receive_cq) {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        self.pairs.create(created)
    }

    pub(crate) fn create_completions(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let created = completions::Request::parse(command)?;
        if created
            .events
            .is_some_and(|queue| !self.events.contains(queue))
        {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        self.completions.create(created)
    }

    pub(crate) fn destroy_completions(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let queue = u16_at(command, 4);
        if self.pairs.uses(queue) {
            return Err(Status::RESOURCE_BUSY);
        }
        self.completions.destroy(queue)
    }

    /// A completion queue's doorbell: the driver has read up to `consumer`, and may
    /// wait for an event.
    pub(crate) fn completion_doorbell(&mut self, queue: u16, value: u32, guest: &Guest) {
        const ARM: u32 = 1 << 31;
        if value & ARM == 0 {
            return;
        }
        if let Some(events) = self.completions.arm(queue, value as u16) {
            self.events.post(events, queue, guest);
        }
    }

    /// Writes a completion, and an event where one is waited for.
    fn complete(&mut self, queue: u16, entry: [u8; 32], guest: &Guest) {
        if let Some(events) = self.completions.complete(queue, entry, guest) {
            self.events.post(events, queue, guest);
        }
    }
}
