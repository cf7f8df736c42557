//! What a file may contain, and what of a file is not so. The shapes of
//! CreateCluster's input are generated (model.rs); those of provisioning
//! parameters are written by hand (provisioning.rs).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use host::printable;
use regex::Regex;

use crate::json::{Node, Value};

/// Longest text of a file that a sentence quotes, in characters.
pub const QUOTED: usize = 80;

/// Longest word that another one is suggested for, in bytes.
const LONGEST_GUESSED: usize = 64;

/// What a value may be.
#[derive(Debug)]
pub enum Shape {
    /// A string.
    Text {
        /// Fewest and most characters.
        length: (u64, u64),
        /// What the whole text must match; empty for any.
        pattern: &'static str,
        /// What it must be one of; empty for any.
        values: &'static [&'static str],
    },
    /// A whole number within bounds.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// A time, as text or number.
    Timestamp,
    /// An array.
    List {
        /// Fewest and most elements.
        length: (u64, u64),
        /// What each is.
        of: &'static Shape,
    },
    /// An object with keys of one's own.
    Map {
        /// Fewest and most keys.
        length: (u64, u64),
        /// What each key is.
        key: &'static Shape,
        /// What each value is.
        value: &'static Shape,
    },
    /// An object with these keys.
    Structure {
        /// Whether exactly one of the keys must be given.
        union: bool,
        /// The keys.
        members: &'static [Member],
    },
    /// Anything.
    Any,
}

/// A key of a structure.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub presence: Presence,
    /// What its value is.
    pub shape: &'static Shape,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// It may be absent.
    Optional,
    /// It may be absent or null.
    Nullable,
}

/// A key that must be there.
pub(crate) const fn required(name: &'static str, shape: &'static Shape) -> Member {
    Member {
        name,
        presence: Presence::Required,
        shape,
    }
}

/// A key that may be absent.
pub(crate) const fn optional(name: &'static str, shape: &'static Shape) -> Member {
    Member {
        name,
        presence: Presence::Optional,
        shape,
    }
}

/// A key that may be absent or null.
pub(crate) const fn nullable(name: &'static str, shape: &'static Shape) -> Member {
    Member {
        name,
        presence: Presence::Nullable,
        shape,
    }
}

/// In what way a value is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A key is missing, or not exactly one of a union is there.
    Required,
    /// It is of another type.
    Type,
    /// A text does not match the pattern.
    Pattern,
    /// A text is none of those that are accepted.
    Choice,
    /// A number, length or count is out of bounds.
    Range,
    /// The key is not known.
    UnknownKey,
}

/// A value that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// In what way.
    pub kind: Kind,
    /// Its JSON pointer (RFC 6901).
    pub pointer: String,
    /// Its place in the file.
    pub offset: usize,
    /// What is wrong.
    pub sentence: String,
}

