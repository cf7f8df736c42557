//! What people read at the end of a job.

use std::collections::BTreeMap;

use crate::UsageRecord;
use efa::counters::{DeviceUsage, Measure, Sum, Traffic, Unknown};
use host::printable;

/// Most devices that are named for one reason.
const NAMED: usize = 3;

/// Most problems of a record that are said in its line.
const SAID: usize = 3;

/// Bytes as people read them: `512 B`, `1.2 TiB`. Never rounded up.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = count.checked_ilog2().map(|log| log / 10).filter(|p| *p > 0) else {
        return format!("{count} B");
    };
    let unit = 1u128 << (10 * power);
    let tenths = u128::from(count) * 10 / unit;
    let name = UNITS[(power as usize - 1).min(UNITS.len() - 1)];
    if tenths < 1000 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", tenths / 10)
    }
}

/// A sum as a part of a sentence.
fn said(sum: &Sum, show: impl Fn(u64) -> String) -> String {
    match (sum.exact(), sum.at_least()) {
        (Some(value), _) => show(value),
        (None, Some(value)) => format!("at least {}", show(value)),
        (None, None) => "an unknown amount".to_owned(),
    }
}

/// A share of all bytes that were moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// `97 %`, or `<1 %`. Never rounded up, so `100 %` means all.
    Part(String),
    /// Nothing was moved.
    OfNothing,
    /// Something that it takes is not known.
    Unknown,
}

/// The share of one kind of operation in all bytes that operations moved, both
/// directions.
#[must_use]
pub fn share(traffic: &Traffic, kind: Measure) -> Share {
    // A kind that the driver does not count moved nothing that is counted.
    let moved = |measure| {
        let sum = traffic.of(measure);
        if only_uncounted(&sum) {
            return Some(0);
        }
        sum.as_counted().exact().map(u128::from)
    };
    let kinds = [
        moved(Measure::SendRecvBytes),
        moved(Measure::RdmaWriteBytes),
        moved(Measure::RdmaReadBytes),
    ];
    let all: Option<u128> = kinds.into_iter().sum();
    match (all, moved(kind)) {
        (Some(0), _) if only_uncounted(&traffic.of(Measure::SendRecvBytes)) => Share::Unknown,
        (Some(0), _) => Share::OfNothing,
        (Some(all), Some(part)) => match part * 100 / all {
            0 if part > 0 => Share::Part("<1 %".to_owned()),
            percent => Share::Part(format!("{percent} %")),
        },
        _ => Share::Unknown,
    }
}

/// Whether there are unknown parts only, and all because the driver does not
/// count them.
fn only_uncounted(sum: &Sum) -> bool {
    sum.at_least().is_none() && sum.unknown().iter().all(|r| *r == Unknown::NoSuchCounter)
}

/// `97 % RDMA write, 2 % RDMA read`: the kinds that moved anything; `None`
/// where that is unknown or nothing was moved.
fn shares(traffic: &Traffic) -> Option<String> {
    let mut parts = Vec::new();
    for (kind, name) in [
        (Measure::RdmaWriteBytes, "RDMA write"),
        (Measure::RdmaReadBytes, "RDMA read"),
    ] {
        match share(traffic, kind) {
            Share::Part(percent) if percent == "0 %" => {}
            Share::Part(percent) => parts.push(format!("{percent} {name}")),
            Share::OfNothing | Share::Unknown => return None,
        }
    }
    if parts.is_empty() {
        return Some("no RDMA".to_owned());
    }
    Some(parts.join(", "))
}

/// The line for the job's stderr, without a line break. It says what cannot
/// be told apart.
#[must_use]
pub fn one_line(record: &UsageRecord) -> String {
    if record.is_unread() {
        let mut line = format!(
            "efa: {} on {}: what it moved is not known",
            record.what(),
            record.node
        );
        for problem in problems(record) {
            line.push_str("; ");
            line.push_str(&problem);
        }
        return line;
    }
    let totals = record.totals();
    let devices = match record.devices.0.len() {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    };
    let mut line = format!(
        "efa: {} on {} ({devices}): sent {}, received {}",
        record.what(),
        record.node,
        said(&totals.of(Measure::SentBytes), bytes),
        said(&totals.of(Measure::ReceivedBytes), bytes),
    );
    if let Some(shares) = shares(&totals) {
        line.push_str(&format!(" ({shares})"));
    }
    line.push_str(&format!(
        ", {}, {}",
        retransmissions(&totals),
        errors(&totals)
    ));
    for note in notes(record, &totals) {
        line.push_str("; ");
        line.push_str(&note);
    }
    line
}

