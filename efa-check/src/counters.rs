//! Which of an EFA device's counters warn, and when.

pub use config::sections::health::{RATES, Rate};
use efa::counters::{DEVICE, PORT};

/// Admin commands that the device never answered.
pub const NO_COMPLETION: &str = "no_completion_cmds";

/// Packets sent and received, for the symptom of a closed security group.
pub const PACKETS: [&str; 2] = ["tx_pkts", "rx_pkts"];

/// The remote did not answer.
pub const UNRESPONSIVE: &str = "unresponsive_remote_events";

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
