//! The nodes as a cluster knows them: registered once, and alive for as long as the lab says so.

use std::time::Duration;

use ambit_runtime::clock;
use serde_json::{Value, json};

use super::api::{self, Api, Patch, Refusal};
use crate::address::Families;
use crate::store::{Kind, ObjectKey};
use crate::topology::Node;

/// Namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";
/// How long a lease is good, in seconds, as kubelets ask.
const LEASE_SECONDS: u32 = 40;
/// From one renewal to the next, as kubelets do it.
const RENEW: Duration = Duration::from_secs(10);
/// Renewals from one heartbeat in a node's status to the next.
const HEARTBEAT_EVERY: u32 = 6;

/// Registers the nodes.
///
/// # Errors
/// What the API server refused.
pub async fn register(api: &Api, nodes: &[Node], families: Families) -> Result<(), Refusal> {
    for node in nodes {
        let path = path(node);
        api.post_once("/api/v1/nodes", &object(node, families)).await?;
        // Admission marks a new node as not ready, and the controller that would take the mark off does not run here.
        api.patch(&path, Patch::Merge, &json!({"spec": {"taints": null}})).await?;
        api.patch(&format!("{path}/status"), Patch::Strategic, &status(node, families)).await?;
        renew(api, node).await?;
    }
    Ok(())
}

/// Keeps the nodes alive until dropped. A server that is away is told again the next time.
pub async fn keep_alive(api: Api, nodes: Vec<Node>, families: Families) {
    for turn in 1u32.. {
        tokio::time::sleep(RENEW).await;
        for node in &nodes {
            let mut told = renew(&api, node).await.map(|()| Value::Null);
            if turn % HEARTBEAT_EVERY == 0 && told.is_ok() {
                let status = status(node, families);
                told = api.patch(&format!("{}/status", path(node)), Patch::Strategic, &status).await;
            }
            if let Err(refusal) = told {
                tracing::debug!(node = node.name, why = refusal.message(), "renewing a node's lease");
            }
        }
    }
}

fn path(node: &Node) -> String {
    api::path_of(&ObjectKey::new(Kind::Node, None, &node.name))
}

fn object(node: &Node, families: Families) -> Value {
    let cidrs: Vec<String> = node.index.pod_cidrs(families).iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"},
        },
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
    })
}

fn status(node: &Node, families: Families) -> Value {
    let internal = node.index.fabric(families).into_iter();
    let mut addresses: Vec<Value> =
        internal.map(|a| json!({"type": "InternalIP", "address": a.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    let resources = json!({"cpu": "8", "memory": "16Gi", "pods": "250"});
    let now = humantime::format_rfc3339_seconds(clock::wall()).to_string();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab is its kubelet",
        "lastHeartbeatTime": now,
    });
    json!({"status": {
        "addresses": addresses, "capacity": resources, "allocatable": resources, "conditions": [ready],
    }})
}

async fn renew(api: &Api, node: &Node) -> Result<(), Refusal> {
    let now = humantime::format_rfc3339_micros(clock::wall()).to_string();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": LEASES, "name": node.name},
        "spec": {"holderIdentity": node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
    });
    let path = api::path("coordination.k8s.io/v1", "leases", Some(LEASES), &node.name);
    api.patch(&path, Patch::Apply, &lease).await.map(|_| ())
}
