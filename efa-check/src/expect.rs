//! How many devices a node shall have: the configuration's word, else what was
//! recorded on this node, else the most that its type can have.

use std::path::Path;

use node::state::{StateDir, Store};
use node::{InstanceType, instance, printable};
use serde::{Deserialize, Serialize};

use crate::observe::{Observation, Seen};
use crate::settings::Settings;

/// What `efa-check record` writes.
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
    /// `efa-check record`.
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
                    "the record is of a {} and not used; run `efa-check record`",
                    printable(&record.instance_type, 40)
                );
                (None, Some(note))
            }
            Ok(record) => (record, None),
            Err(reason) => (None, Some(format!("the record is not used: {reason}"))),
        };
        if let Some(count) = settings.expected_devices(instance) {
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
                .and_then(instance::lookup)
                .and_then(|spec| spec.efa_max)
                .map(u32::from),
            source: Source::Type,
            note,
        }
    }
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
