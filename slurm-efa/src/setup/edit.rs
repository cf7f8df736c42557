//! The one way in which a file of somebody else's is changed: text to text.
//!
//! A line of ours ends with [`MARK`]. A line of theirs that ours replaces stays
//! where it is, as a comment that begins with [`ASIDE`]. So [`without_ours`]
//! gives back, byte for byte, what was there before, and every change starts
//! from that: made twice, it is the same as made once.
//!
//! `#` begins a comment in slurm.conf and its sisters, in plugstack.conf and in
//! PAM's files, also after text. How their programs read and join lines is known
//! to `slurm::conf::reader` and to [`super::pam`].

use host::printable;
use similar::TextDiff;
use slurm::conf::reader::{self, Grammar, is_continued};

/// What a line of ours ends with.
pub const MARK: &str = "# slurm-efa";

/// What stands in front of a line that ours replaces.
pub const ASIDE: &str = "#slurm-efa# ";

/// The lines of a file, without their line breaks. The text `"a\n"` has two,
/// `a` and nothing, so that an unfinished last line stays unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<String>,
    /// What ours end with besides `\n`: what theirs do.
    carriage: &'static str,
}

impl Lines {
    /// Their lines: those of `text` without what an earlier change of ours did.
    #[must_use]
    pub fn theirs(text: &str) -> Self {
        let first = text.split_inclusive('\n').next().unwrap_or_default();
        let carriage = if first.ends_with("\r\n") { "\r" } else { "" };
        let lines = text.split('\n').filter(|line| !is_ours(line));
        let lines = lines.map(|line| line.strip_prefix(ASIDE).unwrap_or(line).to_owned());
        let lines = lines.collect();
        Self { lines, carriage }
    }

    /// Their lines, and those of ours for which `goes` is false. It is asked with each
    /// line of ours, and with what ours replaced, in one piece.
    #[must_use]
    pub fn without(text: &str, goes: impl Fn(&str) -> bool) -> Self {
        let mut lines = Self::theirs(text);
        lines.lines = sorted(text, goes)
            .into_iter()
            .filter_map(|(line, becomes)| match becomes {
                Becomes::Kept => Some(line),
                Becomes::Theirs => line.strip_prefix(ASIDE),
                Becomes::Gone => None,
            })
            .map(str::to_owned)
            .collect();
        lines
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is nothing but blanks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.trim().is_empty())
    }

    /// Puts a line of ours in front of the line `at`, or behind the last.
    pub fn insert(&mut self, at: usize, line: &str) {
        let line = format!("{line} {MARK}{}", self.carriage);
        self.insert_raw(at, line);
    }

    /// Puts a line of ours at the end. If the last line of theirs asks for more
    /// by a backslash, it gets a line with nothing but a comment.
    pub fn append(&mut self, line: &str) {
        let last = self.lines.iter().rev().find(|line| !line.is_empty());
        if last.is_some_and(|line| is_continued(line)) {
            let mark = format!("{MARK}{}", self.carriage);
            self.insert_raw(usize::MAX, mark);
        }
        self.insert(usize::MAX, line);
    }

    fn insert_raw(&mut self, at: usize, line: String) {
        // The last one is nothing where the text ends with a line break.
        let finished = self.lines.last().is_some_and(String::is_empty);
        let end = self.lines.len() - usize::from(finished);
        let at = at.min(end);
        let mut line = line;
        if at == self.lines.len() && !self.carriage.is_empty() {
            // Ours becomes the unfinished last line, which has none.
            line.truncate(line.len() - self.carriage.len());
        }
        self.lines.insert(at, line);
    }

    /// Makes comments of their lines in `range`.
    pub fn put_aside(&mut self, range: std::ops::Range<usize>) {
        for line in self.lines.iter_mut().take(range.end).skip(range.start) {
            line.insert_str(0, ASIDE);
        }
    }

    /// The lines.
    #[must_use]
    pub fn physical(&self) -> &[String] {
        &self.lines
    }

    /// The text, as it is now.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.lines.join("\n")
    }
}