/// A pointer's last part, escaped as RFC 6901 has it.
#[must_use]
pub fn pointer(parent: &str, key: &str) -> String {
    let key = printable(key, QUOTED);
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// All that is wrong with the shape of `root`.
#[must_use]
pub fn violations(root: &Node, shape: &'static Shape) -> Vec<Violation> {
    let mut judge = Judge::default();
    judge.value(root, shape, "");
    judge.found
}

/// Most violations that are kept: a person reads no more.
const MOST: usize = 1000;

#[derive(Default)]
struct Judge {
    found: Vec<Violation>,
}

/// The patterns that were used, compiled once a process: compiling costs more
/// than everything else.
static PATTERNS: Mutex<BTreeMap<&'static str, Option<Regex>>> = Mutex::new(BTreeMap::new());

/// The pattern as an expression for the whole text; `None` if it is none, which
/// a test excludes.
fn compiled(pattern: &'static str) -> Option<Regex> {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let compile = || Regex::new(&format!(r"\A(?:{pattern})\z")).ok();
    patterns.entry(pattern).or_insert_with(compile).clone()
}

impl Judge {
    fn add(&mut self, kind: Kind, node: &Node, pointer: &str, sentence: String) {
        if self.found.len() < MOST {
            self.found.push(Violation {
                kind,
                pointer: pointer.to_owned(),
                offset: node.offset,
                sentence,
            });
        }
    }

    fn value(&mut self, node: &Node, shape: &'static Shape, at: &str) {
        // Nobody reads more, and a hostile file would cost hours.
        if self.found.len() >= MOST {
            return;
        }
        match (shape, &node.value) {
            (
                Shape::Text {
                    length,
                    pattern,
                    values,
                },
                Value::Text(text),
            ) => {
                self.text(node, at, text, *length, pattern, values);
            }
            (Shape::Integer { min, max }, Value::Integer(number)) => {
                if *number < i128::from(*min) || *number > i128::from(*max) {
                    let bounds = bounds(i128::from(*min), i128::from(*max));
                    self.add(
                        Kind::Range,
                        node,
                        at,
                        format!("{number} is out of range: {bounds}"),
                    );
                }
            }
            (Shape::List { length, of }, Value::List(items)) => {
                self.count(node, at, items.len(), *length, "elements");
                for (index, item) in items.iter().enumerate() {
                    self.value(item, of, &format!("{at}/{index}"));
                }
            }
            (Shape::Map { length, key, value }, Value::Object(members)) => {
                self.count(node, at, members.len(), *length, "keys");
                for (name, member) in members {
                    let at = pointer(at, name);
                    if let Shape::Text {
                        length,
                        pattern,
                        values,
                    } = key
                    {
                        self.text(member, &at, name, *length, pattern, values);
                    }
                    self.value(member, value, &at);
                }
            }
            (Shape::Structure { union, members }, Value::Object(given)) => {
                self.structure(node, at, *union, members, given);
            }
            (Shape::Boolean, Value::Bool(_))
            | (Shape::Timestamp, Value::Text(_) | Value::Integer(_) | Value::Float(_))
            | (Shape::Any, _) => {}
            (_, value) => {
                let hint = match (shape, value) {
                    (Shape::Integer { .. }, Value::Text(text)) if text.parse::<i64>().is_ok() => {
                        format!(": write {text} without quotes")
                    }
                    (Shape::Boolean, Value::Text(text)) if text == "true" || text == "false" => {
                        format!(": write {text} without quotes")
                    }
                    (Shape::Text { .. }, Value::Integer(number)) => {
                        format!(": write \"{number}\" with quotes")
                    }
                    _ => String::new(),
                };
                let sentence = format!("this is {}, not {}{hint}", value.kind(), kind(shape));
                self.add(Kind::Type, node, at, sentence);
            }
        }
    }

    fn structure(
        &mut self,
        node: &Node,
        at: &str,
        union: bool,
        members: &'static [Member],
        given: &[(String, Node)],
    ) {
        for member in members {
            let is_given = given.iter().any(|(name, _)| name == member.name);
            if member.presence == Presence::Required && !is_given {
                let sentence = format!("the required key {} is missing", member.name);
                self.add(Kind::Required, node, at, sentence);
            }
        }
        if union && given.len() != 1 {
            let names: Vec<&str> = members.iter().map(|member| member.name).collect();
            let names = names.join(", ");
            let count = given.len();
            let sentence = format!("exactly one of {names} is required, and {count} are given");
            self.add(Kind::Required, node, at, sentence);
        }
        for (name, value) in given.iter().take(MOST) {
            let at = pointer(at, name);
            match members.iter().find(|member| member.name == name) {
                Some(member)
                    if member.presence == Presence::Nullable && value.value == Value::Null => {}
                Some(member) => self.value(value, member.shape, &at),
                None => {
                    let known = members.iter().map(|member| member.name);
                    let sentence = format!(
                        "the key \"{}\" is not known here{}",
                        printable(name, QUOTED),
                        suggestion(name, known)
                    );
                    self.add(Kind::UnknownKey, value, &at, sentence);
                }
            }
        }
    }

    fn text(
        &mut self,
        node: &Node,
        at: &str,
        text: &str,
        length: (u64, u64),
        pattern: &'static str,
        values: &'static [&'static str],
    ) {
        let shown = printable(text, QUOTED);
        if !values.is_empty() {
            if !values.contains(&text) {
                let nearest = suggestion(text, values.iter().copied());
                let mut sentence = format!("\"{shown}\" is not accepted here{nearest}");
                if values.len() <= 5 {
                    let _ = write!(sentence, "; it must be one of {}", values.join(", "));
                }
                self.add(Kind::Choice, node, at, sentence);
            }
            return;
        }
        self.count(node, at, text.chars().count(), length, "characters");
        if pattern.is_empty() || text.len() > MOST_MATCHED {
            return;
        }
        if compiled(pattern).is_some_and(|regex| !regex.is_match(text)) {
            let sentence = format!("\"{shown}\" does not match the pattern {pattern}");
            self.add(Kind::Pattern, node, at, sentence);
        }
    }

    fn count(&mut self, node: &Node, at: &str, count: usize, length: (u64, u64), what: &str) {
        let (min, max) = length;
        let count = count as u64;
        if count < min || count > max {
            let bounds = bounds(i128::from(min), i128::from(max));
            let sentence = format!("the number of {what} is {count}, not {bounds}");
            self.add(Kind::Range, node, at, sentence);
        }
    }
}

