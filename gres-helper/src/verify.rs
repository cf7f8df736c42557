//! Whether the running configuration says what NVML says.

use std::collections::BTreeMap;

use findings::Severity;
use slurm::NodeName;
use slurm::conf::gres_conf::{GresConf, Line, minor, same_cores};

use crate::generate::{self, Wanted};

/// A difference, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How bad it is: a warning where jobs run, but not as well as they could;
    /// fatal where they get other GPUs or other amounts than the files say.
    pub severity: Severity,
    /// `- ` what runs, `+ ` what should; in a diff's manner, with a reason.
    pub text: String,
    /// Whether applying it changes what running jobs were promised.
    pub needs_drain: bool,
}

/// Compares what runs with what should.
#[must_use]
pub fn compare(running: &GresConf, wanted: &Wanted) -> Vec<Difference> {
    let mut found: Vec<Difference> = running
        .problems
        .iter()
        .map(|problem| Difference {
            severity: Severity::Fatal,
            text: format!("! {problem}"),
            needs_drain: false,
        })
        .collect();
    if let Some(detect) = &running.autodetect {
        found.push(Difference {
            severity: Severity::Warning,
            text: format!(
                "! AutoDetect={detect}: Slurm adds what it finds itself, so these lines cannot be \
                 compared in full"
            ),
            needs_drain: false,
        });
    }
    for name in ["gpu", "shard"] {
        compare_name(name, running, wanted, &mut found);
    }
    order(running, wanted, &mut found);
    found
}

fn compare_name(name: &str, running: &GresConf, wanted: &Wanted, found: &mut Vec<Difference>) {
    let by_file = |lines: &[Line]| -> BTreeMap<Vec<String>, Vec<Line>> {
        let mut map: BTreeMap<_, Vec<Line>> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.name == name) {
            map.entry(line.files.clone())
                .or_default()
                .push(line.clone());
        }
        map
    };
    let (runs, should) = (by_file(&running.lines), by_file(&wanted.lines));
    let wrong = |text: String| Difference {
        severity: Severity::Fatal,
        text,
        needs_drain: true,
    };
    let detects = running.autodetect.is_some();
    for (files, lines) in &runs {
        if files.is_empty() && detects {
            found.extend(other_number(name, lines, wanted).map(wrong));
        } else if files.is_empty() {
            found.push(wrong(format!(
                "- {}\n  no File=: Slurm cannot tell these GPUs apart",
                lines[0]
            )));
        } else if lines.len() > 1 {
            found.push(wrong(format!(
                "- {}\n  {} lines for one file",
                lines[0],
                lines.len()
            )));
        } else if !should.contains_key(files) {
            let reason = match name {
                "gpu" => "there is no such GPU",
                _ => "by [gres] this file has no shards",
            };
            found.push(wrong(format!("- {}\n  {reason}", lines[0])));
        }
    }
    for (files, lines) in &should {
        let line = &lines[0];
        let Some(runs) = runs.get(files).map(|lines| &lines[0]) else {
            if !detects {
                found.push(wrong(format!("+ {line}\n  it is missing")));
            }
            continue;
        };
        let kind = name == "gpu" && is_other_model(runs, line, wanted);
        if kind || (runs.count.unwrap_or(1) != line.count.unwrap_or(1)) {
            found.push(wrong(format!("- {runs}\n+ {line}")));
        } else if !same_cores(runs.cores.as_deref(), line.cores.as_deref())
            || (line.links.is_some() && runs.links != line.links)
        {
            found.push(Difference {
                severity: Severity::Warning,
                text: format!("- {runs}\n+ {line}"),
                needs_drain: false,
            });
        } else if runs.kind.is_none() && line.kind.is_some() {
            found.push(Difference {
                severity: Severity::Warning,
                text: format!("- {runs}\n+ {line}\n  without Type= a job cannot ask for the model"),
                needs_drain: true,
            });
        }
    }
}

