//! JSON with the place of every value, so that whatever is said of a file names
//! its line and column. The grammar, its depth limit (128) and its errors are
//! serde_json's; this adds places, the refusal of a key that comes twice, and
//! bounds on what is kept.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};

use host::printable;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Largest file that is read, in bytes: create-cluster's input has at most some
/// hundred kilobytes, a list of 6,758 instances about two megabytes.
pub const LARGEST: usize = 16 * 1024 * 1024;

/// Most values of a file.
const MOST_VALUES: usize = 1_000_000;

/// Longest text of the file that an error quotes, in characters.
const QUOTED: usize = 80;

/// A place in a file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The byte in the line, as serde_json counts columns.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct JsonError {
    /// Where.
    pub place: Place,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its first byte in the text.
    pub offset: usize,
}

/// A JSON value whose parts have places.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer, at most 64 bits wide.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object, in the order of the text; no key comes twice.
    Object(Vec<(String, Node)>),
}

impl Value {
    /// What kind of value it is, as a person calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction or an exponent",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl Node {
    /// The value of a key; `None` if it is no object or lacks the key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Object(members) = &self.value else {
            return None;
        };
        let found = members.iter().find(|(name, _)| name == key);
        found.map(|(_, node)| node)
    }

    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it has the same values as another one, wherever they lie; the
    /// order of keys does not count.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                let theirs: HashMap<&str, &Self> =
                    b.iter().map(|(key, node)| (key.as_str(), node)).collect();
                let same = |(key, a): &(String, Self)| {
                    theirs.get(key.as_str()).is_some_and(|b| a.is_same(b))
                };
                a.len() == b.len() && a.iter().all(same)
            }
            (a, b) => a == b,
        }
    }

    /// The elements of a list; none if it is not one.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }
}

/// A file's text and its values.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where each line begins.
    lines: Vec<usize>,
    /// The outermost value.
    pub root: Node,
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// It is too large or not JSON, or a key of an object comes twice.
    pub fn parse(text: String) -> Result<Self, JsonError> {
        let start = Place { line: 1, column: 1 };
        let refuse = |reason: String| {
            Err(JsonError {
                place: start,
                reason,
            })
        };
        if text.len() > LARGEST {
            return refuse(format!("the file is larger than {LARGEST} bytes"));
        }
        if text.starts_with('\u{feff}') {
            return refuse(
                "the file begins with a byte order mark, which the AWS CLI refuses; save it as \
                 UTF-8 without BOM"
                    .to_owned(),
            );
        }
        if text.trim_ascii().is_empty() {
            return refuse("the file is empty".to_owned());
        }
        let root = parse(&text)?;
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = breaks.map(|(at, _)| at + 1);
        Ok(Self {
            lines: std::iter::once(0).chain(lines).collect(),
            root,
        })
    }

    /// The place of a byte of the text.
    #[must_use]
    pub fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied();
        Place {
            line,
            column: offset - start.unwrap_or(0) + 1,
        }
    }
}

fn parse(text: &str) -> Result<Node, JsonError> {
    let state = State {
        text,
        read: Cell::new(0),
        values: Cell::new(0),
    };
    let mut deserializer = serde_json::Deserializer::from_reader(Counted(&state));
    let start = At::Next(&state);
    let parsed = start
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node));
    parsed.map_err(|error| {
        let place = Place {
            line: error.line().max(1),
            column: error.column().max(1),
        };
        let said = error.to_string();
        let reason = said.split(" at line ").next().unwrap_or_default();
        JsonError {
            place,
            reason: match reason.strip_prefix(OWN) {
                Some(reason) => reason.to_owned(),
                None if reason == "recursion limit exceeded" => {
                    "lists and objects lie more than 128 deep in one another".to_owned()
                }
                None => format!("not JSON: {}", printable(reason, 200)),
            },
        }
    })
}

/// What an error of this file begins with, to know it from serde_json's own.
const OWN: &str = "\u{1}";

/// What a reading has come to.
struct State<'t> {
    text: &'t str,
    /// Bytes that serde_json has asked for. It asks for one at a time and is at
    /// most one ahead.
    read: Cell<usize>,
    values: Cell<usize>,
}

/// The text, one byte at a time.
struct Counted<'s, 't>(&'s State<'t>);

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.0.read.get();
        let (Some(byte), Some(room)) = (self.0.text.as_bytes().get(at), buffer.first_mut()) else {
            return Ok(0);
        };
        *room = *byte;
        self.0.read.set(at + 1);
        Ok(1)
    }
}

