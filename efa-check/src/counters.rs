//! Which of an EFA device's counters warn, and when.

use efa::counters::{DEVICE, PORT};

/// Admin commands that the device never answered.
pub const NO_COMPLETION: &str = "no_completion_cmds";

/// Packets sent and received, for the symptom of a closed security group.
pub const PACKETS: [&str; 2] = ["tx_pkts", "rx_pkts"];

/// The remote did not answer.
pub const UNRESPONSIVE: &str = "unresponsive_remote_events";

/// A token bucket: so many at once, and so many a minute in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The counter of the port.
    pub counter: &'static str,
    /// The check that warns.
    pub check: &'static str,
    /// Tokens that the bucket holds.
    pub burst: u64,
    /// Tokens that flow into it in a minute.
    pub per_minute: u64,
}

const fn rate(counter: &'static str, check: &'static str, burst: u64, per_minute: u64) -> Rate {
    Rate {
        counter,
        check,
        burst,
        per_minute,
    }
}

/// The thresholds of AWS's eks-node-monitoring-agent: above 100 at once, one a
/// second; above 1 000 packets or 1 000 000 bytes sent again in a minute.
#[rustfmt::skip]
pub const RATES: [Rate; 8] = [
    rate("rx_drops",                    "rx-drops",            100,       60),
    rate("rdma_read_wr_err",            "rdma-errors",         100,       60),
    rate("rdma_write_wr_err",           "rdma-errors",         100,       60),
    rate(UNRESPONSIVE,                  "unresponsive-remote", 100,       60),
    rate("impaired_remote_conn_events", "impaired-remote",     100,       60),
    rate("retrans_timeout_events",      "retransmissions",     100,       60),
    rate("retrans_pkts",                "retransmissions",     1000,      1000),
    rate("retrans_bytes",               "retransmissions",     1_000_000, 1_000_000),
];

/// Which counters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that a check judges: for a prolog.
    Judged,
    /// All.
    All,
}

impl Wanted {
    /// The counters of the port.
    pub fn port(self) -> impl Iterator<Item = &'static str> {
        PORT.into_iter().filter(move |counter| match self {
            Self::All => true,
            Self::Judged => {
                PACKETS.contains(counter) || RATES.iter().any(|rate| rate.counter == *counter)
            }
        })
    }

    /// The counters of the device.
    pub fn device(self) -> impl Iterator<Item = &'static str> {
        DEVICE
            .into_iter()
            .filter(move |counter| self == Self::All || *counter == NO_COMPLETION)
    }
}

/// The counter of this name, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static str> {
    PORT.into_iter()
        .chain(DEVICE)
        .find(|counter| *counter == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prolog_reads_only_what_is_judged() {
        assert_eq!(Wanted::Judged.port().count(), 10);
        assert_eq!(Wanted::Judged.device().collect::<Vec<_>>(), [NO_COMPLETION]);
        assert_eq!(Wanted::All.port().count(), 22);
        assert!(PACKETS.iter().all(|counter| PORT.contains(counter)));
    }

    #[test]
    fn every_rate_is_of_a_counter_of_the_port_and_has_a_check() {
        for rate in RATES {
            assert!(PORT.contains(&rate.counter), "{}", rate.counter);
            assert!(crate::checks::find(rate.check).is_some(), "{}", rate.check);
        }
    }
}
