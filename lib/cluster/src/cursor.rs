//! A value of a document, with the pointer that leads to it.

use crate::json::{Node, Value};
use crate::shape::pointer;

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spot {
    /// Its JSON pointer.
    pub pointer: String,
    /// Its first byte in the text.
    pub offset: usize,
}

/// A value that was read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub at: Spot,
}

/// A text of a file.
pub type FoundText = Found<String>;

/// A node and its pointer. What has another type than asked for is absent: the
/// shapes report it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'d> {
    node: &'d Node,
    pointer: String,
}

impl<'d> Cursor<'d> {
    pub(crate) fn root(node: &'d Node) -> Self {
        Self {
            node,
            pointer: String::new(),
        }
    }

    /// The value of a key, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        (node.value != Value::Null).then(|| Self {
            node,
            pointer: pointer(&self.pointer, key),
        })
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Self> {
        let parent = self.pointer.clone();
        let items = self.node.items().iter().enumerate();
        items.map(move |(index, node)| Self {
            node,
            pointer: format!("{parent}/{index}"),
        })
    }

    /// The elements of the list that a key has.
    pub(crate) fn list(&self, key: &str) -> Vec<Self> {
        let list = self.get(key);
        list.map(|list| list.items().collect()).unwrap_or_default()
    }

    pub(crate) fn spot(&self) -> Spot {
        Spot {
            pointer: self.pointer.clone(),
            offset: self.node.offset,
        }
    }

    fn found<T>(&self, value: T) -> Found<T> {
        Found {
            value,
            at: self.spot(),
        }
    }

    pub(crate) fn as_text(&self) -> Option<FoundText> {
        Some(self.found(self.node.text()?.to_owned()))
    }

    pub(crate) fn text(&self, key: &str) -> Option<FoundText> {
        self.get(key)?.as_text()
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<FoundText> {
        let items = self.list(key).into_iter();
        items.filter_map(|item| item.as_text()).collect()
    }

    pub(crate) fn count(&self, key: &str) -> Option<Found<u64>> {
        let cursor = self.get(key)?;
        match cursor.node.value {
            Value::Integer(number) => u64::try_from(number).ok().map(|it| cursor.found(it)),
            _ => None,
        }
    }
}
