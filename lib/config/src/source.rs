//! The text of a configuration: how it is read, and where in it something is
//! wrong.

use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use crate::error::ConfigError;
use crate::keys;
use host::printable;
use host::trust;
use host::trust::TrustError;

/// Largest configuration that is read, in bytes.
pub(crate) const LARGEST: u64 = 1024 * 1024;

pub(crate) type Value<'a> = Spanned<DeValue<'a>>;
pub(crate) type Name<'a> = Spanned<DeString<'a>>;

/// The file being parsed, for messages.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// The text before `offset`.
    pub(crate) fn before(&self, offset: usize) -> &[u8] {
        let bytes = self.text.as_bytes();
        bytes.get(..offset).unwrap_or(bytes)
    }

    pub(crate) fn error(&self, offset: usize, reason: String) -> ConfigError {
        let before = self.before(offset);
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |newline| newline + 1);
        // Characters, not bytes: UTF-8's continuation bytes do not count.
        let column = before[line_start..]
            .iter()
            .filter(|b| **b & 0xc0 != 0x80)
            .count()
            + 1;
        ConfigError::Invalid {
            path: self.path.to_owned(),
            line: line_of(before),
            column,
            reason,
        }
    }

    pub(crate) fn toml_error(&self, error: &toml::de::Error, otherwise: usize) -> ConfigError {
        let offset = error.span().map_or(otherwise, |span| span.start);
        self.error(offset, printable(error.message(), 300))
    }

    /// A table of the file as its type. The top level is a table without a
    /// name; what has no place of its own is wrong at `start`.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        name: Option<&str>,
        start: usize,
        value: &Value<'_>,
    ) -> Result<T, ConfigError> {
        let wrong = |(offset, reason)| self.error(offset, reason);
        self.read_at(name, start, value).map_err(wrong)
    }

    /// What is wrong with such a table, one problem for each key at most.
    pub(crate) fn problems<T: DeserializeOwned>(
        &self,
        name: Option<&str>,
        start: usize,
        mut value: Value<'_>,
    ) -> (Option<T>, Vec<ConfigError>) {
        let mut problems = Vec::new();
        loop {
            let (offset, reason) = match self.read_at(name, start, &value) {
                Ok(read) => return (Some(read), problems),
                Err(wrong) => wrong,
            };
            problems.push(self.error(offset, reason));
            // Without the key that is wrong, the next one shows. Each round takes
            // one away, so there are as many as keys.
            if !keys::remove_at(&mut value, offset) {
                return (None, problems);
            }
        }
    }

    /// As [`Self::read`]; an error is its offset and the reason.
    fn read_at<T: DeserializeOwned>(
        &self,
        name: Option<&str>,
        start: usize,
        value: &Value<'_>,
    ) -> Result<T, (usize, String)> {
        let table = table_of(value)?;
        let within = name.map_or_else(String::new, |name| format!("[{}] ", printable(name, 80)));
        let known = keys::of::<T>();
        let is_unknown = |key: &&Spanned<_>| !known.contains(&AsRef::<str>::as_ref(key.get_ref()));
        // A type that names no keys knows them itself.
        if let Some(key) = table.keys().find(is_unknown).filter(|_| !known.is_empty()) {
            let reason = unknown_key(key.get_ref(), known);
            return Err((key.span().start, format!("{within}{reason}")));
        }
        T::deserialize(ValueDeserializer::from(value.clone())).map_err(|error| {
            let offset = error.span().map_or(start, |span| span.start);
            let reason = printable(error.message(), 300);
            let reason = match keys::at(table, offset) {
                Some(wrong) => format!("{within}`{}`: {reason}", printable(&wrong, 80)),
                None => format!("{within}{reason}"),
            };
            (offset, reason)
        })
    }

    pub(crate) fn table<'v, 'i>(
        &self,
        value: &'v Value<'i>,
    ) -> Result<&'v DeTable<'i>, ConfigError> {
        table_of(value).map_err(|(offset, reason)| self.error(offset, reason))
    }
}

fn table_of<'v, 'i>(value: &'v Value<'i>) -> Result<&'v DeTable<'i>, (usize, String)> {
    let found = value.get_ref().type_str();
    let table = value.get_ref().as_table();
    table.ok_or_else(|| {
        (
            value.span().start,
            format!("expected a table, found {found}"),
        )
    })
}

fn unknown_key(name: &str, known: &[&str]) -> String {
    let suggestion = keys::suggestion(name, known);
    format!("unknown key `{}`, {suggestion}", printable(name, 80))
}

/// The line that `before` ends in, from 1.
pub(crate) fn line_of(before: &[u8]) -> usize {
    before.iter().filter(|b| **b == b'\n').count() + 1
}

/// Reads the file if it, and every directory above it, can be trusted.
pub(crate) fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ConfigError::Missing {
            path: path.to_owned(),
        },
        _ => ConfigError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let untrusted = |reason: String| ConfigError::Untrusted {
        path: path.to_owned(),
        reason,
    };

    let file = trust::open_linked_file(path).map_err(|error| match error {
        TrustError::Missing { .. } => ConfigError::Missing {
            path: path.to_owned(),
        },
        TrustError::Untrusted { .. } => untrusted(error.reason(path)),
        TrustError::Io { source, .. } => io_error(source),
        other => io_error(io::Error::other(other)),
    })?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() as u64 > LARGEST {
        return Err(untrusted(format!("it is larger than {LARGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..offset]);
        Source { path, text: &text }.error(offset, "not UTF-8 text from here on".to_owned())
    })
}