/// What `text` was before we changed it.
#[must_use]
pub fn without_ours(text: &str) -> String {
    Lines::theirs(text).into_text()
}

/// The lines that [`Lines::without`] takes out or gives back, without line breaks.
#[must_use]
pub fn ours(text: &str, goes: impl Fn(&str) -> bool) -> Vec<&str> {
    let lines = sorted(text, goes).into_iter();
    let ours = lines.filter(|(line, becomes)| *becomes != Becomes::Kept && !is_bare(line));
    ours.map(|(line, _)| line.trim_end_matches('\r')).collect()
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Kept,
    Theirs,
    Gone,
}

/// Each line, and what becomes of it where what `goes` says is taken out.
fn sorted(text: &str, goes: impl Fn(&str) -> bool) -> Vec<(&str, Becomes)> {
    let all: Vec<&str> = text.split('\n').collect();
    let mut sorted: Vec<(&str, Becomes)> = Vec::with_capacity(all.len());
    let mut rest = all.as_slice();
    while let [line, others @ ..] = rest {
        let aside = rest.iter().map_while(|line| line.strip_prefix(ASIDE));
        let aside: Vec<&str> = aside.collect();
        if aside.is_empty() {
            let becomes = match is_ours(line) && goes(line) {
                true => Becomes::Gone,
                false => Becomes::Kept,
            };
            sorted.push((line, becomes));
            rest = others;
            continue;
        }
        let mut becomes = vec![Becomes::Kept; aside.len()];
        for logical in reader::logical(&aside.join("\n"), Grammar::KeyValue) {
            if goes(&logical.written) {
                let lines = becomes.get_mut(logical.lines);
                lines.into_iter().for_each(|it| it.fill(Becomes::Theirs));
            }
        }
        let (lines, others) = rest.split_at(aside.len());
        sorted.extend(lines.iter().copied().zip(becomes));
        rest = others;
    }
    // A bare mark parts theirs from what follows, and goes where nothing does.
    let mut needed = false;
    for (line, becomes) in sorted.iter_mut().rev() {
        if is_bare(line) {
            *becomes = if needed { Becomes::Kept } else { Becomes::Gone };
        } else if !is_ours(line) {
            needed = !line.is_empty();
        } else if *becomes == Becomes::Kept {
            needed = true;
        }
    }
    sorted
}

/// Whether a line is nothing but the mark.
fn is_bare(line: &str) -> bool {
    line.trim_end_matches('\r') == MARK
}

/// Whether something in `text` is ours.
#[must_use]
pub fn has_ours(text: &str) -> bool {
    text.split('\n')
        .any(|line| is_ours(line) || line.starts_with(ASIDE))
}

fn is_ours(line: &str) -> bool {
    // A line put aside may have been anything; it is theirs.
    !line.starts_with(ASIDE) && line.trim_end_matches('\r').ends_with(MARK)
}

/// A unified diff of the file that is shown as `name`; `None` is a file that is not
/// there. Control characters are replaced.
#[must_use]
pub fn diff(name: &str, before: Option<&str>, after: Option<&str>) -> String {
    let header = |text: Option<&str>| text.map_or("/dev/null", |_| name);
    let (from, to) = (before.unwrap_or_default(), after.unwrap_or_default());
    let diff = TextDiff::from_lines(from, to);
    let mut unified = diff.unified_diff();
    let unified = unified.header(header(before), header(after)).to_string();
    let shown = |line: &str| {
        let columns: Vec<String> = line.split('\t').map(|it| printable(it, LONGEST)).collect();
        format!("{}\n", columns.join("\t"))
    };
    unified.lines().map(shown).collect()
}

