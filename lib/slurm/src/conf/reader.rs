//! Slurm's file grammar: which text its programs see after comments,
//! continuation lines, escapes and includes.
//!
//! There are two grammars. slurm.conf, gres.conf and cgroup.conf share one
//! (`src/common/parse_config.c`), plugstack.conf has its own
//! (`src/common/plugstack.c`). Both were compared with slurmctld, slurmd and
//! srun of 22.05.8; where Slurm refuses a file, this reader reads on.
//!
//! Root's hooks read through this, so every input is hostile: depth, files,
//! bytes and lines have limits, and what lies beyond is a [`Problem`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::sysroot::ReadError;
use host::{Sysroot, printable};

use super::glob;

/// Largest file that is read, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;
/// Most bytes of a file and all that it includes.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Most files and includes that are followed for one file.
const MOST_FILES: usize = 512;
/// Most lines of all of them.
const MOST_LINES: usize = 512 * 1024;
/// How deep includes are followed.
const DEEPEST: usize = 16;
/// Most problems that are kept.
const MOST_PROBLEMS: usize = 64;

/// Where texts come from: the disk, or a test's memory.
pub trait Files {
    /// The text of a file; `None` where there is no regular file.
    ///
    /// # Errors
    /// It cannot be read or is too large, for a person.
    fn text(&self, path: &Path) -> Result<Option<String>, String>;

    /// The names in a folder, sorted by bytes; none where it does not exist.
    ///
    /// # Errors
    /// There are too many, for a person.
    fn names(&self, folder: &Path) -> Result<Vec<String>, String>;
}

/// The machine's own files.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn text(&self, path: &Path) -> Result<Option<String>, String> {
        let file = match Sysroot::real().open(&path.to_string_lossy()) {
            Ok(file) => file,
            Err(ReadError::Missing { .. } | ReadError::NotRegular { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut bytes = Vec::new();
        let limit = LARGEST as u64 + 1;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| ReadError::io(path, error).to_string())?;
        if bytes.len() > LARGEST {
            let shown = printable(&path.to_string_lossy(), 300);
            return Err(format!("{shown}: larger than {LARGEST} bytes"));
        }
        // Slurm compares bytes: a comment in Latin-1 is none of its business.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, String> {
        match Sysroot::real().list(&folder.to_string_lossy()) {
            Ok(names) => Ok(names),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Files in memory, by absolute path.
#[derive(Debug, Clone, Default)]
pub struct InMemory(pub BTreeMap<PathBuf, String>);

impl InMemory {
    /// These files.
    #[must_use]
    pub fn new(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| (PathBuf::from(path), (*text).to_owned());
        Self(files.iter().map(owned).collect())
    }
}

impl Files for InMemory {
    fn text(&self, path: &Path) -> Result<Option<String>, String> {
        Ok(self.0.get(path).cloned())
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, String> {
        let below = self.0.keys().filter_map(|path| {
            let first = path.strip_prefix(folder).ok()?.components().next()?;
            first.as_os_str().to_str().map(str::to_owned)
        });
        let mut names: Vec<String> = below.collect();
        names.dedup();
        Ok(names)
    }
}

/// Other files, one of which has the text that it is about to get.
#[derive(Clone, Copy)]
pub struct Overlay<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
    /// All others.
    pub under: &'a dyn Files,
}

impl Files for Overlay<'_> {
    fn text(&self, path: &Path) -> Result<Option<String>, String> {
        if path == self.path {
            return Ok(Some(self.text.to_owned()));
        }
        self.under.text(path)
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, String> {
        self.under.names(folder)
    }
}

/// Whose rules a file follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// slurm.conf, gres.conf and cgroup.conf: `Key=Value`.
    KeyValue,
    /// plugstack.conf: words.
    Plugstack,
}

/// Where a line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, by the path that Slurm would open.
    pub file: Arc<Path>,
    /// Its lines, counted from 0. A continued line has several.
    pub lines: Range<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = printable(&self.file.to_string_lossy(), 300);
        write!(f, "{file} line {}", self.lines.start + 1)
    }
}

/// A line as Slurm's programs see it: joined, without comment and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it is written.
    pub origin: Origin,
    /// Its text, which is not blank.
    pub text: String,
}

/// An include, and what it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// Where it is written.
    pub origin: Origin,
    /// The file or pattern, as written.
    pub pattern: String,
    /// The files that were read for it.
    pub files: Vec<PathBuf>,
}

