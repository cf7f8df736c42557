//! `slurm-efa report`: the records of a job's nodes, added up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use config::Config;
use efa::counters::{Measure, Sum, Traffic, Unknown};
use findings::Envelope;
use host::date::utc;
use host::printable;
use serde::Serialize;
use slurm::hostlist;
use slurm::{NodeName, node_name};
use usage::text::{Share, bytes, share, unknown_devices};
use usage::{Problem, Settings, Step, UsageRecord, folder, log};

use super::arguments::SiteArguments;
use super::exit::*;
use super::output::print;
use super::table::table;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The job's number
    #[arg(value_name = "JOBID", value_parser = clap::value_parser!(u32).range(1..))]
    job: u32,
    /// Print the records and their sums as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let config = arguments.site.load()?;
    let report = Report::gather(&config, arguments.site.node.as_ref(), arguments.job)?;
    if arguments.json {
        print(&report.to_json()?)?;
    } else if report.is_known() {
        print(&report.to_text())?;
    }
    if report.is_known() {
        return Ok(0);
    }
    for sentence in report.why_nothing() {
        eprintln!("slurm-efa: {sentence}");
    }
    Ok(COULD_NOT_TELL)
}

/// By how much the clocks of two nodes may differ, in seconds: munge's own
/// limit, without which Slurm does not work.
const CLOCK_SKEW: u64 = 300;

/// Most nodes that are named in one sentence.
const NAMED: usize = 32;

/// Where records were looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The site's folder, with all nodes' records.
    Folder(PathBuf),
    /// The log of this node.
    Log(PathBuf),
}

/// What is known of one run of a job.
#[derive(Debug)]
pub struct Report {
    job: u32,
    source: Source,
    /// Of the whole job, one for each node, in the job's order.
    nodes: Vec<UsageRecord>,
    /// Of its steps.
    steps: Vec<UsageRecord>,
    /// Records of earlier runs, or of an earlier job of this number.
    left_out: usize,
    missing: Missing,
    problems: Vec<Problem>,
}

/// The nodes of the job that there is no record of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    count: usize,
    /// Empty where only their number is known.
    names: Vec<NodeName>,
}

impl Report {
    /// Reads what there is of a job.
    pub fn gather(config: &Config, node: Option<&NodeName>, job: u32) -> anyhow::Result<Self> {
        let settings = Settings::of(config)?;
        let (source, (records, problems)) = match settings.folder(node)? {
            Some(path) => {
                let found = folder::load_job(&path, job)?;
                (Source::Folder(path), found)
            }
            None => {
                let path = settings.log(node)?;
                let found = log::load_job(&path, job)?;
                (Source::Log(path), found)
            }
        };
        Ok(Self::of(job, source, records, problems))
    }

