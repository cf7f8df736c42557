//! `efa-check node`.

use std::path::Path;

use efa_check::EX_CANTCREAT;
use efa_check::counters::Wanted;
use efa_check::site::Site;
use findings::Show;

use super::output::{print, print_json};
use super::round::{How, Keep, round, write_metrics};

pub fn run(site: &Site, json: bool, verbose: bool, file: Option<&Path>) -> u8 {
    let how = How {
        counters: Wanted::All,
        hold: &[],
        stack: true,
        from_slurmd: false,
        jobs: false,
        uncheckable: true,
        wait: false,
        keep: Keep::Nothing,
        confirmed: None,
    };
    let round = round(site, &how, |_, _, _| {});
    let report = &round.report;
    if json {
        print_json(&report.document(site.node.as_ref(), round.now.unix));
    } else {
        let show = if verbose { Show::All } else { Show::NotOk };
        print(&report.text(show));
    }
    let written = write_metrics(file, &round);
    if written {
        report.findings.exit_code()
    } else {
        EX_CANTCREAT
    }
}