/// What an include failed with. Its file's lines are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: include {}: {why}", printable(.pattern, 200))]
pub struct Problem {
    /// Where the include is written.
    pub origin: Origin,
    /// The file or pattern.
    pub pattern: String,
    /// The reason.
    pub why: Why,
}

/// Why an include was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// Slurm waits a minute for such a file, then refuses all.
    #[error("there is no such file")]
    Missing,
    /// `%c` where no `ClusterName` is set before.
    #[error("%c is used before ClusterName is set")]
    NoClusterName,
    /// The file includes itself, by way of others or directly.
    #[error("the files include each other in a circle")]
    Circle,
    /// One file in another in another.
    #[error("more than {DEEPEST} files include one another")]
    TooDeep,
    /// Too many files, bytes or lines.
    #[error("more than {MOST_FILES} files and includes, {MOST_BYTES} bytes or {MOST_LINES} lines")]
    TooMuch,
    /// The system's reason.
    #[error("{0}")]
    Unreadable(String),
}

/// Why nothing at all was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfError {
    /// There is no such regular file.
    #[error("{}: no such file", printable(&path.to_string_lossy(), 300))]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The system's reason, or a file without end.
    #[error("{0}")]
    Unreadable(String),
}

/// A file with all that it includes, in the order in which Slurm reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conf {
    /// The lines that are not blank, without the includes themselves.
    pub lines: Vec<Line>,
    /// The includes.
    pub includes: Vec<Include>,
    /// Includes that were not followed.
    pub problems: Vec<Problem>,
}

/// Reads a file and what it includes.
///
/// # Errors
/// The file itself cannot be read. An include that cannot is a [`Problem`].
pub fn read(files: &dyn Files, path: &Path, grammar: Grammar) -> Result<Conf, ConfError> {
    let text = match files.text(path) {
        Ok(Some(text)) => text,
        Ok(None) => {
            let path = path.to_owned();
            return Err(ConfError::Missing { path });
        }
        Err(reason) => return Err(ConfError::Unreadable(reason)),
    };
    let mut walk = Walk {
        files,
        grammar,
        conf: Conf::default(),
        above: Vec::new(),
        cluster: None,
        files_left: MOST_FILES,
        bytes_left: MOST_BYTES,
        lines_left: MOST_LINES,
    };
    walk.file(path, &text).map_err(|why| {
        let shown = printable(&path.to_string_lossy(), 300);
        ConfError::Unreadable(format!("{shown}: {why}"))
    })?;
    Ok(walk.conf)
}

struct Walk<'a> {
    files: &'a dyn Files,
    grammar: Grammar,
    conf: Conf,
    /// The files on the way to the present one, and that one.
    above: Vec<Arc<Path>>,
    /// `ClusterName`, as `%c` shows it.
    cluster: Option<String>,
    files_left: usize,
    bytes_left: usize,
    lines_left: usize,
}

