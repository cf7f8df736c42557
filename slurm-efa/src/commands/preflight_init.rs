//! `slurm-efa preflight init`: writes the files of a cluster, from options and
//! answers to questions.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use clap::Args;
use findings::Severity;
use host::printable;
use slurm_efa::preflight::init::{CLUSTER, Files, Lustre, PROVISIONING, Setup, Wanted};

use super::exit::{Exists, WrongUse};
use super::output::{print, shown};

/// Longest answer to a question, in bytes: no key has more characters.
const LONGEST_ANSWER: usize = 2048;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The type of the nodes that run jobs, such as p5.48xlarge
    #[arg(long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// How many nodes run jobs
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// How many login nodes
    #[arg(long, value_name = "COUNT")]
    login_nodes: Option<u64>,
    /// The subnet of all nodes
    #[arg(long, value_name = "ID")]
    subnet: Option<String>,
    /// The security group of all nodes
    #[arg(long, value_name = "ID")]
    security_group: Option<String>,
    /// The ARN of the nodes' role in IAM
    #[arg(long, value_name = "ARN")]
    execution_role: Option<String>,
    /// Where the lifecycle scripts are, such as s3://sagemaker-BUCKET/lifecycle
    #[arg(long, value_name = "S3_URI", conflicts_with = "api")]
    source: Option<String>,
    /// A file system of FSx for Lustre; none if this is empty
    #[arg(long, value_name = "DNS_NAME/MOUNT_NAME")]
    fsx: Option<String>,
    /// Let SageMaker set Slurm up (Orchestrator.Slurm), without lifecycle scripts
    #[arg(long)]
    api: bool,
    /// The partition of the nodes that run jobs
    #[arg(long, value_name = "NAME", default_value = "dev")]
    partition: String,
    /// The type of the controller
    #[arg(long, value_name = "TYPE", default_value = "ml.m5.xlarge")]
    controller_type: String,
    /// The type of login nodes
    #[arg(long, value_name = "TYPE", default_value = "ml.m5.xlarge")]
    login_type: String,
    /// Where to write the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    overwrite: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    // Before anybody is asked anything.
    let names = if arguments.api {
        &[CLUSTER][..]
    } else {
        &[CLUSTER, PROVISIONING][..]
    };
    for name in names {
        let path = arguments.into.join(name);
        if !arguments.overwrite && path.symlink_metadata().is_ok() {
            return Err(exists(&path));
        }
    }
    let files = wanted(arguments)?.files()?;
    let report = files.judge();
    let wrong = report.wrong_text();
    if report.findings.worst() == Severity::Fatal {
        print(&format!("{wrong}nothing was written\n"))?;
        return Ok(Severity::Fatal.exit_code());
    }
    write(arguments, &files)?;
    print(&format!("{wrong}{}", next(arguments, &files)))?;
    let warned = report.findings.0.iter();
    let warned = warned
        .map(|it| it.severity)
        .any(|it| it == Severity::Warning);
    Ok(if warned {
        Severity::Warning.exit_code()
    } else {
        0
    })
}

/// The options, and the answers for those that are not given.
fn wanted(arguments: &Arguments) -> anyhow::Result<Wanted> {
    let mut ask = Questions::default();
    let instance_type = ask.given(&arguments.instance_type, "--type", TYPE, None)?;
    let count = ask.given(&arguments.count, "--count", "How many of them?", None)?;
    let logins = &arguments.login_nodes;
    let login_nodes = ask.given(logins, "--login-nodes", "How many login nodes?", Some("1"))?;
    let subnet = ask.given(&arguments.subnet, "--subnet", "Subnet (subnet-…)?", None)?;
    let group = &arguments.security_group;
    let security_group = ask.given(group, "--security-group", "Security group (sg-…)?", None)?;
    let role = &arguments.execution_role;
    let execution_role = ask.given(role, "--execution-role", "ARN of the nodes' role?", None)?;
    let setup = if arguments.api {
        Setup::Api
    } else {
        let source = ask.given(&arguments.source, "--source", SOURCE, None)?;
        Setup::Scripts { source }
    };
    let fsx: String = ask.given(&arguments.fsx, "--fsx", FSX, Some(""))?;
    let fsx = Some(fsx).filter(|it| !it.is_empty());
    let fsx = fsx.map(|it| Lustre::from_str(&it)).transpose();
    Ok(Wanted {
        name: arguments
            .name
            .clone()
            .unwrap_or_else(|| "ml-cluster".to_owned()),
        setup,
        instance_type,
        count,
        partition: arguments.partition.clone(),
        controller_type: arguments.controller_type.clone(),
        login_type: arguments.login_type.clone(),
        login_nodes,
        subnet,
        security_group,
        execution_role,
        fsx: fsx.map_err(|reason| WrongUse(format!("--fsx: {reason}")))?,
    })
}

