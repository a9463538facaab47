//! Waypoints: whether their Gateways have addresses, and whether each pod that serves has what was asked. Pure.
//!
//! A pod that is not ready acknowledges nothing; whether that matters is decided where pods are looked at.

use serde_json::Value;

use super::{Look, Mesh, Missing, condition, deletion, status_of, text};
use crate::schedule::waypoints;
use crate::store::{Kind, Snapshot};

/// What Gateways lack that are waited for: their addresses, which come with the first pod that is ready.
pub(super) fn addresses(look: Look<'_>, missing: &mut Missing) {
    if *look.mesh == Mesh::None {
        return;
    }
    for (name, gateway) in waypoints::all(look.snapshot) {
        let waits = waypoints::replicas(gateway) > 0 && look.demand.waits_for_gateway(&name);
        if waits && !waypoints::has_address(gateway) {
            missing.what.push(format!("Gateway {name} has no address yet: none of its pods has been ready"));
        }
    }
}

/// What the pods of waypoints have not acknowledged, and what they refuse. A control plane that says nothing of
/// waypoints is one that has none.
pub(super) fn acknowledged(objects: &Snapshot, sync: &Value, wanted: u64, missing: &mut Missing) {
    let Some(entries) = sync.get("waypoints").and_then(Value::as_array) else { return };
    for (key, pod) in objects.of_kind(Kind::Pod) {
        let Some(waypoint) = waypoints::waypoint_of(pod) else { continue };
        let is_ready = condition(pod, "Ready").is_some_and(|c| status_of(c) == "True");
        if !is_ready || deletion(pod).is_some() {
            continue;
        }
        let gateway = format!("{}/{waypoint}", key.namespace.as_deref().unwrap_or_default());
        let who = format!("waypoint/{gateway} (pod {})", key.name);
        let is_its = |entry: &&Value| {
            text(entry, "/gateway") == Some(gateway.as_str())
                && text(entry, "/pod") == Some(key.name.as_str())
        };
        // A pod of that name on another node may have left an entry of its own.
        let mut own = entries.iter().filter(is_its);
        let entry = own.find(|e| e.get("connected").and_then(Value::as_bool) == Some(true));
        let Some(entry) = entry else {
            missing.what.push(format!("{who} is not connected to the control plane"));
            continue;
        };
        let acked = entry.get("acked_revision").and_then(Value::as_u64).unwrap_or(0);
        if acked < wanted {
            missing.what.push(format!("{who} has acknowledged revision {acked} of {wanted}"));
        }
        // The last good one stays in force, so this does not hold up what is right.
        for refused in entry.get("rejected").and_then(Value::as_array).into_iter().flatten() {
            let told = |field: &str| text(refused, field).unwrap_or_default().to_owned();
            let (kind, name, reason) = (told("/kind"), told("/name"), told("/reason"));
            missing.remarks.push(format!("{who} refuses {kind} {name}: {reason}"));
        }
    }
}
