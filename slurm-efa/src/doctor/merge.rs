//! `slurm-efa doctor --merge`: what many nodes found, as one table. Each file has
//! the JSON of one node or of several, one after the other, as clush and srun
//! collect it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use findings::Severity;
use host::printable;
use serde::{Deserialize, Serialize};

/// Largest file that is read: 10,000 nodes' documents have some 100 MB.
const LARGEST: u64 = 512 << 20;

/// Names that a row of the table has in full.
const NAMES: usize = 8;

/// What is used of a document of findings: doctor's, or efa-check's.
#[derive(Deserialize)]
pub(super) struct Document {
    node: Option<String>,
    pub(super) findings: Vec<Found>,
}

#[derive(Deserialize)]
pub(super) struct Found {
    id: String,
    pub(super) severity: Severity,
    #[serde(default)]
    pub(super) sentence: String,
    pub(super) remedy: Option<String>,
}

/// One finding, and the nodes that have it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The check.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What the first of the nodes says.
    pub sentence: String,
    /// What to do.
    pub remedy: Option<String>,
    /// Their names, in order.
    pub nodes: Vec<String>,
}

/// What all nodes found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Every node, by name.
    pub nodes: Vec<String>,
    /// What is not ok, the worst first.
    pub findings: Vec<Row>,
}

impl Merged {
    /// Adds up files; `-` is standard input.
    ///
    /// # Errors
    /// A file cannot be read, or has something else; for a person.
    pub fn of_files(files: &[impl AsRef<Path>]) -> Result<Self, String> {
        let mut documents = Vec::new();
        for file in files {
            let file = file.as_ref();
            let name = printable(&file.to_string_lossy(), 300);
            let read = match file == Path::new("-") {
                true => text(std::io::stdin()),
                false => File::open(file).and_then(text),
            };
            let text = read.map_err(|error| format!("{name}: {error}"))?;
            let found = parsed(&text).map_err(|error| format!("{name}: {error}"))?;
            if found.is_empty() {
                return Err(format!("{name}: it has no document of `doctor --json`"));
            }
            documents.extend(found);
        }
        Ok(Self::of(documents))
    }

    fn of(documents: Vec<Document>) -> Self {
        // Of a node that is there twice, the last document counts.
        let mut nodes = BTreeMap::new();
        for (at, document) in documents.into_iter().enumerate() {
            let name = document.node.map(|it| printable(&it, 100));
            let name = name.unwrap_or_else(|| format!("(unnamed {})", at + 1));
            nodes.insert(name, document.findings);
        }
        let mut merged = Self {
            nodes: nodes.keys().cloned().collect(),
            findings: Vec::new(),
        };
        let mut rows: BTreeMap<(String, Severity, Option<String>), Row> = BTreeMap::new();
        for (node, found) in nodes {
            for found in found.into_iter().filter(|it| it.severity != Severity::Ok) {
                let remedy = found.remedy.map(|it| printable(&it, 400));
                // Sentences have names and numbers of their node; the remedy is
                // what two nodes with one fault have in common.
                let key = (found.id.clone(), found.severity, remedy.clone());
                let row = rows.entry(key).or_insert_with(|| Row {
                    id: printable(&found.id, 60),
                    severity: found.severity,
                    sentence: printable(&found.sentence, 400),
                    remedy,
                    nodes: Vec::new(),
                });
                if row.nodes.last() != Some(&node) {
                    row.nodes.push(node.clone());
                }
            }
        }
        merged.findings = rows.into_values().collect();
        merged.findings.sort_by(|one, other| {
            let rank = |row: &Row| (row.severity, row.nodes.len());
            rank(other).cmp(&rank(one))
        });
        merged
    }

    /// The exit code: that of the worst finding of any node.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let severities = self.findings.iter().map(|row| row.severity);
        severities.max().unwrap_or(Severity::Ok).exit_code()
    }

    /// For a person: a row for each finding, and how many nodes have none.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for row in &self.findings {
            let _ = writeln!(
                text,
                "{:<8} {:<20} {:>5} of {}: {}",
                row.severity.label(),
                row.id,
                row.nodes.len(),
                self.nodes.len(),
                names(&row.nodes)
            );
            let _ = writeln!(text, "{:<29} {}", "", row.sentence);
            if let Some(remedy) = &row.remedy {
                let _ = writeln!(text, "{:<29} -> {remedy}", "");
            }
        }
        let ill = |node: &&String| self.findings.iter().any(|row| row.nodes.contains(node));
        let well = self.nodes.len() - self.nodes.iter().filter(ill).count();
        let _ = writeln!(text, "{well} of {} nodes are ok", self.nodes.len());
        text
    }
}