    fn of(job: u32, source: Source, records: Vec<UsageRecord>, problems: Vec<Problem>) -> Self {
        let all = records.len();
        let records = last_run(records);
        let left_out = all - records.len();
        let (mut steps, mut nodes): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| record.step.is_some());
        nodes.sort_by(in_the_jobs_order);
        steps.sort_by(|a, b| a.step.cmp(&b.step).then_with(|| in_the_jobs_order(a, b)));
        let missing = match source {
            Source::Folder(_) => missing(&nodes),
            // One node's log has no record of the others.
            Source::Log(_) => Missing::default(),
        };
        Self {
            job,
            source,
            nodes,
            steps,
            left_out,
            missing,
            problems,
        }
    }

    /// Whether there is any record of the job.
    pub fn is_known(&self) -> bool {
        !self.nodes.is_empty() || !self.steps.is_empty()
    }

    /// Where nothing was found, and what to do.
    pub fn why_nothing(&self) -> Vec<String> {
        let job = self.job;
        let mut sentences: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        sentences.push(match &self.source {
            Source::Folder(path) => format!(
                "nothing is known of job {job}: {} has no record of it. Nodes write theirs when the job ends",
                shown(path)
            ),
            Source::Log(path) => format!(
                "nothing is known of job {job}: {} has no record of it. It is the log of this node only; \
                 look on a node of the job, or set `dir` in [report] to a folder that all nodes share",
                shown(path)
            ),
        });
        sentences
    }

    fn totals(&self) -> Traffic {
        sum(&self.nodes)
    }

    /// One JSON document.
    pub fn to_json(&self) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Document<'a> {
            job: u32,
            source: String,
            /// Whether other nodes' records would be there too.
            all_nodes: bool,
            totals: Traffic,
            nodes: Vec<serde_json::Value>,
            steps: Vec<serde_json::Value>,
            missing: usize,
            missing_nodes: Vec<&'a str>,
            left_out: usize,
            problems: &'a [Problem],
        }
        let values = |records: &[UsageRecord]| -> anyhow::Result<Vec<serde_json::Value>> {
            let values = records.iter().map(|record| {
                let line = record.to_line()?;
                Ok(serde_json::from_str(&line)?)
            });
            values.collect()
        };
        let (Source::Folder(path) | Source::Log(path)) = &self.source;
        let document = Document {
            job: self.job,
            source: shown(path),
            all_nodes: matches!(self.source, Source::Folder(_)),
            totals: self.totals(),
            nodes: values(&self.nodes)?,
            steps: values(&self.steps)?,
            missing: self.missing.count,
            missing_nodes: self.missing.names.iter().map(NodeName::as_str).collect(),
            left_out: self.left_out,
            problems: &self.problems,
        };
        let node = node_name::of_this_process();
        let node = node.as_ref().map(NodeName::as_str);
        Ok(serde_json::to_string(&Envelope::of_now(node, document))? + "\n")
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = self.heading();
        if !self.nodes.is_empty() {
            text.push('\n');
            text.push_str(&table(&self.device_rows(), 2));
        }
        if !self.steps.is_empty() {
            text.push('\n');
            text.push_str(&table(&self.step_rows(), 2));
        }
        let notes = self.notes();
        if !notes.is_empty() {
            text.push('\n');
        }
        for note in notes {
            text.push_str(&note);
            text.push('\n');
        }
        text
    }

    fn heading(&self) -> String {
        let Some(first) = self.nodes.first() else {
            return format!(
                "job {}: there are records of steps only; a node writes the job's when it ends there\n",
                self.job
            );
        };
        let with_record = self.nodes.len();
        let nodes = match first.nodes {
            Some(nodes) => format!("{with_record} of {nodes} nodes"),
            None => format!("{with_record} nodes (the job may have more)"),
        };
        let mut parts = vec![nodes, format!("uid {}", first.uid)];
        match &first.profile {
            Some(profile) => parts.push(format!("profile {}", printable(profile, 64))),
            None => parts.push("no profile".to_owned()),
        }
        if let Some(restart) = first.restart.filter(|restart| *restart > 0) {
            parts.push(format!("requeued {restart} times"));
        }
        let start = self.nodes.iter().filter_map(|record| record.start).min();
        let end = self.nodes.iter().map(|record| record.end).max();
        let moment = |moment: Option<u64>| moment.map_or("unknown".to_owned(), utc);
        parts.push(format!("{} to {} UTC", moment(start), moment(end)));
        format!("job {}: {}\n", self.job, parts.join(", "))
    }

    fn device_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![header("NODE", "DEVICE")];
        for record in &self.nodes {
            let node = record.node.as_str();
            for (name, device) in &record.devices.0 {
                rows.push(row(
                    node,
                    &printable(name, 32),
                    &record.traffic_of(name, device),
                ));
            }
            let all = format!("all {}", record.devices.0.len());
            rows.push(row(node, &all, &record.totals()));
        }
        let all = self
            .nodes
            .iter()
            .map(|record| record.devices.0.len())
            .sum::<usize>();
        rows.push(row("total", &format!("all {all}"), &self.totals()));
        rows
    }

    fn step_rows(&self) -> Vec<Vec<String>> {
        let mut by_step: BTreeMap<Option<Step>, Vec<&UsageRecord>> = BTreeMap::new();
        for record in &self.steps {
            by_step.entry(record.step).or_default().push(record);
        }
        let mut rows = vec![header("STEP", "NODES")];
        for (step, records) in by_step {
            let step = step.map_or_else(String::new, |step| step.to_string());
            let nodes = records.len().to_string();
            rows.push(row(&step, &nodes, &sum(records)));
        }
        rows
    }

    /// What the numbers do not tell, and what is missing.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Source::Log(path) = &self.source {
            notes.push(format!(
                "only this node's log ({}) was read; `dir` in [report] lets all nodes record in one folder",
                shown(path)
            ));
        }
        if self.missing.count > 0 {
            let nodes = match self.missing.names.as_slice() {
                [] => format!("{} nodes", self.missing.count),
                names => list(names.iter().map(NodeName::as_str)),
            };
            notes.push(format!(
                "no record of {nodes}: the job has not ended there, or the node could not write it"
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{} records of earlier runs of this job are not counted",
                self.left_out
            ));
        }
        notes.extend(self.unseparable());
        for record in self.nodes.iter().chain(&self.steps) {
            let place = match record.step {
                Some(step) => format!("{} step {step}", record.node),
                None => record.node.to_string(),
            };
            for unknown in unknown_devices(record) {
                notes.push(format!("{place}: {unknown}"));
            }
            for problem in &record.problems {
                notes.push(format!("{place}: {}", printable(problem, 300)));
            }
        }
        notes.extend(self.problems.iter().map(ToString::to_string));
        notes.extend(self.warnings());
        notes
    }

    /// Other traffic that the same counters count.
    fn unseparable(&self) -> Vec<String> {
        let with_traffic = || {
            self.nodes
                .iter()
                .filter(|record| !record.totals().is_none())
        };
        let named = |wanted: &dyn Fn(&UsageRecord) -> bool| {
            let names: Vec<_> = with_traffic()
                .filter(|record| wanted(record))
                .map(|record| record.node.as_str())
                .collect();
            (!names.is_empty()).then(|| list(names))
        };
        let sentences = [
            named(&|r| r.shared == Some(true))
                .map(|nodes| format!("other jobs ran meanwhile on {nodes}: their traffic is counted too")),
            named(&|r| r.shared.is_none())
                .map(|nodes| format!("it is not known whether other jobs ran meanwhile on {nodes}: their traffic would be counted too")),
            named(&|r| r.lustre == Some(true))
                .map(|nodes| format!("Lustre can use EFA on {nodes}: its traffic is counted too")),
            named(&|r| r.lustre.is_none())
                .map(|nodes| format!("it is not known whether Lustre uses EFA on {nodes}: its traffic would be counted too")),
        ];
        sentences.into_iter().flatten().collect()
    }

    fn warnings(&self) -> Vec<String> {
        let (silent, others): (Vec<_>, Vec<_>) = self
            .nodes
            .iter()
            .partition(|record| record.totals().is_none());
        match (silent.first(), others.is_empty()) {
            (Some(first), true) => usage::no_traffic_warning(first).into_iter().collect(),
            (Some(_), false) => {
                let names = silent.iter().map(|record| record.node.as_str());
                vec![format!("EFA moved nothing on {}", list(names))]
            }
            (None, _) => Vec::new(),
        }
    }
}

