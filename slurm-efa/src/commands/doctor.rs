//! `slurm-efa doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use findings::Envelope;
use host::date;
use slurm::NodeName;
use slurm_efa::doctor::in_time::in_time;
use slurm_efa::doctor::merge::Merged;
use slurm_efa::doctor::{self, Examination};

use super::arguments::PlaceArguments;
use super::output::print;

/// How long slurm.conf and slurm-efa.toml may take to be read.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
    /// This node's name in Slurm, where it is not the host's
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Add up the JSON of many nodes to one table, instead of looking here; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    merge: Vec<PathBuf>,
    #[command(flatten)]
    place: PlaceArguments,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    if !arguments.merge.is_empty() {
        return merged(&arguments);
    }
    let looked = in_time(LIMIT, || {
        let _ = arguments.place.look().slurm.release();
    });
    if looked.is_none() {
        return shown(&arguments, None, &doctor::silent(LIMIT));
    }
    let mut site = arguments.place.look();
    if let Some(node) = &arguments.node {
        site.slurm.node = Some(node.clone());
    }
    let examination = doctor::examine(&site);
    shown(&arguments, site.slurm.node.as_ref(), &examination)
}

fn shown(arguments: &Arguments, node: Option<&NodeName>, all: &Examination) -> anyhow::Result<u8> {
    if arguments.json {
        let document = all.document(node, date::now());
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&all.to_text())?;
    }
    Ok(all.findings.exit_code())
}

fn merged(arguments: &Arguments) -> anyhow::Result<u8> {
    let merged = Merged::of_files(&arguments.merge).map_err(anyhow::Error::msg)?;
    if arguments.json {
        // Of many nodes, so of none.
        let document = Envelope::of_now(None, &merged);
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&merged.to_text())?;
    }
    Ok(merged.exit_code())
}
