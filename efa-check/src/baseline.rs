//! How many devices a node shall have: the configuration's word, else what was
//! recorded on this node, else the most that its type can have.

use std::path::Path;

use efa::{InstanceType, instance_types};
use host::printable;
use host::state_dir::{StateDir, Store};
use serde::{Deserialize, Serialize};

use crate::observe::{Observation, Seen};
use crate::settings::Settings;
use crate::site::Site;

/// The newest form of the record that this release reads and the one that it
/// writes. The first form had no number, no node and no instance.
const VERSION: u32 = 2;

/// What `efa-check baseline` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(default)]
    version: u32,
    /// See [`Identity::node`].
    #[serde(default)]
    node: Option<String>,
    /// See [`Identity::instance_id`].
    #[serde(default)]
    instance_id: Option<String>,
    /// The type, so that an image taken from another node is told apart.
    pub instance_type: String,
    /// The devices.
    pub devices: Vec<Known>,
    /// When, in seconds of the wall clock.
    pub recorded_at: u64,
}

/// Which node this is, by two names that change at different times: an instance
/// is replaced under the same name, and a person may run the program under another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Slurm's name of the node.
    pub node: Option<String>,
    /// EC2's id of the instance.
    pub instance_id: Option<String>,
}

impl Identity {
    /// This node.
    #[must_use]
    pub fn of(site: &Site) -> Self {
        Self {
            node: site.node.as_ref().map(ToString::to_string),
            instance_id: instance_types::instance_id(&site.sysroot),
        }
    }

    /// Whether the two are certain to be different nodes: no name is the same, and
    /// both names of both are known.
    fn is_other_than(&self, here: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.node, &here.node) && differ(&self.instance_id, &here.instance_id)
    }
}

/// A device by name and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The kernel's name.
    pub name: String,
    /// PCI address.
    pub pci: Option<String>,
}

impl Known {
    /// Whether this is that device; names change, places do not.
    #[must_use]
    pub fn is(&self, seen: &Seen) -> bool {
        match (&self.pci, &seen.pci) {
            (Some(mine), Some(its)) => mine == its,
            _ => self.name == seen.name,
        }
    }
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `expected_devices`.
    Configuration,
    /// `efa-check baseline`.
    Recorded(Vec<Known>),
    /// The instance table, because nothing was recorded on this node.
    Type,
    /// The instance table, because what was recorded cannot be read: it may be
    /// another number.
    Unreadable,
}

/// How many devices a node shall have, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The number; `None` where nothing and nobody says one.
    pub count: Option<u32>,
    /// Who says so.
    pub source: Source,
    /// What is wrong with the record, if something is.
    pub note: Option<String>,
}

impl Expectation {
    /// What holds for a node.
    #[must_use]
    pub fn of(
        settings: &Settings,
        instance: Option<&InstanceType>,
        here: &Identity,
        record: Result<Option<Record>, String>,
    ) -> Self {
        if let Some(count) = settings.expected_devices(instance.map(InstanceType::as_str)) {
            return Self {
                count: Some(count),
                source: Source::Configuration,
                note: None,
            };
        }
        let by_type = |source, note| Self {
            count: instance
                .and_then(instance_types::efa_expected)
                .map(u32::from),
            source,
            note,
        };
        match record {
            Ok(Some(record)) => match record.is_foreign(instance, here) {
                Some(note) => by_type(Source::Type, Some(note)),
                None => Self {
                    count: u32::try_from(record.devices.len()).ok(),
                    source: Source::Recorded(record.devices),
                    note: None,
                },
            },
            Ok(None) => by_type(Source::Type, None),
            Err(reason) => by_type(Source::Unreadable, Some(reason)),
        }
    }
}

impl Record {
    fn identity(&self) -> Identity {
        Identity {
            node: self.node.clone(),
            instance_id: self.instance_id.clone(),
        }
    }

    /// Why this is the record of another node, if it is.
    fn is_foreign(&self, instance: Option<&InstanceType>, here: &Identity) -> Option<String> {
        if instance.is_some_and(|t| t.as_str() != self.instance_type) {
            let of = printable(&self.instance_type, 40);
            return Some(format!("the record is of a {of} and not used"));
        }
        if self.identity().is_other_than(here) {
            let of = printable(self.node.as_deref().unwrap_or_default(), 60);
            return Some(format!("the record is of node {of} and not used"));
        }
        None
    }
}

