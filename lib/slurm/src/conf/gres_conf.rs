//! gres.conf, as far as GPUs go: what the running one says of a node, and the
//! lines that a new one is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use host::printable;

use super::reader::{self, ConfError, Files, Grammar, Pair};
use crate::{NodeName, hostlist};

/// One GPU or shard line of one node. Several files of a line of the running
/// file become a line each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// `gpu` or `shard`.
    pub name: String,
    /// `Type=`.
    pub kind: Option<String>,
    /// `File=`, or `MultipleFiles=` with all of them.
    pub files: Vec<String>,
    /// `Count=`.
    pub count: Option<u64>,
    /// `Cores=`.
    pub cores: Option<String>,
    /// `Links=`.
    pub links: Option<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name={}", self.name)?;
        if let Some(kind) = &self.kind {
            write!(f, " Type={kind}")?;
        }
        if let Some(count) = self.count {
            write!(f, " Count={count}")?;
        }
        match self.files.as_slice() {
            [] => {}
            [file] => write!(f, " File={file}")?,
            several => write!(f, " MultipleFiles={}", several.join(","))?,
        }
        if let Some(cores) = &self.cores {
            write!(f, " Cores={cores}")?;
        }
        if let Some(links) = &self.links {
            write!(f, " Links={links}")?;
        }
        Ok(())
    }
}

/// What a gres.conf says of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GresConf {
    /// GPUs and shards, in order.
    pub lines: Vec<Line>,
    /// `AutoDetect=`, if it is on.
    pub autodetect: Option<String>,
    /// What could not be read, with file and line.
    pub problems: Vec<String>,
}

impl GresConf {
    /// Reads what a gres.conf, with the files that it includes, says of a node.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub fn read(files: &dyn Files, path: &Path, node: &NodeName) -> Result<Self, ConfError> {
        let read = reader::read(files, path, Grammar::KeyValue)?;
        let mut conf = Self {
            problems: read.problems.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        for line in &read.lines {
            if let Err(reason) = conf.line(&line.text, node) {
                conf.problems.push(format!("{}: {reason}", line.origin));
            }
        }
        conf.spread_shards();
        Ok(conf)
    }

    /// Slurm divides shards without a file evenly over the GPUs.
    fn spread_shards(&mut self) {
        let gpus = self.lines.iter().filter(|line| line.name == "gpu");
        let files = gpus.flat_map(|line| line.files.clone());
        let files: Vec<String> = files.collect();
        let share = u64::try_from(files.len()).unwrap_or(0);
        if share == 0 {
            return;
        }
        let has_no_file = |line: &Line| line.name == "shard" && line.files.is_empty();
        let spread = |line: Line| -> Vec<Line> {
            if !has_no_file(&line) {
                return vec![line];
            }
            let one = |file: &String| Line {
                files: vec![file.clone()],
                count: line.count.map(|count| count / share),
                ..line.clone()
            };
            files.iter().map(one).collect()
        };
        let lines = std::mem::take(&mut self.lines);
        self.lines = lines.into_iter().flat_map(spread).collect();
    }

