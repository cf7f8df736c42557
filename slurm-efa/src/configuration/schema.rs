//! The JSON Schema of slurm-efa.toml, for editors.

use config::reference::{self, Key, Kind, PROFILE, SECTIONS, Section, Without};
use config::sections::health::RATES;
use serde_json::{Map, Value, json};

/// The name of a profile.
const PROFILE_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
/// The name of a variable.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const DURATION: &str = "^([0-9]+(ms|s|m|h|d)|0+)$";
const SIZE: &str = "^0*[1-9][0-9]*[KMGTkmgt](iB)?$";

/// The schema. Of the spellings that the programs read for one more release, it
/// has none: an editor marks them.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    for section in &SECTIONS {
        match section.name {
            "" => properties.extend(section.keys.iter().map(property)),
            PROFILE => drop(properties.insert("profile".to_owned(), profiles(section))),
            name => drop(properties.insert(name.to_owned(), table(section))),
        }
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "slurm-efa.toml",
        "description": "Configuration of slurm-efa; see slurm-efa.toml(5).",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn profiles(section: &Section) -> Value {
    json!({
        "description": section.about,
        "type": "object",
        "propertyNames": {
            "pattern": PROFILE_NAME,
            "not": { "enum": ["auto", "none", "list"] },
        },
        "additionalProperties": table(section),
    })
}

fn table(section: &Section) -> Value {
    let properties: Map<String, Value> = section.keys.iter().map(property).collect();
    json!({
        "description": section.about,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> (String, Value) {
    let mut schema = of(key.kind);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), key.about.into());
        if let Without::Value(value) = key.without
            && let Some(value) = reference::value(value)
            && let Ok(value) = serde_json::to_value(value)
        {
            schema.insert("default".to_owned(), value);
        }
    }
    (key.name.to_owned(), schema)
}

fn of(kind: Kind) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let count = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    match kind {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Duration(..) => text(DURATION),
        Kind::Size | Kind::SizeWithin(..) => text(SIZE),
        Kind::SizeOr(words) => json!({ "anyOf": [text(SIZE), { "enum": words }] }),
        Kind::Profile => text(PROFILE_NAME),
        Kind::NodeName | Kind::Library => json!({ "type": "string", "minLength": 1 }),
        Kind::Path | Kind::NodePath => text("^/"),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Variables => json!({ "type": "array", "items": text(VARIABLE) }),
        Kind::Words(lists) => {
            let items = json!({ "type": "string", "enum": lists.concat() });
            json!({ "type": "array", "items": items })
        }
        Kind::Environment => json!({
            "type": "object",
            "propertyNames": { "pattern": VARIABLE },
            "additionalProperties": { "type": "string" },
        }),
        Kind::Counts => json!({
            "anyOf": [count, { "type": "object", "additionalProperties": count }],
        }),
        Kind::Rates => rates(),
    }
}

fn rates() -> Value {
    let number = json!({ "type": "integer", "minimum": 0 });
    let rate = json!({
        "type": "object",
        "properties": { "burst": number, "per_minute": number },
        "required": ["burst", "per_minute"],
        "additionalProperties": false,
    });
    let counters = RATES.iter().map(|it| (it.counter.to_owned(), rate.clone()));
    let counters: Map<String, Value> = counters.collect();
    json!({ "type": "object", "properties": counters, "additionalProperties": false })
}
