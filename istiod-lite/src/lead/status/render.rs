//! What to write into the status of an object, given what stands there. Pure.
//!
//! A condition keeps the time of its last transition while its status stays the same. Where a list belongs to one owner
//! as a whole (conditions of Istio's resources, parents of routes), what others wrote is carried along, under the
//! resource version that was read; where its entries have owners of their own, only ours are written.

use ambit_control::input::Kind;
use ambit_control::status::{
    ACCEPTED, Condition, PARTIALLY_INVALID, PROGRAMMED, RESOLVED_REFS, Report, WAYPOINT_ACCEPTED,
    WAYPOINT_BOUND, ZTUNNEL_ACCEPTED,
};
use serde_json::{Map, Value, json};

/// Who writes the status of routes, also for those whose parent is a service.
pub const ROUTE_CONTROLLER: &str = "istio.io/gateway-controller";
/// Types of conditions that are ours.
const OURS: &[&str] = &[
    ACCEPTED,
    PARTIALLY_INVALID,
    PROGRAMMED,
    RESOLVED_REFS,
    WAYPOINT_ACCEPTED,
    WAYPOINT_BOUND,
    ZTUNNEL_ACCEPTED,
];
/// Longest message, in bytes; the API takes four times as much.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Most parents that a route can have in its status.
const PARENTS_MAX: usize = 32;
/// Faults that pass by themselves while something is being made.
const PASSING: &[&str] = &["AddressNotAssigned", "Pending"];

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Writing {
    /// The status, whole as far as it is ours.
    pub status: Value,
    /// Whether the resource version that was read has to be there still.
    pub is_bound_to_version: bool,
    /// Conditions that turned bad, or bad for another reason.
    pub turned_bad: Vec<Turned>,
}

/// A condition that turned bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// Its type.
    pub condition: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// What to write into the status of an object that stands as `live`; nothing if it says so already. Without a report,
/// what is ours is taken back. `now` is a time as the API writes it.
pub fn writing(kind: Kind, live: &Value, report: Option<&Report>, now: &str) -> Option<Writing> {
    if is_route(kind) { of_route(live, report, now) } else { of_object(kind, live, report, now) }
}

fn is_route(kind: Kind) -> bool {
    matches!(kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute)
}

/// Whether entries of its list of conditions have owners of their own, by the schema of the API.
fn has_own_entries(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::Gateway | Kind::GatewayClass)
}

fn of_object(kind: Kind, live: &Value, report: Option<&Report>, now: &str) -> Option<Writing> {
    let there = list(live, "/status/conditions");
    let wanted: Vec<Value> = report.map(conditions).unwrap_or_default();
    let is_ours = |one: &&Value| OURS.contains(&text(one, "type"));
    let held: Vec<&Value> = there.iter().filter(is_ours).collect();
    if is_said(&held, &wanted) {
        return None;
    }
    let turned_bad = turned(&wanted, there);
    let mut all = stamped(wanted, there, now);
    let is_bound_to_version = !has_own_entries(kind);
    if is_bound_to_version {
        all.splice(0..0, there.iter().filter(|one| !is_ours(one)).cloned());
    }
    Some(Writing { status: json!({"conditions": all}), is_bound_to_version, turned_bad })
}

fn of_route(live: &Value, report: Option<&Report>, now: &str) -> Option<Writing> {
    let there = list(live, "/status/parents");
    let (held, foreign): (Vec<&Value>, Vec<&Value>) =
        there.iter().partition(|parent| text(parent, "controllerName") == ROUTE_CONTROLLER);
    let mut parents: Vec<Value> = foreign.into_iter().cloned().collect();
    let room = PARENTS_MAX.saturating_sub(parents.len());
    let (mut is_said_already, mut turned_bad, mut count) = (true, Vec::new(), 0);
    for parent in report.iter().flat_map(|report| &report.parents).take(room) {
        let reference = json!(parent.parent);
        let generation = report.map_or(0, |report| report.generation);
        let wanted: Vec<Value> = parent.conditions.iter().map(|one| condition(one, generation)).collect();
        let before = held.iter().find(|one| is_same_parent(&one["parentRef"], &reference));
        let there = before.map_or(&[][..], |one| list(one, "/conditions"));
        is_said_already &= before.is_some() && is_said(&there.iter().collect::<Vec<_>>(), &wanted);
        turned_bad.extend(turned(&wanted, there));
        parents.push(json!({
            "parentRef": reference, "controllerName": ROUTE_CONTROLLER,
            "conditions": stamped(wanted, there, now),
        }));
        count += 1;
    }
    if is_said_already && count == held.len() {
        return None;
    }
    Some(Writing { status: json!({"parents": parents}), is_bound_to_version: true, turned_bad })
}