/// Why no record is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `--expect` names another number than there are devices.
    #[error("{have} EFA devices are present, and --expect names {expected}")]
    OtherThanExpected {
        /// What is there.
        have: usize,
        /// What was named.
        expected: u32,
    },
    /// The last record may have more devices.
    #[error("{reason}; if {have} EFA devices are right, run `{command}`")]
    LastUnreadable {
        /// What is there.
        have: usize,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        command: String,
    },
    /// Fewer devices than the node should have, and nobody confirmed the number.
    #[error(
        "{have} EFA devices are present, but {reason}; `efa-check node` names what is missing. \
         If {have} is right, {remedy}"
    )]
    TooFew {
        /// What is there.
        have: usize,
        /// Who says that there should be more.
        reason: String,
        /// What to do if there should not.
        remedy: String,
    },
}

/// Whether `record`, run on a node with some devices missing, would make the
/// broken state the expected one. `command` is what a person types to confirm
/// the number of `record`'s devices.
///
/// # Errors
/// It would.
pub fn confirm(
    record: &Record,
    last: Result<Option<&Record>, &str>,
    expected: Option<u32>,
    settings: &Settings,
    command: &str,
) -> Result<(), Refusal> {
    let have = record.devices.len();
    if let Some(expected) = expected {
        return if have == expected as usize {
            Ok(())
        } else {
            Err(Refusal::OtherThanExpected { have, expected })
        };
    }
    let refuse = |reason: String, remedy: String| {
        Err(Refusal::TooFew {
            have,
            reason,
            remedy,
        })
    };
    let instance: Option<InstanceType> = record.instance_type.parse().ok();
    if let Some(count) = settings.expected_devices(instance.as_ref().map(InstanceType::as_str)) {
        return if have >= count as usize {
            Ok(())
        } else {
            let reason = format!("`expected_devices` in the configuration says {count}");
            refuse(reason, format!("set it to {have}"))
        };
    }
    let confirm = format!("run `{command}`");
    let most = instance.as_ref().and_then(instance_types::efa_max);
    let most = most.map_or(0, usize::from);
    let recorded = match last {
        Ok(last) => last
            .filter(|last| {
                last.is_foreign(instance.as_ref(), &record.identity())
                    .is_none()
            })
            .map_or(0, |last| last.devices.len()),
        // All that the type can have is enough, whatever was recorded.
        Err(_) if most > 0 && have >= most => 0,
        Err(reason) => {
            return Err(Refusal::LastUnreadable {
                have,
                reason: reason.to_owned(),
                command: command.to_owned(),
            });
        }
    };
    if have < recorded {
        return refuse(format!("{recorded} are recorded"), confirm);
    }
    if have < most {
        let reason = format!("a {} can have {most}", record.instance_type);
        return refuse(reason, confirm);
    }
    Ok(())
}

/// Reads the record; `None` where none was made.
///
/// # Errors
/// It is there and cannot be used; the reason, for a person.
pub fn read(path: &Path) -> Result<Option<Record>, String> {
    let (folder, name) = split(path)?;
    let Some(folder) = StateDir::open_existing(folder).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let Some(bytes) = folder.read(name).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    parse(&bytes).map(Some).map_err(|reason| {
        let shown = printable(&path.to_string_lossy(), 200);
        format!("the record {shown} {reason}")
    })
}

/// A record's text; an error is the end of a sentence.
fn parse(bytes: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Form {
        #[serde(default)]
        version: u32,
    }
    let damaged = |error: serde_json::Error| {
        let error = printable(&error.to_string(), 100);
        format!("is damaged ({error})")
    };
    let form: Form = serde_json::from_slice(bytes).map_err(damaged)?;
    if form.version > VERSION {
        return Err(format!(
            "was written by a newer release (version {}, this one reads up to {VERSION})",
            form.version
        ));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Writes the record of a node.
///
/// # Errors
/// The reason, for a person.
pub fn write(path: &Path, record: &Record) -> Result<(), String> {
    let (folder, name) = split(path)?;
    let bytes = serde_json::to_vec_pretty(record).map_err(|error| error.to_string())?;
    StateDir::open(folder)
        .and_then(|mut folder| folder.write(name, &bytes))
        .map_err(|error| error.to_string())
}

/// The record of what was seen.
///
/// # Errors
/// Type or devices are not known.
pub fn record_of(seen: &Observation, of: Identity, unix: u64) -> Result<Record, String> {
    let instance = seen.instance.as_ref().map_err(Clone::clone)?;
    let devices = seen.devices.as_ref().map_err(Clone::clone)?;
    Ok(Record {
        version: VERSION,
        node: of.node,
        instance_id: of.instance_id,
        instance_type: instance.as_str().to_owned(),
        devices: devices
            .iter()
            .map(|device| Known {
                name: device.name.clone(),
                pci: device.pci.clone(),
            })
            .collect(),
        recorded_at: unix,
    })
}

fn split(path: &Path) -> Result<(&Path, &str), String> {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent().zip(name).ok_or_else(|| {
        let shown = printable(&path.to_string_lossy(), 300);
        format!("{shown}: not the path of a file")
    })
}
