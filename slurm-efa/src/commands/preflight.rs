//! `slurm-efa preflight`: a cluster judged before it exists.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use cluster::CreateCluster;
use cluster::answers::Answers;
use host::printable;
use slurm_efa::preflight::live::{self, Session};
use slurm_efa::preflight::{Input, Source, judge};

use super::output::print;

/// Where the answers of AWS come from, said of what needs them.
const NOT_ASKED: &str = "AWS was not asked (--live, or --aws with saved answers)";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The input of `aws sagemaker create-cluster --cli-input-json`
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// provisioning_parameters.json, instead of the one in the folder of --lifecycle
    #[arg(long, value_name = "FILE")]
    provisioning: Option<PathBuf>,
    /// The folder of lifecycle scripts that is, or will be, at SourceS3Uri
    #[arg(long, value_name = "DIR")]
    lifecycle: Option<PathBuf>,
    /// Answers of the AWS CLI that were saved; --print-commands shows how
    #[arg(long, value_name = "DIR", conflicts_with = "live")]
    aws: Option<PathBuf>,
    /// Ask AWS now, by the AWS CLI and only with commands that read
    #[arg(long)]
    live: bool,
    /// Where --live keeps the answers, for a later run with --aws
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
    /// End with 2 for warnings, too
    #[arg(long)]
    strict: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    readable(&arguments.cluster)?;
    if let Some(path) = &arguments.provisioning {
        readable(path)?;
    }
    let cluster = Source::read(&arguments.cluster);
    let region = arguments.region.as_deref();
    let parsed = cluster.document.as_ref().map(CreateCluster::of);
    let parsed = parsed.unwrap_or_default();
    if arguments.print_commands {
        print(&live::commands(&parsed, region, &arguments.keep))?;
        return Ok(0);
    }
    let input = Input {
        provisioning: provisioning(arguments),
        lifecycle: arguments.lifecycle.as_deref().map(absolute),
        answers: answers(arguments, &parsed)?,
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

/// A file that is not there says nothing about a cluster.
fn readable(path: &Path) -> anyhow::Result<()> {
    let shown = printable(&path.to_string_lossy(), 200);
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
fn provisioning(arguments: &Arguments) -> Option<Source> {
    if let Some(path) = &arguments.provisioning {
        return Some(Source::read(path));
    }
    let path = arguments
        .lifecycle
        .as_ref()?
        .join("provisioning_parameters.json");
    path.exists().then(|| Source::read(&path))
}

fn answers(arguments: &Arguments, cluster: &CreateCluster) -> anyhow::Result<Answers> {
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
