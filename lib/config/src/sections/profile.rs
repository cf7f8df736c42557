//! `[profile.NAME]` of the configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::ConfigError;
use crate::size::Request;
use crate::source::{Name, Source, Value, line_of};
use crate::values::{optional_of_text, optional_word};
use host::Gather;
use host::printable;

/// Longest value of an environment variable, in bytes. Linux limits one
/// `NAME=value` to 128 KiB; a longer one would make every exec fail.
const LONGEST_VALUE: usize = 64 * 1024;

/// Words that `--efa-profile` gives a meaning of their own.
const RESERVED_PROFILES: [&str; 3] = ["auto", "none", "list"];

/// What a profile does about `RLIMIT_MEMLOCK` of the job's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memlock {
    /// No limit: EFA registers memory with the device, which locks it.
    #[default]
    Unlimited,
    /// What it would be without the profile.
    Unchanged,
}

/// One `[profile.NAME]`, as written. Whether `base` exists and has no cycle is
/// for the reader to check, who knows the built-in profiles.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProfileConfig {
    /// Line of the profile's name, from 1, for messages.
    #[serde(skip)]
    pub line: usize,
    /// The profile that this one starts from.
    #[serde(deserialize_with = "name")]
    pub base: Option<String>,
    /// Environment to set.
    #[serde(deserialize_with = "env")]
    pub env: BTreeMap<String, String>,
    /// Environment variables to leave out that `base` would set.
    #[serde(deserialize_with = "unset")]
    pub unset: Vec<String>,
    /// How many EFA devices the profile expects.
    #[serde(deserialize_with = "count")]
    pub devices: Option<u32>,
    /// The hugepages on each node of a job that names none itself.
    #[serde(deserialize_with = "optional_of_text")]
    pub hugepages: Option<Request>,
    /// The limit of locked memory of the job's tasks.
    #[serde(deserialize_with = "optional_word")]
    pub memlock: Option<Memlock>,
}

impl Source<'_> {
    /// The tables of `[profile]`, by name.
    pub(crate) fn profiles(
        &self,
        value: &Value<'_>,
    ) -> Result<BTreeMap<String, ProfileConfig>, ConfigError> {
        let mut profiles = BTreeMap::new();
        for (key, value) in self.table(value)? {
            let (name, start) = (self.name_of_profile(key)?, key.span().start);
            let profile = self.read(Some(&section(name)), start, value)?;
            profiles.insert(name.to_owned(), self.checked(start, profile)?);
        }
        Ok(profiles)
    }

    /// The profiles that can be used, in part at least, and everything that is
    /// wrong with them.
    pub(crate) fn examine_profiles(
        &self,
        value: &Value<'_>,
    ) -> (BTreeMap<String, ProfileConfig>, Vec<ConfigError>) {
        let (mut profiles, mut problems) = (BTreeMap::new(), Vec::new());
        for (key, value) in value.get_ref().as_table().into_iter().flatten() {
            let start = key.span().start;
            let name = match self.name_of_profile(key) {
                Ok(name) => name,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            let (profile, wrong) = self.problems(Some(&section(name)), start, value.clone());
            problems.extend(wrong);
            match profile.map(|profile| self.checked(start, profile)) {
                Some(Ok(profile)) => drop(profiles.insert(name.to_owned(), profile)),
                Some(Err(error)) => problems.push(error),
                None => {}
            }
        }
        (profiles, problems)
    }

    fn name_of_profile<'k>(&self, key: &'k Name<'_>) -> Result<&'k str, ConfigError> {
        let name: &str = key.get_ref();
        let wrong = |reason| self.error(key.span().start, reason);
        checked_name(name).map_err(wrong)?;
        if RESERVED_PROFILES.contains(&name) {
            return Err(wrong(format!(
                "a profile cannot be named `{name}`: that word has a meaning of its own"
            )));
        }
        Ok(name)
    }

    /// A profile whose name lies at `start`, if its keys agree.
    fn checked(
        &self,
        start: usize,
        mut profile: ProfileConfig,
    ) -> Result<ProfileConfig, ConfigError> {
        if let Some(name) = profile.set_and_unset() {
            let reason = format!("profile sets and unsets `{name}`; keep one of the two");
            return Err(self.error(start, reason));
        }
        profile.line = line_of(self.before(start));
        Ok(profile)
    }
}

/// The section of the profile of this name.
fn section(name: &str) -> String {
    format!("profile.{name}")
}

impl ProfileConfig {
    fn set_and_unset(&self) -> Option<&String> {
        let mut unset = self.unset.iter();
        unset.find(|name| self.env.contains_key(*name))
    }
}

/// The name of a profile that a key names.
pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(from)?;
    checked_name(&name).map_err(Error::custom)?;
    Ok(Some(name))
}

fn checked_name(name: &str) -> Result<(), String> {
    let fits = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a profile name: use 1 to 64 letters, digits, `.`, `_` or `-`, starting with \
         a letter or digit",
        printable(name, 80)
    ))
}

/// The name of an environment variable.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Variable(String);

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By a visitor: an error of one in an array then has its line.
        from.deserialize_str(VariableVisitor)
    }
}

struct VariableVisitor;

impl Visitor<'_> for VariableVisitor {
    type Value = Variable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variable name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Variable, E> {
        let fits = name.len() <= 255
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits {
            return Ok(Variable(name.to_owned()));
        }
        Err(E::custom(format!(
            "`{}` is not a variable name: use letters, digits and `_`, not starting with a digit",
            printable(name, 80)
        )))
    }
}

/// The name of an environment variable that a profile may set.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Settable(String);

impl<'de> Deserialize<'de> for Settable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Variable(name) = Variable::deserialize(from)?;
        match not_settable(&name) {
            Some(why) => Err(Error::custom(format!(
                "a profile may not set `{name}`: {why}"
            ))),
            None => Ok(Self(name)),
        }
    }
}

/// Why a profile may not set this variable, if so.
fn not_settable(name: &str) -> Option<&'static str> {
    match name {
        "LD_PRELOAD" | "LD_AUDIT" => Some("it would load code into every program of the job"),
        "BASH_ENV" | "ENV" => Some("it would run a file at the start of every shell of the job"),
        _ if ["SLURM_", "SLURMD_", "SPANK_"]
            .iter()
            .any(|own| name.starts_with(own)) =>
        {
            Some("names that begin like this belong to Slurm")
        }
        _ => None,
    }
}

/// The value of an environment variable.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() > LONGEST_VALUE || text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Error::custom(format!(
                "the value has a line break or another control character, or more than \
                 {LONGEST_VALUE} bytes"
            )));
        }
        Ok(Self(text))
    }
}

fn env<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<Settable, Text>::deserialize(from)?;
    Ok(env
        .into_iter()
        .map(|(name, text)| (name.0, text.0))
        .gather())
}

fn unset<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<Variable>::deserialize(from)?;
    Ok(names.into_iter().map(|name| name.0).collect())
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let number = i64::deserialize(from)?;
    let count = u32::try_from(number).map_err(|_| {
        let most = u32::MAX;
        Error::custom(format!("{number} is out of range; write 0 to {most}"))
    })?;
    Ok(Some(count))
}
