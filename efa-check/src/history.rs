//! What one round tells the next: counters, token buckets, devices once seen.
//!
//! One file in `state_dir`. It counts only for the boot that wrote it and is
//! measured on the clock that no one can set (`CLOCK_BOOTTIME`). A file that is
//! torn, foreign or of another boot makes the next round a first one, and a
//! first round never alarms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::process::ProcessIdentity;
use host::state_layout::health::ROUNDS_VERSION;
use serde::{Deserialize, Serialize};

use crate::counters::{NO_COMPLETION, Rate};
use crate::observe::Observation;
use crate::probe_worker::Probe;

/// Devices that are remembered.
const MOST_DEVICES: usize = 128;

/// When a round was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// The kernel's boot id.
    pub boot: String,
    /// Since boot, `CLOCK_BOOTTIME`.
    pub uptime: Duration,
    /// Seconds of the wall clock, only to be shown.
    pub unix: u64,
}

/// What is known of one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// PCI address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pci: Option<String>,
    /// When it was first missed, in seconds of the wall clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gone_since: Option<u64>,
    /// Counters that are judged, at the last round.
    #[serde(default)]
    last: BTreeMap<String, u64>,
    /// What is left in the buckets.
    #[serde(default)]
    tokens: BTreeMap<String, f64>,
    /// The process that hangs on it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    holder: Option<ProcessIdentity>,
    /// When and how it was last rebound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rebound: Option<Rebound>,
}

/// What is known of a device's last rebind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebound {
    /// In milliseconds since boot.
    at: u64,
    /// In seconds of the wall clock.
    pub unix: u64,
    /// Whether it answered afterwards; `None` while that is not known.
    pub healed: Option<bool>,
}

/// A device that dies again within this time is not rebound again.
const REBIND_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The state between rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounds {
    version: u32,
    boot: String,
    /// Milliseconds since boot.
    at: u64,
    /// Every device that was seen since boot, by name.
    pub devices: BTreeMap<String, Device>,
    /// Rounds of `healthcheck` in a row without a fatal finding.
    pub healthy: u32,
    /// Whether Slurm may hold this node drained by us. True at first: a drain
    /// outlives a reboot, this file does not.
    pub drained: bool,
    /// The last round was of a node without a job, and no job came since: each
    /// job's prolog is a round.
    #[serde(default)]
    pub is_idle: bool,
    /// The active test.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loopback: Option<Loopback>,
}

/// What is known of the active test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loopback {
    /// When it was last to be made, in milliseconds since boot.
    asked: u64,
    /// When it was last made on all devices.
    tested: Option<u64>,
    /// The first of the devices that failed, and why.
    pub failed: BTreeMap<String, String>,
}

/// A node that is busy all the time is not asked about in every round.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Failures that are kept.
const MOST_FAILURES: usize = 8;

impl Loopback {
    /// Whether it is time for the test; `every` is how often it shall be made.
    #[must_use]
    pub fn is_due(&self, every: Duration, now: &Now) -> bool {
        let now = milliseconds(now.uptime);
        let waited = |since: u64, limit| now.saturating_sub(since) >= milliseconds(limit);
        waited(self.asked, every.min(ASK_AGAIN))
            && self.tested.is_none_or(|tested| waited(tested, every))
    }

    /// Somebody goes to make it.
    pub fn ask(&mut self, now: &Now) {
        self.asked = milliseconds(now.uptime);
    }

    /// It was made.
    pub fn tell(&mut self, failed: impl IntoIterator<Item = (String, String)>, now: &Now) {
        self.tested = Some(milliseconds(now.uptime));
        self.failed = failed.into_iter().take(MOST_FAILURES).collect();
    }
}

/// One counter that rose faster than its bucket allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The device.
    pub device: String,
    /// Which counter.
    pub rate: Rate,
    /// By how much it rose.
    pub rose: u64,
    /// In which time.
    pub within: Duration,
}

/// What changed since the last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Counters that are worth a warning.
    pub excess: Vec<Excess>,
    /// Devices with new commands that were never answered, and how many.
    pub unanswered: Vec<(String, u64)>,
    /// No job can have caused any of it.
    pub without_job: bool,
}

impl Rounds {
    /// Nothing is known.
    #[must_use]
    pub fn first(now: &Now) -> Self {
        Self {
            version: ROUNDS_VERSION,
            boot: now.boot.clone(),
            at: milliseconds(now.uptime),
            devices: BTreeMap::new(),
            healthy: 0,
            drained: true,
            is_idle: false,
            loopback: None,
        }
    }

