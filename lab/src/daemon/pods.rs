//! Pods: from what the scheduler decides to what runs, and from what runs to what the objects say.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_runtime::clock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::force::{self, Outlook};
use super::nodes::{labels_of, merge, new_uid, timestamp};
use super::owner::Owner;
use super::{report, served};
use crate::error::LabError;
use crate::kube::images;
use crate::pod::life::{self, End};
use crate::pod::plan::{PodPlan, Values};
use crate::schedule::{self, Cluster, NodeFacts, ObjectName, Running};
use crate::store::{Kind, ObjectKey, Snapshot};

/// Reads the pod objects' key.
pub(super) fn key_of(name: &ObjectName) -> ObjectKey {
    ObjectKey::new(Kind::Pod, Some(&name.namespace), &name.name)
}

/// Writes what each pod does into its object, and removes those that are gone.
pub(super) fn report(owner: &mut Owner) -> Result<(), LabError> {
    let mut gone = Vec::new();
    for (name, live) in &owner.lives {
        let (state, health) = (live.life.state.borrow().clone(), live.health.borrow().clone());
        let key = key_of(name);
        if state.gone {
            gone.push(name.clone());
            continue;
        }
        let (home, plan) = (&owner.home, &live.life.plan);
        let host = owner
            .sites
            .get(&plan.node)
            .map(|s| s.node.index.fabric(home.config.families))
            .unwrap_or_default();
        let uid = live.uid.as_str();
        owner.store.change(&key, |pod| {
            if pod.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid) {
                report::write_status(pod, plan, &state, &health, &host);
            }
        })?;
    }
    for name in gone {
        let live = owner.lives.remove(&name);
        let snapshot = owner.store.snapshot();
        let Some(object) = snapshot.find(&key_of(&name)) else { continue };
        let same =
            live.is_some_and(|l| object.pointer("/metadata/uid").and_then(Value::as_str) == Some(&l.uid));
        if same && object.pointer("/metadata/deletionTimestamp").is_some() {
            owner.store.remove(&key_of(&name))?;
        }
    }
    Ok(())
}

/// Lets the scheduler decide and writes what it decided.
pub(super) fn schedule(owner: &mut Owner) -> Result<Outlook, LabError> {
    let snapshot = owner.store.snapshot();
    let (pods, deployments) = match owner.home.kube {
        None => (snapshot.pods(), snapshot.deployments()),
        // Deployments have a controller of their own there.
        Some(_) => (served::pods(&snapshot), Vec::new()),
    };
    let (nodes, occupied) = (node_facts(owner, &snapshot), owner.occupied());
    let families = owner.home.config.families;
    let cluster =
        Cluster { families, nodes: &nodes, deployments: &deployments, pods: &pods, occupied: &occupied };
    let plan = schedule::plan(&cluster);
    for name in &plan.delete {
        delete(owner, name)?;
    }
    let mut created = Vec::new();
    for pod in plan.create {
        let mut object = serde_json::to_value(&pod).map_err(|e| LabError::Failed(e.to_string()))?;
        merge(
            &mut object,
            "/metadata",
            json!({"uid": new_uid()?, "creationTimestamp": timestamp(clock::wall())}),
        );
        created.push(object);
    }
    owner.store.put(&created)?;
    for binding in &plan.bind {
        let ips: Vec<Value> = binding.addresses.iter().map(|a| json!({"ip": a.to_string()})).collect();
        let first = binding.addresses.first().map(ToString::to_string);
        owner.store.change(&key_of(&binding.pod), |pod| {
            merge(pod, "", json!({"spec": {"nodeName": binding.node}}));
            merge(pod, "", json!({"status": {"phase": "Pending", "podIP": first, "podIPs": ips}}));
        })?;
    }
    Ok(Outlook { problems: plan.problems, rules: Vec::new(), unfinished: plan.unfinished })
}

/// Marks a pod for deletion; one that does not run goes at once.
pub(super) fn delete(owner: &Owner, name: &ObjectName) -> Result<(), LabError> {
    let key = key_of(name);
    if !owner.lives.contains_key(name) {
        return owner.store.remove(&key);
    }
    let now = json!({"deletionTimestamp": timestamp(clock::wall())});
    owner.store.change(&key, |pod| {
        if pod.pointer("/metadata/deletionTimestamp").is_none() {
            merge(pod, "/metadata", now.clone());
        }
    })?;
    Ok(())
}