impl Walk<'_> {
    /// Takes in a text, all of it or nothing.
    fn file(&mut self, path: &Path, text: &str) -> Result<(), Why> {
        let bytes = self.bytes_left.checked_sub(text.len());
        let lines = self.lines_left.checked_sub(text.lines().count());
        let (Some(bytes), Some(lines)) = (bytes, lines) else {
            self.files_left = 0;
            return Err(Why::TooMuch);
        };
        (self.bytes_left, self.lines_left) = (bytes, lines);
        let file: Arc<Path> = Arc::from(path);
        self.above.push(Arc::clone(&file));
        for logical in logical(text, self.grammar) {
            let text = logical.text(self.grammar);
            if text.bytes().all(is_space) {
                continue;
            }
            let origin = Origin {
                file: Arc::clone(&file),
                lines: logical.lines,
            };
            match included(&text, self.grammar) {
                Some(pattern) => self.include(origin, pattern),
                None => self.line(origin, text),
            }
        }
        self.above.pop();
        Ok(())
    }

    fn line(&mut self, origin: Origin, text: String) {
        if self.grammar == Grammar::KeyValue
            && let Some((pair, _)) = pair(&text)
            && pair.key.eq_ignore_ascii_case("ClusterName")
        {
            self.cluster = Some(pair.value.to_ascii_lowercase());
        }
        self.conf.lines.push(Line { origin, text });
    }

    fn include(&mut self, origin: Origin, pattern: &str) {
        let at = self.conf.includes.len();
        self.conf.includes.push(Include {
            origin: origin.clone(),
            pattern: pattern.to_owned(),
            files: Vec::new(),
        });
        let paths = self.found(&origin, pattern).unwrap_or_else(|why| {
            self.problem(&origin, pattern, why);
            Vec::new()
        });
        for path in paths {
            match self.one(&path) {
                Ok(true) => {
                    if let Some(include) = self.conf.includes.get_mut(at) {
                        include.files.push(path);
                    }
                }
                Ok(false) => {}
                Err(why) => self.problem(&origin, pattern, why),
            }
        }
    }

    /// The files that an include names, which may not exist.
    fn found(&mut self, origin: &Origin, pattern: &str) -> Result<Vec<PathBuf>, Why> {
        // A pattern costs as much as a file, so that many of them end, too.
        self.files_left = self.files_left.checked_sub(1).ok_or(Why::TooMuch)?;
        let folder = origin.file.parent().unwrap_or(Path::new("/"));
        match self.grammar {
            Grammar::KeyValue if pattern.contains("%c") => {
                let cluster = self.cluster.as_deref().ok_or(Why::NoClusterName)?;
                Ok(vec![folder.join(pattern.replace("%c", cluster))])
            }
            Grammar::KeyValue => Ok(vec![folder.join(pattern)]),
            Grammar::Plugstack => {
                glob::matching(self.files, folder, pattern).map_err(Why::Unreadable)
            }
        }
    }

    /// Reads an included file; `false` where a pattern met something else.
    fn one(&mut self, path: &Path) -> Result<bool, Why> {
        if self.above.iter().any(|above| **above == *path) {
            return Err(Why::Circle);
        }
        if self.above.len() >= DEEPEST {
            return Err(Why::TooDeep);
        }
        self.files_left = self.files_left.checked_sub(1).ok_or(Why::TooMuch)?;
        match self.files.text(path) {
            Ok(Some(text)) => self.file(path, &text)?,
            Ok(None) if self.grammar == Grammar::Plugstack => return Ok(false),
            Ok(None) => return Err(Why::Missing),
            Err(reason) => return Err(Why::Unreadable(reason)),
        }
        Ok(true)
    }

    fn problem(&mut self, origin: &Origin, pattern: &str, why: Why) {
        if self.conf.problems.len() < MOST_PROBLEMS {
            self.conf.problems.push(Problem {
                origin: origin.clone(),
                pattern: pattern.to_owned(),
                why,
            });
        }
    }
}

/// A line of one file: the lines it is written on, joined, without comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// Which lines of the file, counted from 0.
    pub lines: Range<usize>,
    /// Joined, without comment, with its escapes.
    pub written: String,
}

impl Logical {
    /// The text that Slurm looks at.
    #[must_use]
    pub fn text(&self, grammar: Grammar) -> String {
        match grammar {
            Grammar::KeyValue => without_escapes(&self.written),
            Grammar::Plugstack => self.written.clone(),
        }
    }
}

/// The lines of one file as Slurm joins them.
#[must_use]
pub fn logical(text: &str, grammar: Grammar) -> Vec<Logical> {
    let mut physical: Vec<&str> = text.split('\n').collect();
    // Nothing follows the last line break.
    physical.pop_if(|last| last.is_empty());
    let mut all = Vec::new();
    let mut open: Option<Logical> = None;
    for (at, line) in physical.into_iter().enumerate() {
        let bare = without_comment(line, grammar);
        let continued = match grammar {
            Grammar::KeyValue => without_continuation(bare),
            Grammar::Plugstack => None,
        };
        let mut logical = open.take().unwrap_or(Logical {
            lines: at..at,
            written: String::new(),
        });
        logical.lines.end = at + 1;
        logical.written.push_str(continued.unwrap_or(bare));
        match continued {
            Some(_) => open = Some(logical),
            None => all.push(logical),
        }
    }
    all.extend(open);
    all
}

