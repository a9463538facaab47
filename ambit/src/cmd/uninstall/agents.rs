//! Whether every node has an agent that can take the CNI plugin off it. Pure.
//!
//! A node whose agent does not run keeps the plugin's entry, and the plugin refuses pods while no agent answers: the node
//! would start none any more.

use std::collections::BTreeSet;

use serde_json::Value;

/// The nodes on which no agent is ready; empty if the DaemonSet `set` is ready wherever it is to run.
///
/// `pods` are its pods, `nodes` the nodes that it may be meant for. Where these do not tell which nodes it is, one entry
/// says how many.
pub(super) fn without_agent(set: &Value, pods: &[Value], nodes: &[Value]) -> Vec<String> {
    let count = |field: &str| set["status"][field].as_u64().unwrap_or_default();
    let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    // A status that is older than the last change counts for another set of nodes.
    let is_old = set["status"]["observedGeneration"].as_u64() < set["metadata"]["generation"].as_u64();
    if ready == wanted && !is_old {
        return Vec::new();
    }
    let served: BTreeSet<&str> =
        pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    let all: BTreeSet<&str> = nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
    let names: Vec<String> = all.difference(&served).map(|&name| name.to_owned()).collect();
    if names.is_empty() { vec![format!("{} of {wanted} nodes", wanted.abs_diff(ready))] } else { names }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_leaving = pod["metadata"]["deletionTimestamp"].is_string();
    !is_leaving
        && conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}