/// Starts and ends pods until what runs is what the objects say.
pub(super) fn converge(owner: &mut Owner) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    let is_served = owner.home.kube.is_some();
    let pods = if is_served { served::pods(&snapshot) } else { snapshot.pods() };
    let mut running: BTreeMap<ObjectName, Running> = owner
        .lives
        .iter()
        .map(|(name, live)| (name.clone(), Running { uid: live.uid.clone(), spec_hash: live.spec_hash }))
        .collect();
    if is_served {
        // A served pod's specification is fixed: what little may change in it replaces nothing.
        for pod in &pods {
            if let Some(running) = running.get_mut(&ObjectName::of(&pod.metadata)) {
                running.spec_hash = schedule::spec_hash(pod);
            }
        }
    }
    let difference = schedule::converge(&pods, &running);
    for name in difference.end.iter().chain(&difference.replace) {
        if let Some(live) = owner.lives.get(name).filter(|l| !l.life.is_ending()) {
            let stored = pods.iter().find(|pod| ObjectName::of(&pod.metadata) == *name);
            live.life.end(End { grace: grace(&live.life.plan, stored) });
        }
    }
    for name in &difference.replace {
        let uid = new_uid()?;
        owner.store.change(&key_of(name), |pod| renew(pod, &uid))?;
    }
    let values = values_of(&snapshot);
    let due = |pod: &&Pod| difference.start.contains(&ObjectName::of(&pod.metadata));
    for pod in pods.iter().filter(due) {
        if is_served && !served::is_bound(owner, pod) {
            continue;
        }
        start(owner, pod, &values)?;
    }
    open_gates(owner);
    for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_some()) {
        let name = ObjectName::of(&pod.metadata);
        if !owner.lives.contains_key(&name) {
            owner.store.remove(&key_of(&name))?;
        }
    }
    Ok(())
}

/// How long a pod may take to end: what who deletes it says, else what it says itself.
fn grace(plan: &PodPlan, stored: Option<&Pod>) -> Duration {
    let said = stored.and_then(|pod| pod.metadata.deletion_grace_period_seconds);
    said.and_then(|seconds| u64::try_from(seconds).ok()).map_or(plan.grace, Duration::from_secs)
}

/// A pod with another specification is another pod: new uid, no status, its place chosen anew.
fn renew(pod: &mut Value, uid: &str) {
    merge(pod, "/metadata", json!({"uid": uid}));
    if let Some(object) = pod.as_object_mut() {
        object.remove("status");
    }
}

fn start(owner: &mut Owner, pod: &Pod, values: &Values) -> Result<(), LabError> {
    let name = ObjectName::of(&pod.metadata);
    let blocked = match PodPlan::of(pod, values) {
        Ok(mut plan) => match owner.sites.get(&plan.node).cloned() {
            Some(site) => {
                if owner.home.kube.is_some() {
                    images::fill(&mut plan, &owner.home);
                }
                let life = life::begin(site, plan, owner.home.runner.clone());
                owner.adopt(name, pod, life);
                return Ok(());
            }
            None => format!("node {} does not exist in this lab", plan.node),
        },
        Err(why) => why,
    };
    owner.store.change(&key_of(&name), |pod| report::write_blocked(pod, &blocked))?;
    Ok(())
}

/// Lets containers start once their pod is captured, or is not meant to be.
fn open_gates(owner: &Owner) {
    let snapshot = owner.store.snapshot();
    for (name, live) in &owner.lives {
        let Some(pod) = snapshot.find(&key_of(name)) else { continue };
        let namespace = ObjectKey::new(Kind::Namespace, None, &name.namespace);
        let meshed = owner.home.config.mesh
            && force::should_be_captured(pod, &name.namespace, snapshot.find(&namespace));
        if !meshed || force::is_captured(pod) {
            live.life.open_gate(true);
        }
    }
}

fn node_facts(owner: &Owner, snapshot: &Snapshot) -> Vec<NodeFacts> {
    let facts = |node: &crate::topology::Node| {
        let key = ObjectKey::new(Kind::Node, None, &node.name);
        let object = snapshot.find(&key);
        let unschedulable = object.and_then(|n| n.pointer("/spec/unschedulable")).and_then(Value::as_bool);
        NodeFacts {
            name: node.name.clone(),
            index: node.index,
            labels: object.map(labels_of).unwrap_or_default(),
            unschedulable: unschedulable.unwrap_or(false),
        }
    };
    owner.home.config.topology().iter().map(facts).collect()
}

/// ConfigMaps and Secrets that environments may refer to.
fn values_of(snapshot: &Snapshot) -> Values {
    let mut values = Values::new();
    for map in snapshot.config_maps() {
        let name = ObjectName::of(&map.metadata);
        values.insert(("ConfigMap", name.namespace, name.name), map.data.unwrap_or_default());
    }
    for secret in snapshot.secrets() {
        let name = ObjectName::of(&secret.metadata);
        let text =
            |(k, v): (String, k8s_openapi::ByteString)| (k, String::from_utf8_lossy(&v.0).into_owned());
        let mut data: BTreeMap<String, String> =
            secret.data.unwrap_or_default().into_iter().map(text).collect();
        data.extend(secret.string_data.unwrap_or_default());
        values.insert(("Secret", name.namespace, name.name), data);
    }
    values
}

/// The life of a pod, by name.
pub(super) fn find<'a>(
    owner: &'a Owner,
    namespace: &str,
    pod: &str,
) -> Result<&'a super::owner::Live, LabError> {
    let name = ObjectName { namespace: namespace.to_owned(), name: pod.to_owned() };
    owner.lives.get(&name).ok_or_else(|| {
        let near: Vec<String> =
            owner.lives.keys().map(ToString::to_string).filter(|n| n.ends_with(&format!("/{pod}"))).collect();
        let hint = match near.as_slice() {
            [] => format!("{} shows those there are", owner.home.lab.command("get pods -A")),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        LabError::Failed(format!("no pod {name} runs in lab {}; {hint}", owner.home.lab))
    })
}
