//! The counters of an EFA device, and which of them warn.

/// Counters of the port, in `ports/1/hw_counters`; the last five with driver
/// 2.17 and later (EFA driver source, `efa_verbs.c`).
pub const PORT: [&str; 22] = [
    "tx_bytes",
    "tx_pkts",
    "rx_bytes",
    "rx_pkts",
    "rx_drops",
    "send_bytes",
    "send_wrs",
    "recv_bytes",
    "recv_wrs",
    "rdma_read_wrs",
    "rdma_read_bytes",
    "rdma_read_wr_err",
    "rdma_read_resp_bytes",
    "rdma_write_wrs",
    "rdma_write_bytes",
    "rdma_write_wr_err",
    "rdma_write_recv_bytes",
    "retrans_bytes",
    "retrans_pkts",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
];

/// Counters of the device, in `hw_counters`; a kernel that knows no counters
/// of devices lists them with those of the port.
pub const DEVICE: [&str; 12] = [
    "submitted_cmds",
    "completed_cmds",
    "cmds_err",
    NO_COMPLETION,
    "keep_alive_rcvd",
    "alloc_pd_err",
    "create_qp_err",
    "create_cq_err",
    "reg_mr_err",
    "alloc_ucontext_err",
    "create_ah_err",
    "mmap_err",
];

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
    }

    #[test]
    fn every_rate_is_of_a_counter_of_the_port_and_has_a_check() {
        for rate in RATES {
            assert!(PORT.contains(&rate.counter), "{}", rate.counter);
            assert!(crate::checks::find(rate.check).is_some(), "{}", rate.check);
        }
    }
}