/// Whether the running line's type is another model's. Slurm's own detection takes any
/// part of the name that it gives a product.
fn is_other_model(runs: &Line, line: &Line, wanted: &Wanted) -> bool {
    let Some(kind) = &runs.kind else {
        return false;
    };
    let is_same = |should: &String| kind.eq_ignore_ascii_case(should);
    let is_part = |name: &String| name.contains(&kind.to_ascii_lowercase());
    let detected = line
        .files
        .first()
        .and_then(|file| wanted.detected.get(file));
    !line.kind.as_ref().is_some_and(is_same) && !detected.is_some_and(is_part)
}

/// Where Slurm finds the files itself, lines without one must add up to what there
/// is.
fn other_number(name: &str, lines: &[Line], wanted: &Wanted) -> Option<String> {
    let number = |lines: &mut dyn Iterator<Item = &Line>| -> u64 {
        let counts = lines.map(|line| line.count.unwrap_or(1));
        counts.fold(0, u64::saturating_add)
    };
    let runs = number(&mut lines.iter());
    let should = number(&mut wanted.lines.iter().filter(|line| line.name == name));
    (runs != should).then(|| format!("- {}\n+ {should} of {name}", lines[0]))
}

/// Slurm hands out GPUs by their order in the file; CUDA and NVML count by PCI.
fn order(running: &GresConf, wanted: &Wanted, found: &mut Vec<Difference>) {
    let minors = |lines: &[Line]| -> Vec<u32> {
        lines
            .iter()
            .filter(|line| line.name == "gpu" && line.files.len() == 1)
            .filter_map(|line| minor(&line.files[0]))
            .collect()
    };
    let (runs, should) = (minors(&running.lines), minors(&wanted.lines));
    let mut sorted = (runs.clone(), should.clone());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    if sorted.0 == sorted.1 && runs != should {
        found.push(Difference {
            severity: Severity::Fatal,
            text: format!(
                "! the files are in the order {runs:?}, PCI order is {should:?}: the numbers that \
                 jobs see would be those of other GPUs"
            ),
            needs_drain: true,
        });
    }
}

/// Compares Slurm's own count, of `scontrol show node -o`, with the file's.
#[must_use]
pub fn compare_with_slurm(line: &str, wanted: &Wanted, node: &NodeName) -> Option<Difference> {
    let shown = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("Gres="))
        .unwrap_or_default();
    let (slurm, should) = (counts(shown), counts(&generate::gres(&wanted.lines)));
    (slurm != should).then(|| Difference {
        severity: Severity::Fatal,
        text: format!(
            "- slurm.conf: NodeName={node} Gres={}\n+ slurm.conf: NodeName={node} Gres={}",
            host::printable(shown, 300),
            generate::gres(&wanted.lines)
        ),
        needs_drain: true,
    })
}

/// `gpu:h100:8(S:0-1),shard:56` as counts, without types: slurm.conf may leave
/// them out.
fn counts(gres: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut inside = false;
    // Commas inside brackets are of socket lists.
    let items = gres.split(|c| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    });
    for item in items {
        let item = item.split('(').next().unwrap_or_default();
        let mut parts = item.split(':');
        let name = parts.next().unwrap_or_default();
        if !matches!(name, "gpu" | "shard") {
            continue;
        }
        let count = parts
            .next_back()
            .map_or(Some(1), |count| count.parse().ok());
        *counts.entry(name.to_owned()).or_insert(0) += count.unwrap_or(0);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurms_counts_are_read_with_types_and_sockets() {
        let all = counts("gpu:h100:8(S:0,1),shard:56(S:0-1),bandwidth:4G");
        assert_eq!(
            all,
            BTreeMap::from([("gpu".to_owned(), 8), ("shard".to_owned(), 56)])
        );
        assert_eq!(counts("(null)"), BTreeMap::new());
        assert_eq!(
            counts("gpu:2,gpu:a100:1"),
            BTreeMap::from([("gpu".to_owned(), 3)])
        );
    }
}
