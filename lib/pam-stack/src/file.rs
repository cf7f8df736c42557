//! One file in `/etc/pam.d`: its lines as libpam joins them, and the rule in
//! each.

use std::ops::Range;

use crate::Phase;
use crate::control::Control;

/// What parts words. A carriage return does not: where a line ends with one, it
/// is a part of its last word.
const BLANKS: [char; 3] = [' ', '\t', '\n'];

/// A line as libpam sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which lines of the file, from 0.
    pub lines: Range<usize>,
    /// Their text, joined, without comment.
    pub text: String,
    /// Its last line asks for another one, and the file ends: libpam then
    /// refuses everybody.
    pub unfinished: bool,
}

/// A line that libpam would not understand, or would not find its way on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUnderstood {
    /// From 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// A rule, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which lines of the file, from 0.
    pub lines: Range<usize>,
    /// What it says.
    pub says: Says,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// `@include FILE`: all of its phases.
    IncludeAll(String),
    /// `PHASE include FILE`: its rules of this phase, as if they were here.
    Include(Phase, String),
    /// `PHASE substack FILE`: the same as one rule, which ends only itself.
    Substack(Phase, String),
    /// A module.
    Module {
        /// What for.
        phase: Phase,
        /// Its control as it is written; a word in lower case.
        written: String,
        /// What that says.
        control: Control,
        /// Its path.
        module: String,
        /// The rest of the line.
        arguments: String,
    },
}

/// The lines of a text (each without its `\n`), without comments, joined where a
/// backslash is the last character. What follows a backslash may be blank lines
/// and comments: libpam goes on to the next line that says something.
#[must_use]
pub fn logical<S: AsRef<str>>(physical: &[S]) -> Vec<Line> {
    let mut all = Vec::new();
    let mut open: Option<Line> = None;
    for (index, line) in physical.iter().enumerate() {
        let (bare, commented) = without_comment(line.as_ref());
        let bare = bare.trim_start_matches(BLANKS);
        let mut here = open.take().unwrap_or_else(|| Line {
            lines: index..index,
            text: String::new(),
            unfinished: false,
        });
        here.lines.end = index + 1;
        if bare.is_empty() {
            match here.unfinished {
                true => open = Some(here),
                false => all.push(here),
            }
            continue;
        }
        // Blanks after the backslash do not count.
        match bare.trim_end_matches(BLANKS).strip_suffix('\\') {
            Some(part) if !commented => {
                here.text.push_str(part);
                // libpam puts a blank in the backslash's place.
                here.text.push(' ');
                here.unfinished = true;
                open = Some(here);
            }
            _ => {
                here.text.push_str(bare);
                here.unfinished = false;
                all.push(here);
            }
        }
    }
    all.extend(open);
    all
}

/// Up to the first `#`, and whether there is one.
fn without_comment(line: &str) -> (&str, bool) {
    match line.split_once('#') {
        Some((before, _)) => (before, true),
        None => (line, false),
    }
}

/// The rules of the lines.
///
/// # Errors
/// The first line that is none.
pub fn rules(lines: &[Line]) -> Result<Vec<Rule>, NotUnderstood> {
    let mut rules = Vec::new();
    for line in lines {
        if line.text.trim_matches(BLANKS).is_empty() {
            continue;
        }
        let says = match line.unfinished {
            true => None,
            false => rule(line.text.trim_matches(BLANKS)),
        };
        let says = says.ok_or_else(|| NotUnderstood {
            line: line.lines.start + 1,
            text: line.text.trim().to_owned(),
        })?;
        rules.push(Rule {
            lines: line.lines.clone(),
            says,
        });
    }
    Ok(rules)
}

/// The rules of a text.
///
/// # Errors
/// The first line that is none.
pub fn read(text: &str) -> Result<Vec<Rule>, NotUnderstood> {
    let lines: Vec<&str> = text.split('\n').collect();
    rules(&logical(&lines))
}

/// `[-]type control module-path arguments`, `@include FILE`.
fn rule(text: &str) -> Option<Says> {
    let (word, rest) = text.split_once(BLANKS)?;
    let rest = rest.trim_matches(BLANKS);
    if word == "@include" {
        let one = !rest.contains(BLANKS) && !rest.is_empty();
        return one.then(|| Says::IncludeAll(rest.to_owned()));
    }
    let phase = phase(word.strip_prefix('-').unwrap_or(word))?;
    let (written, rest) = match rest.starts_with('[') {
        true => rest.split_at(rest.find(']')? + 1),
        false => rest.split_once(BLANKS)?,
    };
    let rest = rest.trim_matches(BLANKS);
    let (target, arguments) = rest.split_once(BLANKS).unwrap_or((rest, ""));
    if target.is_empty() {
        return None;
    }
    // libpam compares the words without regard to case, and answers exactly.
    let written = match written.starts_with('[') {
        true => written.to_owned(),
        false => written.to_ascii_lowercase(),
    };
    let target = target.to_owned();
    Some(match written.as_str() {
        "include" => Says::Include(phase, target),
        "substack" => Says::Substack(phase, target),
        _ => Says::Module {
            phase,
            control: Control::parse(&written)?,
            written,
            module: target,
            arguments: arguments.trim_matches(BLANKS).to_owned(),
        },
    })
}

fn phase(word: &str) -> Option<Phase> {
    const PHASES: [Phase; 4] = [Phase::Auth, Phase::Account, Phase::Password, Phase::Session];
    PHASES
        .into_iter()
        .find(|phase| word.eq_ignore_ascii_case(phase.name()))
}
