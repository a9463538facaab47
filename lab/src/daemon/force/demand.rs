//! What a command waits for: everything at the start of a lab, afterwards what its own change touched. Pure.
//!
//! A pod that was unready before, and a Deployment that could not be carried out before, is not the next command's
//! business: otherwise one of them would make every later change wait for nothing and fail.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{deletion, enrolment, text};
use crate::schedule::{ObjectName, Problem};
use crate::store::{Kind, ObjectKey, Snapshot};

/// What the scheduler could not do yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What it cannot do at all.
    pub problems: Vec<Problem>,
    /// Service rules that are not in force yet, a sentence each.
    pub rules: Vec<String>,
    /// Deployments that have more to do once pods become ready or go away.
    pub unfinished: BTreeSet<ObjectName>,
}

/// What a command waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Demand {
    /// Everything there is.
    #[default]
    Everything,
    /// What one change touched.
    Change(Touched),
}

/// What one change touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pods that it made, replaced or removed.
    pods: BTreeSet<ObjectKey>,
    /// Pods that it asked into the mesh or out of it.
    enrolments: BTreeSet<ObjectKey>,
    /// Deployments that it made or changed; their pods count as touched.
    deployments: BTreeSet<ObjectName>,
    /// Gateways that it made or changed.
    gateways: BTreeSet<ObjectName>,
    /// Deployments that lost a pod by it and had nothing else to do.
    bereft: BTreeSet<ObjectName>,
    /// What could not be carried out before it either, and is as it was.
    old: BTreeSet<(&'static str, ObjectName)>,
    /// How often each container of the touched pods has been started again, at least.
    runs: BTreeMap<String, u32>,
}

impl Demand {
    /// What differs between the objects before a change and those right after it.
    pub fn of_change(before: (&Snapshot, &Outlook), after: &Snapshot) -> Self {
        let (objects, outlook) = before;
        let mut touched = Touched::default();
        for (key, pod) in after.of_kind(Kind::Pod) {
            let old = objects.find(key);
            if old.is_none_or(|old| is_other_pod(old, pod)) {
                touched.pods.insert(key.clone());
            } else if enrolment(objects, key, old.unwrap_or(pod)) != enrolment(after, key, pod) {
                touched.enrolments.insert(key.clone());
            }
        }
        let changed = |kind: Kind, name: &ObjectName| {
            let key = ObjectKey::new(kind, Some(&name.namespace), &name.name);
            objects.find(&key).map(asked) != after.find(&key).map(asked)
        };
        let names = after.of_kind(Kind::Deployment).map(|(key, _)| name_of(key));
        touched.deployments = names.filter(|name| changed(Kind::Deployment, name)).collect();
        let gateways = after.of_kind(Kind::Gateway).filter(|(key, gateway)| {
            let annotations = |object: &Value| object.pointer("/metadata/annotations").cloned();
            changed(Kind::Gateway, &name_of(key))
                || objects.find(key).map(annotations) != Some(annotations(gateway))
        });
        touched.gateways = gateways.map(|(key, _)| name_of(key)).collect();
        let owners = touched.pods.iter().filter_map(|key| owner(key, after.find(key)?));
        touched.bereft = owners.filter(|name| !outlook.unfinished.contains(name)).collect();
        let renewed = |problem: &Problem| {
            let kind = Kind::from_name(problem.kind);
            kind.is_some_and(|kind| changed(kind, &problem.object))
                || touched.deployments.contains(&deployment_of(&problem.object))
        };
        let kept = outlook.problems.iter().filter(|problem| !renewed(problem));
        touched.old = kept.map(|p| (p.kind, p.object.clone())).collect();
        Self::Change(touched)
    }

    /// One pod and nothing else, once its object tells of runs as late as these: an older one may be ready as well.
    pub fn pod(name: &ObjectName, outlook: &Outlook, runs: BTreeMap<String, u32>) -> Self {
        let pods = BTreeSet::from([ObjectKey::new(Kind::Pod, Some(&name.namespace), &name.name)]);
        let old = outlook.problems.iter().map(|p| (p.kind, p.object.clone())).collect();
        Self::Change(Touched { pods, old, runs, ..Touched::default() })
    }