    /// Reads what the last round wrote, if it was of this boot and form.
    #[must_use]
    pub fn parse(bytes: &[u8], now: &Now) -> Self {
        serde_json::from_slice::<Self>(bytes)
            .ok()
            .filter(|rounds| rounds.version == ROUNDS_VERSION && rounds.boot == now.boot)
            .filter(|rounds| !now.boot.is_empty() && rounds.at <= milliseconds(now.uptime))
            .unwrap_or_else(|| Self::first(now))
    }

    /// The file's content.
    ///
    /// # Errors
    /// None that can occur; JSON's writer has an error type.
    pub fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// The processes that still hung in the last round.
    #[must_use]
    pub fn held(&self) -> BTreeMap<String, ProcessIdentity> {
        self.devices
            .iter()
            .filter_map(|(name, device)| Some((name.clone(), device.holder?)))
            .collect()
    }

    /// What changed from the last round to `seen`, and the state after it.
    #[must_use]
    pub fn advance(&self, seen: &Observation, rates: &[Rate], now: &Now) -> (Changes, Self) {
        let mut next = self.clone();
        next.boot.clone_from(&now.boot);
        next.at = milliseconds(now.uptime);
        let elapsed = Duration::from_millis(next.at.saturating_sub(self.at));
        let is_idle = seen.is_idle.unwrap_or(false);
        next.is_idle = is_idle;
        let mut changes = Changes {
            // Who does not look for jobs is a prolog, whose job has not begun.
            without_job: self.is_idle && seen.is_idle.unwrap_or(true),
            ..Changes::default()
        };
        let Ok(devices) = &seen.devices else {
            return (changes, next);
        };
        for device in devices {
            let known = next.devices.len() < MOST_DEVICES;
            if !known && !next.devices.contains_key(&device.name) {
                continue;
            }
            let state = next.devices.entry(device.name.clone()).or_default();
            if state.pci != device.pci {
                // Another device got this name.
                *state = Device {
                    pci: device.pci.clone(),
                    ..Device::default()
                };
            }
            state.gone_since = None;
            state.holder = None;
            match &device.probe {
                Probe::Values(values) => {
                    state.advance(&device.name, values, rates, elapsed, &mut changes);
                }
                Probe::Stuck { holder } => state.holder = Some(*holder).filter(|it| it.is_alive()),
                Probe::Failed { .. } | Probe::Dead { .. } | Probe::Unknown { .. } => {}
            }
        }
        let here: BTreeSet<&str> = devices.iter().map(|d| d.name.as_str()).collect();
        for (name, state) in &mut next.devices {
            if !here.contains(name.as_str()) {
                state.gone_since.get_or_insert(now.unix);
            }
        }
        (changes, next)
    }

    /// Whether this device, or what had its place under another name, was rebound
    /// within a day.
    #[must_use]
    pub fn was_rebound(&self, name: &str, now: &Now) -> bool {
        let pci = self.devices.get(name).and_then(|it| it.pci.as_deref());
        let same = |(other, device): &(&String, &Device)| {
            *other == name || pci.is_some() && device.pci.as_deref() == pci
        };
        let limit = milliseconds(REBIND_AGAIN);
        let age = |rebound: Rebound| milliseconds(now.uptime).saturating_sub(rebound.at);
        let mut rebound = self
            .devices
            .iter()
            .filter(same)
            .filter_map(|(_, it)| it.rebound);
        rebound.any(|rebound| age(rebound) < limit)
    }

    /// Keeps that a device was rebound now, and what came of it.
    pub fn rebind(&mut self, name: &str, healed: Option<bool>, now: &Now) {
        let device = self.devices.entry(name.to_owned()).or_default();
        device.rebound = Some(Rebound {
            at: milliseconds(now.uptime),
            unix: now.unix,
            healed,
        });
    }

    /// Whether a look at `now` is newer than this; a slow prolog may come late.
    #[must_use]
    pub fn is_before(&self, now: &Now) -> bool {
        self.at <= milliseconds(now.uptime)
    }
}

