//! A look at everything that was made for waypoints: what is missing or was changed is written again, what belongs to no
//! Gateway any more is removed.

use std::collections::{BTreeMap, BTreeSet};

use ambit_control::Name;
use serde_json::Value;
use tracing::{info, warn};

use super::{
    CLASS, CONTROLLER, GATEWAY_LABEL, KINDS, Piece, Seen, State, generation, managed, name_of, objects,
};
use super::{resource_of, text, waypoint_of};
use crate::lead::api::{ApiError, At, MANAGER, Resource};
use crate::lead::{Lead, chain};

/// Most objects of nobody that are remembered in one look; the next one finds the others.
const ORPHANS_MAX: usize = 1_000;

/// An object that was made for a Gateway the mesh does not know.
struct Orphan {
    piece: Piece,
    uid: String,
    gateway: Name,
    /// Uid of the Gateway it was made for.
    owner: String,
}

/// Looks at everything. What cannot be listed is taken to be as it was.
pub(super) async fn sweep(lead: &Lead<'_>, state: &mut State, seen: &BTreeMap<Name, Seen>) {
    let mut orphans = Vec::new();
    let mut listed = BTreeSet::new();
    let query = managed();
    for resource in KINDS {
        let (mut found, mut strayed) = (BTreeMap::new(), BTreeSet::new());
        let result = lead.server.list(resource, &query, |live| {
            let name = name_of(live);
            let Some(gateway) = waypoint_of(live) else { return };
            let gateway = Name::new(name.namespace.clone(), gateway);
            if let Some(one) = seen.get(&gateway) {
                if has_strayed(lead, resource, one, live) {
                    strayed.insert(gateway);
                }
                found.insert((resource, name), generation(live));
            } else if orphans.len() < ORPHANS_MAX {
                orphans.extend(orphan((resource, name), gateway, live));
            }
        });
        match result.await {
            Ok(()) => {
                listed.insert(resource);
                compare(state, resource, &found);
                // Nothing is written for a Gateway that is not accepted, or brings its own addresses.
                let is_made = |name: &Name| seen.get(name).is_some_and(Seen::is_made);
                strayed.into_iter().filter(is_made).for_each(|name| state.making.doubt(name));
            }
            Err(error) => {
                warn!(kind = resource.kind, error = %chain(&error), "cannot look at what was made for waypoints");
            }
        }
    }
    doubt_incomplete(lead, state, &listed);
    for orphan in orphans {
        if let Err(error) = collect(lead, &orphan).await {
            let (resource, name) = &orphan.piece;
            warn!(
                kind = resource.kind, object = %name, error = %chain(&error),
                "what was made for a waypoint that is gone cannot be removed"
            );
        }
    }
}

/// One that we wrote and nobody removes already.
fn orphan(piece: Piece, gateway: Name, live: &Value) -> Option<Orphan> {
    let fields = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let is_ours = fields.into_iter().flatten().any(|one| one.get("manager").is_some_and(|by| by == MANAGER));
    let is_ending = live.pointer("/metadata/deletionTimestamp").is_some();
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    let owner = owners.find(|owner| text(owner, "/kind") == Resource::GATEWAY.kind);
    let owner = owner.map(|owner| text(owner, "/uid")).unwrap_or_default().to_owned();
    let uid = text(live, "/metadata/uid").to_owned();
    (is_ours && !is_ending && !uid.is_empty()).then_some(Orphan { piece, uid, gateway, owner })
}

/// Whether somebody changed an object whose kind has no generation, which would tell: a Service, an account, a scaler.
/// What others added to it is theirs.
fn has_strayed(lead: &Lead<'_>, resource: Resource, of: &Seen, live: &Value) -> bool {
    let Some(settings) = lead.settings.waypoints.as_ref().filter(|_| generation(live) == 0) else {
        return false;
    };
    let made = objects::made_of(&of.gateway, settings).unwrap_or_default();
    let wanted = made.iter().find(|object| resource_of(object) == Some(resource));
    wanted.is_some_and(|wanted| !is_within(wanted, live))
}