fn retransmissions(totals: &Traffic) -> String {
    let sum = totals.of(Measure::RetransmittedPackets);
    if only_uncounted(&sum) {
        return "retransmissions not counted by this driver".to_owned();
    }
    match (sum.exact(), sum.at_least()) {
        (Some(1), _) => "1 retransmission".to_owned(),
        (Some(count), _) => format!("{count} retransmissions"),
        (None, Some(count)) => format!("at least {count} retransmissions"),
        (None, None) => "retransmissions unknown".to_owned(),
    }
}

/// `3 errors (2 failed operations, 1 unresponsive or impaired remote)`.
fn errors(totals: &Traffic) -> String {
    let sum = totals.errors();
    let Some(count) = sum.at_least() else {
        return "errors unknown".to_owned();
    };
    let at_least = if sum.exact().is_some() {
        ""
    } else {
        "at least "
    };
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!("{at_least}{count} error{plural}");
    if count > 0 {
        let part = |measure| totals.of(measure).at_least().unwrap_or(0);
        text.push_str(&format!(
            " ({} failed RDMA operations, {} unresponsive or impaired remotes)",
            part(Measure::FailedOperations),
            part(Measure::RemoteEvents)
        ));
    }
    text
}

/// What the numbers cannot tell, and why.
fn notes(record: &UsageRecord, totals: &Traffic) -> Vec<String> {
    let mut notes = unknown_devices(record);
    // No traffic is no traffic, whoever else there was.
    if !totals.is_none() {
        match record.shared {
            Some(true) => notes.push(
                "other jobs ran on this node meanwhile, their traffic is counted too".to_owned(),
            ),
            None => notes.push(
                "traffic of other jobs is counted too, if there were any: that is not known"
                    .to_owned(),
            ),
            Some(false) => {}
        }
        match record.lustre {
            Some(true) => {
                notes
                    .push("Lustre can use EFA on this node, its traffic is counted too".to_owned());
            }
            None => notes.push(
                "traffic of Lustre is counted too, if it uses EFA: that is not known".to_owned(),
            ),
            Some(false) => {}
        }
    }
    notes.extend(problems(record));
    notes
}

/// What went wrong with the record itself.
fn problems(record: &UsageRecord) -> Vec<String> {
    let problems = record.problems.iter().take(SAID);
    let mut said: Vec<String> = problems.map(|problem| printable(problem, 300)).collect();
    let unsaid = record.problems.len().saturating_sub(SAID);
    if unsaid > 0 {
        said.push(format!("{unsaid} more problems in the record"));
    }
    said
}

/// `rdmap79s0, rdmap80s0: the device vanished in between`, for each reason.
#[must_use]
pub fn unknown_devices(record: &UsageRecord) -> Vec<String> {
    let mut by_reason: BTreeMap<Unknown, Vec<&str>> = BTreeMap::new();
    for (name, device) in &record.devices.0 {
        for reason in reasons(&record.traffic_of(name, device)) {
            by_reason.entry(reason).or_default().push(name);
        }
    }
    let all = record.devices.0.len();
    let notes = by_reason.into_iter().map(|(reason, names)| {
        let reason = reason.reason();
        if names.len() == all && all > 1 {
            return format!("all devices: {reason}");
        }
        let shown: Vec<_> = names.iter().take(NAMED).map(|n| printable(n, 32)).collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}: {reason}", shown.join(", "))
    });
    notes.collect()
}

