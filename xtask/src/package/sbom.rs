//! The software bill of materials, in the form of CycloneDX 1.5
//! (<https://cyclonedx.org/docs/1.5/json/>).

use anyhow::Result;
use serde_json::{Value, json};

use super::crates::{CrateId, Crates, rust_version};
use super::facts::{BuildTime, LICENCE, NAME};
use crate::dist::ARTIFACTS;

/// Every crate in what is shipped, and which needs which.
///
/// # Errors
/// When the compiler does not say its version.
pub fn cyclonedx(crates: &Crates, version: &str, time: &BuildTime) -> Result<String> {
    let std = CrateId {
        name: "std".to_owned(),
        version: rust_version()?,
    };
    let mut components = vec![json!({
        "type": "library",
        "bom-ref": reference(&std),
        "name": "std",
        "version": std.version,
        "description": "Rust's standard library",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    })];
    // One of the crates has the same name.
    let root = format!("package:{NAME}@{version}");
    let mut dependencies = vec![json!({
        "ref": root,
        "dependsOn": crates
            .0
            .keys()
            .filter(|id| ARTIFACTS.iter().any(|artifact| artifact.package == id.name))
            .map(reference)
            .collect::<Vec<_>>(),
    })];
    for (id, krate) in &crates.0 {
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(id),
            "name": id.name,
            "version": id.version,
            // SPDX has no slash; old crates mean "or" by it.
            "licenses": [{ "expression": krate.licence.replace('/', " OR ") }],
        });
        if let Some(checksum) = &krate.checksum {
            component["purl"] = json!(format!("pkg:cargo/{}@{}", id.name, id.version));
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if let Some(repository) = &krate.repository {
            component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
        }
        components.push(component);
        let mut needs: Vec<String> = krate.needs.iter().map(reference).collect();
        needs.push(reference(&std));
        dependencies.push(json!({ "ref": reference(id), "dependsOn": needs }));
    }
    let bom: Value = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.text,
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": NAME,
                "version": version,
                "licenses": [{ "expression": LICENCE }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(format!("{bom:#}\n"))
}

/// What the document calls a crate.
fn reference(id: &CrateId) -> String {
    format!("{}@{}", id.name, id.version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_crate_that_is_needed_is_listed_with_its_licence() {
        let crates = Crates::shipped().expect("cargo");
        let time = BuildTime {
            seconds: 0,
            text: "1970-01-01T00:00:00Z".to_owned(),
        };
        let text = cyclonedx(&crates, "1.0.0", &time).expect("a document");
        let bom: Value = serde_json::from_str(&text).expect("JSON");
        let components = bom["components"].as_array().expect("a list");
        let listed: BTreeSet<&str> = components
            .iter()
            .filter(|component| component["licenses"][0]["expression"].is_string())
            .filter_map(|component| component["bom-ref"].as_str())
            .collect();
        assert_eq!(listed.len(), components.len(), "each once, with a licence");
        for dependency in bom["dependencies"].as_array().expect("a list") {
            for needed in dependency["dependsOn"].as_array().expect("a list") {
                let needed = needed.as_str().expect("a name");
                assert!(listed.contains(needed), "{needed} is not listed");
            }
        }
    }
}
