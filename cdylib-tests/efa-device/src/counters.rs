//! The counters of the port, as GET_STATS groups them.
//!
//! Their names and order are those of the kernel's driver: 6.12 asks for the first
//! four groups and shows 17 counters, 7.3 asks for all five.

use std::collections::BTreeMap;

/// Which counters a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterSet {
    /// The 17 of the driver of 6.12: the device refuses the network's. A driver that
    /// asks for those, too, can read no counter of it.
    Old,
    /// These, and the 5 of the network: retransmissions and remotes.
    Network,
}

/// The groups by type of GET_STATS, in the order of the answer.
const GROUPS: &[&[&str]] = &[
    &[
        "tx_bytes",
        "tx_pkts",
        "rx_bytes",
        "rx_pkts",
        "rx_drops",
        "qkey_viol",
    ],
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
const NETWORK_GROUP: usize = 4;

/// What one device has counted since its process started.
#[derive(Debug)]
pub struct Counters {
    set: CounterSet,
    values: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn new(set: CounterSet) -> Self {
        let names = GROUPS.iter().copied().flatten();
        Self {
            set,
            values: names.map(|name| (*name, 0)).collect(),
        }
    }

    pub(crate) fn add(&mut self, name: &str, by: u64) {
        let value = self.values.get_mut(name);
        debug_assert!(value.is_some(), "{name}");
        if let Some(value) = value {
            *value = value.wrapping_add(by);
        }
    }

    /// Sets a counter to any value, also a smaller one. False: there is none of
    /// this name.
    pub(crate) fn set(&mut self, name: &str, value: u64) -> bool {
        let found = self.values.get_mut(name);
        found.map(|it| *it = value).is_some()
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }

    /// All by name, also those that this model's driver does not show.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<&'static str, u64> {
        &self.values
    }

    /// The answer to GET_STATS of a type, `None` where the device has no such group.
    pub(crate) fn group(&self, kind: u8) -> Option<Vec<u8>> {
        let kind = usize::from(kind);
        if kind == NETWORK_GROUP && self.set == CounterSet::Old {
            return None;
        }
        let values = GROUPS.get(kind)?.iter().map(|name| self.values.get(name));
        Some(
            values
                .flat_map(|it| it.copied().unwrap_or(0).to_le_bytes())
                .collect(),
        )
    }
}
