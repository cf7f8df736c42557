//! `slurm-efa cluster`: what HyperPod's own files say of a cluster that exists.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use cluster::roster::{self, NodeInfo, RosterGroup, RosterNode};
use cluster::{Provisioning, Role, Roster};
use efa::InstanceType;
use efa::instance_types::{efa_expected, lookup};
use findings::Envelope;
use host::printable;
use host::sysroot::read_named;
use serde::Serialize;

use super::exit::{BadData, COULD_NOT_TELL};
use super::output::{print, shown};
use super::table::table;

/// Where HyperPod keeps its files.
const FOLDER: &str = "/opt/ml/config";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Its groups, their roles and types, the EFA devices of a node, and all nodes
    Show(ShowArguments),
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// resource_config.json or nodeinfo.json, instead of those in /opt/ml/config
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// provisioning_parameters.json, instead of the one beside FILE
    #[arg(long, value_name = "FILE")]
    provisioning: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let Command::Show(arguments) = &arguments.command;
    show(arguments)
}

/// What is shown of a group.
#[derive(Debug, Serialize)]
struct Group<'r> {
    name: &'r str,
    role: Option<Role>,
    instance_type: Option<&'r str>,
    partitions: Vec<&'r str>,
    /// EFA devices that a node should have; null where that is unknown or a choice.
    efa_expected: Option<u8>,
    /// EFA devices that its type can have.
    efa_max: Option<u8>,
    nodes: Vec<Node<'r>>,
    /// Why the role is unknown.
    #[serde(skip)]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Node<'r> {
    name: Option<&'r str>,
    address: Option<&'r str>,
    id: Option<&'r str>,
}

#[derive(Debug, Serialize)]
struct Document<'r> {
    file: String,
    cluster: Option<&'r str>,
    arn: Option<&'r str>,
    groups: Vec<Group<'r>>,
}

fn show(arguments: &ShowArguments) -> anyhow::Result<u8> {
    let file = arguments.file.clone().unwrap_or_else(default_file);
    let text = read(&file)?;
    let refused = |error: cluster::role::RoleError| {
        let shown = shown(&file);
        BadData(format!("{shown}: {error}"))
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("nodeinfo") || !text.contains("\"InstanceGroups\"") {
        let info = roster::node_info(&text).map_err(refused)?;
        return show_node(&info, &file, arguments.json);
    }
    let roster = Roster::parse(&text).map_err(refused)?;
    let beside = file.with_file_name(roster::PARAMETERS);
    let parameters = match &arguments.provisioning {
        Some(path) => Some(path.clone()),
        None => Some(beside).filter(|path| path.exists()),
    };
    let parameters = parameters.map(|path| {
        let refused = |error| BadData(format!("{}: {error}", shown(&path)));
        Ok::<_, anyhow::Error>(roster::parameters(&read(&path)?).map_err(refused)?)
    });
    let parameters = parameters.transpose()?;
    let groups = roster.groups.iter();
    let document = Document {
        file: shown(&file),
        cluster: roster.cluster.as_deref(),
        arn: roster.arn.as_deref(),
        groups: groups.map(|it| group(it, parameters.as_ref())).collect(),
    };
    if arguments.json {
        let json = serde_json::to_string_pretty(&Envelope::of_now(None, &document))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&text_of(&document))?;
    }
    let unknown = document.groups.iter().any(|it| it.problem.is_some());
    Ok(if unknown { COULD_NOT_TELL } else { 0 })
}

fn default_file() -> PathBuf {
    let resources = std::env::var_os("SAGEMAKER_RESOURCE_CONFIG_PATH")
        .filter(|path| !path.is_empty())
        .map_or_else(
            || Path::new(FOLDER).join(roster::RESOURCE_CONFIG),
            PathBuf::from,
        );
    let info = Path::new(FOLDER).join(roster::NODE_INFO);
    if !resources.exists() && info.exists() {
        return info;
    }
    resources
}

fn read(path: &Path) -> anyhow::Result<String> {
    read_named(path, cluster::json::LARGEST).map_err(|error| anyhow!("{error}"))
}

