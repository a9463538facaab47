//! What objects owe each other: uniqueness and references.
//!
//! Whether a single object is right is `validate`'s affair. A selector that matches nothing is no fault: what it
//! should match may come later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodSpec, Service};

use crate::kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use crate::nearest::nearest;
use crate::object::{Located, Object};
use crate::problem::{Location, Problem};

/// Namespaces that exist without an object, as in a cluster with a mesh.
pub const BUILT_IN_NAMESPACES: &[&str] = &[DEFAULT_NAMESPACE, "kube-system", "istio-system"];
/// The service account every namespace has.
const DEFAULT_ACCOUNT: &str = "default";
/// Label that says whose endpoints a slice holds.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Everything wrong between the objects of a set, in the order of their places.
///
/// An object defined twice is reported at its later definition, a reference to nothing at the field that holds it,
/// with the nearest name that exists.
pub fn check_set(objects: &[Located]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let names = Names::of(objects, &mut problems);
    let mut addresses = BTreeMap::new();
    for object in objects {
        names.namespace(object, &mut problems);
        match &*object.object {
            Object::Pod(pod) => {
                if let Some(spec) = &pod.spec {
                    names.pod(object, "spec", spec, &mut problems);
                }
            }
            Object::Deployment(deployment) => {
                let spec = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref());
                if let Some(spec) = spec {
                    names.pod(object, "spec.template.spec", spec, &mut problems);
                }
            }
            Object::EndpointSlice(_) => names.slice(object, &mut problems),
            Object::Service(service) => service_addresses(object, service, &mut addresses, &mut problems),
            Object::Namespace(_)
            | Object::Node(_)
            | Object::ServiceAccount(_)
            | Object::ConfigMap(_)
            | Object::Secret(_)
            | Object::NetworkPolicy(_)
            | Object::PeerAuthentication(_)
            | Object::AuthorizationPolicy(_)
            | Object::RequestAuthentication(_)
            | Object::ServiceEntry(_)
            | Object::WorkloadEntry(_)
            | Object::GatewayApi(_) => {}
        }
    }
    problems.sort();
    problems
}

/// Which objects exist.
struct Names<'o> {
    first: BTreeMap<&'o ObjectKey, &'o Located>,
    has_nodes: bool,
}

impl<'o> Names<'o> {
    fn of(objects: &'o [Located], problems: &mut Vec<Problem>) -> Self {
        let mut first: BTreeMap<&ObjectKey, &Located> = BTreeMap::new();
        for object in objects {
            match first.get(&object.key) {
                Some(earlier) => {
                    let mut problem = object.problem("metadata.name", "the object is defined twice");
                    problem.other = Some(earlier.location.clone());
                    problems.push(problem);
                }
                None => {
                    first.insert(&object.key, object);
                }
            }
        }
        let has_nodes = first.keys().any(|k| k.kind == Kind::Node);
        Self { first, has_nodes }
    }

    fn exists(&self, kind: Kind, namespace: Option<&str>, name: &str) -> bool {
        self.first.contains_key(&ObjectKey::new(kind, namespace, name))
    }

    /// Names of a kind in a namespace, in order.
    fn all(&self, kind: Kind, namespace: Option<&'o str>) -> impl Iterator<Item = &'o str> {
        let there = move |key: &&&ObjectKey| key.kind == kind && key.namespace.as_deref() == namespace;
        self.first.keys().filter(there).map(|key| key.name.as_str())
    }

    fn namespace(&self, object: &Located, problems: &mut Vec<Problem>) {
        let Some(namespace) = object.key.namespace.as_deref() else { return };
        if BUILT_IN_NAMESPACES.contains(&namespace) || self.exists(Kind::Namespace, None, namespace) {
            return;
        }
        let words = format!("there is no Namespace \"{namespace}\"");
        let known = self.all(Kind::Namespace, None).chain(BUILT_IN_NAMESPACES.iter().copied());
        problems.push(with_nearest(object.problem("metadata.namespace", words), nearest(namespace, known)));
    }

    fn pod(&self, object: &'o Located, path: &str, spec: &PodSpec, problems: &mut Vec<Problem>) {
        let namespace = object.key.namespace.as_deref();
        let account = spec.service_account_name.as_deref().unwrap_or_default();
        let known = account.is_empty()
            || account == DEFAULT_ACCOUNT
            || self.exists(Kind::ServiceAccount, namespace, account);
        if !known {
            let in_namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
            let words =
                format!("there is no ServiceAccount \"{account}\" in the namespace \"{in_namespace}\"");
            let near = nearest(account, self.all(Kind::ServiceAccount, namespace));
            problems.push(with_nearest(object.problem(&format!("{path}.serviceAccountName"), words), near));
        }
        let node = spec.node_name.as_deref().unwrap_or_default();
        if self.has_nodes && !node.is_empty() && !self.exists(Kind::Node, None, node) {
            let words = format!("there is no Node \"{node}\"");
            let near = nearest(node, self.all(Kind::Node, None));
            problems.push(with_nearest(object.problem(&format!("{path}.nodeName"), words), near));
        }
    }

    fn slice(&self, object: &'o Located, problems: &mut Vec<Problem>) {
        let labels = object.object.metadata().labels.as_ref();
        let Some(service) = labels.and_then(|l| l.get(SERVICE_NAME)) else { return };
        let namespace = object.key.namespace.as_deref();
        if !self.exists(Kind::Service, namespace, service) {
            let words = format!("there is no Service \"{service}\" in the same namespace");
            let near = nearest(service, self.all(Kind::Service, namespace));
            let path = format!("metadata.labels[{SERVICE_NAME}]");
            problems.push(with_nearest(object.problem(&path, words), near));
        }
    }
}

/// No two services share an address.
fn service_addresses<'o>(
    object: &'o Located,
    service: &Service,
    taken: &mut BTreeMap<IpAddr, &'o Located>,
    problems: &mut Vec<Problem>,
) {
    let Some(spec) = &service.spec else { return };
    let first = spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".to_owned(), ip));
    let all = spec.cluster_ips.iter().flatten().enumerate();
    let all = all.map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip));
    let mut own = BTreeSet::new();
    for (path, ip) in first.chain(all) {
        let Ok(ip) = ip.parse::<IpAddr>() else { continue };
        if !own.insert(ip) {
            continue;
        }
        match taken.get(&ip) {
            Some(earlier) if earlier.key != object.key => {
                let mut problem =
                    object.problem(&path, format!("{ip} is the address of {} already", earlier.key));
                problem.other = Some(place_of(earlier, ip));
                problems.push(problem);
            }
            Some(_) => {}
            None => {
                taken.insert(ip, object);
            }
        }
    }
}

fn place_of(service: &Located, ip: IpAddr) -> Location {
    let own = service.value["spec"]["clusterIP"].as_str().and_then(|text| text.parse().ok());
    service.at(if own == Some(ip) { "spec.clusterIP" } else { "spec.clusterIPs" })
}

fn with_nearest(mut problem: Problem, near: Option<&str>) -> Problem {
    problem.nearest = near.map(str::to_owned);
    problem
}