fn shown(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy(), 512)
}

fn in_the_jobs_order(a: &UsageRecord, b: &UsageRecord) -> std::cmp::Ordering {
    let names = || efa::devices::natural_order(a.node.as_str(), b.node.as_str());
    let place = |record: &UsageRecord| record.node_index.unwrap_or(u32::MAX);
    place(a).cmp(&place(b)).then_with(names)
}

/// The records of the job's last run, the latest of each node and step. A
/// requeued job keeps its number, and a number may be given out again.
fn last_run(records: Vec<UsageRecord>) -> Vec<UsageRecord> {
    let Some(newest) = records.iter().max_by_key(|record| record.end) else {
        return records;
    };
    let (uid, restart) = (newest.uid, newest.restart);
    let start = records
        .iter()
        .filter(|record| record.step.is_none() && record.uid == uid && record.restart == restart)
        .max_by_key(|record| record.end)
        .and_then(|record| record.start);
    let mut run: BTreeMap<(NodeName, Option<Step>), UsageRecord> = BTreeMap::new();
    for record in records {
        let ended_before = start.is_some_and(|start| record.end.saturating_add(CLOCK_SKEW) < start);
        if record.uid != uid || record.restart != restart || ended_before {
            continue;
        }
        let key = (record.node.clone(), record.step);
        match run.get(&key) {
            // A log has them in the order they were written.
            Some(known) if known.end > record.end => {}
            _ => {
                run.insert(key, record);
            }
        }
    }
    run.into_values().collect()
}

