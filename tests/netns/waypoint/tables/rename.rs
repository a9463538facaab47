//! Names of a group: its services and routes get the group's prefix, in front, so that the order of names stays.

use serde_json::Value;

/// What stands in front of a group's names.
pub(super) fn prefix(group: usize) -> String {
    // Two letters that no name of a table begins with, and digits that keep all prefixes at one length.
    format!("gr{group:03}-")
}

/// Gives every service that a route's spec refers to the group's prefix.
pub(super) fn references(value: &mut Value, prefix: &str) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| references(one, prefix)),
        Value::Object(map) => {
            for (name, inner) in map {
                match name.as_str() {
                    "parentRefs" | "backendRefs" => {
                        inner.as_array_mut().into_iter().flatten().for_each(|one| service(one, prefix));
                    }
                    "backendRef" => service(inner, prefix),
                    _ => {}
                }
                references(inner, prefix);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn service(reference: &mut Value, prefix: &str) {
    if let Some(name) = reference["name"].as_str() {
        reference["name"] = Value::from(format!("{prefix}{name}"));
    }
}
