//! The pods of Deployments: which are missing, which are too many, which are of an older template.
//!
//! A replica has its number in its name and keeps it. A changed template replaces one replica at a time, the
//! next one only when every replica of the new template is ready. A Deployment whose strategy allows a surge and
//! nothing unavailable has its new pods made first, under other numbers (`surge`).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodIP, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use xxhash_rust::xxh64::xxh64;

use super::{Binding, Cluster, ObjectName, Plan, Problem, selector};

mod surge;

pub use surge::is_replaced;

/// On a Deployment's pod: the template it was made from.
pub const TEMPLATE_ANNOTATION: &str = "ambit.internal/template";

/// A pod that has to be made.
pub(super) struct Replica {
    pub(super) pod: Pod,
    pub(super) index: usize,
}

/// Finds the replicas to make, and puts those to remove into the plan.
pub(super) fn wanted(cluster: &Cluster<'_>, plan: &mut Plan) -> Vec<Replica> {
    let mut out = Vec::new();
    let by_name: BTreeMap<ObjectName, &Pod> =
        cluster.pods.iter().map(|p| (ObjectName::of(&p.metadata), p)).collect();
    let mut deployments: Vec<(ObjectName, &Deployment)> =
        cluster.deployments.iter().map(|d| (ObjectName::of(&d.metadata), d)).collect();
    deployments.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, pod) in &by_name {
        let owner = owner_of(pod).map(|owner| ObjectName { namespace: name.namespace.clone(), name: owner });
        let orphan = owner.is_some_and(|o| deployments.iter().all(|(d, _)| *d != o));
        if orphan && pod.metadata.deletion_timestamp.is_none() {
            plan.delete.push(name.clone());
        }
    }
    for (name, deployment) in deployments {
        if let Err(message) = check(deployment) {
            plan.problems.push(Problem { kind: "Deployment", object: name, message });
            continue;
        }
        out.extend(of_one(&name, deployment, &by_name, plan));
    }
    plan.delete.sort();
    out
}

/// Says what the API server would refuse in a Deployment.
pub(super) fn check(deployment: &Deployment) -> Result<(), String> {
    let spec = deployment.spec.as_ref().ok_or("spec is missing")?;
    if selector::is_empty(&spec.selector) {
        return Err("spec.selector is empty; give it the labels of spec.template.metadata.labels".to_owned());
    }
    if spec.replicas.is_some_and(|n| n < 0) {
        return Err("spec.replicas is negative".to_owned());
    }
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    match selector::selects(&spec.selector, &labels) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "spec.selector does not match spec.template.metadata.labels {labels:?}; its pods would not be its own"
        )),
        Err(e) => Err(format!("spec.selector.matchExpressions: {e}")),
    }
}

fn of_one(
    name: &ObjectName,
    deployment: &Deployment,
    pods: &BTreeMap<ObjectName, &Pod>,
    plan: &mut Plan,
) -> Vec<Replica> {
    let spec = deployment.spec.as_ref().expect("check refuses a Deployment without spec");
    let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let hash = template_hash(&spec.template);
    if surge::is_asked(deployment) {
        return surge::of_one(name, deployment, &hash, pods, plan);
    }
    let mut missing = Vec::new();
    let mut stale = Vec::new();
    let mut fresh_are_ready = true;
    for index in 0..count {
        let pod_name =
            ObjectName { namespace: name.namespace.clone(), name: format!("{}-{index}", name.name) };
        match pods.get(&pod_name) {
            None => {
                fresh_are_ready = false;
                missing.push(Replica { pod: replica(&pod_name, deployment, &spec.template, &hash), index });
            }
            Some(pod) if owner_of(pod).as_deref() != Some(&name.name) => {
                let message = format!("replica {pod_name} cannot be made: a pod of that name exists");
                plan.problems.push(Problem { kind: "Deployment", object: name.clone(), message });
            }
            // It goes away first; its name is free then.
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => fresh_are_ready = false,
            Some(pod) if template_of(pod) != Some(hash.as_str()) => stale.push(pod_name),
            Some(pod) => fresh_are_ready &= super::endpoints::is_ready(pod),
        }
    }
    if !fresh_are_ready || !stale.is_empty() {
        plan.unfinished.insert(name.clone());
    }
    if fresh_are_ready {
        plan.delete.extend(stale.into_iter().take(1));
    }
    plan.delete.extend(surplus(name, count, pods));
    missing
}

/// Replicas whose number is too high.
fn surplus(name: &ObjectName, count: usize, pods: &BTreeMap<ObjectName, &Pod>) -> Vec<ObjectName> {
    let own = pods.iter().filter(|(pod_name, pod)| {
        pod_name.namespace == name.namespace && owner_of(pod).as_deref() == Some(name.name.as_str())
    });
    let living = own.filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
    let number = |pod: &ObjectName| pod.name.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok());
    living.filter(|(pod, _)| number(pod).is_none_or(|n| n >= count)).map(|(pod, _)| pod.clone()).collect()
}

/// The Deployment that controls a pod.
pub(super) fn owner_of(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.filter(|o| o.controller == Some(true) && o.kind == "Deployment").map(|o| o.name.clone()).next()
}

/// What a template's pods are marked with.
fn template_hash(template: &PodTemplateSpec) -> String {
    format!("{:016x}", hash_of(template))
}

fn template_of(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(TEMPLATE_ANNOTATION).map(String::as_str)
}

fn replica(name: &ObjectName, deployment: &Deployment, template: &PodTemplateSpec, hash: &str) -> Pod {
    let declared = template.metadata.clone().unwrap_or_default();
    let mut annotations = declared.annotations.unwrap_or_default();
    annotations.insert(TEMPLATE_ANNOTATION.to_owned(), hash.to_owned());
    let owner = OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        namespace: Some(name.namespace.clone()),
        name: Some(name.name.clone()),
        labels: declared.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// The pod with the node and addresses it was given.
pub(super) fn bound(mut pod: Pod, binding: &Binding) -> Pod {
    pod.spec.get_or_insert_default().node_name = Some(binding.node.clone());
    let ips: Vec<PodIP> = binding.addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect();
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        pod_ip: ips.first().map(|p| p.ip.clone()),
        pod_ips: (!ips.is_empty()).then_some(ips),
        ..PodStatus::default()
    });
    pod
}

/// A number that changes when the value does, the same on every machine.
pub(super) fn hash_of(value: &impl Serialize) -> u64 {
    let text = serde_json::to_vec(value).expect("Kubernetes objects have string keys and finite numbers");
    xxh64(&text, 0)
}
