//! Address handles: short numbers for addresses on the fabric. Commands as in the
//! driver's headers; that handles are shared is known from libfabric.

use std::collections::BTreeMap;

use crate::bytes::{Fields, u16_at};
use crate::limits::LIMITS;
use crate::status::Status;

/// An address on the fabric.
pub type Gid = [u8; 16];

#[derive(Debug)]
struct Handle {
    gid: Gid,
    /// How often it was made. Two processes that talk to the same remote get the
    /// same handle: libfabric finds a remote by handle and queue pair.
    uses: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Handles(BTreeMap<u16, Handle>);

impl Handles {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn address(&self, handle: u16) -> Option<Gid> {
        self.0.get(&handle).map(|handle| handle.gid)
    }

    pub(crate) fn of(&self, gid: &Gid) -> Option<u16> {
        let mut all = self.0.iter();
        let found = all.find(|(_, handle)| handle.gid == *gid);
        found.map(|(number, _)| *number)
    }

    pub(crate) fn create(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let gid = command[4..].first_chunk().copied();
        let gid: Gid = gid.ok_or(Status::ILLEGAL_PARAMETER)?;
        let number = match self.of(&gid) {
            Some(number) => number,
            None => {
                let limit = LIMITS.handles as u16;
                let free = (0..limit).find(|number| !self.0.contains_key(number));
                free.ok_or(Status::NO_RESOURCE)?
            }
        };
        self.0.entry(number).or_insert(Handle { gid, uses: 0 }).uses += 1;
        Ok(Fields::default().u16(number).u16(0).done())
    }

    pub(crate) fn destroy(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let number = u16_at(command, 4);
        let handle = self.0.get_mut(&number).ok_or(Status::ILLEGAL_PARAMETER)?;
        handle.uses -= 1;
        if handle.uses == 0 {
            self.0.remove(&number);
        }
        Ok(Vec::new())
    }
}