/// Longest text that is matched with a pattern, in bytes; every pattern of the
/// table comes with a smaller limit on the length.
const MOST_MATCHED: usize = 64 * 1024;

fn bounds(min: i128, max: i128) -> String {
    if max >= i128::from(i64::MAX) {
        format!("{min} or more")
    } else {
        format!("from {min} to {max}")
    }
}

fn kind(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text { .. } => "a string",
        Shape::Integer { .. } => "an integer",
        Shape::Boolean => "true or false",
        Shape::Timestamp => "a time",
        Shape::List { .. } => "a list",
        Shape::Map { .. } | Shape::Structure { .. } => "an object",
        Shape::Any => "a value",
    }
}

/// `; did you mean …?`, or nothing where nothing is near.
pub fn suggestion<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    // The comparison takes time and memory by the product of both lengths.
    if word.len() > LONGEST_GUESSED {
        return String::new();
    }
    let lower = word.to_lowercase();
    let distance = |key: &str| strsim::damerau_levenshtein(&lower, &key.to_lowercase());
    known
        .map(|key| (distance(key), key))
        .filter(|(distance, key)| *distance <= (key.len() / 3).max(1))
        .min()
        .map_or_else(String::new, |(_, key)| format!("; did you mean {key}?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;
    use crate::model::CREATE_CLUSTER;

    fn judged(text: &str) -> Vec<(Kind, String, String)> {
        let document = Document::parse(text.to_owned()).unwrap();
        violations(&document.root, &CREATE_CLUSTER)
            .into_iter()
            .map(|it| (it.kind, it.pointer, it.sentence))
            .collect()
    }

    fn only(text: &str) -> (Kind, String, String) {
        let mut all = judged(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn a_missing_key_a_wrong_type_and_a_wrong_value_are_told_apart() {
        let (kind, at, sentence) = only("{}");
        assert_eq!((kind, at.as_str()), (Kind::Required, ""));
        assert_eq!(sentence, "the required key ClusterName is missing");
        assert_eq!(only(r#"{"ClusterName": "a_b"}"#).0, Kind::Pattern);
        assert_eq!(
            only(&format!(r#"{{"ClusterName": "{}"}}"#, "a".repeat(64))).0,
            Kind::Range
        );
        let recovery = only(r#"{"ClusterName": "a", "NodeRecovery": "automatic"}"#);
        assert_eq!(
            (recovery.0, recovery.1.as_str()),
            (Kind::Choice, "/NodeRecovery")
        );
        assert!(
            recovery.2.contains("did you mean Automatic?"),
            "{}",
            recovery.2
        );
    }

    #[test]
    fn a_number_in_quotes_is_said_to_be_without() {
        let text = r#"{"ClusterName": "a", "InstanceGroups": [{"InstanceCount": "16",
            "InstanceGroupName": "g", "ExecutionRole": "arn:aws:iam::123456789012:role/x"}]}"#;
        let (kind, at, sentence) = only(text);
        assert_eq!(kind, Kind::Type);
        assert_eq!(at, "/InstanceGroups/0/InstanceCount");
        assert_eq!(
            sentence,
            "this is a string, not an integer: write 16 without quotes"
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let (kind, at, sentence) = only(r#"{"ClusterName": "a", "instanceGroup/~s": []}"#);
        assert_eq!(
            (kind, at.as_str()),
            (Kind::UnknownKey, "/instanceGroup~1~0s")
        );
        assert!(
            sentence.contains("did you mean InstanceGroups?"),
            "{sentence}"
        );
    }

    #[test]
    fn every_pattern_of_the_model_compiles() {
        fn visit(shape: &'static Shape, seen: &mut usize) {
            match shape {
                Shape::Text { pattern, .. } => {
                    *seen += 1;
                    let regex = Regex::new(&format!(r"\A(?:{pattern})\z"));
                    assert!(regex.is_ok(), "{pattern}: {regex:?}");
                }
                Shape::List { of, .. } => visit(of, seen),
                Shape::Map { key, value, .. } => {
                    visit(key, seen);
                    visit(value, seen);
                }
                Shape::Structure { members, .. } => {
                    members.iter().for_each(|it| visit(it.shape, seen));
                }
                _ => {}
            }
        }
        let mut seen = 0;
        visit(&CREATE_CLUSTER, &mut seen);
        assert!(seen > 40, "{seen}");
    }
}