    fn line(&mut self, text: &str, node: &NodeName) -> Result<(), String> {
        let (pairs, rest) = reader::pairs(text);
        let words: BTreeMap<String, &str> = pairs
            .iter()
            .map(|Pair { key, value }| (key.to_ascii_lowercase(), *value))
            .collect();
        if let Some(nodes) = words.get("nodename") {
            let list = hostlist::expand(nodes);
            let list =
                list.ok_or_else(|| format!("`{}` is no list of nodes", printable(nodes, 60)))?;
            if !list.contains(node) {
                return Ok(());
            }
        }
        let on = |it: &&&str| !it.eq_ignore_ascii_case("off");
        if let Some(detect) = words.get("autodetect").filter(on) {
            self.autodetect = Some(printable(detect, 20));
        }
        let name = words.get("name").map(|name| name.to_ascii_lowercase());
        if let Some(name) = name.filter(|name| matches!(name.as_str(), "gpu" | "shard")) {
            self.lines.extend(lines(name, &words)?);
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(format!("`{}` is no Key=Value", printable(rest, 60)))
    }
}

fn lines(name: String, words: &BTreeMap<String, &str>) -> Result<Vec<Line>, String> {
    let text = |key: &str| words.get(key).map(|value| printable(value, 400));
    let count = match words.get("count") {
        None => None,
        Some(count) => Some(
            number(count).ok_or_else(|| format!("Count={} is no number", printable(count, 40)))?,
        ),
    };
    let line = Line {
        name,
        kind: text("type"),
        files: Vec::new(),
        count,
        cores: text("cores"),
        links: text("links"),
    };
    let paths = |key: &str| -> Result<Option<Vec<String>>, String> {
        let Some(value) = words.get(key) else {
            return Ok(None);
        };
        files(value)
            .map(Some)
            .ok_or_else(|| format!("{key}={} is no list of files", printable(value, 60)))
    };
    if let Some(files) = paths("multiplefiles")? {
        return Ok(vec![Line { files, ..line }]);
    }
    let Some(files) = paths("file")? else {
        return Ok(vec![line]);
    };
    // Slurm divides the count of shards evenly over the files.
    let share = u64::try_from(files.len()).unwrap_or(1);
    let one = |file: String| Line {
        files: vec![file],
        count: line.count.map(|count| count / share),
        ..line.clone()
    };
    Ok(files.into_iter().map(one).collect())
}

/// `4`, `1K`, `10G`: powers of 1024 (gres.conf(5)).
fn number(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.strip_prefix(digits)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Whether two values of `Cores=` name the same cores: `0,1` and `0-1` do.
#[must_use]
pub fn same_cores(one: Option<&str>, other: Option<&str>) -> bool {
    let ranges = |text: Option<&str>| text.map(|text| ranges(text).ok_or(text.to_owned()));
    ranges(one) == ranges(other)
}

/// `0-3,7` as ranges, merged and in order.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range: (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if range.0 > range.1 {
            return None;
        }
        all.push(range);
    }
    all.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Some(merged)
}

/// `/dev/nvidia[0-3],/dev/nvidia7`.
fn files(value: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut inside = false;
    let items = value.split(|c| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    });
    for item in items {
        let (dir, file) = item.rsplit_once('/')?;
        for file in hostlist::expand(file)? {
            all.push(printable(&format!("{dir}/{file}"), 400));
        }
        if all.len() > 4096 {
            return None;
        }
    }
    Some(all)
}