fn missing(nodes: &[UsageRecord]) -> Missing {
    let Some(count) = nodes.iter().filter_map(|record| record.nodes).max() else {
        return Missing::default();
    };
    let count = (count as usize).saturating_sub(nodes.len());
    if count == 0 {
        return Missing::default();
    }
    let list = nodes.iter().find_map(|record| record.node_list.as_deref());
    let mut names = list.and_then(hostlist::expand).unwrap_or_default();
    names.retain(|name| nodes.iter().all(|record| record.node != *name));
    // A list that does not fit the number may be anybody's: then name none.
    if names.len() != count {
        names.clear();
    }
    Missing { count, names }
}

fn sum<'a>(records: impl IntoIterator<Item = &'a UsageRecord>) -> Traffic {
    let mut sum = Traffic::default();
    for record in records {
        sum.merge(&record.totals());
    }
    sum
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn header(first: &str, second: &str) -> Vec<String> {
    let rest = [
        "SENT",
        "RECEIVED",
        "SEND OPS",
        "RECV OPS",
        "RDMA WRITE",
        "RDMA READ",
        "RETRANS",
        "ERRORS",
    ];
    [first, second]
        .into_iter()
        .chain(rest)
        .map(str::to_owned)
        .collect()
}

fn row(first: &str, second: &str, traffic: &Traffic) -> Vec<String> {
    let share = |kind| match share(traffic, kind) {
        Share::Part(percent) => percent,
        Share::OfNothing => "-".to_owned(),
        Share::Unknown => "?".to_owned(),
    };
    let count = |count: u64| count.to_string();
    vec![
        first.to_owned(),
        second.to_owned(),
        cell(&traffic.of(Measure::SentBytes), bytes),
        cell(&traffic.of(Measure::ReceivedBytes), bytes),
        cell(&traffic.of(Measure::SentOperations).as_counted(), count),
        cell(&traffic.of(Measure::ReceivedOperations).as_counted(), count),
        share(Measure::RdmaWriteBytes),
        share(Measure::RdmaReadBytes),
        cell(&traffic.of(Measure::RetransmittedPackets), count),
        cell(&traffic.errors(), count),
    ]
}

/// `-` where the driver does not count, `?` where it is unknown, `>=` before
/// a sum of which parts are.
fn cell(sum: &Sum, show: impl Fn(u64) -> String) -> String {
    match (sum.exact(), sum.at_least()) {
        (Some(value), _) => show(value),
        (None, Some(value)) => format!(">={}", show(value)),
        (None, None) if sum.unknown().iter().all(|r| *r == Unknown::NoSuchCounter) => {
            "-".to_owned()
        }
        (None, None) => "?".to_owned(),
    }
}
