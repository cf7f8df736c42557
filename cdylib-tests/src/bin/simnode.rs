//! Writes the directory tree of a simulated node.

use std::path::PathBuf;
use std::process::ExitCode;

use cdylib_tests::simnode::{SimNode, Spec};
use clap::Parser;

/// Write the directory tree of a simulated AWS node with EFA, to be used as a
/// `sysroot`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The node: an instance type, `ml.` in front allowed.
    #[arg(value_parser = parse_node, value_name = "NODE", help = node_help())]
    node: Spec,
    /// The directory to write; it must not exist or be empty.
    directory: PathBuf,
    /// Attach only the first COUNT EFA devices.
    #[arg(long, value_name = "COUNT")]
    devices: Option<usize>,
}

fn node_help() -> String {
    format!(
        "One of {}; `ml.` in front is allowed",
        Spec::NAMES.join(", ")
    )
}

fn parse_node(name: &str) -> Result<Spec, String> {
    Spec::named(name).ok_or_else(|| format!("no such node; known are {}", Spec::NAMES.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let directory = &arguments.directory;
    let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        eprintln!(
            "simnode: {} is not empty; name a new directory",
            directory.display()
        );
        return ExitCode::from(73);
    }
    let spec = match arguments.devices {
        Some(count) => arguments.node.with_devices(count),
        None => arguments.node,
    };
    match SimNode::build(directory, &spec) {
        Ok(node) => {
            println!(
                "{}: {} with {} EFA devices",
                directory.display(),
                spec.product_name,
                node.devices().len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("simnode: could not write {}: {error}", directory.display());
            ExitCode::from(73)
        }
    }
}
