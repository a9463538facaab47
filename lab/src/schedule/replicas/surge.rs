//! Replicas that are replaced without a gap: first the new pod, and only when it is ready the end of an old one.
//!
//! The two live side by side for a while, so a replica does not keep its number: a new pod has the lowest one free.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Replica, owner_of, replica, template_hash, template_of};
use crate::schedule::{ObjectName, Plan, endpoints};

/// Whether a Deployment asks for it: some surge, and nothing unavailable, both written out.
pub(super) fn is_asked(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let Some(rolling) = strategy.and_then(|s| s.rolling_update.as_ref()) else { return false };
    let is_zero = |value: &Option<IntOrString>| {
        value.as_ref().map(|value| match value {
            IntOrString::Int(number) => *number == 0,
            IntOrString::String(text) => text.trim_end_matches('%') == "0",
        })
    };
    is_zero(&rolling.max_unavailable) == Some(true) && is_zero(&rolling.max_surge) == Some(false)
}

/// Whether all pods of a Deployment are of its present template, as many as it asks for, and ready. Pods that have
/// been told to end do not count.
pub fn is_replaced(deployment: &Deployment, pods: &[Pod]) -> bool {
    let Some(spec) = &deployment.spec else { return false };
    let (name, hash) = (ObjectName::of(&deployment.metadata), template_hash(&spec.template));
    let own = |pod: &&Pod| {
        ObjectName::of(&pod.metadata).namespace == name.namespace
            && owner_of(pod).as_deref() == Some(name.name.as_str())
            && pod.metadata.deletion_timestamp.is_none()
    };
    let living: Vec<&Pod> = pods.iter().filter(own).collect();
    let as_asked = |pod: &&Pod| template_of(pod) == Some(hash.as_str()) && endpoints::is_ready(pod);
    living.len() == wanted(deployment) && living.iter().all(as_asked)
}

fn wanted(deployment: &Deployment) -> usize {
    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas);
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

/// Finds the replicas to make, one more than asked for at a time, and puts those to remove into the plan.
pub(super) fn of_one(
    name: &ObjectName,
    deployment: &Deployment,
    hash: &str,
    pods: &BTreeMap<ObjectName, &Pod>,
    plan: &mut Plan,
) -> Vec<Replica> {
    let count = wanted(deployment);
    let own: Vec<(&ObjectName, &Pod)> = pods
        .iter()
        .filter(|(pod, _)| pod.namespace == name.namespace)
        .filter(|(_, pod)| owner_of(pod).as_deref() == Some(name.name.as_str()))
        .map(|(pod, object)| (pod, *object))
        .collect();
    let (living, ending): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
    let (mut fresh, stale): (Vec<_>, Vec<_>) =
        living.iter().copied().partition(|(_, pod)| template_of(pod) == Some(hash));
    // Those that are ready first: of too many, the last ones go.
    fresh.sort_by_key(|(pod, object)| (!endpoints::is_ready(object), number(pod)));
    let surplus = fresh.split_off(fresh.len().min(count));
    let ready = fresh.iter().chain(&stale).filter(|(_, pod)| endpoints::is_ready(pod)).count();
    let fresh_are_ready = fresh.len() == count && fresh.iter().all(|(_, pod)| endpoints::is_ready(pod));
    plan.delete.extend(surplus.iter().map(|(pod, _)| (*pod).clone()));
    plan.delete.extend(dispensable(&stale, ready.saturating_sub(count)));
    if !fresh_are_ready || !stale.is_empty() || !ending.is_empty() || !surplus.is_empty() {
        plan.unfinished.insert(name.clone());
    }
    let room = if stale.is_empty() { count } else { (count + 1).saturating_sub(stale.len()).min(count) };
    let indices = (0..).filter(|index| !pods.contains_key(&named(name, *index)));
    let make = |index: usize| {
        let template = &deployment.spec.as_ref()?.template;
        Some(Replica { pod: replica(&named(name, index), deployment, template, hash), index })
    };
    indices.take(room.saturating_sub(fresh.len())).filter_map(make).collect()
}

/// The old pods that can go: those that are not ready serve nobody, and of the others as many as are not needed.
fn dispensable(stale: &[(&ObjectName, &Pod)], not_needed: usize) -> Vec<ObjectName> {
    let (ready, unready): (Vec<_>, Vec<_>) = stale.iter().partition(|(_, pod)| endpoints::is_ready(pod));
    let all = unready.into_iter().chain(ready.into_iter().take(not_needed));
    all.map(|(pod, _)| (*pod).clone()).collect()
}

fn named(name: &ObjectName, index: usize) -> ObjectName {
    ObjectName { namespace: name.namespace.clone(), name: format!("{}-{index}", name.name) }
}

fn number(pod: &ObjectName) -> usize {
    pod.name.rsplit_once('-').and_then(|(_, n)| n.parse().ok()).unwrap_or(usize::MAX)
}
