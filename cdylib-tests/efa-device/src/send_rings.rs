//! BAR 2: the send rings, which the driver writes and the device reads. A queue
//! pair's ring has memory from its first byte on.

use std::collections::BTreeMap;

use crate::limits::{LIMITS, SEND_RING};

#[derive(Debug, Default)]
pub(crate) struct SendRings(BTreeMap<u64, Vec<u8>>);

impl SendRings {
    /// One ring for each queue pair, and that of number 0, which no pair has.
    pub(crate) const SIZE: u64 = (LIMITS.pairs as u64 + 1) * SEND_RING as u64;

    /// Writes within the BAR; what is beyond its end is lost.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let ring_size = u64::from(SEND_RING);
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() && at < Self::SIZE {
            let within = (at % ring_size) as usize;
            let len = rest.len().min(SEND_RING as usize - within);
            let (now, later) = rest.split_at(len);
            let ring = self.0.entry(at / ring_size);
            let ring = ring.or_insert_with(|| vec![0; SEND_RING as usize]);
            ring[within..within + len].copy_from_slice(now);
            rest = later;
            at += len as u64;
        }
    }

    /// A queue pair's ring; empty where nothing was ever written.
    pub(crate) fn ring(&self, pair: u16) -> &[u8] {
        self.0.get(&pair.into()).map_or(&[], Vec::as_slice)
    }
}