/// Whether the last line of a text asks for another one, which Slurm would join
/// to it.
#[must_use]
pub fn is_continued(line: &str) -> bool {
    without_continuation(without_comment(line, Grammar::KeyValue)).is_some()
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn is_space_char(c: char) -> bool {
    u8::try_from(c).is_ok_and(is_space)
}

/// Up to the comment. A backslash protects `#`, and another backslash; in
/// plugstack.conf nothing does.
fn without_comment(line: &str, grammar: Grammar) -> &str {
    // C's strings end there.
    let line = line.split('\0').next().unwrap_or_default();
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'#' if !escaped => return line.get(..at).unwrap_or(line),
            b'\\' if grammar == Grammar::KeyValue => escaped = !escaped,
            _ => escaped = false,
        }
    }
    line
}

/// What a line ends with an odd number of backslashes, and then blanks, is
/// without the last of them; `None` for any other line.
fn without_continuation(line: &str) -> Option<&str> {
    let line = line.trim_end_matches(is_space_char);
    let before = line.trim_end_matches('\\');
    let is_odd = (line.len() - before.len()) % 2 == 1;
    is_odd.then(|| line.strip_suffix('\\')).flatten()
}

fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

/// What a line includes. In slurm.conf the word starts the line, in any case;
/// in plugstack.conf blanks may precede it, and it is written small.
fn included(text: &str, grammar: Grammar) -> Option<&str> {
    const WORD: &str = "include";
    match grammar {
        Grammar::KeyValue => {
            let (word, rest) = text.split_at_checked(WORD.len())?;
            let is_include = word.eq_ignore_ascii_case(WORD) && rest.starts_with(is_space_char);
            let mut words = rest.split(is_space_char).filter(|it| !it.is_empty());
            is_include.then(|| words.next()).flatten()
        }
        Grammar::Plugstack => {
            let mut words = words(text);
            (words.next()? == WORD).then(|| words.next()).flatten()
        }
    }
}

/// The words of a line of plugstack.conf. A carriage return belongs to its word.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\n']).filter(|it| !it.is_empty())
}

/// `Key=Value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// As written; Slurm compares without regard to case.
    pub key: &'a str,
    /// Without its quotes.
    pub value: &'a str,
}

/// The pair that a text starts with, and what follows.
///
/// Blanks may surround `=`. A value in quotes may contain blanks, and ends at
/// the next blank after the quote; where it does not, the quotes are part of a
/// value without blanks.
#[must_use]
pub fn pair(text: &str) -> Option<(Pair<'_>, &str)> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let text = text.trim_start_matches(is_space_char);
    let after = text.trim_start_matches(is_key);
    let key = text.strip_suffix(after).filter(|key| !key.is_empty())?;
    let after = after.trim_start_matches(is_space_char);
    let after = after.strip_prefix(['-', '+', '*', '/']).unwrap_or(after);
    let after = after.strip_prefix('=')?.trim_start_matches(is_space_char);
    if let Some((value, rest)) = after.strip_prefix('"').and_then(|it| it.split_once('"'))
        && (rest.is_empty() || rest.starts_with(is_space_char))
    {
        return Some((Pair { key, value }, rest));
    }
    let end = after.find(is_space_char).unwrap_or(after.len());
    let (value, rest) = after.split_at_checked(end)?;
    (!value.is_empty()).then_some((Pair { key, value }, rest))
}

