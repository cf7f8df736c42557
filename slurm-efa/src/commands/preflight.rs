//! `slurm-efa preflight`: a cluster judged before it exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use cluster::CreateCluster;
use cluster::answers::Answers;
use cluster::shape::suggestion;
use host::printable;
use slurm_efa::preflight::live::{self, Session};
use slurm_efa::preflight::{Input, Listing, Scripts, Source, judge};

use super::exit::WrongUse;
use super::output::{print, shown};
use super::preflight_init;

/// Where the answers of AWS come from, said of what needs them.
const NOT_ASKED: &str = "AWS was not asked (--live, or --aws with saved answers)";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    judge: JudgeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the files of a cluster that passes, from options or a few questions
    Init(preflight_init::Arguments),
}

#[derive(Debug, Args)]
struct JudgeArguments {
    /// The input of `aws sagemaker create-cluster --cli-input-json`
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// provisioning_parameters.json, instead of the one in the folder of --lifecycle
    #[arg(long, value_name = "FILE")]
    provisioning: Option<PathBuf>,
    /// The folder of lifecycle scripts that is, or will be, at SourceS3Uri, or a file with the
    /// listing of what is there
    #[arg(long, value_name = "DIR|LISTING")]
    lifecycle: Option<PathBuf>,
    /// A later size of a group: addresses and quotas are checked for it, too
    #[arg(long, value_name = "GROUP=COUNT", value_parser = planned)]
    planned: Vec<(String, u64)>,
    /// Saved answers of the AWS CLI; --print-commands shows how to save them
    #[arg(long, value_name = "DIR", conflicts_with = "live")]
    aws: Option<PathBuf>,
    /// Ask AWS now, through the AWS CLI and only with commands that read
    #[arg(long)]
    live: bool,
    /// Where --live keeps the answers for a later run with --aws
    #[arg(long, value_name = "DIR", default_value = "preflight-answers")]
    keep: PathBuf,
    /// Seconds for each command of --live
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// The Region, instead of the one that the AWS CLI is configured for
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Print the commands that --live would run, and run none
    #[arg(long)]
    print_commands: bool,
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 2 for warnings, too
    #[arg(long)]
    strict: bool,
}

fn planned(text: &str) -> Result<(String, u64), String> {
    let parts = text.rsplit_once('=');
    let parts = parts.and_then(|(group, count)| Some((group.to_owned(), count.parse().ok()?)));
    parts.ok_or_else(|| "expected GROUP=COUNT".to_owned())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    match &arguments.command {
        Some(Command::Init(arguments)) => preflight_init::run(arguments),
        None => run_checks(&arguments.judge),
    }
}

fn run_checks(arguments: &JudgeArguments) -> anyhow::Result<u8> {
    let Some(path) = &arguments.cluster else {
        return Err(WrongUse("--cluster FILE is missing; see --help".to_owned()).into());
    };
    readable(path)?;
    if let Some(path) = &arguments.provisioning {
        readable(path)?;
    }
    let cluster = Source::read(path);
    let region = arguments.region.as_deref();
    let parsed = cluster.document.as_ref().map(CreateCluster::of);
    let parsed = parsed.unwrap_or_default();
    if arguments.print_commands {
        print(&live::commands(&parsed, region, &arguments.keep))?;
        return Ok(0);
    }
    let input = Input {
        provisioning: provisioning(arguments),
        lifecycle: scripts(arguments)?,
        answers: answers(arguments, &parsed)?,
        planned: plan(arguments, &parsed)?,
        cluster,
    };
    let report = judge(&input);
    if arguments.json {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let json = report.to_json(now.map_or(0, |since| since.as_secs()))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&report.to_text())?;
    }
    Ok(report.exit_code(arguments.strict))
}

/// The folder of scripts, or the listing of it.
fn scripts(arguments: &JudgeArguments) -> anyhow::Result<Option<Scripts>> {
    let Some(path) = &arguments.lifecycle else {
        return Ok(None);
    };
    if path.is_dir() {
        return Ok(Some(Scripts::Folder(absolute(path))));
    }
    readable(path)?;
    let listing = Listing::read(path).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Some(Scripts::Listing(listing)))
}

/// The counts that groups are to have later. In a file that is not understood no
/// group is known.
fn plan(
    arguments: &JudgeArguments,
    cluster: &CreateCluster,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let names = cluster.groups.iter().filter_map(|it| it.name.as_ref());
    let names: Vec<&str> = names.map(|it| it.value.as_str()).collect();
    for (group, _) in &arguments.planned {
        if !names.is_empty() && !names.contains(&group.as_str()) {
            let nearest = suggestion(group, names.iter().copied());
            let shown = printable(group, 80);
            let reason = format!("--planned: no group is called {shown}{nearest}");
            return Err(WrongUse(reason).into());
        }
    }
    Ok(arguments.planned.iter().cloned().collect())
}

/// A file that is not there says nothing about a cluster.
fn readable(path: &Path) -> anyhow::Result<()> {
    let shown = shown(path);
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() => Ok(()),
        Ok(_) => Err(anyhow::anyhow!("{shown} is not a regular file")),
        Err(error) => Err(anyhow::anyhow!("{shown}: {error}")),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The parameters that are given, else those in the folder of scripts.
fn provisioning(arguments: &JudgeArguments) -> Option<Source> {
    if let Some(path) = &arguments.provisioning {
        return Some(Source::read(path));
    }
    let path = arguments
        .lifecycle
        .as_ref()?
        .join("provisioning_parameters.json");
    path.exists().then(|| Source::read(&path))
}

fn answers(arguments: &JudgeArguments, cluster: &CreateCluster) -> anyhow::Result<Answers> {
    if let Some(folder) = &arguments.aws {
        return Ok(live::saved(&absolute(folder)));
    }
    if !arguments.live {
        return Ok(Answers::none(NOT_ASKED));
    }
    let session = Session {
        region: arguments.region.clone(),
        limit: Duration::from_secs(arguments.timeout),
        folder: absolute(&arguments.keep),
    };
    live::ask(cluster, &session).or_else(|reason| Ok(Answers::none(&reason)))
}
