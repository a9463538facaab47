//! Waypoints: whether their Gateways have addresses, and whether each of their pods has what was asked. Pure.
//!
//! A pod that serves has to be connected. One that is starting or ending need not be, but while it is, requests may
//! still go through it: it has to acknowledge as well.

use serde_json::Value;

use super::{Look, Mesh, Missing, condition, deletion, status_of, text};
use crate::schedule::waypoints;
use crate::store::{Kind, Snapshot};

/// Kinds whose refusal leaves a service without protection that somebody asked for.
const PROTECTION: [&str; 2] = ["HttpPolicy", "RequestAuthentication"];

/// What Gateways lack that are waited for: their addresses, which come with the first pod that is ready.
pub(super) fn addresses(look: Look<'_>, missing: &mut Missing) {
    if *look.mesh == Mesh::None {
        return;
    }
    let other = waypoints::other_controller(look.snapshot);
    for (name, gateway) in waypoints::all(look.snapshot) {
        if let Some(other) = other {
            missing.remarks.push(format!(
                "Gateway {name} is told nothing: GatewayClass {} has the controller {other}, not {}",
                waypoints::CLASS,
                waypoints::CONTROLLER
            ));
            continue;
        }
        let waits = waypoints::replicas(gateway) > 0 && look.demand.waits_for_gateway(&name);
        if waits && !waypoints::has_address(gateway) {
            missing.what.push(format!("Gateway {name} has no address yet: none of its pods has been ready"));
        }
    }
}

/// What the pods of waypoints have not acknowledged, and what they refuse. A control plane that says nothing of
/// waypoints is one that has none, and it has none while their class is another controller's.
pub(super) fn acknowledged(objects: &Snapshot, sync: &Value, wanted: u64, missing: &mut Missing) {
    let Some(entries) = sync.get("waypoints").and_then(Value::as_array) else { return };
    if waypoints::other_controller(objects).is_some() {
        return;
    }
    for (key, pod) in objects.of_kind(Kind::Pod) {
        let Some(waypoint) = waypoints::waypoint_of(pod) else { continue };
        let gateway = format!("{}/{waypoint}", key.namespace.as_deref().unwrap_or_default());
        let who = format!("waypoint/{gateway} (pod {})", key.name);
        let is_its = |entry: &&Value| {
            text(entry, "/gateway") == Some(gateway.as_str())
                && text(entry, "/pod") == Some(key.name.as_str())
        };
        // A pod of that name on another node may have left an entry of its own.
        let mut own = entries.iter().filter(is_its);
        match own.find(|e| e.get("connected").and_then(Value::as_bool) == Some(true)) {
            Some(entry) => of_pod(&who, entry, wanted, missing),
            None if serves(pod) => {
                missing.what.push(format!("{who} is not connected to the control plane"));
            }
            None => {}
        }
    }
}

/// Whether new requests go to a pod.
fn serves(pod: &Value) -> bool {
    let is_ready = condition(pod, "Ready").is_some_and(|c| status_of(c) == "True");
    is_ready && deletion(pod).is_none()
}

/// What one pod that is connected has not acknowledged, and what it refuses.
fn of_pod(who: &str, entry: &Value, wanted: u64, missing: &mut Missing) {
    let acked = entry.get("acked_revision").and_then(Value::as_u64).unwrap_or(0);
    if acked < wanted {
        missing.what.push(format!("{who} has acknowledged revision {acked} of {wanted}"));
    }
    for refused in entry.get("rejected").and_then(Value::as_array).into_iter().flatten() {
        let told = |field: &str| text(refused, field).unwrap_or_default().to_owned();
        let (kind, name, reason) = (told("/kind"), told("/name"), told("/reason"));
        let words = format!("{who} refuses {kind} {name}: {reason}");
        // Of anything else the last good one stays in force, which does not hold up what is right.
        if PROTECTION.contains(&&*kind) { missing.what.push(words) } else { missing.remarks.push(words) }
    }
}
