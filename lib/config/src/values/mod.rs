//! How values are written in the configuration and on command lines: one
//! grammar for each kind of value.

pub mod duration;
pub mod path;
pub mod size;

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _, IntoDeserializer as _};
use serde::{Deserialize as _, Deserializer};

/// A value that is written as text.
pub(crate) fn of_text<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(D::Error::custom)
}

/// The same for a key that need not be there.
pub(crate) fn optional_of_text<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    of_text(from).map(Some)
}

/// One of several words. Read as text first: what is no text is then named as
/// such, and a word that is none of them with those that are.
pub(crate) fn word<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    T::deserialize(String::deserialize(from)?.into_deserializer())
}

/// The same for a key that need not be there.
pub(crate) fn optional_word<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    word(from).map(Some)
}
