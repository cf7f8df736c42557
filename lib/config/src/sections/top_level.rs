//! The keys of the configuration that stand in no section.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::profile;
use crate::values::path::NodePath;
use crate::values::word;

/// What happens to a job whose environment is known to abort libfabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Harmful {
    /// It is refused at submission.
    #[default]
    Refuse,
    /// It is submitted with a warning.
    Warn,
}

/// The top level as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TopLevel {
    pub(crate) sysroot: Option<NodePath>,
    pub(crate) state_dir: Option<NodePath>,
    #[serde(deserialize_with = "default_profile")]
    pub(crate) default_profile: Option<String>,
    #[serde(deserialize_with = "word")]
    pub(crate) harmful: Harmful,
    pub(crate) report_dir: Option<NodePath>,
    // What these tables contain is read by their own types.
    profile: Table,
    hugepages: Table,
    health: Table,
    logout: Table,
    gres: Table,
    report: Table,
}

fn default_profile<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let name = profile::name(from)?;
    if name.as_deref() == Some("list") {
        return Err(serde::de::Error::custom(
            "a default profile cannot be `list`: that word prints the profiles",
        ));
    }
    Ok(name)
}

/// Any table.
#[derive(Default)]
struct Table;

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Table {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self)
    }
}
