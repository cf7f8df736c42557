//! How many EFA devices the node should have.

use std::fs;

use super::look::{Look, shown, warning};
use crate::setup::discover::{Site, expectation};

/// The type of this machine, if it can be read.
fn this_type(site: &Site) -> Option<String> {
    let sysroot = site.config.as_ref().ok()?.sysroot(None).ok()?;
    let instance = efa::instance_types::detect(&sysroot).ok()?;
    Some(instance.as_str().to_owned())
}

pub(super) fn recorded(site: &Site) -> Look {
    let instance = this_type(site);
    match site.key("health", "expected_devices") {
        // A number for each type says nothing of a type that it does not name.
        Some(toml::Value::Table(counts)) => {
            let count = instance.as_ref().and_then(|it| counts.get(it.as_str()));
            if let (Some(count), Some(instance)) = (count, &instance) {
                return Ok(format!("expected_devices of {instance} = {count}"));
            }
        }
        Some(count) => return Ok(format!("expected_devices = {count}")),
        None => {}
    }
    let path = expectation(site);
    const RECORD: &str = "while the node is healthy: efa-check baseline";
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return warning(format!("{}: {error}", shown(&path)), RECORD),
    };
    let record: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    // efa-check does not use a record of another type.
    let of = record
        .as_ref()
        .and_then(|it| it.get("instance_type")?.as_str());
    if let (Some(of), Some(instance)) = (of, &instance)
        && of != instance
    {
        return warning(
            format!("{} is of a {of}, and this is a {instance}", shown(&path)),
            RECORD,
        );
    }
    let devices = record
        .as_ref()
        .and_then(|it| Some(it.get("devices")?.as_array()?.len()));
    match devices {
        Some(devices) => Ok(format!("{devices} devices in {}", shown(&path))),
        None => warning(format!("{} is not understood", shown(&path)), RECORD),
    }
}
