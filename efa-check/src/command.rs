//! The command line, and what each command does.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use cli::called;
use cli::called::EFA_CHECK;
use findings::{Domain, Finding, Severity, Show};
use host::Deadline;
use host::state_dir::{StateDir, Store};
use host::state_layout::health;
use host::{printable, textfile};
use slurm::NodeName;
use slurm::drain_policy::{Failed, NodeAction};

use crate::checks::{self, CHECKS, Facts};
use crate::counters::Wanted;
use crate::expect::{self, Expectation};
use crate::observe::{self, Ask, Observation};
use crate::report::Report;
use crate::rounds::{Now, Rounds};
use crate::settings::has_profile;
use crate::site::{self, Named, Site};
use crate::{EX_CANTCREAT, EX_CONFIG, EX_USAGE, drain, metrics, pingpong, probe};

/// How long a round waits for another that writes the state.
const STATE_LIMIT: Duration = Duration::from_millis(500);

/// How often late devices are looked for.
const LATE_POLL: Duration = Duration::from_millis(250);

/// Checks a node's EFA devices.
#[derive(Debug, Parser)]
#[command(name = "efa-check", version, about, after_help = EXIT_CODES)]
struct Line {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 healthy, 1 warnings, 2 fatal, 3 could not tell; 64 and up: \
wrong use.\n`prolog` exits with 2 for a fatal finding, and with 0 otherwise, whatever happens: any \
other code would drain the node.\nCalled by a link named efa-check-prolog or efa-check-watch, it does \
what the link says; a number in front (50-efa-check-prolog) and an extension do not matter.";

#[derive(Debug, Args)]
struct Place {
    /// The configuration [default: /etc/slurm-efa/slurm-efa.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Slurm's name of this node [default: SLURMD_NODENAME, else the host's].
    #[arg(long, global = true, value_name = "NAME")]
    node_name: Option<NodeName>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check this node, for a person or a program.
    Node {
        /// The whole report as JSON.
        #[arg(long)]
        json: bool,
        /// Show the checks that found nothing, too.
        #[arg(long, short)]
        verbose: bool,
        /// Write counters and results for node_exporter.
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// For slurm.conf's Prolog=.
    Prolog,
    /// For slurm.conf's HealthCheckProgram=.
    Watch {
        /// Write counters and results for node_exporter.
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// Write down which devices this healthy node has.
    Record {
        /// Also where a check finds something; the number of devices must be right all the same.
        #[arg(long)]
        force: bool,
        /// Confirm that N devices are right: fewer than the type can have, or than are recorded.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=256))]
        expect: Option<u32>,
    },
    /// Show every check.
    List {
        /// As JSON.
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
        /// As a table for the manual.
        #[arg(long)]
        markdown: bool,
    },
    /// Say what a check proves, why, and what to do about a finding.
    Explain {
        /// The check, as `list` shows it.
        id: String,
    },
    /// The shell's completions, for packages.
    #[command(hide = true)]
    Completions { shell: Shell },
    /// Send packets from each device to itself; only on an idle node.
    Pingpong {
        /// Only this device.
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// The results as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program.
#[must_use]
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let program = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    match args.first().and_then(|arg| arg.to_str()) {
        Some(probe::READER) => return probe::reader_main(args.into_iter().skip(1)),
        Some(drain::SPEAKER) => return drain::speaker_main(args.into_iter().skip(1)),
        Some(pingpong::TESTER) => return pingpong::tester_main(args.into_iter().skip(1)),
        _ => {}
    }
    // Slurm's Prolog= and HealthCheckProgram= take a path and no arguments.
    let by_slurm = called::by_slurm(args.len(), |name| std::env::var_os(name));
    let linked = EFA_CHECK.command(&program);
    if let Some(command) = linked {
        args.insert(0, command.into());
    }
    let is_prolog = args.iter().any(|arg| arg == "prolog");
    let parsed = Line::try_parse_from(std::iter::once("efa-check".into()).chain(args));
    let code = match parsed {
        Ok(line) => run(&line),
        Err(error) if by_slurm && error.use_stderr() => {
            wrong_use(&program, &error);
            0
        }
        Err(error) => {
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            if error.use_stderr() { EX_USAGE } else { 0 }
        }
    };
    // Any other code of a prolog drains the node, for a slip of the site's: also
    // where the link of the health check is among the prologs.
    let forgive = is_prolog || by_slurm && (linked.is_some() || code >= EX_USAGE);
    ExitCode::from(if forgive && code != 2 { 0 } else { code })
}

/// In a prolog wrong use is the site's fault: it is logged, and drains nothing.
fn wrong_use(program: &OsStr, error: &clap::Error) {
    let without_command = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let reason = (!without_command).then(|| error.to_string());
    let text = EFA_CHECK.misuse(program, reason.as_deref());
    complain(&text);
    drain::log(&text);
}

fn run(line: &Line) -> u8 {
    match &line.command {
        Command::List { json, markdown } => return list(*json, *markdown),
        Command::Explain { id } => return explain(id),
        Command::Completions { shell } => return completions(*shell),
        _ => {}
    }
    let config = line.place.config.as_deref();
    let site = match Site::load(config, line.place.node_name.clone(), Named::Yes) {
        Ok(site) => site,
        Err(reason) => {
            complain(&reason);
            if matches!(line.command, Command::Prolog | Command::Watch { .. }) {
                drain::log(&reason);
            }
            return EX_CONFIG;
        }
    };
    // slurmd logs them when it starts; each job and each health check need not.
    if !matches!(line.command, Command::Prolog | Command::Watch { .. }) {
        site.warnings.iter().for_each(|text| complain(text));
    }
    match &line.command {
        Command::Node {
            json,
            verbose,
            metrics,
        } => node(&site, *json, *verbose, metrics.as_deref()),
        Command::Prolog => prolog(&site),
        Command::Watch { metrics } => watch(&site, metrics.as_deref()),
        Command::Record { force, expect } => record(&site, &line.place, *force, *expect),
        Command::Pingpong { device, json } => pingpong(&site, device.as_deref(), *json),
        Command::List { .. } | Command::Explain { .. } | Command::Completions { .. } => 0,
    }
}

/// One look, judged.
struct Round {
    seen: Observation,
    report: Report,
    now: Now,
    rounds: Rounds,
}

/// Whether the next round shall know of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Yes: prolog and watch.
    State,
    /// No: a person's look must not use up what a round would have found.
    Nothing,
}

/// What counts and is done beside the checks.
struct How<'a> {
    counters: Wanted,
    /// Warnings that are fatal here.
    hold: &'a [String],
    stack: bool,
    from_slurmd: bool,
    /// Whether to report also what no round on this node can find out.
    uncheckable: bool,
    wait: bool,
    keep: Keep,
    /// The number of devices that a person confirmed.
    confirmed: Option<u32>,
}

fn round(site: &Site, how: &How<'_>, after: impl FnOnce(&Report, &mut Rounds)) -> Round {
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
        expect::read(&site.record),
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
        report.hold(how.hold);
        (report, next)
    };
    let kept = match how.keep {
        Keep::Nothing => None,
        Keep::State => StateDir::open(&site.state_dir)
            .and_then(|mut state| {
                let _lock = state.lock(health::ROUNDS_LOCK, Deadline::after(STATE_LIMIT))?;
                let last = load(&state, &now);
                let (report, mut next) = judge(&last);
                after(&report, &mut next);
                if let (true, Ok(bytes)) = (last.is_before(&now), next.bytes()) {
                    state.write(health::ROUNDS, &bytes)?;
                }
                Ok((report, next))
            })
            .map_err(|error| {
                complain(&format!(
                    "the next round will know nothing of this: {error}"
                ))
            })
            .ok(),
    };
    let (report, rounds) = kept.unwrap_or_else(|| {
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
    let record = expect::read(&site.record);
    let expected = Expectation::of(&site.settings, instance.as_ref(), record);
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
fn is_young(site: &Site) -> bool {
    observe::uptime(&site.sysroot).is_some_and(|up| up < site.settings.wait_boot)
}

fn node(site: &Site, json: bool, verbose: bool, file: Option<&Path>) -> u8 {
    let how = How {
        counters: Wanted::All,
        hold: &[],
        stack: true,
        from_slurmd: false,
        uncheckable: true,
        wait: false,
        keep: Keep::Nothing,
        confirmed: None,
    };
    let round = round(site, &how, |_, _| {});
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

fn write_metrics(file: Option<&Path>, round: &Round) -> bool {
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

fn prolog(site: &Site) -> u8 {
    let profile = site::job_profile();
    let profile = profile.as_deref().map(OsStr::to_string_lossy);
    // Hostile text, used for nothing but this: to be lenient.
    let wants_efa = match profile {
        Some(name) => has_profile(Some(&name)),
        None => site.settings.default_profile,
    };
    let how = How {
        counters: Wanted::Judged,
        hold: if wants_efa { &site.settings.hold } else { &[] },
        // Fatal only where every job has a profile; then whoever comes.
        stack: wants_efa || site.settings.default_profile,
        from_slurmd: true,
        uncheckable: false,
        wait: true,
        keep: Keep::State,
        confirmed: None,
    };
    let round = round(site, &how, |report, rounds| {
        if report.worst() == Severity::Fatal {
            rounds.healthy = 0;
            rounds.drained = true;
        }
    });
    let report = round.report;
    for finding in report.findings.not_ok() {
        complain(&format!("{}: {}", finding.id, finding.sentence));
    }
    let Some(reason) = report.findings.reason(Domain::Efa) else {
        return 0;
    };
    ask_slurm(
        site,
        &NodeAction::Drain {
            reason,
            drain_as: drain::drain_as(site.settings.on_fatal),
            after: Some(Failed::Prolog),
        },
    );
    2
}

fn watch(site: &Site, file: Option<&Path>) -> u8 {
    let how = How {
        counters: Wanted::All,
        hold: &[],
        stack: true,
        from_slurmd: true,
        uncheckable: false,
        wait: false,
        keep: Keep::State,
        confirmed: None,
    };
    let every = site.settings.pingpong_every;
    let early = site::now(&site.sysroot);
    let mut to_test = false;
    let round = round(site, &how, |report, rounds| {
        if report.worst() == Severity::Fatal {
            rounds.drained = true;
        } else if let Some(every) = every {
            let loopback = rounds.loopback.get_or_insert_default();
            to_test = loopback.is_due(every, &early);
            if to_test {
                loopback.ask(&early);
            }
        }
        rounds.healthy = match worst_for_jobs(site, report) {
            Severity::Ok => rounds.healthy.saturating_add(1),
            // Neither healthy nor the opposite.
            Severity::Unknown => rounds.healthy,
            // The next job, or the next one with a profile, would be held again.
            Severity::Warning | Severity::Fatal => 0,
        };
    });
    let report = &round.report;
    print(&report.text(Show::NotOk));
    let written = write_metrics(file, &round);
    let settings = &site.settings;
    let late = still_young(site, report);
    let reason = report.findings.reason(Domain::Efa);
    if let Some(reason) = reason.filter(|_| !late) {
        let drain_as = drain::drain_as(settings.on_fatal);
        ask_slurm(
            site,
            &NodeAction::Drain {
                reason,
                drain_as,
                after: None,
            },
        );
    }
    if let (true, Some(node)) = (to_test, &site.node)
        && let Err(error) = pingpong::send(&site.config, node)
    {
        complain(&format!("no loopback test could be started: {error}"));
    }
    let healed = round.rounds.healthy >= settings.resume_after;
    if settings.resume && healed && round.rounds.drained {
        ask_slurm(site, &NodeAction::Resume);
    }
    if written {
        report.findings.exit_code()
    } else {
        EX_CANTCREAT
    }
}

/// The worst that any job may be held for: a warning that holds none, or one
/// that could not be looked for, keeps no node out of service.
fn worst_for_jobs(site: &Site, report: &Report) -> Severity {
    let holds = |finding: &&Finding| {
        let fatal = |check: &checks::Check| check.severity == Severity::Fatal;
        finding.severity == Severity::Fatal
            || finding.severity == Severity::Unknown && checks::find(finding.id).is_some_and(fatal)
            || site.settings.hold.iter().any(|id| id == finding.id)
    };
    let findings = report.findings.0.iter().filter(holds);
    findings
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}

/// Whether all that is wrong is that devices are missing just after boot.
fn still_young(site: &Site, report: &Report) -> bool {
    is_young(site)
        && report
            .findings
            .0
            .iter()
            .filter(|finding| finding.severity == Severity::Fatal)
            .all(|finding| finding.id == "device-count")
}

fn ask_slurm(site: &Site, action: &NodeAction) {
    let Some(node) = &site.node else {
        complain("Slurm was not told: the name of this node is not known; set --node-name");
        return;
    };
    if let Err(error) = drain::send(action, &site.config, node) {
        let text = format!("Slurm was not told, because no process could be started: {error}");
        complain(&text);
        drain::log(&text);
    }
}

fn record(site: &Site, place: &Place, force: bool, expect: Option<u32>) -> u8 {
    let how = How {
        counters: Wanted::Judged,
        hold: &[],
        stack: false,
        from_slurmd: false,
        uncheckable: false,
        wait: true,
        keep: Keep::Nothing,
        confirmed: expect,
    };
    let round = round(site, &how, |_, _| {});
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
    let record = match expect::record_of(&round.seen, round.now.unix) {
        Ok(record) => record,
        Err(reason) => {
            complain(&format!("nothing was recorded: {reason}"));
            return Severity::Unknown.exit_code();
        }
    };
    // One that cannot be used is none.
    let last = expect::read(&site.record).ok().flatten();
    let command = confirming(place, record.devices.len());
    let confirmed = expect::confirm(&record, last.as_ref(), expect, &site.settings, &command);
    if let Err(reason) = confirmed {
        complain(&format!("nothing was recorded: {reason}"));
        return Severity::Fatal.exit_code();
    }
    if let Err(reason) = expect::write(&site.record, &record) {
        complain(&format!("nothing was recorded: {reason}"));
        return EX_CANTCREAT;
    }
    let before = last.map_or_else(|| "none".to_owned(), |last| last.devices.len().to_string());
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
    let mut command = format!("efa-check record --expect {devices}");
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

fn list(json: bool, markdown: bool) -> u8 {
    if markdown {
        print(&checks::markdown());
    } else if json {
        let all: Vec<_> = CHECKS
            .iter()
            .map(|check| {
                serde_json::json!({
                    "id": check.id,
                    "proves": check.proves,
                    "severity": check.severity.word(),
                    "cost": check.cost,
                    "source": check.source,
                    "remedy": check.remedy,
                })
            })
            .collect();
        print_json(&all);
    } else {
        let mut text = String::new();
        for check in CHECKS {
            let severity = check.severity.word();
            text.push_str(&format!(
                "{:<20} {severity:<8} {}\n",
                check.id, check.proves
            ));
        }
        print(&text);
    }
    0
}

fn explain(id: &str) -> u8 {
    let Some(check) = checks::find(id) else {
        let id = printable(id, 60);
        complain(&format!(
            "there is no check `{id}`; `efa-check list` shows all"
        ));
        return EX_USAGE;
    };
    print(&format!(
        "{} ({})\n\nFinds nothing: {}.\nCost:          {}.\nSource:        {}.\n\n{}\n",
        check.id,
        check.severity.word(),
        check.proves,
        check.cost,
        check.source,
        check.remedy
    ));
    0
}

fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "efa-check", &mut script);
    print(&String::from_utf8_lossy(&script));
    0
}

fn pingpong(site: &Site, only: Option<&str>, json: bool) -> u8 {
    let devices = match efa::devices::devices(&site.sysroot) {
        Ok(devices) => devices,
        Err(error) => {
            complain(&error.to_string());
            return Severity::Unknown.exit_code();
        }
    };
    let names: Vec<&str> = devices
        .iter()
        .map(|device| device.name.as_str())
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    if names.is_empty() {
        complain(match only {
            Some(_) => "there is no such EFA device; `efa-check node` counts them",
            None => "there is no EFA device",
        });
        return Severity::Unknown.exit_code();
    }
    let program = match pingpong::program(&site.settings) {
        Ok(program) => program,
        Err(reason) => {
            complain(&reason);
            return Severity::Unknown.exit_code();
        }
    };
    let mut results = Vec::new();
    for (done, name) in names.iter().enumerate() {
        let shown = printable(name, 60);
        let result = pingpong::test(&program, &site.settings, name);
        let words = match &result {
            Ok(took) => format!("fine, {} ms", took.as_millis()),
            Err(reason) => format!("FAILED: {reason}"),
        };
        if !json {
            print(&format!(
                "{:>3}/{} {shown}: {words}\n",
                done + 1,
                names.len()
            ));
        }
        results.push(serde_json::json!({
            "device": name,
            "ok": result.is_ok(),
            "reason": result.as_ref().err(),
            "seconds": result.as_ref().ok().map(Duration::as_secs_f64),
        }));
    }
    if json {
        print_json(&results);
    }
    let failed = results.iter().any(|result| result["ok"] != true);
    if failed { 2 } else { 0 }
}

/// To standard output; who closed it wants no more.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "efa-check: {text}");
}
