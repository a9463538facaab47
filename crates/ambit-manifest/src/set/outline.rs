//! What of an object matters to others: its name, what it refers to and its addresses, each with its place.
//!
//! Far smaller than the object, so that a set can be checked again when one of its objects changes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodSpec, Service};

use super::{BUILT_IN_NAMESPACES, DEFAULT_ACCOUNT, SERVICE_NAME};
use crate::kind::{Kind, ObjectKey};
use crate::object::{Located, Object};
use crate::problem::{Location, Position, Problem};

/// An object as others see it.
#[derive(Clone, Debug)]
pub struct Outline {
    pub(super) key: Arc<ObjectKey>,
    file: Arc<str>,
    document: Position,
    name: Position,
    pub(super) needs: Box<[Need]>,
    pub(super) addresses: Box<[Address]>,
}

/// Another object that has to be there.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) kind: Kind,
    pub(super) name: Box<str>,
    path: Cow<'static, str>,
    at: Position,
}

/// An address that no other service may have.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    path: String,
    at: Position,
    /// Where others are told that it stands.
    stands: Position,
}

impl Outline {
    /// The outline of an object.
    pub fn of(object: &Located) -> Self {
        let (mut needs, mut addresses) = (Vec::new(), Vec::new());
        let namespace = object.key.namespace.as_deref();
        if let Some(name) = namespace.filter(|name| !BUILT_IN_NAMESPACES.contains(name)) {
            needs.push(need(object, Kind::Namespace, name, "metadata.namespace"));
        }
        match &*object.object {
            Object::Pod(pod) => {
                if let Some(spec) = &pod.spec {
                    let paths = ["spec.serviceAccountName", "spec.nodeName"];
                    needs_of_pod(object, spec, paths, &mut needs);
                }
            }
            Object::Deployment(deployment) => {
                if let Some(spec) = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref()) {
                    let paths = ["spec.template.spec.serviceAccountName", "spec.template.spec.nodeName"];
                    needs_of_pod(object, spec, paths, &mut needs);
                }
            }
            Object::EndpointSlice(slice) => {
                let labels = slice.metadata.labels.as_ref();
                if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                    let path = format!("metadata.labels[{SERVICE_NAME}]");
                    needs.push(need(object, Kind::Service, service, path));
                }
            }
            Object::Service(service) => addresses = addresses_of(object, service),
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
        Self {
            key: Arc::new(object.key.clone()),
            file: object.location.file.clone(),
            document: Position { line: object.location.line, column: object.location.column },
            name: place(object, "metadata.name"),
            needs: needs.into(),
            addresses: addresses.into(),
        }
    }

    /// The object's name.
    pub fn key(&self) -> &Arc<ObjectKey> {
        &self.key
    }

    /// Where its document starts.
    pub fn location(&self) -> Location {
        self.place(self.document)
    }

    /// The problem that the object is defined at `first` already.
    pub fn defined_twice(&self, first: Location, words: &str) -> Problem {
        Problem { other: Some(first), ..self.problem("metadata.name", self.name, words.to_owned()) }
    }

    /// The problem that something is not there.
    pub(super) fn lacks(&self, need: &Need, nearest: Option<&str>) -> Problem {
        let Need { kind, name, path, at } = need;
        let mut words = format!("there is no {kind} \"{name}\"");
        if *kind == Kind::ServiceAccount {
            let namespace = self.key.namespace.as_deref().unwrap_or_default();
            words = format!("{words} in the namespace \"{namespace}\"");
        } else if *kind == Kind::Service {
            words.push_str(" in the same namespace");
        }
        Problem { nearest: nearest.map(str::to_owned), ..self.problem(path, *at, words) }
    }

    /// The problem that an address is another service's already.
    pub(super) fn shares(&self, address: &Address, holder: &Self) -> Problem {
        let Address { ip, path, at, .. } = address;
        let words = format!("{ip} is the address of {} already", holder.key);
        let held = holder.addresses.iter().find(|held| held.ip == *ip);
        let other = held.map(|held| holder.place(held.stands));
        Problem { other, ..self.problem(path, *at, words) }
    }

    fn place(&self, at: Position) -> Location {
        Location { file: self.file.clone(), line: at.line, column: at.column }
    }

    fn problem(&self, path: &str, at: Position, message: String) -> Problem {
        Problem {
            location: self.place(at),
            object: Some(ObjectKey::clone(&self.key)),
            field: path.to_owned(),
            message,
            nearest: None,
            other: None,
        }
    }
}

fn place(object: &Located, path: &str) -> Position {
    let Location { line, column, .. } = object.at(path);
    Position { line, column }
}

fn need(object: &Located, kind: Kind, name: &str, path: impl Into<Cow<'static, str>>) -> Need {
    let path = path.into();
    let at = place(object, &path);
    Need { kind, name: name.into(), path, at }
}

fn needs_of_pod(
    object: &Located,
    spec: &PodSpec,
    [account_path, node_path]: [&'static str; 2],
    needs: &mut Vec<Need>,
) {
    let account = spec.service_account_name.as_deref().unwrap_or_default();
    if !account.is_empty() && account != DEFAULT_ACCOUNT {
        needs.push(need(object, Kind::ServiceAccount, account, account_path));
    }
    let node = spec.node_name.as_deref().unwrap_or_default();
    if !node.is_empty() {
        needs.push(need(object, Kind::Node, node, node_path));
    }
}

fn addresses_of(object: &Located, service: &Service) -> Vec<Address> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let first = spec.cluster_ip.iter().map(|ip| ("spec.clusterIP".to_owned(), ip));
    let all = spec.cluster_ips.iter().flatten().enumerate();
    let all = all.map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip));
    let own = spec.cluster_ip.as_ref().and_then(|text| text.parse::<IpAddr>().ok());
    let mut seen = BTreeSet::new();
    let mut addresses = Vec::new();
    for (path, ip) in first.chain(all) {
        let Ok(ip) = ip.parse::<IpAddr>() else { continue };
        if seen.insert(ip) {
            let stands = if own == Some(ip) { "spec.clusterIP" } else { "spec.clusterIPs" };
            let (at, stands) = (place(object, &path), place(object, stands));
            addresses.push(Address { ip, path, at, stands });
        }
    }
    addresses
}
