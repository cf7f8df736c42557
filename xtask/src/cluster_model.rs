//! `cargo xtask cluster-model`: lib/cluster/src/model.rs, from AWS's own model
//! of SageMaker's CreateCluster, which botocore carries.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{command, venv};

/// What is written.
const FILE: &str = "lib/cluster/src/model.rs";

/// What prints the model.
const SCRIPT: &str = include_str!("cluster_model.py");

#[derive(Deserialize)]
struct Model {
    version: String,
    shapes: Vec<(String, Shape)>,
}

#[derive(Deserialize)]
struct Shape {
    limits: (i64, Option<i64>),
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    Structure {
        union: bool,
        members: Vec<(String, bool, String)>,
    },
    List {
        of: String,
    },
    Map {
        key: String,
        value: String,
    },
    String {
        pattern: String,
        values: Vec<String>,
    },
    Integer {},
    Boolean {},
    Timestamp {},
}

/// Writes the table, or with `check` compares it with the one in the tree.
///
/// # Errors
/// botocore cannot be had, or with `check` the tables differ.
pub fn cluster_model(check: bool) -> Result<()> {
    let python = venv::programs(
        &command::cache().join("tools/botocore"),
        "requirements-botocore.txt",
    )
    .context("the model is botocore's, which was not to be had")?;
    let printed = command::output(Command::new(python.join("python3")).args(["-c", SCRIPT]))?;
    let model: Model = serde_json::from_str(&printed).context("the model is not as expected")?;
    let text = formatted(&rust(&model)?)?;
    let path = command::workspace().join(FILE);
    if check {
        let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
        if kept != text {
            bail!(
                "{FILE} is not what botocore {} says; run: cargo xtask cluster-model",
                model.version
            );
        }
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{FILE}: written from botocore {}", model.version);
    Ok(())
}

fn rust(model: &Model) -> Result<String> {
    let mut text = format!(
        "//! CreateCluster's input: botocore's service model of SageMaker.\n//! `cargo xtask \
         cluster-model` writes this file.\n\nuse crate::shape::{{Shape, optional, required}};\n\n\
         /// The version of botocore whose model this is.\npub const BOTOCORE: &str = {:?};\n",
        model.version
    );
    let last = model.shapes.len().saturating_sub(1);
    for (index, (name, shape)) in model.shapes.iter().enumerate() {
        if index == last {
            text += "\n/// The whole input.\npub ";
            let body = body(shape)?;
            writeln!(text, "static CREATE_CLUSTER: Shape = {body};")?;
        } else {
            writeln!(
                text,
                "\nstatic {}: Shape = {};",
                constant(name),
                body(shape)?
            )?;
        }
    }
    Ok(text)
}

fn body(shape: &Shape) -> Result<String> {
    let (min, max) = shape.limits;
    let length = match max {
        Some(max) => format!("({min}, {max})"),
        None => format!("({min}, u64::MAX)"),
    };
    Ok(match &shape.kind {
        Kind::Structure { union, members } => {
            let mut text = format!("Shape::Structure {{ union: {union}, members: &[");
            for (name, is_required, shape) in members {
                let presence = if *is_required { "required" } else { "optional" };
                write!(text, "{presence}({name:?}, &{}), ", constant(shape))?;
            }
            text + "] }"
        }
        Kind::List { of } => format!("Shape::List {{ length: {length}, of: &{} }}", constant(of)),
        Kind::Map { key, value } => format!(
            "Shape::Map {{ length: {length}, key: &{}, value: &{} }}",
            constant(key),
            constant(value)
        ),
        Kind::String { pattern, values } => {
            if pattern.contains("\"#") {
                bail!("the pattern {pattern} would end a raw string");
            }
            let pattern = match pattern.contains(['\\', '"']) {
                true => format!("r#\"{pattern}\"#"),
                false => format!("{pattern:?}"),
            };
            format!("Shape::Text {{ length: {length}, pattern: {pattern}, values: &{values:?} }}")
        }
        Kind::Integer {} => {
            let max = max.map_or_else(|| "i64::MAX".to_owned(), |max| max.to_string());
            format!("Shape::Integer {{ min: {min}, max: {max} }}")
        }
        Kind::Boolean {} => "Shape::Boolean".to_owned(),
        Kind::Timestamp {} => "Shape::Timestamp".to_owned(),
    })
}

/// `ClusterName` as a constant is called: CLUSTER_NAME.
fn constant(name: &str) -> String {
    let mut text = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            text.push('_');
        }
        after_small = !c.is_ascii_uppercase();
        text.push(c.to_ascii_uppercase());
    }
    text
}

fn formatted(text: &str) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("model.rs");
    fs::write(&file, text)?;
    command::output(
        Command::new("rustfmt")
            .args(["--edition", "2024", "--config-path"])
            .arg(command::workspace().join("rustfmt.toml"))
            .arg(&file),
    )?;
    Ok(fs::read_to_string(&file)?)
}