/// The status of a Gateway: `wanted` is its status without times.
pub fn of_gateway(live: &Value, wanted: &Value, now: &str) -> Option<Writing> {
    let there = list(live, "/status/conditions");
    let conditions = list(wanted, "/conditions").to_vec();
    let turned_bad = turned(&conditions, there);
    let mut status = wanted.clone();
    status["conditions"] = json!(stamped(conditions, there, now));
    let listeners = list(wanted, "/listeners").iter().map(|listener| {
        let before = list(live, "/status/listeners").iter().find(|one| one["name"] == listener["name"]);
        let there = before.map_or(&[][..], |one| list(one, "/conditions"));
        let mut listener = listener.clone();
        listener["conditions"] = json!(stamped(list(&listener, "/conditions").to_vec(), there, now));
        listener
    });
    status["listeners"] = listeners.collect();
    let is_ours = |one: &&Value| one.get("type").is_none_or(|kind| OURS.iter().any(|ours| kind == ours));
    let is_there = ["addresses", "conditions", "listeners"].iter().all(|field| {
        let held: Vec<&Value> = list(live, &format!("/status/{field}")).iter().collect();
        // What others say of a Gateway has a type too; so have addresses, which are ours alone.
        let is_of_conditions = *field == "conditions";
        let held: Vec<&Value> = held.into_iter().filter(|one| !is_of_conditions || is_ours(one)).collect();
        let wanted = list(&status, &format!("/{field}"));
        held.len() == wanted.len() && wanted.iter().all(|one| held.contains(&one))
    });
    (!is_there).then_some(Writing { status, is_bound_to_version: false, turned_bad })
}

/// Conditions of a report without their times.
fn conditions(report: &Report) -> Vec<Value> {
    report.conditions.iter().map(|one| condition(one, report.generation)).collect()
}

/// A condition without its time.
pub fn condition(of: &Condition, generation: i64) -> Value {
    let status = if of.holds { "True" } else { "False" };
    let message = shortened(&of.message);
    let mut condition = json!({"type": of.kind, "status": status, "reason": of.reason, "message": message});
    if generation > 0 {
        condition["observedGeneration"] = json!(generation);
    }
    condition
}

/// A text that fits, cut between characters.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(MESSAGE_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// Whether conditions say the same but for their times, in whatever order.
fn is_said(held: &[&Value], wanted: &[Value]) -> bool {
    held.len() == wanted.len() && wanted.iter().all(|one| held.iter().any(|held| is_same(held, one)))
}

fn is_same(held: &Value, wanted: &Value) -> bool {
    let fields = ["type", "status", "reason", "message"];
    // Istio's resources have it as a number or as a text.
    let generation = |of: &Value| match &of["observedGeneration"] {
        Value::Number(number) => number.as_i64().unwrap_or_default(),
        Value::String(text) => text.parse().unwrap_or_default(),
        _ => 0,
    };
    fields.iter().all(|field| held[*field] == wanted[*field]) && generation(held) == generation(wanted)
}

/// The same conditions with their times: that of before where the status is as before.
fn stamped(wanted: Vec<Value>, there: &[Value], now: &str) -> Vec<Value> {
    let stamp = |mut one: Value| {
        let before = there.iter().find(|held| held["type"] == one["type"] && held["status"] == one["status"]);
        let time = before.map(|held| text(held, "lastTransitionTime")).filter(|time| !time.is_empty());
        one["lastTransitionTime"] = json!(time.unwrap_or(now));
        one
    };
    wanted.into_iter().map(stamp).collect()
}

/// Conditions that are bad now and were not before, or for another reason.
fn turned(wanted: &[Value], there: &[Value]) -> Vec<Turned> {
    let is_bad = |one: &&Value| text(one, "status") == "False" || text(one, "type") == PARTIALLY_INVALID;
    let is_new = |one: &&Value| {
        let as_before =
            |held: &&Value| ["type", "status", "reason"].iter().all(|field| held[*field] == one[*field]);
        !there.iter().any(|held| as_before(&held))
    };
    let bad = wanted.iter().filter(is_bad).filter(is_new);
    bad.filter(|one| !PASSING.contains(&text(one, "reason")))
        .map(|one| Turned {
            condition: text(one, "type").to_owned(),
            reason: text(one, "reason").to_owned(),
            message: text(one, "message").to_owned(),
        })
        .collect()
}

/// Whether two references are the same once the API's defaults are filled in.
fn is_same_parent(held: &Value, wanted: &Value) -> bool {
    let filled = |of: &Value| {
        let mut all: Map<String, Value> = of.as_object().cloned().unwrap_or_default();
        all.retain(|_, value| !value.is_null());
        all.entry("group").or_insert_with(|| json!("gateway.networking.k8s.io"));
        all.entry("kind").or_insert_with(|| json!("Gateway"));
        all
    };
    filled(held) == filled(wanted)
}

fn list<'a>(of: &'a Value, pointer: &str) -> &'a [Value] {
    of.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
