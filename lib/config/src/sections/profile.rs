//! `[profile.NAME]` of the configuration.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::size::{Request, SizeError};
use crate::{ConfigError, File, Value, line_of};
use host::printable;

/// Longest value of an environment variable, in bytes. Linux limits one
/// `NAME=value` to 128 KiB; a longer one would make every exec fail.
const LONGEST_VALUE: usize = 64 * 1024;

const IN_PROFILE: [&str; 6] = ["base", "env", "unset", "devices", "hugepages", "memlock"];

/// Words that `--efa-profile` gives a meaning of their own.
const RESERVED_PROFILES: [&str; 3] = ["auto", "none", "list"];

/// What a profile does about `RLIMIT_MEMLOCK` of the job's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Memlock {
    /// No limit: EFA registers memory with the device, which locks it.
    #[default]
    Unlimited,
    /// What it would be without the profile.
    Unchanged,
}

/// One `[profile.NAME]`, as written. Whether `base` exists and has no cycle is
/// for the reader to check, who knows the built-in profiles.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ProfileConfig {
    /// Line of the profile's name, from 1, for messages.
    pub line: usize,
    /// The profile that this one starts from.
    pub base: Option<String>,
    /// Environment to set.
    pub env: BTreeMap<String, String>,
    /// Environment variables to leave out that `base` would set.
    pub unset: Vec<String>,
    /// How many EFA devices the profile expects.
    pub devices: Option<u32>,
    /// The hugepages on each node of a job that names none itself.
    pub hugepages: Option<Request>,
    /// The limit of locked memory of the job's tasks.
    pub memlock: Option<Memlock>,
}

impl File<'_> {
    pub(crate) fn profile_name(&self, name: &str, offset: usize) -> Result<String, ConfigError> {
        let fits = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits {
            return Ok(name.to_owned());
        }
        let name = printable(name, 80);
        let reason = format!(
            "`{name}` is not a profile name: use 1 to 64 letters, digits, `.`, `_` or `-`, \
             starting with a letter or digit"
        );
        Err(self.error(offset, reason))
    }

    /// The tables of `[profile]`, by name.
    pub(crate) fn profiles(
        &self,
        value: &Value<'_>,
    ) -> Result<BTreeMap<String, ProfileConfig>, ConfigError> {
        let mut profiles = BTreeMap::new();
        for (key, value) in self.table(value)?.iter() {
            let offset = key.span().start;
            let name = self.profile_name(key.get_ref(), offset)?;
            if RESERVED_PROFILES.contains(&name.as_str()) {
                let reason = format!(
                    "a profile cannot be named `{name}`: that word has a meaning of its own"
                );
                return Err(self.error(offset, reason));
            }
            profiles.insert(name, self.profile(offset, self.table(value)?)?);
        }
        Ok(profiles)
    }

    fn profile(&self, offset: usize, table: &DeTable<'_>) -> Result<ProfileConfig, ConfigError> {
        let line = line_of(self.before(offset));
        let mut profile = ProfileConfig {
            line,
            ..ProfileConfig::default()
        };
        for (key, value) in table.iter() {
            match key.get_ref().as_ref() {
                "base" => {
                    profile.base = Some(self.profile_name(self.string(value)?, value.span().start)?)
                }
                "env" => profile.env = self.env(value)?,
                "unset" => profile.unset = self.unset(value)?,
                "devices" => profile.devices = Some(self.count(value)?),
                "hugepages" => profile.hugepages = Some(self.hugepages(value)?),
                "memlock" => profile.memlock = Some(self.memlock(value)?),
                _ => return Err(self.unknown_key(key, &IN_PROFILE)),
            }
        }
        if let Some(name) = profile
            .unset
            .iter()
            .find(|name| profile.env.contains_key(*name))
        {
            return Err(self.error(
                offset,
                format!("profile sets and unsets `{name}`; keep one of the two"),
            ));
        }
        Ok(profile)
    }

    fn env(&self, value: &Value<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut env = BTreeMap::new();
        for (key, value) in self.table(value)?.iter() {
            let name = key.get_ref().as_ref();
            self.env_name(name, key.span().start)?;
            if let Some(why) = not_settable(name) {
                let reason = format!("a profile may not set `{name}`: {why}");
                return Err(self.error(key.span().start, reason));
            }
            let text = self.string(value)?;
            if text.len() > LONGEST_VALUE || text.chars().any(|c| c.is_control() && c != '\t') {
                let reason = format!(
                    "the value of `{name}` has a line break or another control character, \
                     or more than {LONGEST_VALUE} bytes"
                );
                return Err(self.error(value.span().start, reason));
            }
            env.insert(name.to_owned(), text.to_owned());
        }
        Ok(env)
    }

    fn unset(&self, value: &Value<'_>) -> Result<Vec<String>, ConfigError> {
        let array = value.get_ref().as_array();
        let array = array.ok_or_else(|| self.wrong_type(value, "an array of variable names"))?;
        let names = array.iter().map(|value| {
            let name = self.string(value)?;
            self.env_name(name, value.span().start)?;
            Ok(name.to_owned())
        });
        names.collect()
    }

    fn env_name(&self, name: &str, offset: usize) -> Result<(), ConfigError> {
        let fits = name.len() <= 255
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits {
            return Ok(());
        }
        let name = printable(name, 80);
        let reason = format!(
            "`{name}` is not a variable name: use letters, digits and `_`, not starting with a digit"
        );
        Err(self.error(offset, reason))
    }

    fn count(&self, value: &Value<'_>) -> Result<u32, ConfigError> {
        let integer = value.get_ref().as_integer();
        let integer = integer.ok_or_else(|| self.wrong_type(value, "a number of devices"))?;
        u32::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| {
            self.error(
                value.span().start,
                "expected a number of devices from 0 to 4294967295".to_owned(),
            )
        })
    }

    fn hugepages(&self, value: &Value<'_>) -> Result<Request, ConfigError> {
        self.string(value)?
            .parse()
            .map_err(|error: SizeError| self.error(value.span().start, error.to_string()))
    }

    fn memlock(&self, value: &Value<'_>) -> Result<Memlock, ConfigError> {
        match self.string(value)? {
            "unlimited" => Ok(Memlock::Unlimited),
            "unchanged" => Ok(Memlock::Unchanged),
            other => {
                let other = printable(other, 80);
                let reason = format!("`memlock` is `{other}`, expected `unlimited` or `unchanged`");
                Err(self.error(value.span().start, reason))
            }
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
