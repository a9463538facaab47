//! What the control plane is told of this node: the metadata of the first requests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Config;

/// Metadata by name: the fixed fields, `proxyMetadata` of PROXY_CONFIG, then every `ISTIO_META_X` as text and
/// `ISTIO_METAJSON_X` as JSON; later ones win.
///
/// JSON that does not parse is left out and its variable named in the second value.
pub fn node_metadata(config: &Config) -> (BTreeMap<String, Value>, Vec<String>) {
    let (node, environment) = (&config.node, &config.environment);
    let mut metadata = BTreeMap::from([
        ("NAME".to_owned(), Value::from(node.pod_name.clone())),
        ("NAMESPACE".to_owned(), Value::from(node.pod_namespace.clone())),
        ("INSTANCE_IPS".to_owned(), Value::from(node.instance_ip.to_string())),
        ("NODE_NAME".to_owned(), Value::from(node.node_name.clone())),
        ("CLUSTER_ID".to_owned(), Value::from(config.cluster_id())),
    ]);
    for (name, value) in &environment.proxy.proxy_metadata {
        let key = name.strip_prefix("ISTIO_META_").unwrap_or(name);
        metadata.insert(key.to_owned(), Value::from(value.as_str()));
    }
    let mut unreadable = Vec::new();
    for (name, value) in &environment.metadata {
        if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
            match serde_json::from_str(value) {
                Ok(json) => drop(metadata.insert(key.to_owned(), json)),
                Err(_) => unreadable.push(name.clone()),
            }
        } else if let Some(key) = name.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    (metadata, unreadable)
}