impl Device {
    fn advance(
        &mut self,
        name: &str,
        values: &BTreeMap<&'static str, u64>,
        rates: &[Rate],
        elapsed: Duration,
        changes: &mut Changes,
    ) {
        // A driver that was loaded anew counts from zero: then, and in a first
        // round, there is nothing to compare with.
        let reset = values
            .iter()
            .any(|(counter, value)| self.last.get(*counter).is_some_and(|last| value < last));
        let rose = |last: &BTreeMap<String, u64>, counter: &str| {
            let (value, last) = (values.get(counter)?, last.get(counter)?);
            (!reset).then(|| value.saturating_sub(*last))
        };
        if let Some(commands @ 1..) = rose(&self.last, NO_COMPLETION) {
            changes.unanswered.push((name.to_owned(), commands));
        }
        for rate in rates {
            let Some(value) = values.get(rate.counter) else {
                continue;
            };
            #[allow(
                clippy::cast_precision_loss,
                reason = "tokens are a measure, not a count"
            )]
            if let Some(rose) = rose(&self.last, rate.counter) {
                let full = rate.burst as f64;
                let left = self.tokens.get(rate.counter).copied().unwrap_or(full);
                // A file of ours holds no other numbers; a foreign one might.
                let left = if left.is_finite() { left } else { full };
                let flown = elapsed.as_secs_f64() * rate.per_minute as f64 / 60.0;
                let left = (left.max(0.0) + flown).min(full) - rose as f64;
                if left < 0.0 {
                    changes.excess.push(Excess {
                        device: name.to_owned(),
                        rate: *rate,
                        rose,
                        within: elapsed,
                    });
                }
                self.tokens.insert(rate.counter.to_owned(), left.max(0.0));
            }
            self.last.insert(rate.counter.to_owned(), *value);
        }
        if let Some(value) = values.get(NO_COMPLETION) {
            self.last.insert(NO_COMPLETION.to_owned(), *value);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::RATES;
    use crate::observe::{Seen, Uverbs};
    use proptest::prelude::*;

    fn at(seconds: u64) -> Now {
        Now {
            boot: "b".into(),
            uptime: Duration::from_secs(seconds),
            unix: 1_800_000_000 + seconds,
        }
    }

    fn seen(values: &[(&'static str, u64)]) -> Observation {
        let device = Seen {
            name: "efa_0".into(),
            pci: Some("0000:10:1b.0".into()),
            device_id: 0xefa0,
            has_p2p: None,
            uverbs: Uverbs::Fine,
            probe: Probe::Values(values.iter().copied().collect()),
        };
        Observation {
            devices: Ok(vec![device]),
            ..Observation::nothing()
        }
    }

    /// Rounds a minute apart with these values of one counter: who alarmed?
    fn alarms(counter: &'static str, values: &[u64]) -> Vec<bool> {
        let mut rounds = Rounds::first(&at(0));
        let mut time = 0;
        values
            .iter()
            .map(|value| {
                time += 60;
                let (changes, next) =
                    rounds.advance(&seen(&[(counter, *value)]), &RATES, &at(time));
                rounds = Rounds::parse(&next.bytes().unwrap(), &at(time));
                assert_eq!(rounds, next, "what is written is what is read");
                changes != Changes::default()
            })
            .collect()
    }

    #[test]
    fn a_first_round_never_alarms_whatever_the_counters_say() {
        assert_eq!(alarms("rx_drops", &[u64::MAX]), [false]);
        assert_eq!(alarms(NO_COMPLETION, &[17]), [false]);
    }

    #[test]
    fn one_unanswered_command_alarms_once() {
        assert_eq!(
            alarms(NO_COMPLETION, &[3, 3, 4, 4]),
            [false, false, true, false]
        );
    }

    #[test]
    fn a_burst_up_to_the_size_of_the_bucket_is_fine_and_one_more_is_not() {
        assert_eq!(alarms("rx_drops", &[0, 100]), [false, false]);
        assert_eq!(alarms("rx_drops", &[0, 101]), [false, true]);
    }

    #[test]
    fn a_bucket_fills_again_at_its_rate() {
        // 100 at once empty it; in a minute 60 flow in.
        assert_eq!(alarms("rx_drops", &[0, 100, 160]), [false, false, false]);
        assert_eq!(alarms("rx_drops", &[0, 100, 161]), [false, false, true]);
        // After an alarm it is empty, not in debt.
        assert_eq!(alarms("rx_drops", &[0, 900, 960]), [false, true, false]);
    }

    #[test]
    fn a_counter_that_was_reset_is_a_first_round() {
        assert_eq!(alarms("rx_drops", &[5000, 300, 350]), [false; 3]);
        assert_eq!(alarms(NO_COMPLETION, &[5, 2, 2]), [false; 3]);
    }

    #[test]
    fn a_state_of_another_boot_a_later_time_a_torn_or_a_foreign_one_is_a_first_round() {
        let (_, rounds) =
            Rounds::first(&at(10)).advance(&seen(&[("rx_drops", 7)]), &RATES, &at(10));
        let bytes = rounds.bytes().unwrap();
        assert_eq!(Rounds::parse(&bytes, &at(11)), rounds);
        let other = Now {
            boot: "c".into(),
            ..at(11)
        };
        assert_eq!(Rounds::parse(&bytes, &other), Rounds::first(&other));
        assert_eq!(Rounds::parse(&bytes, &at(9)), Rounds::first(&at(9)));
        for end in 0..bytes.len() {
            assert_eq!(
                Rounds::parse(&bytes[..end], &at(11)),
                Rounds::first(&at(11))
            );
        }
        let later = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\":2", "\"version\":3");
        assert_eq!(
            Rounds::parse(later.as_bytes(), &at(11)),
            Rounds::first(&at(11))
        );
        // Without a boot id nothing can be told.
        let nowhere = Now {
            boot: String::new(),
            ..at(11)
        };
        let bytes = Rounds::first(&nowhere).bytes().unwrap();
        assert_eq!(Rounds::parse(&bytes, &nowhere), Rounds::first(&nowhere));
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_no_verdict() {
        let jumped = |seconds, unix| Now {
            unix,
            ..at(seconds)
        };
        for unix in [0, 1_000_000, u64::MAX] {
            let (_, one) = Rounds::first(&at(0)).advance(&seen(&[("rx_drops", 0)]), &RATES, &at(0));
            // A minute later by the clock that counts: 100 and 60 are allowed.
            let now = jumped(60, unix);
            let fine = one.advance(&seen(&[("rx_drops", 100)]), &RATES, &now).0;
            assert_eq!(fine, Changes::default());
            let (bad, two) = one.advance(&seen(&[("rx_drops", 101)]), &RATES, &now);
            assert_eq!(bad.excess[0].within, Duration::from_secs(60));
            let read = Rounds::parse(&two.bytes().unwrap(), &at(61));
            assert_eq!(read, two, "it is still of this boot");
        }
    }

    #[test]
    fn the_active_test_is_due_once_in_its_period_and_a_busy_node_is_asked_about_seldom() {
        let hour = Duration::from_secs(3600);
        let mut loopback = Loopback::default();
        assert!(loopback.is_due(hour, &at(700)));
        loopback.ask(&at(700));
        assert!(!loopback.is_due(hour, &at(1299)), "it was busy");
        assert!(loopback.is_due(hour, &at(1300)));
        loopback.ask(&at(1300));
        loopback.tell([("efa_0".to_owned(), "x".to_owned())], &at(1320));
        assert!(!loopback.is_due(hour, &at(4900)));
        assert!(loopback.is_due(hour, &at(4920)));
    }

    #[test]
    fn a_device_that_is_missed_keeps_the_time_when_it_was_first_missed() {
        let (_, one) = Rounds::first(&at(0)).advance(&seen(&[]), &RATES, &at(1));
        let mut none = seen(&[]);
        none.devices = Ok(Vec::new());
        let (_, two) = one.advance(&none, &RATES, &at(2));
        let (_, three) = two.advance(&none, &RATES, &at(3));
        assert_eq!(three.devices["efa_0"].gone_since, Some(at(2).unix));
        let (_, four) = three.advance(&seen(&[]), &RATES, &at(4));
        assert_eq!(four.devices["efa_0"].gone_since, None);
    }

    #[test]
    fn another_device_under_the_same_name_starts_anew() {
        let (_, rounds) = Rounds::first(&at(0)).advance(&seen(&[("rx_drops", 0)]), &RATES, &at(1));
        let mut other = seen(&[("rx_drops", 5000)]);
        if let Ok(devices) = &mut other.devices {
            devices[0].pci = None;
        }
        assert_eq!(rounds.advance(&other, &RATES, &at(2)).0, Changes::default());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Rounds::parse(&bytes, &at(1));
        }

        #[test]
        fn no_numbers_make_it_panic(values in proptest::collection::vec(any::<u64>(), 0..6)) {
            let _ = alarms("retrans_bytes", &values);
        }
    }
}
