//! What a GPU is divided into, and how that is said.

use std::collections::BTreeMap;

use gpu::inventory::{Instance, MigPlacement, Profile};
use serde::{Deserialize, Serialize};

/// A GPU instance that shall be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Its place.
    pub place: MigPlacement,
    /// Its profile's id.
    pub profile: u32,
    /// Its compute instances; without a place they are made in order.
    pub compute: Vec<Cell>,
}

/// A compute instance that shall be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Its compute slices.
    pub slices: u32,
    /// Where in the GPU instance.
    pub place: Option<MigPlacement>,
}

/// A GPU's layout, in order of place.
pub type Layout = Vec<Slot>;

/// The layout that a GPU has, places and all.
#[must_use]
pub fn layout(instances: &[Instance]) -> Layout {
    let mut slots: Layout = instances
        .iter()
        .map(|instance| Slot {
            place: instance.place,
            profile: instance.profile,
            compute: instance
                .compute
                .iter()
                .map(|compute| Cell {
                    slices: compute.place.size,
                    place: Some(compute.place),
                })
                .collect(),
        })
        .collect();
    slots.sort();
    slots
}

/// A layout without places: what a configuration file can ask for.
pub(super) fn shape(layout: &[Slot]) -> Vec<(u32, Vec<u32>)> {
    let mut shape: Vec<(u32, Vec<u32>)> = layout
        .iter()
        .map(|slot| {
            let mut cells: Vec<u32> = slot.compute.iter().map(|cell| cell.slices).collect();
            cells.sort_unstable();
            (slot.profile, cells)
        })
        .collect();
    shape.sort();
    shape
}

/// Whether a GPU is what was asked for: exactly, where places were given.
pub(super) fn is(now: &[Slot], wanted: &[Slot]) -> bool {
    let placed = wanted
        .iter()
        .all(|slot| slot.compute.iter().all(|cell| cell.place.is_some()));
    if placed {
        return now == wanted;
    }
    shape(now) == shape(wanted)
        && now
            .iter()
            .map(|slot| (slot.place, slot.profile))
            .eq(wanted.iter().map(|slot| (slot.place, slot.profile)))
}

/// A GPU's MIG devices by profile, as a configuration file writes them.
#[must_use]
pub fn devices(instances: &[Instance], profiles: &[Profile]) -> BTreeMap<String, u32> {
    let mut devices = BTreeMap::new();
    for instance in instances {
        let Some(profile) = profiles
            .iter()
            .find(|profile| profile.id == instance.profile)
        else {
            continue;
        };
        for compute in &instance.compute {
            let name = match compute.place.size {
                size if size == profile.slices => profile.name.clone(),
                size => format!("{size}c.{}", profile.name),
            };
            *devices.entry(name).or_insert(0) += 1;
        }
    }
    devices
}

/// A layout for a person: `3g.40gb@0 3g.40gb@4`.
#[must_use]
pub fn words(layout: &[Slot], profiles: &[Profile]) -> String {
    let slots: Vec<String> = layout
        .iter()
        .map(|slot| {
            let name = profiles.iter().find(|profile| profile.id == slot.profile);
            let name =
                name.map_or_else(|| slot.profile.to_string(), |profile| profile.name.clone());
            format!("{name}@{}", slot.place.start)
        })
        .collect();
    if slots.is_empty() {
        "nothing".to_owned()
    } else {
        slots.join(" ")
    }
}
