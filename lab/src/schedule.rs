//! Which pods should exist, on which node and with which addresses: the lab's scheduler and Deployment controller.
//!
//! Pure: objects in, changes of the store out. Nothing is started or written here; new uids are drawn by
//! whoever writes the objects. Node affinity, taints and resource requests are not weighed: a lab's nodes are
//! alike, and `nodeSelector` and `nodeName` say where a pod has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::address::Families;

pub mod endpoints;
mod place;
mod pool;
mod replicas;
pub mod selector;
pub mod services;
pub mod waypoints;

pub use place::NodeFacts;
pub use replicas::{TEMPLATE_ANNOTATION, is_replaced};

use place::Placement;
use pool::Pool;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The name in an object's metadata; an object without namespace is in `default`.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why an object cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Kind of the object.
    pub kind: &'static str,
    /// The object.
    pub object: ObjectName,
    /// What is wrong and what to check.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.object, self.message)
    }
}

/// Everything the scheduler looks at.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// Address families of the lab.
    pub families: Families,
    /// Nodes in their order.
    pub nodes: &'a [NodeFacts],
    /// The Deployments of the store.
    pub deployments: &'a [Deployment],
    /// The Pods of the store, those of Deployments among them.
    pub pods: &'a [Pod],
    /// Addresses that are still in use by pods which the store no longer holds.
    pub occupied: &'a BTreeSet<IpAddr>,
}

/// Where a pod runs and what its addresses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The pod.
    pub pod: ObjectName,
    /// Its node, for `spec.nodeName`.
    pub node: String,
    /// Its addresses, IPv4 first, for `status.podIPs`; empty for a pod in its node's own network.
    pub addresses: Vec<IpAddr>,
}

/// What has to change in the store; deletions are meant to be carried out first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Pods to remove, gracefully.
    pub delete: Vec<ObjectName>,
    /// Pods to add, complete but for their uid and creation time.
    pub create: Vec<Pod>,
    /// Pods that are there and get their node and addresses.
    pub bind: Vec<Binding>,
    /// Deployments that have more to do as soon as a pod becomes ready or goes away.
    pub unfinished: BTreeSet<ObjectName>,
    /// What cannot be done.
    pub problems: Vec<Problem>,
}

/// Decides what has to change so that the right pods exist, each with a node and addresses.
pub fn plan(cluster: &Cluster<'_>) -> Plan {
    let mut plan = Plan::default();
    let wanted = replicas::wanted(cluster, &mut plan);
    let deleted: BTreeSet<&ObjectName> = plan.delete.iter().collect();
    // What is being deleted keeps its addresses until its namespace is gone: it is listed as occupied meanwhile.
    let mut pool = Pool::new(cluster.occupied.iter().copied());
    let mut placement = Placement::new(cluster.nodes);
    for pod in cluster.pods {
        pool.take(&addresses(pod));
        if !deleted.contains(&ObjectName::of(&pod.metadata)) {
            placement.count(pod);
        }
    }
    let mut problems = Vec::new();
    for replica in wanted {
        let object = ObjectName::of(&replica.pod.metadata);
        match bind(cluster.families, &replica.pod, Some(replica.index), &mut placement, &mut pool) {
            Ok(binding) => plan.create.push(replicas::bound(replica.pod, &binding)),
            Err(message) => problems.push(Problem { kind: "Pod", object, message }),
        }
    }
    for pod in in_order(cluster.pods).filter(|p| is_unbound(p)) {
        let object = ObjectName::of(&pod.metadata);
        match bind(cluster.families, pod, None, &mut placement, &mut pool) {
            Ok(binding) => plan.bind.push(binding),
            Err(message) => problems.push(Problem { kind: "Pod", object, message }),
        }
    }
    plan.problems.append(&mut problems);
    plan.problems.sort();
    plan
}

/// What runs, as far as it matters for [`converge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The uid of the pod that runs under this name.
    pub uid: String,
    /// [`spec_hash`] of the pod when it was started.
    pub spec_hash: u64,
}

/// What has to happen to running pods; every list is sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converge {
    /// Bound in the store and not running: start.
    pub start: Vec<ObjectName>,
    /// Running and no longer in the store, or marked for deletion, or there under another uid: end.
    pub end: Vec<ObjectName>,
    /// Running with another specification than the store's: end, give the object a new uid and no status.
    pub replace: Vec<ObjectName>,
    /// Nothing to do.
    pub keep: Vec<ObjectName>,
}

/// Compares the store's pods with what runs.
///
/// A name is never in two lists: a pod that came back under another uid is ended first and started by the
/// next comparison, once the old one is gone.
pub fn converge(pods: &[Pod], running: &BTreeMap<ObjectName, Running>) -> Converge {
    let mut out = Converge::default();
    let stored: BTreeMap<ObjectName, &Pod> = pods.iter().map(|p| (ObjectName::of(&p.metadata), p)).collect();
    for (name, pod) in &stored {
        let ending = pod.metadata.deletion_timestamp.is_some();
        let list = match running.get(name) {
            None if ending || is_unbound(pod) => continue,
            None => &mut out.start,
            Some(_) if ending => &mut out.end,
            Some(r) if pod.metadata.uid.as_deref() != Some(r.uid.as_str()) => &mut out.end,
            Some(r) if r.spec_hash != spec_hash(pod) => &mut out.replace,
            Some(_) => &mut out.keep,
        };
        list.push(name.clone());
    }
    out.end.extend(running.keys().filter(|name| !stored.contains_key(name)).cloned());
    out.end.sort();
    out
}

/// Changes when something changes that a running pod cannot take on: everything in the specification but the
/// node it was bound to. Labels and annotations do not count.
pub fn spec_hash(pod: &Pod) -> u64 {
    let mut spec = pod.spec.clone().unwrap_or_default();
    spec.node_name = None;
    replicas::hash_of(&spec)
}

/// The addresses in a pod's status.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    crate::pod::plan::addresses_of(pod)
}

/// Whether the pod lives in its node's own network namespace.
fn in_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// Whether a pod that should live still lacks a node or an address.
fn is_unbound(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
    let lacks = node.is_none() || (addresses(pod).is_empty() && !in_host_network(pod));
    lacks && pod.metadata.deletion_timestamp.is_none()
}

fn in_order(pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    let mut sorted: Vec<&Pod> = pods.iter().collect();
    sorted.sort_by_key(|p| ObjectName::of(&p.metadata));
    sorted.into_iter()
}

fn bind(
    families: Families,
    pod: &Pod,
    replica: Option<usize>,
    placement: &mut Placement<'_>,
    pool: &mut Pool,
) -> Result<Binding, String> {
    let node = placement.choose(pod, replica)?;
    let addresses = if in_host_network(pod) { Vec::new() } else { pool.draw(node.index, families)? };
    Ok(Binding { pod: ObjectName::of(&pod.metadata), node: node.name.clone(), addresses })
}

#[cfg(test)]
mod tests;
