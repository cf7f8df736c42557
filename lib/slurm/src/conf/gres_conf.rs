//! gres.conf, as far as GPUs go: reading the running one, and the lines that
//! ours is made of.

use std::collections::BTreeMap;
use std::fmt;

use crate::NodeName;
use crate::hostlist;
use host::printable;

/// Largest file that is read, in bytes.
pub const LARGEST: usize = 1024 * 1024;

/// Lines that are looked at; a cluster's gres.conf has one for each GPU.
const MOST_LINES: usize = 256 * 1024;

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
    /// What could not be read, with line numbers.
    pub problems: Vec<String>,
}

/// Reads what a gres.conf says of `node`.
#[must_use]
pub fn parse(text: &str, node: &NodeName) -> GresConf {
    let mut conf = GresConf::default();
    for (number, line) in (1..).zip(joined(text)).take(MOST_LINES) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words: BTreeMap<String, &str> = BTreeMap::new();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    words.insert(key.to_ascii_lowercase(), value.trim_matches('"'));
                }
                None => conf.problems.push(format!(
                    "line {number}: `{}` is no Key=Value",
                    printable(word, 60)
                )),
            }
        }
        if words.is_empty() {
            continue;
        }
        if let Some(nodes) = words.get("nodename") {
            match hostlist::expand(nodes) {
                Some(nodes) if nodes.contains(node) => {}
                Some(_) => continue,
                None => {
                    conf.problems.push(format!(
                        "line {number}: `{}` is no list of nodes",
                        printable(nodes, 60)
                    ));
                    continue;
                }
            }
        }
        if let Some(detect) = words
            .get("autodetect")
            .filter(|it| !it.eq_ignore_ascii_case("off"))
        {
            conf.autodetect = Some(printable(detect, 20));
        }
        let Some(name) = words.get("name").map(|name| name.to_ascii_lowercase()) else {
            continue;
        };
        if !matches!(name.as_str(), "gpu" | "shard") {
            continue;
        }
        match lines(name, &words) {
            Ok(lines) => conf.lines.extend(lines),
            Err(reason) => conf.problems.push(format!("line {number}: {reason}")),
        }
    }
    conf
}

/// Lines with a backslash at their end go on in the next.
fn joined(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match all.last_mut() {
            Some(last) if open => *last = format!("{last}{part}"),
            _ => all.push(part.to_owned()),
        }
        open = goes_on;
    }
    all
}

fn lines(name: String, words: &BTreeMap<String, &str>) -> Result<Vec<Line>, String> {
    let text = |key: &str| words.get(key).map(|value| printable(value, 400));
    let count = match words.get("count") {
        None => None,
        Some(count) => Some(
            count
                .parse::<u64>()
                .map_err(|_| format!("Count={} is no number", printable(count, 40)))?,
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
    use super::*;
    use proptest::prelude::*;

    fn node() -> NodeName {
        "n1".parse().unwrap()
    }

    #[test]
    fn lines_of_this_node_are_read_and_those_of_others_left_out() {
        let text = "# a comment\nNodeName=n[1-2] Name=gpu Type=h100 File=/dev/nvidia[0-1] Cores=0-47\n\
                    NodeName=n3 Name=gpu File=/dev/nvidia9\nName=shard Count=14 \\\n\
                    File=/dev/nvidia0,/dev/nvidia1\nName=bandwidth Count=4G\n";
        let conf = parse(text, &node());
        assert!(conf.problems.is_empty(), "{:?}", conf.problems);
        let shown: Vec<String> = conf.lines.iter().map(Line::to_string).collect();
        assert_eq!(
            shown,
            [
                "Name=gpu Type=h100 File=/dev/nvidia0 Cores=0-47",
                "Name=gpu Type=h100 File=/dev/nvidia1 Cores=0-47",
                "Name=shard Count=7 File=/dev/nvidia0",
                "Name=shard Count=7 File=/dev/nvidia1",
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let conf = parse(
            "Name=gpu File=nvidia0\n\nName=shard Count=many File=/dev/nvidia0\nfoo",
            &node(),
        );
        assert_eq!(conf.problems.len(), 3, "{:?}", conf.problems);
        assert!(conf.problems[1].starts_with("line 3:"));
    }

    #[test]
    fn minors_above_nine_are_read() {
        assert_eq!(minor("/dev/nvidia11"), Some(11));
        assert_eq!(minor("/dev/nvidia"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(Name|File|Count|NodeName|Type)?=?[\\[\\]0-9,/a-z\\\\ #=\n-]{0,80}") {
            let _ = parse(&text, &node());
        }
    }
}