/// All pairs of a line, and what follows the last without being one.
#[must_use]
pub fn pairs(text: &str) -> (Vec<Pair<'_>>, &str) {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((pair, after)) = pair(rest) {
        all.push(pair);
        rest = after;
    }
    (all, rest.trim_matches(is_space_char))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAIN: &str = "/etc/slurm/slurm.conf";

    fn conf(files: &[(&str, &str)], grammar: Grammar) -> Conf {
        read(&InMemory::new(files), Path::new(files[0].0), grammar).unwrap()
    }

    fn texts(files: &[(&str, &str)], grammar: Grammar) -> Vec<String> {
        let lines = conf(files, grammar).lines;
        lines.into_iter().map(|line| line.text).collect()
    }

    fn slurm(text: &str) -> Vec<String> {
        texts(&[(MAIN, text)], Grammar::KeyValue)
    }

    #[test]
    fn a_line_goes_on_after_a_backslash_and_any_blanks() {
        assert_eq!(slurm("A=1,\\\n2\n"), ["A=1,2"]);
        assert_eq!(slurm("A=1,\\ \t\n2\n"), ["A=1,2"]);
        assert_eq!(slurm("A=1,\\\r\n2\r\n"), ["A=1,2\r"]);
        assert_eq!(slurm("A=1,\\ # why\n2\n"), ["A=1,2"]);
    }

    #[test]
    fn two_backslashes_at_the_end_are_one_and_the_line_ends() {
        assert_eq!(slurm("A=1\\\\\nB=2"), ["A=1\\", "B=2"]);
    }

    #[test]
    fn a_comment_ends_with_its_line_even_after_a_backslash() {
        assert_eq!(slurm("# a \\\nA=1"), ["A=1"]);
        assert_eq!(slurm("A=1 # b \\\nB=2"), ["A=1 ", "B=2"]);
    }

    #[test]
    fn a_backslash_protects_a_hash_sign() {
        assert_eq!(slurm("A=\\#1 \\\\#2"), ["A=#1 \\"]);
    }

    #[test]
    fn the_origin_of_a_line_names_its_file_and_first_line() {
        let files = [(MAIN, "\nA=1,\\\n2\nB=3"), ("/x", "")];
        let lines = conf(&files, Grammar::KeyValue).lines;
        assert_eq!(lines[0].origin.to_string(), "/etc/slurm/slurm.conf line 2");
        assert_eq!(lines[0].origin.lines, 1..3);
        assert_eq!(lines[1].origin.lines, 3..4);
    }

    #[test]
    fn an_include_is_read_in_its_place_from_the_folder_of_its_own_file() {
        let files = [
            (MAIN, "A=1\ninclude d/a.conf\nINCLUDE /abs.conf\nB=2"),
            ("/etc/slurm/d/a.conf", "A=2\ninclude b.conf"),
            ("/etc/slurm/d/b.conf", "A=3"),
            ("/etc/slurm/b.conf", "A=wrong"),
            ("/abs.conf", "A=4"),
        ];
        let want = ["A=1", "A=2", "A=3", "A=4", "B=2"];
        assert_eq!(texts(&files, Grammar::KeyValue), want);
    }

    #[test]
    fn a_percent_c_is_the_name_of_the_cluster_in_small_letters() {
        let files = [
            (MAIN, "ClusterName=TestC\nInclude %c_site.conf"),
            ("/etc/slurm/testc_site.conf", "A=1"),
            ("/etc/slurm/TestC_site.conf", "A=wrong"),
        ];
        assert_eq!(
            texts(&files, Grammar::KeyValue),
            ["ClusterName=TestC", "A=1"]
        );
        let early = conf(&[(MAIN, "include %c\nClusterName=c")], Grammar::KeyValue);
        assert_eq!(early.problems[0].why, Why::NoClusterName);
    }

    #[test]
    fn slurm_conf_takes_no_pattern_and_no_include_after_blanks() {
        let files = [
            (MAIN, "include ?.conf\n include a.conf"),
            ("/etc/slurm/a.conf", "A=1"),
        ];
        let conf = conf(&files, Grammar::KeyValue);
        assert_eq!(conf.problems[0].why, Why::Missing);
        assert_eq!(conf.lines[0].text, " include a.conf");
    }

    #[test]
    fn plugstack_conf_takes_any_pattern_and_no_continuation() {
        let files = [
            (
                "/p/plugstack.conf",
                "  include ps.d/[0-9]*.conf # x\nInclude a\na \\\nb",
            ),
            ("/p/ps.d/10-a.conf", "optional a.so"),
            ("/p/ps.d/b.conf", "optional b.so"),
        ];
        let conf = conf(&files, Grammar::Plugstack);
        let texts: Vec<&str> = conf.lines.iter().map(|line| &*line.text).collect();
        assert_eq!(texts, ["optional a.so", "Include a", "a \\", "b"]);
        assert_eq!(conf.includes[0].files, [Path::new("/p/ps.d/10-a.conf")]);
    }

    #[test]
    fn a_circle_of_includes_is_a_problem_with_file_and_line() {
        let files = [
            (MAIN, "A=1\ninclude b.conf\nC=3"),
            ("/etc/slurm/b.conf", "B=2\n\ninclude slurm.conf"),
        ];
        let conf = conf(&files, Grammar::KeyValue);
        let texts: Vec<&str> = conf.lines.iter().map(|line| &*line.text).collect();
        assert_eq!(texts, ["A=1", "B=2", "C=3"]);
        let problem = conf.problems[0].to_string();
        assert!(
            problem.starts_with("/etc/slurm/b.conf line 3: "),
            "{problem}"
        );
        assert!(problem.contains("circle"), "{problem}");
    }

    #[test]
    fn a_circle_under_ever_new_names_ends_too() {
        struct Fan;
        impl Files for Fan {
            fn text(&self, _: &Path) -> Result<Option<String>, String> {
                Ok(Some("A=1\ninclude d/a\ninclude d/a\n".to_owned()))
            }
            fn names(&self, _: &Path) -> Result<Vec<String>, String> {
                Ok(Vec::new())
            }
        }
        let conf = read(&Fan, Path::new("/a"), Grammar::KeyValue).unwrap();
        assert!(conf.lines.len() <= MOST_FILES);
        assert!(conf.problems.iter().all(|it| it.why == Why::TooDeep));
        assert_eq!(conf.problems.len(), MOST_PROBLEMS);
    }

    #[test]
    fn more_files_than_the_limit_are_a_problem() {
        let main = "include a\n".repeat(MOST_FILES);
        let conf = conf(&[("/m", &main), ("/a", "A=1")], Grammar::KeyValue);
        assert!(conf.lines.len() < MOST_FILES);
        assert_eq!(conf.problems[0].why, Why::TooMuch);
    }

    #[test]
    fn a_missing_file_is_a_problem_and_a_missing_root_an_error() {
        let conf = conf(&[(MAIN, "include none\nA=1")], Grammar::KeyValue);
        assert_eq!(conf.problems[0].why, Why::Missing);
        assert_eq!(conf.lines.len(), 1);
        let nothing = read(&InMemory::default(), Path::new(MAIN), Grammar::KeyValue);
        assert!(matches!(nothing, Err(ConfError::Missing { .. })));
    }

    #[test]
    fn on_disk_a_comment_of_any_bytes_hides_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slurm.conf");
        std::fs::write(&path, b"# gr\xfc\xdfe\nA=1\n").unwrap();
        let conf = read(&Disk, &path, Grammar::KeyValue).unwrap();
        assert_eq!(conf.lines[0].text, "A=1");
        let folder = read(&Disk, dir.path(), Grammar::KeyValue);
        assert!(matches!(folder, Err(ConfError::Missing { .. })));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slurm.conf");
        std::fs::write(&path, vec![b'#'; LARGEST + 1]).unwrap();
        let read = read(&Disk, &path, Grammar::KeyValue);
        assert!(matches!(read, Err(ConfError::Unreadable(_))), "{read:?}");
    }

    #[test]
    fn pairs_are_read_as_slurms_regular_expression_does() {
        let of = |text: &'static str| {
            let (pairs, rest) = pairs(text);
            let pairs: Vec<_> = pairs.into_iter().map(|it| (it.key, it.value)).collect();
            (pairs, rest)
        };
        let spaced = of(" NodeName = n[1-2] Name = shard Count = 4 ");
        let want = vec![("NodeName", "n[1-2]"), ("Name", "shard"), ("Count", "4")];
        assert_eq!(spaced, (want, ""));
        assert_eq!(of("A=\"b c\" D=1"), (vec![("A", "b c"), ("D", "1")], ""));
        assert_eq!(of("A=\"\""), (vec![("A", "")], ""));
        assert_eq!(of("A=\"q\"r"), (vec![("A", "\"q\"r")], ""));
        assert_eq!(of("A=x\"q\""), (vec![("A", "x\"q\"")], ""));
        assert_eq!(of("A=\"b c"), (vec![("A", "\"b")], "c"));
        assert_eq!(of("A+=b"), (vec![("A", "b")], ""));
        assert_eq!(of("A= "), (vec![], "A="));
        assert_eq!(of("word"), (vec![], "word"));
        assert_eq!(of("A=B=c"), (vec![("A", "B=c")], ""));
    }

    proptest! {
        #[test]
        fn any_text_is_read_within_its_limits(
            text in "([iI]nclude )?[a-c%/*=\\\\# \n\"\\[\\]-]{0,60}",
            other in "\\PC{0,40}",
            plugstack in any::<bool>(),
        ) {
            let files = [("/a/b", &*text), ("/a/c", &*other), ("/a/a", &*text)];
            let grammar = if plugstack { Grammar::Plugstack } else { Grammar::KeyValue };
            let conf = conf(&files, grammar);
            prop_assert!(conf.problems.len() <= MOST_PROBLEMS);
            for line in &conf.lines {
                let (_, rest) = pairs(&line.text);
                prop_assert!(line.text.contains(rest));
            }
        }
    }
}
