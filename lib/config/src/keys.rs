//! The keys of a section: which there are, and which one a place in the file
//! belongs to.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest key that another one is suggested for, in bytes.
const LONGEST: usize = 64;

/// The keys of a section's type, as serde knows them; none if it is not a
/// struct.
pub(crate) fn of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // Always an error: nothing is read, only asked for.
    let _ = T::deserialize(Fields(&mut keys));
    keys
}

/// A deserializer that only notes which fields a struct asks for.
struct Fields<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct OnlyAsked;

impl fmt::Display for OnlyAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was read")
    }
}

impl std::error::Error for OnlyAsked {}

impl serde::de::Error for OnlyAsked {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = OnlyAsked;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, OnlyAsked> {
        Err(OnlyAsked)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, OnlyAsked> {
        *self.0 = fields;
        Err(OnlyAsked)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Takes the key whose name or value has this offset out of a table; whether
/// there was one.
pub(crate) fn remove_at(value: &mut Spanned<DeValue<'_>>, offset: usize) -> bool {
    let DeValue::Table(table) = value.get_mut() else {
        return false;
    };
    let covers = |value: &Spanned<DeValue<'_>>| {
        let within = value.get_ref().as_table();
        value.span().contains(&offset) || within.is_some_and(|it| at(it, offset).is_some())
    };
    let found = table
        .iter()
        .find(|(key, value)| key.span().contains(&offset) || covers(value))
        .map(|(key, _)| key.get_ref().to_string());
    found.is_some_and(|key| table.remove(key.as_str()).is_some())
}

/// The key of `table`, and of the tables in it, whose name or value has this
/// offset: `rates.rx_drops`.
pub(crate) fn at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    let below = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let inner = at(value.get_ref().as_table()?, offset)?;
        Some(format!("{}.{inner}", key.get_ref()))
    };
    let is_here = |(key, value): &(&Spanned<_>, &Spanned<_>)| {
        key.span().contains(&offset) || value.span().contains(&offset)
    };
    // A table may be written in several places, and its span is one of them.
    let mut entries = table.iter();
    entries.find_map(below).or_else(|| {
        let (key, _) = table.iter().find(is_here)?;
        Some(key.get_ref().to_string())
    })
}

/// What to say after an unknown key: the one that was meant, or all there are.
pub(crate) fn suggestion(unknown: &str, known: &[&str]) -> String {
    let distance = |key: &str| strsim::damerau_levenshtein(unknown, key);
    // The comparison takes time and memory by the product of both lengths.
    let nearest = known.iter().filter(|_| unknown.len() <= LONGEST);
    match nearest
        .min_by_key(|key| distance(key))
        .filter(|key| distance(key) <= (key.len() / 3).max(1))
    {
        Some(key) => format!("did you mean `{key}`?"),
        None => format!("expected {}", list(known)),
    }
}

fn list(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_nearly_right_gets_the_right_one() {
        let known = ["resume", "resume_after", "hold"];
        assert_eq!(suggestion("resum", &known), "did you mean `resume`?");
        assert_eq!(
            suggestion("xyz", &known),
            "expected `resume`, `resume_after` or `hold`"
        );
    }

    #[test]
    fn a_long_unknown_key_costs_no_time() {
        let long = "x".repeat(500_000);
        assert!(suggestion(&long, &["grace"]).starts_with("expected"));
    }
}
