//! What a Gateway's status says of its waypoint. Pure; times are added where it is written.

use ambit_control::index::Health;
use ambit_control::input::Gateway;
use ambit_control::status::{ACCEPTED, Condition, PROGRAMMED, RESOLVED_REFS, Report};
use serde_json::{Value, json};

use super::objects;
use crate::lead::status::render;

/// Most addresses that a status holds.
const ADDRESSES_MAX: usize = 16;

/// What became of making the objects of a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every object is there.
    Made,
    /// The Gateway asks for what it cannot have; what was there before stays.
    Refused(String),
    /// An object cannot be written as it is; somebody has to change something.
    Failed(String),
    /// Writing is tried again.
    Waiting(String),
}

/// What is known of a waypoint.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The Gateway.
    pub gateway: &'a Gateway,
    /// How it stands by itself.
    pub report: Option<&'a Report>,
    /// Its Service and the endpoints of that.
    pub health: &'a Health,
    /// What became of its objects; nothing before the first attempt.
    pub outcome: Option<&'a Outcome>,
    /// Domain of service names.
    pub domain: &'a str,
}

/// The status but for times.
pub fn status(facts: Facts<'_>) -> Value {
    let generation = facts.gateway.generation;
    let own = [accepted(facts), programmed(facts), resolved()];
    let listeners = facts.gateway.spec.listeners.iter().map(|listener| listener_status(facts, listener));
    json!({
        "addresses": addresses(facts),
        "conditions": own.iter().map(|one| render::condition(one, generation)).collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}

fn holds(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind, holds: true, reason, message: message.into() }
}

fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind, holds: false, reason, message: message.into() }
}

fn accepted(facts: Facts<'_>) -> Condition {
    if let Some(Outcome::Refused(message)) = facts.outcome {
        return fails(ACCEPTED, "InvalidParameters", message);
    }
    let own = facts.report.and_then(|report| report.conditions.iter().find(|one| one.kind == ACCEPTED));
    own.cloned().unwrap_or_else(|| holds(ACCEPTED, "Accepted", "a waypoint"))
}

fn programmed(facts: Facts<'_>) -> Condition {
    let Facts { gateway, health, .. } = facts;
    let name = &gateway.name;
    if objects::is_unmanaged(gateway) {
        let words = "its addresses are those of spec.addresses; nothing is made for it";
        return holds(PROGRAMMED, "Programmed", words);
    }
    match facts.outcome {
        Some(Outcome::Refused(_)) => {
            return fails(PROGRAMMED, "Invalid", "it is not accepted; what was made for it before stays");
        }
        Some(Outcome::Failed(message)) => return fails(PROGRAMMED, "Invalid", message),
        Some(Outcome::Waiting(message)) => return fails(PROGRAMMED, "Pending", message),
        None => return fails(PROGRAMMED, "Pending", "its Deployment and Service are about to be made"),
        Some(Outcome::Made) => {}
    }
    if health.addresses.is_empty() {
        let words = format!("Service {name} has no cluster IP yet");
        return fails(PROGRAMMED, "AddressNotAssigned", words);
    }
    if health.is_ready {
        return holds(PROGRAMMED, "Programmed", "it can be reached");
    }
    if objects::is_stopped(gateway) {
        let words = format!(
            "annotation {} is 0: it has no pods, and connections that need it are refused; remove the annotation to \
             start it",
            objects::REPLICAS
        );
        return fails(PROGRAMMED, "NoResources", words);
    }
    let look = format!(
        "see: kubectl -n {} get pods,events -l {}={}",
        name.namespace,
        objects::GATEWAY_LABEL,
        name.name
    );
    if gateway.has_address {
        let words = format!("none of its pods is ready: connections that need it are refused; {look}");
        return fails(PROGRAMMED, "NoResources", words);
    }
    fails(PROGRAMMED, "AddressNotAssigned", format!("none of its pods has been ready yet; {look}"))
}

fn resolved() -> Condition {
    holds(RESOLVED_REFS, "ResolvedRefs", "it refers to nothing")
}

/// Given once it has been ready, and kept: a waypoint that is away later must not look as if it had never been there.
fn addresses(facts: Facts<'_>) -> Vec<Value> {
    let Facts { gateway, health, .. } = facts;
    if objects::is_unmanaged(gateway) {
        let asked = gateway.spec.addresses.iter().take(ADDRESSES_MAX);
        let kind = |of: Option<&String>| of.cloned().unwrap_or_else(|| "IPAddress".to_owned());
        return asked.map(|one| json!({"type": kind(one.r#type.as_ref()), "value": one.value})).collect();
    }
    let is_up = health.is_ready && !health.addresses.is_empty();
    if !is_up && !gateway.has_address {
        return Vec::new();
    }
    let name = &gateway.name;
    let host = format!("{}.{}.svc.{}", name.name, name.namespace, facts.domain);
    let ips = health.addresses.iter().map(|ip| json!({"type": "IPAddress", "value": ip.to_string()}));
    ips.chain([json!({"type": "Hostname", "value": host})]).collect()
}

fn listener_status(facts: Facts<'_>, listener: &ambit_types::written::Listener) -> Value {
    let is_hbone = listener.protocol == "HBONE" && listener.port == 15008;
    let accepted = if is_hbone {
        holds(ACCEPTED, "Accepted", "tunnels to the services of this waypoint")
    } else {
        let words = format!(
            "a waypoint listens for HBONE on port 15008 alone, not for {} on {}; remove this listener",
            listener.protocol, listener.port
        );
        fails(ACCEPTED, "UnsupportedProtocol", words)
    };
    let programmed = match programmed(facts) {
        all if is_hbone => all,
        _ => fails(PROGRAMMED, "Invalid", "it is not accepted"),
    };
    let conflicted = fails("Conflicted", "NoConflicts", "no other listener is in its way");
    let all = [accepted, programmed, conflicted, resolved()];
    let generation = facts.gateway.generation;
    let kinds = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];
    let kinds = kinds.map(|kind| json!({"group": "gateway.networking.k8s.io", "kind": kind}));
    json!({
        "name": listener.name,
        // Routes of the mesh attach to services, which a waypoint carries out.
        "attachedRoutes": 0,
        "supportedKinds": if is_hbone { &kinds[..] } else { &[] },
        "conditions": all.iter().map(|one| render::condition(one, generation)).collect::<Vec<_>>(),
    })
}
