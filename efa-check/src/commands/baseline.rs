//! `efa-check baseline`.

use clap::Args;
use efa_check::EX_CANTCREAT;
use efa_check::baseline;
use efa_check::baseline::Identity;
use efa_check::counters::Wanted;
use efa_check::site::Site;
use findings::Severity;
use host::printable;

use super::output::{complain, print};
use super::place::Place;
use super::round::{How, Keep, round};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Also where a check finds something; the number of devices must be right all the same.
    #[arg(long)]
    force: bool,
    /// Confirm that N devices are right: fewer than the type can have, or than are recorded.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=256))]
    expect: Option<u32>,
}

pub fn run(site: &Site, place: &Place, arguments: &Arguments) -> u8 {
    let Arguments { force, expect } = *arguments;
    let how = How {
        counters: Wanted::Judged,
        hold: &[],
        stack: false,
        from_slurmd: false,
        jobs: false,
        uncheckable: false,
        wait: true,
        keep: Keep::Nothing,
        confirmed: expect,
    };
    let round = round(site, &how, |_, _, _| {});
    // How many there are is what is being written down.
    let findings: Vec<_> = round
        .report
        .findings
        .not_ok()
        .into_iter()
        .filter(|finding| finding.id != "device-count" && finding.severity != Severity::Warning)
        .collect();
    for finding in &findings {
        complain(&format!("{}: {}", finding.id, finding.sentence));
    }
    if !findings.is_empty() && !force {
        complain(
            "nothing was recorded, because the node is not healthy; --force records it anyway",
        );
        return round.report.findings.exit_code();
    }
    let record = match baseline::record_of(&round.seen, Identity::of(site), round.now.unix) {
        Ok(record) => record,
        Err(reason) => {
            complain(&format!("nothing was recorded: {reason}"));
            return Severity::Unknown.exit_code();
        }
    };
    let last = baseline::read(&site.record);
    let known = last.as_ref().map(Option::as_ref).map_err(String::as_str);
    let command = confirming(place, record.devices.len());
    let confirmed = baseline::confirm(&record, known, expect, &site.settings, &command);
    if let Err(reason) = confirmed {
        complain(&format!("nothing was recorded: {reason}"));
        return Severity::Fatal.exit_code();
    }
    if let Err(reason) = baseline::write(&site.record, &record) {
        complain(&format!("nothing was recorded: {reason}"));
        return EX_CANTCREAT;
    }
    let before = match last {
        Ok(None) => "none".to_owned(),
        Ok(Some(last)) => last.devices.len().to_string(),
        Err(_) => "unreadable".to_owned(),
    };
    print(&format!(
        "{}: {before} -> {} EFA devices of a {}\n",
        printable(&site.record.to_string_lossy(), 300),
        record.devices.len(),
        record.instance_type
    ));
    0
}

/// What a person types to record this number of devices.
fn confirming(place: &Place, devices: usize) -> String {
    let mut command = format!("efa-check baseline --expect {devices}");
    if let Some(config) = &place.config {
        command.push_str(&format!(
            " --config {}",
            printable(&config.to_string_lossy(), 200)
        ));
    }
    if let Some(node) = &place.node_name {
        command.push_str(&format!(" --node-name {node}"));
    }
    command
}