fn names(nodes: &[String]) -> String {
    let shown = nodes.iter().take(NAMES).cloned().collect::<Vec<_>>();
    match nodes.len().checked_sub(NAMES) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

fn text(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it is too large"));
    }
    Ok(text)
}

/// The documents of a text. What stands between them, such as clush's headers
/// and the names before each line, is passed over.
fn parsed(text: &str) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    let plain: String;
    let text = match without_names(text) {
        Some(stripped) => {
            plain = stripped;
            &plain
        }
        None => text,
    };
    let mut rest = text;
    // Every document begins a line.
    while let Some(at) = start(rest) {
        rest = rest.get(at..).unwrap_or_default();
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Document>();
        match stream.next() {
            Some(Ok(document)) => documents.push(document),
            Some(Err(error)) => return Err(format!("it is not from `doctor --json`: {error}")),
            None => break,
        }
        rest = rest.get(stream.byte_offset()..).unwrap_or_default();
    }
    Ok(documents)
}

/// Where the next line with an opening brace begins.
fn start(text: &str) -> Option<usize> {
    match text.starts_with('{') {
        true => Some(0),
        false => text.find("\n{").map(|at| at + 1),
    }
}

/// The lines without the `node: ` that clush and `srun --label` put before each,
/// sorted by that name; `None` where a line has none.
fn without_names(text: &str) -> Option<String> {
    let mut by_name: BTreeMap<&str, String> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, rest) = line.split_once(':')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.trim().is_empty() || !name.trim().chars().all(is_name) {
            return None;
        }
        let lines = by_name.entry(name.trim()).or_default();
        lines.push_str(rest.strip_prefix(' ').unwrap_or(rest));
        lines.push('\n');
    }
    Some(by_name.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(node: &str, findings: &[(&str, &str)]) -> String {
        let findings: Vec<_> = findings
            .iter()
            .map(|(id, severity)| {
                serde_json::json!({
                    "id": id, "severity": severity, "sentence": format!("{id} of {node}"),
                    "remedy": "look",
                })
            })
            .collect();
        let document = serde_json::json!({
            "version": 1, "node": node, "severity": "ok", "findings": findings,
        });
        serde_json::to_string_pretty(&document).unwrap()
    }

    fn merged(text: &str) -> Merged {
        Merged::of(parsed(text).unwrap())
    }

    #[test]
    fn a_finding_of_several_nodes_is_one_row_with_their_names() {
        let text = [
            document("n2", &[("munge", "fatal"), ("slurmd", "ok")]),
            document("n1", &[("munge", "fatal")]),
            document("n3", &[("munge", "ok"), ("selinux", "warning")]),
            document("n4", &[("munge", "ok")]),
        ];
        let merged = merged(&text.join("\n"));
        assert_eq!(merged.exit_code(), 2);
        assert_eq!(
            merged.to_text(),
            "FATAL    munge                    2 of 4: n1, n2\n                              munge of \
             n1\n                              -> look\nWARNING  selinux                  1 of 4: \
             n3\n                              selinux of n3\n                              -> \
             look\n1 of 4 nodes are ok\n"
        );
    }

    #[test]
    fn lines_with_the_names_of_clush_or_srun_are_understood() {
        let (one, two) = (
            document("n1", &[("munge", "fatal")]),
            document("n2", &[("munge", "ok")]),
        );
        // The lines of two nodes come in any order.
        let lines = one.lines().zip(two.lines());
        let mixed: String = lines
            .map(|(one, two)| format!("n1: {one}\nn2: {two}\n"))
            .collect();
        assert!(one.lines().count() < two.lines().count() + 1);
        assert_eq!(merged(&mixed).nodes, ["n1", "n2"]);
        assert_eq!(merged(&mixed).findings.len(), 1);
    }

    #[test]
    fn headers_between_documents_are_passed_over() {
        let text = format!(
            "---------------\nn1\n---------------\n{}\n",
            document("n1", &[("munge", "fatal")])
        );
        assert_eq!(merged(&text).nodes, ["n1"]);
    }

    #[test]
    fn many_names_are_cut_with_their_number() {
        let documents: Vec<String> = (0..20)
            .map(|it| document(&format!("n{it:02}"), &[("munge", "fatal")]))
            .collect();
        let text = merged(&documents.join("\n")).to_text();
        assert!(text.contains("20 of 20: n00, n01"), "{text}");
        assert!(text.contains("n07 and 12 more"), "{text}");
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        assert!(parsed("{\"version\": 1}").is_err());
        assert!(parsed("{\n").is_err());
        assert!(parsed("srun: error\n").unwrap().is_empty());
    }
}
