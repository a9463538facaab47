//! Waypoints: from Gateways to the objects they are made of, and from ready pods to the Gateways' addresses.

use ambit_runtime::clock;
use serde_json::{Value, json};

use super::force::condition;
use super::nodes::{merge, new_uid, timestamp};
use super::owner::Owner;
use crate::error::LabError;
use crate::pod::sandbox::CLUSTER_DOMAIN;
use crate::programs::spec;
use crate::schedule::{ObjectName, Problem, services, waypoints};
use crate::store::{Kind, ObjectKey};

/// Writes and removes what waypoints are made of; what cannot be done is returned. Nothing without a mesh.
pub(super) fn derive(owner: &Owner) -> Result<Vec<Problem>, LabError> {
    let (home, snapshot) = (&owner.home, owner.store.snapshot());
    let program = home.config.mesh.then(|| spec::waypoint(&home.config, &home.run, &home.binaries));
    let mut changes = waypoints::changes(&snapshot, program.as_ref());
    for object in &mut changes.put {
        if object.pointer("/metadata/uid").is_none() {
            let born = json!({"uid": new_uid()?, "creationTimestamp": timestamp(clock::wall())});
            merge(object, "/metadata", born);
        }
    }
    owner.store.put(&changes.put)?;
    for key in &changes.remove {
        owner.store.remove(key)?;
    }
    let path = home.binaries.join(spec::WAYPOINT);
    if home.config.mesh && !path.is_file() {
        let missing = LabError::ProgramMissing { program: spec::WAYPOINT, path }.to_string();
        let needing = waypoints::all(&snapshot).filter(|(_, gateway)| waypoints::replicas(gateway) > 0);
        let problem = |object| Problem { kind: "Gateway", object, message: missing.clone() };
        changes.problems.extend(needing.map(|(name, _)| problem(name)));
    }
    Ok(changes.problems)
}

/// Gives Gateways their addresses once one of their pods has been ready. They keep them: a waypoint that is away
/// later must not look as if it had never been asked for.
pub(super) fn report(owner: &Owner) -> Result<(), LabError> {
    let snapshot = owner.store.snapshot();
    let lacking: Vec<ObjectName> = waypoints::all(&snapshot)
        .filter(|(_, gateway)| !waypoints::has_address(gateway))
        .map(|(name, _)| name)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let services = snapshot.services();
    for name in lacking {
        let is_up = |(_, pod): (&ObjectKey, &Value)| is_ready(pod);
        let service = services.iter().find(|s| ObjectName::of(&s.metadata) == name);
        let cluster_ips = service.map(services::cluster_ips).unwrap_or_default();
        if cluster_ips.is_empty() || !waypoints::pods_of(&snapshot, &name).any(is_up) {
            continue;
        }
        let addresses = waypoints::addresses(&name, &cluster_ips, CLUSTER_DOMAIN);
        let now = timestamp(clock::wall());
        owner.store.change(&key_of(&name), |gateway| {
            let generation = gateway.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            merge(gateway, "", json!({"status": {"addresses": addresses}}));
            for (kind, reason) in [("Accepted", "Accepted"), ("Programmed", "Programmed")] {
                let words = "made by the lab, and one of its pods has been ready";
                set_condition(
                    gateway,
                    json!({
                        "type": kind, "status": "True", "reason": reason, "message": words,
                        "observedGeneration": generation, "lastTransitionTime": now,
                    }),
                );
            }
        })?;
    }
    Ok(())
}

/// Whether a pod's object says that it is ready and not about to end.
pub(super) fn is_ready(pod: &Value) -> bool {
    let ready = condition(pod, "Ready").and_then(|c| c.get("status")).and_then(Value::as_str);
    ready == Some("True") && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// The key of a waypoint's Gateway.
pub(super) fn key_of(waypoint: &ObjectName) -> ObjectKey {
    ObjectKey::new(Kind::Gateway, Some(&waypoint.namespace), &waypoint.name)
}

/// Sets a condition in the place of the one of its type.
fn set_condition(gateway: &mut Value, fresh: Value) {
    if gateway.pointer("/status/conditions").and_then(Value::as_array).is_none() {
        merge(gateway, "", json!({"status": {"conditions": []}}));
    }
    let Some(all) = gateway.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    all.retain(|old| old.get("type") != fresh.get("type"));
    all.push(fresh);
}