const TYPE: &str = "Type of the nodes that run jobs (p5.48xlarge, …)?";
const SOURCE: &str = "Lifecycle scripts (s3://sagemaker-BUCKET/FOLDER)?";
const FSX: &str = "FSx for Lustre (DNS_NAME/MOUNT_NAME; empty for none)?";

/// Questions on standard error, answers from standard input.
#[derive(Default)]
struct Questions {
    is_over: bool,
}

impl Questions {
    /// What an option says, else the answer to a question; an empty answer means
    /// the proposal.
    fn given<T: FromStr + Clone>(
        &mut self,
        option: &Option<T>,
        flag: &str,
        question: &str,
        proposal: Option<&str>,
    ) -> anyhow::Result<T> {
        if let Some(value) = option {
            return Ok(value.clone());
        }
        let missing = || WrongUse(format!("{flag} is missing"));
        let proposed = proposal.filter(|it| !it.is_empty());
        let shown = proposed.map_or_else(String::new, |it| format!(" [{it}]"));
        while let Some(answer) = self.ask(&format!("{question}{shown} "))? {
            let answer = match (answer.trim(), proposal) {
                ("", Some(proposal)) => proposal,
                ("", None) => continue,
                (answer, _) => answer,
            };
            if let Ok(value) = answer.parse() {
                return Ok(value);
            }
            eprintln!("\"{}\" is not a number", printable(answer, 80));
        }
        // Nobody answers: a program runs this, and proposals hold.
        let value = proposal.and_then(|it| it.parse().ok());
        Ok(value.ok_or_else(missing)?)
    }

    /// A line of standard input; `None` at its end.
    fn ask(&mut self, question: &str) -> anyhow::Result<Option<String>> {
        if self.is_over {
            return Ok(None);
        }
        eprint!("{question}");
        let mut line = Vec::new();
        let mut bounded = io::Read::take(io::stdin().lock(), LONGEST_ANSWER as u64);
        bounded
            .read_until(b'\n', &mut line)
            .context("standard input cannot be read")?;
        if line.is_empty() {
            eprintln!();
            self.is_over = true;
            return Ok(None);
        }
        if line.len() >= LONGEST_ANSWER {
            return Err(WrongUse("the answer is too long".to_owned()).into());
        }
        let text = String::from_utf8(line);
        Ok(Some(text.map_err(|_| {
            WrongUse("the answer is not UTF-8".to_owned())
        })?))
    }
}

fn exists(path: &Path) -> anyhow::Error {
    let shown = shown(path);
    Exists(format!("{shown} is there already; --overwrite replaces it")).into()
}

/// Writes all files or none.
fn write(arguments: &Arguments, files: &Files) -> anyhow::Result<()> {
    let into = &arguments.into;
    fs::create_dir_all(into).map_err(|error| anyhow!("{}: {error}", shown(into)))?;
    let texts = [
        (CLUSTER, Some(&files.cluster)),
        (PROVISIONING, files.provisioning.as_ref()),
    ];
    let mut prepared = Vec::new();
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let mut file = tempfile::Builder::new()
            .prefix(".preflight-init.")
            // Less what umask takes.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(into)
            .map_err(|error| anyhow!("{}: {error}", shown(into)))?;
        file.write_all(text.as_bytes())
            .map_err(|error| anyhow!("{}: {error}", shown(file.path())))?;
        prepared.push((file, into.join(name)));
    }
    let mut placed: Vec<PathBuf> = Vec::new();
    for (file, path) in prepared {
        let result = if arguments.overwrite {
            file.persist(&path)
        } else {
            // Fails where a file has come in the meantime.
            file.persist_noclobber(&path)
        };
        if let Err(failed) = result {
            if !arguments.overwrite {
                for path in &placed {
                    let _ = fs::remove_file(path);
                }
            }
            return Err(match failed.error.kind() {
                io::ErrorKind::AlreadyExists => exists(&path),
                _ => anyhow!("{}: {}", shown(&path), failed.error),
            });
        }
        placed.push(path);
    }
    Ok(())
}

/// What was done, and what comes next.
fn next(arguments: &Arguments, files: &Files) -> String {
    let path = |name| shown(&arguments.into.join(name));
    let cluster = path(CLUSTER);
    let (also, option) = match files.provisioning {
        Some(_) => {
            let provisioning = path(PROVISIONING);
            (
                format!(" and {provisioning}"),
                format!(" --provisioning {provisioning}"),
            )
        }
        None => (String::new(), String::new()),
    };
    format!("wrote {cluster}{also}\nnext: slurm-efa preflight --cluster {cluster}{option} --live\n")
}