    /// Whether a pod has to be ready, or gone if it is ending.
    pub fn waits_for(&self, key: &ObjectKey, pod: &Value) -> bool {
        match self {
            Self::Everything => true,
            Self::Change(touched) => {
                touched.pods.contains(key)
                    || owner(key, pod).is_some_and(|owner| touched.deployments.contains(&owner))
            }
        }
    }

    /// Whether a Gateway has to have its address.
    pub fn waits_for_gateway(&self, name: &ObjectName) -> bool {
        match self {
            Self::Everything => true,
            Self::Change(touched) => touched.gateways.contains(name),
        }
    }

    /// Why what a pod's object says is too old to count; none if it counts.
    pub fn not_reported(&self, pod: &Value) -> Option<String> {
        let Self::Change(Touched { runs, .. }) = self else { return None };
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
        let told = |name: &str| {
            let status = statuses?.iter().find(|s| text(s, "/name") == Some(name))?;
            status.get("restartCount")?.as_u64()
        };
        let late = runs.iter().any(|(name, run)| told(name) < Some(u64::from(*run)));
        late.then(|| "is being started".to_owned())
    }

    /// Whether a pod has to be captured as its labels ask. One that has no namespace yet cannot be.
    pub fn waits_for_capture(&self, key: &ObjectKey, pod: &Value) -> bool {
        let asked = match self {
            Self::Everything => false,
            Self::Change(touched) => touched.enrolments.contains(key) && super::has_sandbox(pod),
        };
        asked || self.waits_for(key, pod)
    }

    /// Sentences about what the scheduler could not do and this command waits for.
    pub fn left_of(&self, outlook: &Outlook) -> Vec<String> {
        let new = |problem: &&Problem| match self {
            Self::Everything => true,
            Self::Change(touched) => !touched.old.contains(&(problem.kind, problem.object.clone())),
        };
        let unfinished = |name: &&ObjectName| match self {
            Self::Everything => true,
            Self::Change(touched) => touched.deployments.contains(*name) || touched.bereft.contains(*name),
        };
        let problems = outlook.problems.iter().filter(new).map(ToString::to_string);
        let replacing = outlook.unfinished.iter().filter(unfinished);
        let replacing = replacing.map(|name| format!("Deployment {name} is still replacing its pods"));
        problems.chain(outlook.rules.iter().cloned()).chain(replacing).collect()
    }
}

/// Whether another pod stands under the name now, or one that has begun to end.
fn is_other_pod(old: &Value, new: &Value) -> bool {
    let uid = |pod: &Value| text(pod, "/metadata/uid").map(str::to_owned);
    uid(old) != uid(new) || deletion(old).is_some() != deletion(new).is_some() || starts_anew(old, new)
}

/// Whether a pod's specification was changed although the lab has not renewed its uid yet.
fn starts_anew(old: &Value, new: &Value) -> bool {
    let spec = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("nodeName");
        }
        spec
    };
    spec(old) != spec(new)
}

/// What somebody asks of an object, without what is reported about it.
fn asked(object: &Value) -> (Option<&Value>, Option<&Value>) {
    (object.get("spec"), object.pointer("/metadata/labels"))
}

fn name_of(key: &ObjectKey) -> ObjectName {
    ObjectName { namespace: key.namespace.clone().unwrap_or_default(), name: key.name.clone() }
}

/// The Deployment that controls a pod.
fn owner(key: &ObjectKey, pod: &Value) -> Option<ObjectName> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut names = owners.filter_map(|o| match text(o, "/kind")? {
        "Deployment" => text(o, "/name"),
        // A cluster's own controller has ReplicaSets in between, named by the Deployment and its template.
        "ReplicaSet" => text(o, "/name")?.rsplit_once('-').map(|(name, _)| name),
        _ => None,
    });
    let name = names.next()?;
    Some(ObjectName { namespace: key.namespace.clone().unwrap_or_default(), name: name.to_owned() })
}

/// The Deployment whose replica would have that name.
fn deployment_of(replica: &ObjectName) -> ObjectName {
    let name = replica.name.rsplit_once('-').map_or(replica.name.as_str(), |(name, _)| name);
    ObjectName { namespace: replica.namespace.clone(), name: name.to_owned() }
}
