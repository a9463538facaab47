//! What the control plane is told of this node: the metadata of the first requests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Config;

/// Metadata by name: the fixed fields, then every `ISTIO_META_X` as text and `ISTIO_METAJSON_X` as JSON.
///
/// `environment` is every variable of the process. JSON that does not parse is left out and named in the second
/// value.
pub fn node_metadata(
    config: &Config,
    environment: impl Iterator<Item = (String, String)>,
) -> (BTreeMap<String, Value>, Vec<String>) {
    let node = &config.node;
    let mut metadata = BTreeMap::from([
        ("NAME".to_owned(), Value::from(node.pod_name.clone())),
        ("NAMESPACE".to_owned(), Value::from(node.pod_namespace.clone())),
        ("INSTANCE_IPS".to_owned(), Value::from(node.instance_ip.to_string())),
        ("NODE_NAME".to_owned(), Value::from(node.node_name.clone())),
        ("CLUSTER_ID".to_owned(), Value::from(node.cluster_id.clone())),
    ]);
    let mut unreadable = Vec::new();
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
            match serde_json::from_str(&value) {
                Ok(json) => drop(metadata.insert(key.to_owned(), json)),
                Err(_) => unreadable.push(name),
            }
        } else if let Some(key) = name.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), Value::from(value));
        }
    }
    (metadata, unreadable)
}