fn group<'r>(group: &'r RosterGroup, parameters: Option<&'r Provisioning>) -> Group<'r> {
    let (role, problem) = match group.role(parameters) {
        Ok(role) => (Some(role), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (expected, max) = efa(group.instance_type.as_deref());
    let own = group.partitions.iter().map(String::as_str);
    let by_parameters = parameters.and_then(|it| it.partition_of(&group.name));
    let mut partitions: Vec<&str> = own.collect();
    if partitions.is_empty() {
        partitions.extend(by_parameters);
    }
    Group {
        name: &group.name,
        role,
        instance_type: group.instance_type.as_deref(),
        partitions,
        efa_expected: expected,
        efa_max: max,
        nodes: group.nodes.iter().map(node).collect(),
        problem,
    }
}

fn node(node: &RosterNode) -> Node<'_> {
    Node {
        name: node.name.as_deref(),
        address: node.address.as_deref(),
        id: node.id.as_deref(),
    }
}

/// The EFA devices of a type: expected, and at most. A type that the table lacks
/// has none, unless it is of a family whose types have many.
fn efa(name: Option<&str>) -> (Option<u8>, Option<u8>) {
    let Some(instance) = name.and_then(|it| InstanceType::from_str(it).ok()) else {
        return (None, None);
    };
    match lookup(&instance) {
        Some(spec) => (efa_expected(&instance), spec.efa_max),
        None if ["p", "trn"]
            .iter()
            .any(|it| instance.as_str().starts_with(it)) =>
        {
            (None, None)
        }
        None => (Some(0), Some(0)),
    }
}

fn cell(text: Option<&str>) -> String {
    text.map_or_else(|| "?".to_owned(), |text| printable(text, 80))
}

fn efa_cell(group: &Group<'_>) -> String {
    match (group.efa_expected, group.efa_max) {
        (Some(count), _) => count.to_string(),
        (None, Some(max)) => format!("0-{max}"),
        (None, None) => "?".to_owned(),
    }
}

fn text_of(document: &Document<'_>) -> String {
    let mut text = format!("cluster {}\n\n", cell(document.cluster));
    let head = [
        "GROUP",
        "ROLE",
        "PARTITION",
        "TYPE",
        "NODES",
        "EFA PER NODE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for group in &document.groups {
        let partitions = group.partitions.join(",");
        let partition = if partitions.is_empty() {
            "-"
        } else {
            &partitions
        };
        rows.push(vec![
            cell(Some(group.name)),
            group
                .role
                .map_or_else(|| "?".to_owned(), |it| it.to_string()),
            cell(Some(partition)),
            cell(group.instance_type),
            group.nodes.len().to_string(),
            efa_cell(group),
        ]);
    }
    text += &table(&rows, 4);
    let head = ["NODE", "GROUP", "ADDRESS", "INSTANCE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for group in &document.groups {
        rows.extend(group.nodes.iter().map(|node| {
            vec![
                cell(node.name),
                cell(Some(group.name)),
                cell(node.address),
                cell(node.id),
            ]
        }));
    }
    if rows.len() > 1 {
        text += &format!("\n{}", table(&rows, 4));
    }
    for problem in document.groups.iter().filter_map(|it| it.problem.as_ref()) {
        text += &format!("\nunknown: {problem}\n");
    }
    text
}

fn show_node(info: &NodeInfo, file: &Path, json: bool) -> anyhow::Result<u8> {
    #[derive(Serialize)]
    struct Body<'r> {
        file: String,
        role: Role,
        group: Option<&'r str>,
    }
    let body = Body {
        file: shown(file),
        role: info.role,
        group: info.group.as_deref(),
    };
    if json {
        let json = serde_json::to_string_pretty(&Envelope::of_now(None, &body))?;
        print(&format!("{json}\n"))?;
    } else {
        let group = cell(body.group);
        print(&format!("this node: {}, group {group}\n", info.role))?;
    }
    Ok(0)
}
