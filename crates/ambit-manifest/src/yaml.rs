//! Objects back to YAML text.

use serde_json::Value;

/// The value as YAML that every reader takes the same way: what YAML 1.1 would misread is quoted.
pub fn to_yaml(value: &Value) -> String {
    // A JSON value has only string keys and finite numbers, which all have a YAML form.
    serde_saphyr::to_string(value).expect("a JSON value always has a YAML form")
}
