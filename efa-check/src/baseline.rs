//! How many devices a node shall have: the configuration's word, else what was
//! recorded on this node, else the most that its type can have.

use std::path::Path;

use efa::{InstanceType, instance_types};
use host::printable;
use host::state_dir::{StateDir, Store};
use serde::{Deserialize, Serialize};

use crate::observe::{Observation, Seen};
use crate::settings::Settings;

/// What `efa-check baseline` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The type, so that an image taken from another node is told apart.
    pub instance_type: String,
    /// The devices.
    pub devices: Vec<Known>,
    /// When, in seconds of the wall clock.
    pub recorded_at: u64,
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
    /// The instance table.
    Type,
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
        record: Result<Option<Record>, String>,
    ) -> Self {
        let (record, note) = match record {
            Ok(Some(record)) if instance.is_some_and(|t| t.as_str() != record.instance_type) => {
                let note = format!(
                    "the record is of a {} and not used",
                    printable(&record.instance_type, 40)
                );
                (None, Some(note))
            }
            Ok(record) => (record, None),
            Err(reason) => (None, Some(format!("the record is not used: {reason}"))),
        };
        if let Some(count) = settings.expected_devices(instance.map(InstanceType::as_str)) {
            let source = Source::Configuration;
            let count = Some(count);
            return Self {
                count,
                source,
                note: None,
            };
        }
        if let Some(record) = record {
            return Self {
                count: u32::try_from(record.devices.len()).ok(),
                source: Source::Recorded(record.devices),
                note: None,
            };
        }
        Self {
            count: instance
                .and_then(instance_types::efa_expected)
                .map(u32::from),
            source: Source::Type,
            note,
        }
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
    last: Option<&Record>,
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
    let recorded = last.filter(|last| last.instance_type == record.instance_type);
    let recorded = recorded.map_or(0, |last| last.devices.len());
    let most = instance.as_ref().and_then(instance_types::efa_max);
    let most = most.map_or(0, usize::from);
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
    let shown = printable(&path.to_string_lossy(), 300);
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{shown}: {}", printable(&error.to_string(), 200)))?;
    Ok(Some(record))
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
pub fn record_of(seen: &Observation, unix: u64) -> Result<Record, String> {
    let instance = seen.instance.as_ref().map_err(Clone::clone)?;
    let devices = seen.devices.as_ref().map_err(Clone::clone)?;
    Ok(Record {
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