/// Whether an object has everything that is wanted of it, and perhaps more.
fn is_within(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, wanted)| {
            // An empty map is as good as none.
            let is_empty = wanted.as_object().is_some_and(serde_json::Map::is_empty);
            // A list does not say of each of its objects of which kind they are.
            let is_kind = matches!(key.as_str(), "apiVersion" | "kind");
            match live.get(key) {
                Some(live) => is_within(wanted, live),
                None => is_empty || is_kind,
            }
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.iter().all(|wanted| live.iter().any(|live| is_within(wanted, live)))
        }
        (wanted, live) => wanted == live,
    }
}

/// Takes in what is there of one kind; what changed since it was written is written again.
fn compare(state: &mut State, resource: Resource, found: &BTreeMap<Piece, i64>) {
    for (piece, generation) in found {
        if state.held.get(piece).is_some_and(|held| held != generation) {
            state.making.doubt(piece.1.clone());
        }
    }
    state.held.retain(|piece, _| piece.0 != resource);
    state.held.extend(found.iter().map(|(piece, generation)| (piece.clone(), *generation)));
}

/// Marks waypoints that lack an object or have one too many.
fn doubt_incomplete(lead: &Lead<'_>, state: &mut State, listed: &BTreeSet<Resource>) {
    let Some(settings) = &lead.settings.waypoints else { return };
    let is_incomplete = |name: &Name, gateway: &ambit_control::input::Gateway| {
        let Ok(made) = objects::made_of(gateway, settings) else { return false };
        let wanted: BTreeSet<Resource> = made.iter().filter_map(resource_of).collect();
        let is_held = |resource| state.held.contains_key(&(resource, name.clone()));
        listed.iter().any(|resource| wanted.contains(resource) != is_held(*resource))
    };
    let incomplete: Vec<Name> = state
        .making
        .wanted()
        .filter(|(name, gateway)| is_incomplete(name, gateway))
        .map(|(name, _)| name.clone())
        .collect();
    for name in incomplete {
        state.making.doubt(name);
    }
}

/// Removes an object once the API server itself says that its Gateway is gone, or is none of ours any more: the mesh may
/// only have been unable to read it.
async fn collect(lead: &Lead<'_>, orphan: &Orphan) -> Result<(), ApiError> {
    let Orphan { piece: (resource, name), uid, gateway, owner } = orphan;
    let at = At { resource: Resource::GATEWAY, namespace: &gateway.namespace, name: &gateway.name };
    if let Some(live) = lead.server.get(at).await? {
        let class = text(&live, "/spec/gatewayClassName");
        let is_ours = match lead.world.index().class_controller(class) {
            Some(controller) => **controller == *CONTROLLER,
            None => class == CLASS,
        };
        if is_ours && (owner.is_empty() || text(&live, "/metadata/uid") == owner) {
            return Ok(());
        }
    }
    let at = At { resource: *resource, namespace: &name.namespace, name: &name.name };
    lead.server.delete(at, uid).await?;
    info!(object = %at, gateway = %gateway, label = GATEWAY_LABEL, "removed what belongs to no waypoint any more");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_within;

    #[test]
    fn what_others_add_is_no_change_and_what_they_take_is() {
        let wanted = json!({
            "kind": "Service", "metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {"selector": {"app": "wp"}, "ports": [{"name": "mesh", "port": 15008}]},
        });
        let live = json!({
            "metadata": {"labels": {"a": "1", "theirs": "2"}},
            "spec": {
                "clusterIP": "10.96.0.9", "selector": {"app": "wp"},
                "ports": [{"name": "status", "port": 15021}, {"name": "mesh", "port": 15008, "protocol": "TCP"}],
            },
        });
        assert!(is_within(&wanted, &live));
        for (field, value) in [
            ("/metadata/labels", json!({"theirs": "2"})),
            ("/spec/selector", json!({"app": "elsewhere"})),
            ("/spec/ports", json!([{"name": "mesh", "port": 15009}])),
        ] {
            let mut changed = live.clone();
            *changed.pointer_mut(field).expect("it is there") = value;
            assert!(!is_within(&wanted, &changed), "{field}");
        }
    }
}
