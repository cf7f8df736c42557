//! `slurm-efa config`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::{DEFAULT_PATH, MissingIs};
use findings::{Envelope, Remedies, Show};
use host::date;
use serde::Serialize;
use slurm::{NodeName, node_name};
use slurm_efa::configuration::check::{self, Checked};
use slurm_efa::configuration::{schema, show};

use super::arguments::SiteArguments;
use super::output::print;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find all mistakes in slurm-efa.toml, by the parsers of the programs
    Check(CheckArguments),
    /// Print what holds for each key, and where it comes from
    Show(ShowArguments),
    /// Print the JSON Schema of slurm-efa.toml, for editors
    Schema,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// A file to check by its text. Without it: this node's file, and the folders and files that
    /// it names
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also look on this node for the folders and files that FILE names
    #[arg(long)]
    folders: bool,
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
    /// This node's name in Slurm, where paths contain %n
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Print all keys as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArguments,
}

pub fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Check(arguments) => run_check(&arguments),
        Command::Show(arguments) => run_show(&arguments),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&schema::schema())?;
            print(&format!("{schema}\n"))?;
            Ok(0)
        }
    }
}

/// The key of the JSON document beside those of every document of findings.
#[derive(Serialize)]
struct Keys<'a> {
    path: &'a Path,
}

fn run_check(arguments: &CheckArguments) -> anyhow::Result<u8> {
    let node = arguments.node.clone().or_else(node_name::of_this_process);
    let Checked {
        config,
        mut findings,
    } = match &arguments.file {
        Some(file) => check::named(&std::path::absolute(file)?),
        None => check::of_node(DEFAULT_PATH.as_ref(), MissingIs::Default),
    };
    if arguments.folders || arguments.file.is_none() {
        let places = check::places(&config, node.as_ref());
        findings.0.extend(places.0);
    }
    if findings.0.is_empty() {
        findings.0.push(check::nothing(&config.path));
    }
    if arguments.json {
        let keys = Keys { path: &config.path };
        let node = node.as_ref().map(NodeName::as_str);
        let document = findings.document(node, date::now(), |finding| finding, keys);
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&findings.text(Show::All, Remedies::Shown))?;
    }
    Ok(findings.exit_code())
}

/// What the JSON of `config show` has besides the keys of every document.
#[derive(Serialize)]
struct ShownKeys<'a> {
    path: &'a Path,
    keys: &'a [show::Shown],
}

fn run_show(arguments: &ShowArguments) -> anyhow::Result<u8> {
    let config = arguments.site.load()?;
    // What a program refuses does not hold.
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(problem.into());
    }
    let all = show::all(&config);
    if arguments.json {
        let node = arguments
            .site
            .node
            .clone()
            .or_else(node_name::of_this_process);
        let body = ShownKeys {
            path: &config.path,
            keys: &all,
        };
        let document = Envelope::of_now(node.as_ref().map(NodeName::as_str), body);
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&show::text(&config, &all))?;
    }
    Ok(0)
}
