//! `slurm-efa doctor`.

use std::path::PathBuf;

use clap::Args;
use findings::Envelope;
use host::date;
use slurm::NodeName;
use slurm_efa::doctor;
use slurm_efa::doctor::merge::Merged;

use super::arguments::PlaceArguments;
use super::output::print;

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
    let json = arguments.json;
    let mut site = arguments.place.look();
    if let Some(node) = arguments.node {
        site.slurm.node = Some(node);
    }
    let examination = doctor::examine(&site);
    if json {
        let document = examination.document(site.slurm.node.as_ref(), date::now());
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&examination.to_text())?;
    }
    Ok(examination.findings.exit_code())
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