/// Where the value begins that is read next.
#[derive(Clone, Copy)]
enum At<'s, 't> {
    /// After what has been read, and blanks.
    Next(&'s State<'t>),
    /// With the last byte that has been read.
    Peeked(&'s State<'t>),
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let (state, offset) = match self {
            Self::Next(state) => {
                let rest = state.text.as_bytes().get(state.read.get()..);
                let rest = rest.unwrap_or_default();
                let blanks = rest.iter().take_while(|byte| b" \t\r\n".contains(byte));
                (state, state.read.get() + blanks.count())
            }
            Self::Peeked(state) => (state, state.read.get().saturating_sub(1)),
        };
        state.values.set(state.values.get() + 1);
        if state.values.get() > MOST_VALUES {
            let reason = format!("{OWN}there are more than {MOST_VALUES} values");
            return Err(de::Error::custom(reason));
        }
        let value = deserializer.deserialize_any(Builder(state))?;
        Ok(Node { value, offset })
    }
}

struct Builder<'s, 't>(&'s State<'t>);

impl<'de> Visitor<'de> for Builder<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        // The comma was read, and the first byte of the element.
        while let Some(item) = access.next_element_seed(At::Peeked(self.0))? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Node)> = Vec::new();
        let mut keys = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom(format!(
                    "{OWN}the key \"{}\" comes twice in one object; readers differ in which of \
                     the two they use",
                    printable(&key, QUOTED)
                )));
            }
            // Exactly the colon was read.
            let node = access.next_value_seed(At::Next(self.0))?;
            members.push((key, node));
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Document, JsonError> {
        Document::parse(text.to_owned())
    }

    fn error(text: &str) -> (usize, usize, String) {
        let error = parse(text).unwrap_err();
        (error.place.line, error.place.column, error.reason)
    }

    /// What the text has at the offset of each value, in order.
    fn starts<'t>(text: &'t str, node: &Node, all: &mut Vec<&'t str>) {
        all.push(&text[node.offset..]);
        match &node.value {
            Value::List(items) => items.iter().for_each(|it| starts(text, it, all)),
            Value::Object(members) => members.iter().for_each(|it| starts(text, &it.1, all)),
            _ => {}
        }
    }

    #[test]
    fn every_value_knows_where_it_begins() {
        let text =
            " {\"a\\u0041\" : [ 12 ,\n \"x\",{ } , [true]],\"b\"\n:\n -1.5e3 , \"c\":null}\n";
        let document = parse(text).unwrap();
        let mut all = Vec::new();
        starts(text, &document.root, &mut all);
        for (found, begins) in all.iter().zip([
            "{\"a", "[ 12", "12 ", "\"x\"", "{ }", "[true", "true", "-1.5", "null",
        ]) {
            assert!(found.starts_with(begins), "{found} for {begins}");
        }
        assert_eq!(all.len(), 9);
        let number = document.root.get("b").unwrap();
        assert_eq!(document.place(number.offset), Place { line: 4, column: 2 });
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_with_its_line() {
        let (line, _, reason) = error("{\"A\": 1,\n \"B\": 2,\n \"\\u0041\": 3}");
        assert_eq!(line, 3);
        assert!(reason.starts_with("the key \"A\" comes twice"), "{reason}");
    }

    #[test]
    fn a_file_that_is_not_json_is_refused_with_line_and_column() {
        let (line, column, reason) = error("{\n \"a\": 1,\n}");
        assert_eq!((line, column), (3, 1), "{reason}");
        assert_eq!(reason, "not JSON: trailing comma");
        assert_eq!(error("{} x").1, 4);
        for text in [
            "",
            " \n",
            "{",
            "[1,]",
            "nul",
            "{\"a\" 1}",
            "\"\u{1}\"",
            "01",
            "1e999",
        ] {
            let (line, column, reason) = error(text);
            assert!(line >= 1 && column >= 1 && !reason.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        assert!(error("\u{feff}{}").2.contains("byte order mark"));
    }

    #[test]
    fn depth_size_and_number_of_values_have_bounds() {
        let deep = error(&"[".repeat(100_000)).2;
        assert!(deep.contains("more than 128 deep"), "{deep}");
        let objects = error(&"{\"a\":".repeat(100_000)).2;
        assert!(objects.contains("more than 128 deep"), "{objects}");
        let large = error(&" ".repeat(LARGEST + 1)).2;
        assert!(large.contains("larger than"), "{large}");
        let many = error(&format!("[{}0]", "0,".repeat(MOST_VALUES))).2;
        assert!(many.contains("more than 1000000 values"), "{many}");
    }

    proptest! {
        #[test]
        fn a_text_is_read_exactly_if_serde_json_reads_it(text in "[\\[\\]{}\",:01a\\\\ \n-]{0,40}") {
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
            match parse(&text) {
                Ok(document) => {
                    prop_assert!(theirs.is_ok());
                    let mut all = Vec::new();
                    starts(&text, &document.root, &mut all);
                    let blank = all.iter().any(|it| it.starts_with([' ', '\n', ',', ':', ']', '}']));
                    prop_assert!(!blank);
                }
                Err(error) => prop_assert!(theirs.is_err() || error.reason.contains("twice")),
            }
        }
    }
}