/// Longest line of a diff that is shown whole, in bytes.
const LONGEST: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slurm::conf::reader::logical;

    fn theirs() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "[ -~]{0,30}",
            Just("PrologFlags=Alloc,\\".to_owned()),
            Just("X11 # why".to_owned()),
            Just("#\\".to_owned()),
            Just("a\\# b".to_owned()),
        ];
        let lines = proptest::collection::vec(line, 0..8);
        (lines, any::<bool>(), any::<bool>()).prop_map(|(lines, crlf, finished)| {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = lines.join(end);
            if finished {
                text.push_str(end);
            }
            text
        })
    }

    fn change(text: &str, at: usize, aside: usize) -> String {
        let mut lines = Lines::theirs(text);
        let aside = aside % lines.len();
        lines.put_aside(aside..aside + 1);
        lines.insert(at, "Ours=1");
        lines.append("Ours=2");
        lines.into_text()
    }

    proptest! {
        #[test]
        fn twice_is_once_and_taking_ours_out_gives_back_every_byte(
            text in theirs(), at in 0..9usize, aside in 0..9usize
        ) {
            let text = without_ours(&text);
            // What somebody wrote with our mark in it is ours from then on.
            prop_assume!(!has_ours(&text));
            let once = change(&text, at, aside);
            prop_assert!(has_ours(&once));
            prop_assert_eq!(change(&once, at, aside), once.clone());
            prop_assert_eq!(without_ours(&once), text);
        }

        #[test]
        fn anything_is_a_text(text in "\\PC*", other in "\\PC*") {
            let _ = diff("/x", Some(&text), Some(&other));
        }
    }

    #[test]
    fn our_lines_end_as_theirs_do_and_an_unfinished_last_line_stays_so() {
        let add = |text: &str| {
            let mut lines = Lines::theirs(text);
            lines.append("B=2");
            lines.into_text()
        };
        assert_eq!(add("A=1\n"), "A=1\nB=2 # slurm-efa\n");
        assert_eq!(add("A=1"), "A=1\nB=2 # slurm-efa");
        assert_eq!(add("A=1\r\n"), "A=1\r\nB=2 # slurm-efa\r\n");
        assert_eq!(add(""), "B=2 # slurm-efa\n");
    }

    #[test]
    fn a_last_line_that_asks_for_more_does_not_get_ours() {
        let mut lines = Lines::theirs("A=1,\\");
        lines.append("B=2");
        let text = lines.into_text();
        assert_eq!(text, "A=1,\\\n# slurm-efa\nB=2 # slurm-efa");
        let seen: Vec<String> = logical(&text, Grammar::KeyValue)
            .iter()
            .map(|line| line.text(Grammar::KeyValue))
            .collect();
        assert_eq!(seen, ["A=1,", "B=2 "]);
    }

    #[test]
    fn blanks_after_the_last_backslash_do_not_join_ours_to_theirs() {
        let mut lines = Lines::theirs("A=1,\\ \n");
        lines.append("B=2");
        let text = lines.into_text();
        assert_eq!(text, "A=1,\\ \n# slurm-efa\nB=2 # slurm-efa\n");
        let joined = logical(&text, Grammar::KeyValue);
        assert_eq!(joined[0].written, "A=1,");
        assert_eq!(joined[1].written, "B=2 ");
    }

    #[test]
    fn a_diff_is_unified_and_has_no_control_characters() {
        let mut lines = Lines::theirs("A=1\nB=1\nC=1\nD=1\nE=1");
        lines.put_aside(0..1);
        lines.insert(1, "A=2");
        let after = lines.into_text();
        let there = diff("/x", Some("A=1\nB=1\nC=1\nD=1\nE=1"), Some(&after));
        let expected = "--- /x\n+++ /x\n@@ -1,4 +1,5 @@\n-A=1\n+#slurm-efa# A=1\n\
                        +A=2 # slurm-efa\n B=1\n C=1\n D=1\n";
        assert_eq!(there, expected);
        let new = diff("/x", None, Some("A=1"));
        let expected = "--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+A=1\n\\ No newline at end of file\n";
        assert_eq!(new, expected);
        let gone = diff("/x", Some("A\u{1b}\t=1\n"), None);
        assert_eq!(
            gone,
            "--- /x\n+++ /dev/null\n@@ -1 +0,0 @@\n-A\\u{1b}\t=1\n"
        );
    }
}