/// Why parts of what a report says of a device are unknown. That a driver
/// does not count something is no news of this job.
fn reasons(traffic: &Traffic) -> Vec<Unknown> {
    let mut reasons: Vec<_> = Measure::all()
        .flat_map(|measure| traffic.of(measure).unknown().clone())
        .filter(|reason| *reason != Unknown::NoSuchCounter)
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

/// Whether the record's node speaks on the job's stderr. The first one always
/// does (`node_index` 0, or not known); another only when something is wrong
/// with itself: a device was lost or could not be read, or operations of this
/// node failed. What all nodes of a job see alike, such as no traffic, a remote
/// that does not answer, or a plugin that was installed meanwhile, is for the
/// first to say: 512 nodes must not say it 512 times.
#[must_use]
pub fn speaks(record: &UsageRecord, node_index: Option<u32>) -> bool {
    if node_index.unwrap_or(0) == 0 {
        return true;
    }
    let faulty = |device: &DeviceUsage| {
        let reasons = reasons(&Traffic::of_device(device));
        reasons.into_iter().any(Unknown::is_fault)
    };
    let failed = record.totals().of(Measure::FailedOperations).at_least();
    record.devices.0.values().any(faulty) || failed.unwrap_or(0) > 0
}

/// Whether the job was to use EFA between nodes, as far as the record tells.
fn should_have_used_efa(record: &UsageRecord) -> bool {
    record.nodes.is_some_and(|nodes| nodes > 1)
        && record
            .profile
            .as_deref()
            .is_some_and(|profile| profile != "none")
        && !record.devices.0.is_empty()
}

/// The warning for a job of several nodes with a profile whose EFA devices
/// certainly moved nothing on this node, as several lines; `None` for any other.
#[must_use]
pub fn no_traffic_warning(record: &UsageRecord) -> Option<String> {
    if !should_have_used_efa(record) || !record.totals().is_none() {
        return None;
    }
    let profile = printable(record.profile.as_deref().unwrap_or_default(), 64);
    let what = record.what();
    let node = &record.node;
    let nodes = record.nodes.unwrap_or_default();
    Some(format!(
        "efa: warning: {what} ran on {nodes} nodes with profile {profile}, but EFA moved nothing on {node}. \
         If it was to communicate, it used something slower. Usual causes, the likeliest first:\n\
         efa:   1. The application's NCCL did not find aws-ofi-nccl: LD_LIBRARY_PATH does not name its \
         folder, or the container's image has none. NCCL then falls back to TCP sockets in silence.\n\
         efa:   2. NCCL_NET, NCCL_NET_PLUGIN or FI_PROVIDER chose something else.\n\
         efa:   3. The nodes' security group does not allow all traffic to and from itself.\n\
         efa:   4. The work ran on one node only, or does not communicate through NCCL or libfabric.\n\
         efa: NCCL_NET=\"AWS Libfabric\" in the job's environment makes NCCL fail next time instead \
         of falling back."
    ))
}

/// The warning for a job of several nodes with a profile that sent over EFA and
/// certainly received nothing on this node; `None` for any other.
#[must_use]
pub fn one_way_warning(record: &UsageRecord) -> Option<String> {
    let totals = record.totals();
    let sent = totals.of(Measure::SentBytes).at_least().unwrap_or(0);
    let received = totals.of(Measure::ReceivedBytes).exact();
    if !should_have_used_efa(record) || sent == 0 || received != Some(0) {
        return None;
    }
    Some(format!(
        "efa: warning: {} sent {} over EFA on {} and received nothing. Check that the nodes' security \
         group allows all traffic to and from itself (by its own id; 0.0.0.0/0 is not enough).",
        record.what(),
        bytes(sent),
        record.node
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::tests::record;
    use super::*;
    use efa::counters::{Amount, Usage};

    const TIB: u64 = 1 << 40;

    fn set(record: &mut UsageRecord, counter: &str, amount: Amount) {
        for device in record.devices.0.values_mut() {
            if let DeviceUsage::Counted(counters) = device {
                counters.insert(counter.to_owned(), amount);
            }
        }
    }

    fn lose(record: &mut UsageRecord, reason: Unknown) {
        let name = record.devices.0.keys().next().unwrap().clone();
        record.devices.0.insert(name, DeviceUsage::Unknown(reason));
    }

    #[test]
    fn where_no_device_was_read_nothing_is_said_to_be_zero() {
        let mut record = record(12, "n1", 1);
        record.devices = efa::counters::Usage::default();
        record.add_problem("the counters at the end are not known: no answer");
        assert_eq!(
            one_line(&record),
            "efa: job 12 on n1: what it moved is not known; the counters at the end are not known: \
             no answer"
        );
        let sent = record.totals().of(Measure::SentBytes);
        assert_eq!((sent.exact(), sent.at_least()), (None, None));
        // A node without devices moved nothing.
        record.problems.clear();
        assert_eq!(record.totals().of(Measure::SentBytes).exact(), Some(0));
    }

    #[test]
    fn bytes_are_never_rounded_up() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1023 KiB"),
            (TIB + TIB / 4, "1.2 TiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_job_that_used_efa_says_so_in_one_line() {
        assert_eq!(
            one_line(&record(12, "n1", TIB)),
            "efa: job 12 on n1 (2 devices): sent 2.0 TiB, received 2.0 TiB (96 % RDMA write), \
             0 retransmissions, 0 errors"
        );
        let step = UsageRecord {
            step: Some(Step::Number(3)),
            ..record(12, "n1", 0)
        };
        assert_eq!(
            one_line(&step),
            "efa: step 12.3 on n1 (2 devices): sent 0 B, received 0 B, 0 retransmissions, 0 errors"
        );
    }

    #[test]
    fn the_line_says_what_cannot_be_told_apart() {
        let mut record = record(12, "n1", TIB);
        record.shared = Some(true);
        record.lustre = Some(true);
        let line = one_line(&record);
        assert!(
            line.contains("; other jobs ran on this node meanwhile"),
            "{line}"
        );
        assert!(line.contains("; Lustre can use EFA"), "{line}");
        (record.shared, record.lustre) = (None, None);
        assert_eq!(one_line(&record).matches("that is not known").count(), 2);
    }

    #[test]
    fn without_traffic_nobody_elses_can_be_in_it() {
        let mut record = record(12, "n1", 0);
        (record.shared, record.lustre) = (Some(true), None);
        let line = one_line(&record);
        assert!(line.ends_with("0 errors"), "{line}");
    }

    #[test]
    fn what_is_unknown_is_said_with_its_reason_and_never_as_a_number() {
        let mut record = record(12, "n1", TIB);
        lose(&mut record, Unknown::DeviceVanished);
        let line = one_line(&record);
        assert!(line.contains("sent at least 1.0 TiB"), "{line}");
        assert!(
            line.contains("; rdmap79s0: the device vanished in between"),
            "{line}"
        );
        record.devices = Usage(
            ["a", "b"]
                .map(|n| (n.to_owned(), DeviceUsage::Unknown(Unknown::NoBaseline)))
                .into(),
        );
        let line = one_line(&record);
        assert!(
            line.contains(
                "sent an unknown amount, received an unknown amount, retransmissions unknown, \
                 errors unknown; all devices: nothing was read at the start"
            ),
            "{line}"
        );
    }

    #[test]
    fn an_old_drivers_missing_counters_are_named_and_not_taken_for_zero() {
        let mut record = record(12, "n1", TIB);
        for device in record.devices.0.values_mut() {
            if let DeviceUsage::Counted(counters) = device {
                counters.retain(|name, _| !name.starts_with("retrans") && !name.contains("remote"));
            }
        }
        let line = one_line(&record);
        assert!(
            line.ends_with(", retransmissions not counted by this driver, 0 errors"),
            "{line}"
        );
    }

    #[test]
    fn a_share_is_never_rounded_up_nor_a_part_rounded_away() {
        let mut some = record(12, "n1", 0);
        set(&mut some, "send_bytes", Amount::Known(999));
        set(&mut some, "rdma_read_bytes", Amount::Known(1));
        assert!(one_line(&some).contains("(<1 % RDMA read)"));
        set(&mut some, "send_bytes", Amount::Known(1));
        set(&mut some, "rdma_read_bytes", Amount::Known(999));
        assert!(one_line(&some).contains("(99 % RDMA read)"));
        set(
            &mut some,
            "send_bytes",
            Amount::Unknown(Unknown::WentBackwards),
        );
        assert!(!one_line(&some).contains('%'));
        let mut plain = record(12, "n1", 0);
        set(&mut plain, "send_bytes", Amount::Known(5));
        assert!(one_line(&plain).contains("(no RDMA)"));
    }

    #[test]
    fn the_first_node_always_speaks_and_the_others_only_of_their_own_faults() {
        let fine = record(12, "n1", TIB);
        assert!(speaks(&fine, Some(0)));
        assert!(speaks(&fine, None));
        assert!(!speaks(&fine, Some(1)));
        assert!(!speaks(&record(12, "n1", 0), Some(1)), "node 0 says it");
        let mut failed = record(12, "n1", TIB);
        set(&mut failed, "rdma_write_wr_err", Amount::Known(1));
        assert!(speaks(&failed, Some(511)));
        let mut remote = record(12, "n1", TIB);
        set(&mut remote, "unresponsive_remote_events", Amount::Known(1));
        assert!(!speaks(&remote, Some(511)));
        for (reason, expected) in [
            (Unknown::DeviceVanished, true),
            (Unknown::DeviceReloaded, true),
            (Unknown::NoBaseline, false),
        ] {
            let mut lost = record(12, "n1", TIB);
            lose(&mut lost, reason);
            assert_eq!(speaks(&lost, Some(1)), expected, "{reason:?}");
        }
    }

    #[test]
    fn a_job_of_several_nodes_with_a_profile_and_no_traffic_is_warned() {
        let silent = record(12, "n1", 0);
        let warning = no_traffic_warning(&silent).unwrap();
        let order = [
            "aws-ofi-nccl",
            "NCCL_NET,",
            "security group",
            "one node only",
        ];
        let found: Vec<_> = order.map(|cause| warning.find(cause).unwrap()).into();
        assert!(found.is_sorted(), "{warning}");
        assert!(warning.contains(r#"NCCL_NET="AWS Libfabric""#));
        assert!(warning.lines().all(|line| line.starts_with("efa: ")));
    }

    #[test]
    fn nobody_is_warned_who_need_not_use_efa_or_of_whom_it_is_not_certain() {
        let silent = || record(12, "n1", 0);
        let mut others = vec![record(12, "n1", 1)];
        for change in [
            (|r| r.nodes = Some(1)) as fn(&mut UsageRecord),
            |r| r.nodes = None,
            |r| r.profile = None,
            |r| r.profile = Some("none".to_owned()),
            |r| r.devices = Usage::default(),
            |r| lose(r, Unknown::DeviceAdded),
            |r| set(r, "rx_bytes", Amount::Unknown(Unknown::UnreadableAfter)),
        ] {
            let mut record = silent();
            change(&mut record);
            others.push(record);
        }
        for record in others {
            assert_eq!(no_traffic_warning(&record), None, "{record:?}");
        }
    }

    #[test]
    fn who_sends_and_never_hears_is_sent_to_the_security_group() {
        let mut deaf = record(12, "n1", TIB);
        assert_eq!(one_way_warning(&deaf), None);
        set(&mut deaf, "rx_bytes", Amount::Known(0));
        assert!(one_way_warning(&deaf).unwrap().contains("security group"));
        assert_eq!(no_traffic_warning(&deaf), None);
    }

    #[test]
    fn hostile_names_reach_no_terminal() {
        let mut record = record(12, "n1", 0);
        record.profile = Some("\x1b[2J".to_owned());
        record.problems.push("a\nb".to_owned());
        record.devices.0.insert(
            "\x1b[2J".to_owned(),
            DeviceUsage::Unknown(Unknown::DeviceAdded),
        );
        assert!(!one_line(&record).contains(['\x1b', '\n']));
        record.devices.0.retain(|name, _| !name.contains('\x1b'));
        assert!(!no_traffic_warning(&record).unwrap().contains('\x1b'));
    }
}