/// The minor number in `/dev/nvidia<minor>`: the digits at the end of a file's
/// name. Slurm itself takes them from any path.
#[must_use]
pub fn minor(file: &str) -> Option<u32> {
    let name = file.rsplit('/').next()?;
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::reader::InMemory;
    use super::*;
    use proptest::prelude::*;

    const MAIN: &str = "/e/gres.conf";

    fn read(files: &[(&str, &str)]) -> GresConf {
        let node = "n1".parse().unwrap();
        GresConf::read(&InMemory::new(files), Path::new(MAIN), &node).unwrap()
    }

    /// The lines of a file without problems, as shown.
    fn shown(files: &[(&str, &str)]) -> Vec<String> {
        let conf = read(files);
        assert!(conf.problems.is_empty(), "{:?}", conf.problems);
        conf.lines.iter().map(Line::to_string).collect()
    }

    #[test]
    fn lines_of_this_node_are_read_and_those_of_others_left_out() {
        let text = "# a comment\nNodeName=n[1-2] Name=gpu Type=h100 File=/dev/nvidia[0-1] Cores=0-47\n\
                    NodeName=n3 Name=gpu File=/dev/nvidia9\nName=shard Count=14 \\\n\
                    File=/dev/nvidia0,/dev/nvidia1\nName=bandwidth Count=4G\n";
        assert_eq!(
            shown(&[(MAIN, text)]),
            [
                "Name=gpu Type=h100 File=/dev/nvidia0 Cores=0-47",
                "Name=gpu Type=h100 File=/dev/nvidia1 Cores=0-47",
                "Name=shard Count=7 File=/dev/nvidia0",
                "Name=shard Count=7 File=/dev/nvidia1",
            ]
        );
    }

    #[test]
    fn shards_without_a_file_are_spread_over_the_gpus() {
        let gpus = "Name=gpu File=/dev/nvidia[0-1]\n";
        let text = format!("Name=shard Count=9\n{gpus}");
        assert_eq!(
            shown(&[(MAIN, &text)]),
            [
                "Name=shard Count=4 File=/dev/nvidia0",
                "Name=shard Count=4 File=/dev/nvidia1",
                "Name=gpu File=/dev/nvidia0",
                "Name=gpu File=/dev/nvidia1",
            ]
        );
        // Where Slurm finds the GPUs itself, nothing is known of their files.
        let detected = "AutoDetect=nvml\nName=shard Count=8\n";
        assert_eq!(shown(&[(MAIN, detected)]), ["Name=shard Count=8"]);
    }

    #[test]
    fn a_file_that_is_only_an_include_is_read_with_what_that_includes() {
        let files = [
            (MAIN, "include d/a.conf\n"),
            (
                "/e/d/a.conf",
                "Name=gpu File=/dev/nvidia0\ninclude b.conf\n",
            ),
            ("/e/d/b.conf", "Name=gpu File=/dev/nvidia1\n"),
        ];
        let want = ["Name=gpu File=/dev/nvidia0", "Name=gpu File=/dev/nvidia1"];
        assert_eq!(shown(&files), want);
    }

    #[test]
    fn blanks_around_the_equals_sign_change_nothing() {
        let spaced = shown(&[(MAIN, "NodeName = n[1-2] Name = shard Count = 4\n")]);
        assert_eq!(
            spaced,
            shown(&[(MAIN, "NodeName=n[1-2] Name=shard Count=4\n")])
        );
        assert_eq!(spaced, ["Name=shard Count=4"]);
    }

    #[test]
    fn a_count_may_have_a_suffix() {
        let text = "Name=shard Count=1K\nName=shard Count=2m\n";
        assert_eq!(
            shown(&[(MAIN, text)]),
            ["Name=shard Count=1024", "Name=shard Count=2097152"]
        );
        assert_eq!(number("1KB"), None);
        assert_eq!(number("99999999999P"), None);
    }

    #[test]
    fn a_line_goes_on_where_blanks_follow_the_backslash() {
        let text = "Name=gpu Type=x \\ \nFile=/dev/nvidia2\n";
        assert_eq!(
            shown(&[(MAIN, text)]),
            ["Name=gpu Type=x File=/dev/nvidia2"]
        );
    }

    #[test]
    fn cores_are_compared_as_numbers() {
        assert!(same_cores(Some("0,1"), Some("0-1")));
        assert!(same_cores(Some("4-7,0-3"), Some("0-7")));
        assert!(!same_cores(Some("0,1"), Some("0-2")));
        assert!(!same_cores(Some("0"), None));
        assert!(same_cores(Some("x"), Some("x")));
        assert!(!same_cores(Some("x"), Some("y")));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let text = "Name=gpu File=nvidia0\n\nName=shard Count=many File=/dev/nvidia0\nfoo";
        let conf = read(&[(MAIN, text)]);
        assert_eq!(conf.problems.len(), 3, "{:?}", conf.problems);
        assert!(conf.problems[1].starts_with("/e/gres.conf line 3:"));
    }

    #[test]
    fn an_include_that_is_missing_is_named() {
        let conf = read(&[(MAIN, "Name=gpu File=/dev/nvidia0\ninclude gone.conf\n")]);
        assert!(conf.problems[0].starts_with("/e/gres.conf line 2: include gone.conf"));
    }

    #[test]
    fn minors_above_nine_are_read() {
        assert_eq!(minor("/dev/nvidia11"), Some(11));
        assert_eq!(minor("/dev/nvidia"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(Name|File|Count|NodeName|Type)?=?[\\[\\]0-9,/a-z\\\\ #=\n-]{0,80}") {
            let _ = read(&[(MAIN, &text)]);
        }
    }
}
