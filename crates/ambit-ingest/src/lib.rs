//! Manifest objects reduced to what the index reads.
//!
//! An object with a value that cannot be read is refused whole, with the place of that value; the version before
//! it stays in force. Kinds the mesh does not read are passed over here, not refused.

use std::collections::BTreeMap;

use ambit_control::input::{self, Event, Key, Labels, Name, Object};
use ambit_manifest::{Kind, Located, Object as Written, ObjectKey, Problem};
use ambit_types::Str;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

mod cluster;
mod egress;
mod entries;
mod gateway;
mod mesh;
mod security;
#[cfg(test)]
mod tests;

/// Events for one object: one if the mesh reads its kind, none if it does not.
///
/// # Errors
/// Everything about it that cannot be read.
pub fn put(object: &Located) -> Result<Option<Event>, Vec<Problem>> {
    let mut reader = Reader { object, problems: Vec::new() };
    let read = reader.object();
    if reader.problems.is_empty() { Ok(read.map(Event::Put)) } else { Err(reader.problems) }
}

/// The event for an object that is gone, if the mesh reads its kind.
pub fn remove(key: &ObjectKey) -> Option<Event> {
    let kind = kind(key.kind)?;
    let name = Name::new(key.namespace.as_deref().unwrap_or_default(), key.name.as_str());
    Some(Event::Remove(Key { kind, name }))
}

fn kind(kind: Kind) -> Option<input::Kind> {
    match kind {
        Kind::Namespace => Some(input::Kind::Namespace),
        Kind::Node => Some(input::Kind::Node),
        Kind::Pod => Some(input::Kind::Pod),
        Kind::Service => Some(input::Kind::Service),
        Kind::EndpointSlice => Some(input::Kind::EndpointSlice),
        Kind::NetworkPolicy => Some(input::Kind::NetworkPolicy),
        Kind::AuthorizationPolicy => Some(input::Kind::AuthorizationPolicy),
        Kind::PeerAuthentication => Some(input::Kind::PeerAuthentication),
        Kind::ServiceEntry => Some(input::Kind::ServiceEntry),
        Kind::WorkloadEntry => Some(input::Kind::WorkloadEntry),
        Kind::RequestAuthentication => Some(input::Kind::RequestAuthentication),
        Kind::GatewayClass => Some(input::Kind::GatewayClass),
        Kind::Gateway => Some(input::Kind::Gateway),
        Kind::HTTPRoute => Some(input::Kind::HttpRoute),
        Kind::GRPCRoute => Some(input::Kind::GrpcRoute),
        Kind::TCPRoute => Some(input::Kind::TcpRoute),
        Kind::TLSRoute => Some(input::Kind::TlsRoute),
        Kind::ReferenceGrant => Some(input::Kind::ReferenceGrant),
        Kind::TrafficPolicy => Some(input::Kind::TrafficPolicy),
        Kind::EgressPolicy => Some(input::Kind::EgressPolicy),
        Kind::VirtualService => Some(input::Kind::VirtualService),
        // One of them is the mesh configuration; of the others nothing is held, and removing nothing changes nothing.
        Kind::ConfigMap => Some(input::Kind::MeshConfig),
        // Deployments become pods elsewhere; accounts and secrets change nothing in the mesh.
        Kind::ServiceAccount | Kind::Secret | Kind::Deployment => None,
    }
}

/// Reads one object and collects what cannot be read.
struct Reader<'a> {
    object: &'a Located,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn object(&mut self) -> Option<Object> {
        match &*self.object.object {
            Written::Namespace(o) => Some(Object::Namespace(self.namespace(o))),
            Written::Node(o) => Some(Object::Node(self.node(o))),
            Written::Pod(o) => Some(Object::Pod(Box::new(self.pod(o)))),
            Written::Service(o) => Some(Object::Service(Box::new(self.service(o)))),
            Written::EndpointSlice(o) => self.slice(o).map(Object::EndpointSlice),
            Written::NetworkPolicy(o) => Some(Object::NetworkPolicy(self.network_policy(o))),
            Written::AuthorizationPolicy(o) => self.policy(o),
            Written::PeerAuthentication(o) => Some(Object::PeerAuthentication(self.peer_authentication(o))),
            Written::ServiceEntry(o) => Some(Object::ServiceEntry(Box::new(self.service_entry(o)))),
            Written::WorkloadEntry(o) => Some(Object::WorkloadEntry(Box::new(self.workload_entry(o)))),
            Written::RequestAuthentication(o) => {
                self.request_authentication(o).map(|made| Object::RequestAuthentication(Box::new(made)))
            }
            Written::GatewayApi(o) => Some(self.gateway_object(o)),
            Written::ConfigMap(_) => self.mesh_config(),
            Written::ServiceAccount(_) | Written::Secret(_) | Written::Deployment(_) => None,
        }
    }

    fn bad(&mut self, path: impl AsRef<str>, message: impl Into<String>) {
        self.problems.push(self.object.problem(path.as_ref(), message));
    }

    fn name(&self) -> Name {
        let key = &self.object.key;
        Name::new(key.namespace.as_deref().unwrap_or_default(), key.name.as_str())
    }

    /// A port number; 0 and a problem if it is none.
    fn port<N: TryInto<u16> + std::fmt::Display + Copy>(&mut self, path: impl AsRef<str>, number: N) -> u16 {
        match number.try_into() {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => {
                self.bad(path, format!("{number} is no port, 1 to 65535"));
                0
            }
        }
    }

    /// A text of a certain type; nothing and a problem if it is not.
    fn parsed<T: std::str::FromStr>(&mut self, path: impl AsRef<str>, text: &str, what: &str) -> Option<T> {
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.bad(path, format!("{text:?} is no {what}"));
        }
        parsed
    }
}

fn created(metadata: &ObjectMeta) -> u64 {
    let stamp = metadata.creation_timestamp.as_ref().map(|t| t.0.as_second());
    stamp.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default()
}

fn generation(metadata: &ObjectMeta) -> i64 {
    metadata.generation.unwrap_or_default()
}

fn words(map: Option<&BTreeMap<String, String>>) -> Labels {
    map.into_iter().flatten().map(|(k, v)| (Str::from(k.as_str()), Str::from(v.as_str()))).collect()
}

/// Only the annotations named: others change often and mean nothing here.
fn chosen(map: Option<&BTreeMap<String, String>>, names: &[&str]) -> Labels {
    let found = names.iter().filter_map(|name| map?.get_key_value(*name));
    found.map(|(k, v)| (Str::from(k.as_str()), Str::from(v.as_str()))).collect()
}

fn text(option: Option<&str>) -> Str {
    Str::from(option.unwrap_or_default())
}
