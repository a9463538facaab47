//! `/config_dump`: who this waypoint is, what it serves, and what of its configuration is not in force.
//!
//! Names and reasons, not contents: no token, key or header value of a policy is shown.

use ambit_net::tls::store::CertificateStore;
use ambit_route::model::{Frontend, Group, Route};
use ambit_runtime::clock;
use ambit_xds::client::Store;
use ambit_xds::codec::PolicyTarget;
use serde_json::{Value, json};

use super::Source;
use crate::State;
use crate::discovery::Faults;

/// All of it.
pub(super) fn config_dump(source: &Source) -> Value {
    let running = source.waypoint.borrow().clone();
    let configuration = source.told.configuration();
    let (store, faults) = &*configuration;
    let state = running.map(|waypoint| waypoint.state());
    let now = clock::unix_seconds();
    json!({
        "about": &*source.about,
        "own": state.as_deref().map(own),
        "services": state.as_deref().map(services).unwrap_or_default(),
        "routes": store.frontends().map(|one| frontend(one, faults)).collect::<Vec<_>>(),
        "destinations": store.destinations().map(|one| one.service.to_string()).collect::<Vec<_>>(),
        "policies": policies(store),
        "requestAuthentications": authentications(store),
        "refused": refused(store),
        "certificates": certificates(&source.certificates),
        "discovery": {
            "complete": source.told.is_complete(),
            "staleFor": source.told.away_since().map(|since| now.saturating_sub(since)),
        },
    })
}

fn own(state: &State) -> Value {
    let own = &state.own;
    json!({
        "uid": own.workload.uid.as_str(),
        "identity": own.identity().to_string(),
        "addresses": own.workload.addresses,
        "network": own.workload.network.as_str(),
        "node": &*own.workload.node,
        "service": own.service.as_ref().map(ToString::to_string),
        "vips": own.vips,
    })
}

/// The services bound to this waypoint.
fn services(state: &State) -> Vec<Value> {
    let bound = state.mesh.services().into_iter().filter(|entry| state.own.serves(entry));
    let shown = bound.map(|entry| {
        let service = entry.service();
        let key = service.key();
        let applied = state.policies.of(Some(&key));
        let unresolved = applied.policies.unresolved().iter().map(ToString::to_string);
        json!({
            "service": key.to_string(),
            "ports": service.ports.iter().map(|port| port.service_port).collect::<Vec<_>>(),
            "endpoints": entry.endpoints().len(),
            "policies": applied.policies.policies().map(|one| one.key.to_string()).collect::<Vec<_>>(),
            "tokenRules": applied.tokens.rules().len(),
            "unresolved": unresolved.collect::<Vec<_>>(),
        })
    });
    shown.collect()
}

fn frontend(frontend: &Frontend, faults: &Faults) -> Value {
    let name = format!("{}/{}", frontend.service, frontend.port);
    let wrong = faults.get(&name).into_iter().flatten();
    let wrong =
        wrong.map(|error| json!({"error": error.to_string(), "effect": format!("{:?}", error.effect)}));
    let consumers = frontend.consumers.iter();
    let consumers = consumers.map(|(namespace, one)| (namespace.to_string(), group(one)));
    json!({
        "wrong": wrong.collect::<Vec<_>>(),
        "producer": frontend.producer.as_ref().map(group),
        "consumers": consumers.collect::<serde_json::Map<_, _>>(),
        "name": name,
    })
}

fn group(group: &Group) -> Value {
    let (kind, routes): (_, Vec<Value>) = match group {
        Group::Http(routes) => ("HTTPRoute", routes.iter().map(route).collect()),
        Group::Listed(routes) => ("VirtualService", routes.iter().map(route).collect()),
        Group::Grpc(routes) => ("GRPCRoute", routes.iter().map(route).collect()),
        Group::Tls(routes) => ("TLSRoute", routes.iter().map(|one| json!(one.key.to_string())).collect()),
        Group::Tcp(routes) => ("TCPRoute", routes.iter().map(|one| json!(one.key.to_string())).collect()),
        Group::Unrouted(routes) => ("Service", routes.iter().map(route).collect()),
    };
    json!({"kind": kind, "routes": routes})
}

fn route<M>(route: &Route<M>) -> Value {
    json!({"name": route.key.to_string(), "rules": route.rules.len()})
}

fn policies(store: &Store) -> Vec<Value> {
    let shown = store.policies().map(|one| {
        let policy = &one.policy;
        json!({
            "name": one.name(),
            "action": policy.action.to_string(),
            "dryRun": policy.dry_run,
            "rules": policy.rules.len(),
            "targets": targets(&one.targets),
        })
    });
    shown.collect()
}

fn authentications(store: &Store) -> Vec<Value> {
    let shown = store
        .authentications()
        .map(|one| json!({"name": one.name(), "rules": one.rules.len(), "targets": targets(&one.targets)}));
    shown.collect()
}

fn targets(list: &[PolicyTarget]) -> Vec<String> {
    let shown = list.iter().map(|target| match target {
        PolicyTarget::Service(service) => service.to_string(),
        PolicyTarget::Waypoint => "waypoint".to_owned(),
    });
    shown.collect()
}

/// What was refused, and whether an older version is in force.
fn refused(store: &Store) -> Vec<Value> {
    let shown = store.refusals().map(|(kind, name, refusal)| {
        json!({
            "kind": kind.to_string(),
            "name": name,
            "reason": refusal.reason.to_string(),
            "olderInForce": store.holds(kind, name),
        })
    });
    shown.collect()
}

/// Certificates by identity; never a key.
pub(super) fn certificates(certificates: &CertificateStore) -> Value {
    let shown = certificates.list().into_iter().map(|known| {
        json!({
            "identity": known.identity.to_string(),
            "notAfter": known.credential.as_ref().map(|credential| credential.not_after()),
            "lastError": known.error,
        })
    });
    Value::Array(shown.collect())
}
