//! `slurm-efa doctor`.

use clap::Args;
use host::date;
use slurm::node_name;
use slurm_efa::doctor;

use super::arguments::PlaceArguments;
use super::output::print;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArguments,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let json = arguments.json;
    let examination = doctor::examine(&arguments.place.look());
    if json {
        let node = node_name::of_this_process();
        let document = examination.document(node.as_ref(), date::now());
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&examination.to_text())?;
    }
    Ok(examination.findings.exit_code())
}
