//! From Kubernetes objects to the pods of this node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod as PodObject};

use crate::attend::Namespaces;
use crate::pod::{CAPTURED, Condition, Pod};
use crate::reconcile::Pods;

#[cfg(test)]
mod tests;

/// The pods of `node`. A pod without a uid has not been admitted yet and is left out.
pub fn pods_of_node<'a>(
    node: &str,
    pods: impl IntoIterator<Item = &'a PodObject>,
    namespaces: impl IntoIterator<Item = &'a Namespace>,
) -> Arc<Pods> {
    let labels: BTreeMap<&str, BTreeMap<String, String>> = namespaces
        .into_iter()
        .filter_map(|ns| Some((ns.metadata.name.as_deref()?, ns.metadata.labels.clone().unwrap_or_default())))
        .collect();
    let ours =
        pods.into_iter().filter(|pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node));
    let read = ours.filter_map(|pod| read_pod(pod, &labels)).map(|pod| (pod.uid.clone(), pod));
    Arc::new(read.collect())
}

/// Labels of namespaces by name.
pub fn labels_of<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) -> Arc<Namespaces> {
    let named =
        |ns: &Namespace| Some((ns.metadata.name.clone()?, ns.metadata.labels.clone().unwrap_or_default()));
    Arc::new(namespaces.into_iter().filter_map(named).collect())
}

fn read_pod(object: &PodObject, namespaces: &BTreeMap<&str, BTreeMap<String, String>>) -> Option<Pod> {
    let meta = &object.metadata;
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let namespace = meta.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let phase = status.phase.as_deref();
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses =
        listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse::<IpAddr>().ok()).collect();
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == CAPTURED);
    Some(Pod {
        uid: meta.uid.clone().filter(|uid| !uid.is_empty())?,
        name: meta.name.clone()?,
        service_account: spec
            .service_account_name
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        namespace_labels: namespaces.get(namespace.as_str()).cloned(),
        namespace,
        host_network: spec.host_network.unwrap_or(false),
        running: phase == Some("Running"),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        addresses,
        condition: condition.map(|c| Condition {
            status: c.status == "True",
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
        }),
    })
}
