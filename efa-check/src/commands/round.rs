//! One round of checks: look, judge, and keep what the next round needs.

use std::path::Path;
use std::time::{Duration, Instant};

use efa_check::baseline::{self, Expectation, Identity};
use efa_check::checks::Facts;
use efa_check::counters::Wanted;
use efa_check::history::{Changes, Now, Rounds};
use efa_check::metrics;
use efa_check::observe::{self, Ask, Observation};
use efa_check::report::Report;
use efa_check::site::{self, Site};
use host::Deadline;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use host::{printable, textfile};

use super::output::complain;

/// How long a round waits for another that writes the state.
const STATE_LIMIT: Duration = Duration::from_millis(500);

/// How often late devices are looked for.
const LATE_POLL: Duration = Duration::from_millis(250);

/// One look, judged.
pub struct Round {
    pub seen: Observation,
    pub report: Report,
    pub now: Now,
    pub rounds: Rounds,
}

/// Whether the next round is to know of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Yes: prolog and health check.
    State,
    /// No: a person's look must not use up what a round would have found.
    Nothing,
}

/// What counts and is done beside the checks.
pub struct How<'a> {
    pub counters: Wanted,
    /// Warnings that are fatal here.
    pub hold: &'a [String],
    pub stack: bool,
    pub from_slurmd: bool,
    /// Whether to look for jobs on the node.
    pub jobs: bool,
    /// Whether to report also what no round on this node can find out.
    pub uncheckable: bool,
    pub wait: bool,
    pub keep: Keep,
    /// The number of devices that a person confirmed.
    pub confirmed: Option<u32>,
}

pub fn round(
    site: &Site,
    how: &How<'_>,
    after: impl FnOnce(&Report, &Changes, &mut Rounds),
) -> Round {
    let settings = &site.settings;
    let early = site::now(&site.sysroot);
    // Read twice: now for what hangs, and below under the lock.
    let held = match StateDir::open_existing(&site.state_dir) {
        Ok(Some(state)) => load(&state, &early).held(),
        _ => std::collections::BTreeMap::new(),
    };
    let ask = Ask {
        counters: how.counters,
        stack: how.stack,
        from_slurmd: how.from_slurmd,
        jobs: how.jobs,
        held: &held,
        state_dir: &site.state_dir,
    };
    if how.wait {
        wait_for_late_devices(site, how.confirmed);
    }
    let seen = observe::observe(&site.sysroot, settings, ask);
    let mut expected = Expectation::of(
        settings,
        seen.instance.as_ref().ok(),
        &Identity::of(site),
        baseline::read(&site.record),
    );
    expected.count = how.confirmed.or(expected.count);
    let now = site::now(&site.sysroot);
    let judge = |last: &Rounds| {
        let (changes, next) = last.advance(&seen, &settings.rates, &now);
        let mut report = Report::of(&Facts {
            seen: &seen,
            expected: &expected,
            settings,
            rounds: &next,
            changes: &changes,
        });
        if !how.uncheckable {
            report.leave_out_uncheckable();
        }
        report.hold(how.hold, &changes);
        (report, changes, next)
    };
    let kept = match how.keep {
        Keep::Nothing => None,
        Keep::State => StateDir::open(&site.state_dir)
            .and_then(|mut state| {
                let _lock = state.lock(health::ROUNDS_LOCK, Deadline::after(STATE_LIMIT))?;
                let last = load(&state, &now);
                let (report, changes, mut next) = judge(&last);
                after(&report, &changes, &mut next);
                if let (true, Ok(bytes)) = (last.is_before(&now), next.bytes()) {
                    state.write(health::ROUNDS, &bytes)?;
                }
                Ok((report, changes, next))
            })
            .map_err(|error| {
                complain(&format!(
                    "the next round will know nothing of this: {error}"
                ))
            })
            .ok(),
    };
    let (report, _, rounds) = kept.unwrap_or_else(|| {
        let last = match StateDir::open_existing(&site.state_dir) {
            Ok(Some(state)) => load(&state, &now),
            _ => Rounds::first(&now),
        };
        judge(&last)
    });
    Round {
        seen,
        report,
        now,
        rounds,
    }
}

/// The last round's state; one that cannot be read is none.
fn load(state: &StateDir, now: &Now) -> Rounds {
    match state.read(health::ROUNDS) {
        Ok(Some(bytes)) => Rounds::parse(&bytes, now),
        Ok(None) | Err(_) => Rounds::first(now),
    }
}

/// Just after boot, devices may still be on their way.
fn wait_for_late_devices(site: &Site, confirmed: Option<u32>) {
    if !is_young(site) {
        return;
    }
    let instance = efa::instance_types::detect(&site.sysroot).ok();
    let record = baseline::read(&site.record);
    let expected = Expectation::of(
        &site.settings,
        instance.as_ref(),
        &Identity::of(site),
        record,
    );
    let Some(want) = confirmed.or(expected.count) else {
        return;
    };
    let late = || observe::count(&site.sysroot).is_none_or(|have| have < want as usize);
    let start = Instant::now();
    // The last limit is for a simulated tree, whose time stands still.
    while is_young(site) && late() && start.elapsed() < site.settings.wait_boot {
        // sysfs has nothing to wait on.
        std::thread::sleep(LATE_POLL);
    }
}

/// Whether the machine was booted so recently that devices may be on their way.
pub fn is_young(site: &Site) -> bool {
    observe::uptime(&site.sysroot).is_some_and(|up| up < site.settings.wait_boot)
}

pub fn write_metrics(file: Option<&Path>, round: &Round) -> bool {
    let Some(file) = file else {
        return true;
    };
    let text = metrics::text(&round.report, &round.seen, round.now.unix);
    let written = textfile::write(file, &text);
    if let Err(error) = &written {
        let file = printable(&file.to_string_lossy(), 300);
        complain(&format!("cannot write {file}: {error}"));
    }
    written.is_ok()
}
