//! The edges of several replicas as one list.
//!
//! The two ends of a connection may attend different replicas, and so may the pods of one side. So what each side told is
//! added up over the replicas, and then the larger side stands, as in a replica that knows both.

use std::collections::BTreeMap;

use ambit_types::Reason;
use serde_json::{Map, Value, json};

/// What is counted side by side.
const COUNTS: [&str; 5] = ["connections", "open", "denied", "requests", "failed"];
/// The same a second.
const RATES: [&str; 4] = ["rate_per_s", "requests_per_s", "bytes_sent_per_s", "bytes_received_per_s"];
/// What is the same or more in one of them: the slower one stands.
const SLOWEST: [&str; 3] = ["latency_ms_p50", "latency_ms_p95", "latency_ms_p99"];
/// Sides.
const DESTINATION: &str = "destination";
const WAYPOINT: &str = "waypoint";

/// The edges by id, those of one id as one.
pub(super) fn edges(told: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut by_id: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for edge in told.filter(Value::is_object) {
        by_id.entry(edge["id"].as_str().unwrap_or_default().to_owned()).or_default().push(edge);
    }
    by_id.into_values().filter_map(one).collect()
}

/// Several tellings of one edge as one.
fn one(mut told: Vec<Value>) -> Option<Value> {
    let sides = sides(&told);
    let is_alone = told.len() == 1;
    forget_attempts(&mut told);
    let mut all = told.into_iter();
    let mut edge = all.next()?;
    all.for_each(|other| join(&mut edge, other));
    if let Some(edge) = edge.as_object_mut() {
        edge.remove("by");
    }
    if !is_alone {
        count(&mut edge, &sides);
    }
    Some(edge)
}

/// What each side told all replicas.
fn sides(told: &[Value]) -> BTreeMap<String, Value> {
    let mut sides: BTreeMap<String, Value> = BTreeMap::new();
    let each = told.iter().filter_map(|edge| edge["by"].as_object()).flatten();
    for (name, side) in each {
        let sum = sides.entry(name.clone()).or_insert_with(|| json!({"codes": {}}));
        for key in COUNTS {
            sum[key] = json!(whole(sum, key).saturating_add(whole(side, key)));
        }
        for key in RATES {
            sum[key] = json!(rounded(number(sum, key) + number(side, key)));
        }
        for code in side["codes"].as_object().into_iter().flatten().map(|(code, _)| code) {
            sum["codes"][code] =
                json!(whole(&sum["codes"], code).saturating_add(whole(&side["codes"], code)));
        }
    }
    sides
}

/// How connections were carried is told by those that came about: an attempt that was refused makes no secured edge
/// plaintext. Where nothing came about, attempts are all there is.
fn forget_attempts(told: &mut [Value]) {
    // Some may be open since before the window.
    let is_used = |edge: &Value| whole(edge, "connections") > 0 || whole(edge, "open") > 0;
    if !told.iter().any(is_used) {
        return;
    }
    for edge in told.iter_mut().filter(|edge| !is_used(edge)) {
        edge["paths"] = json!([]);
        edge["why_not"] = Value::Null;
    }
}

/// What is known of an edge, with what another replica knows of it.
fn join(edge: &mut Value, mut other: Value) {
    for end in ["source", "destination"] {
        let more = other.get_mut(end).and_then(Value::as_object_mut).map(std::mem::take);
        let Some(more) = more else { continue };
        if !edge[end].is_object() {
            edge[end] = json!({});
        }
        for (key, value) in more {
            let known = &mut edge[end][&key];
            if let Value::Array(more) = value {
                add(known, more);
            } else if known.is_null() {
                *known = value;
            }
        }
    }
    for key in ["paths", "policies"] {
        if let Value::Array(more) = other[key].take() {
            add(&mut edge[key], more);
        }
    }
    if edge["why_not"].is_null() {
        edge["why_not"] = other["why_not"].take();
    }
    edge["secured"] = json!(edge["why_not"].is_null());
    // Times of one form compare as texts.
    if edge["last_seen"].as_str() < other["last_seen"].as_str() {
        edge["last_seen"] = other["last_seen"].take();
    }
    for key in SLOWEST {
        let slowest = [&*edge, &other].into_iter().filter_map(|edge| edge[key].as_f64()).reduce(f64::max);
        edge[key] = json!(slowest);
    }
}

/// Adds what is not in a list yet, in order.
fn add(list: &mut Value, more: Vec<Value>) {
    let mut all: Vec<Value> = list.take().as_array().cloned().unwrap_or_default();
    all.extend(more);
    all.sort_by_cached_key(ToString::to_string);
    all.dedup();
    *list = Value::Array(all);
}

/// The numbers of an edge from those of its sides.
fn count(edge: &mut Value, sides: &BTreeMap<String, Value>) {
    let most = |key: &str| sides.values().map(|side| whole(side, key)).max().unwrap_or(0);
    for key in ["connections", "open", "denied"] {
        edge[key] = json!(most(key));
    }
    for key in ["rate_per_s", "bytes_sent_per_s", "bytes_received_per_s"] {
        edge[key] = json!(sides.values().map(|side| number(side, key)).fold(0.0, f64::max));
    }
    let http = sides.get(WAYPOINT).filter(|side| whole(side, "requests") > 0);
    edge["requests_per_s"] = json!(http.map(|side| number(side, "requests_per_s")));
    let (good, all) = match http {
        Some(side) => {
            let requests = whole(side, "requests");
            (requests.saturating_sub(whole(side, "failed").max(whole(side, "denied"))), requests)
        }
        None => (most("connections"), most("connections").saturating_add(most("denied"))),
    };
    edge["success"] = json!(share(good, all));
    edge["codes"] = Value::Object(codes(sides));
}

/// The most of each code that a side gave. The source only hears that it was refused; the destination says why.
fn codes(sides: &BTreeMap<String, Value>) -> Map<String, Value> {
    let by_destination = sides.get(DESTINATION).is_some_and(|side| whole(side, "denied") > 0);
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, times) in sides.values().filter_map(|side| side["codes"].as_object()).flatten() {
        if code.is_empty() || (by_destination && code == Reason::TunnelRejected.code()) {
            continue;
        }
        let most = codes.entry(code).or_default();
        *most = (*most).max(times.as_u64().unwrap_or(0));
    }
    codes.into_iter().map(|(code, times)| (code.to_owned(), json!(times))).collect()
}

fn whole(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn share(good: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| rounded(good as f64 / all as f64))
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(connections: u64, denied: u64, code: &str) -> Value {
        let codes = if code.is_empty() { json!({}) } else { json!({code: denied}) };
        json!({
            "connections": connections, "open": 1, "denied": denied, "codes": codes, "requests": 0, "failed": 0,
            "rate_per_s": 0.5, "requests_per_s": 0.0, "bytes_sent_per_s": 2.0, "bytes_received_per_s": 1.0,
        })
    }

    fn edge(by: &Value) -> Value {
        json!({
            "id": "shop/web>shop/db:80", "port": 80, "paths": ["hbone"], "secured": true, "why_not": null,
            "source": {"workload": "web", "node": null}, "policies": [], "last_seen": "2026-01-01T00:00:01Z",
            "destination": {"workload": null, "services": []}, "latency_ms_p50": null,
            "connections": 0, "by": by,
        })
    }

    #[test]
    fn ends_that_attend_different_replicas_are_counted_once() {
        let one = edge(&json!({"source": side(10, 0, "")}));
        let other = edge(&json!({"destination": side(10, 0, "")}));
        let all = edges([one, other].into_iter());
        assert_eq!(all.len(), 1, "{all:?}");
        let edge = &all[0];
        let counts = ["connections", "open", "denied"].map(|key| edge[key].as_u64());
        assert_eq!(counts, [Some(10), Some(1), Some(0)], "{edge}");
        assert_eq!((&edge["rate_per_s"], &edge["success"]), (&json!(0.5), &json!(1.0)), "{edge}");
        assert_eq!(edge.get("by"), None);
    }

    #[test]
    fn pods_of_one_side_that_attend_different_replicas_are_added_up() {
        let one = edge(&json!({"source": side(10, 3, "AMB2104"), "destination": side(4, 0, "")}));
        let other = edge(&json!({"source": side(7, 2, "AMB2104")}));
        let all = edges([one, other].into_iter());
        let edge = &all[0];
        assert_eq!((whole(edge, "connections"), whole(edge, "denied")), (17, 5), "{edge}");
        assert_eq!(
            (&edge["codes"], &edge["bytes_sent_per_s"]),
            (&json!({"AMB2104": 5}), &json!(4.0)),
            "{edge}"
        );
    }

    #[test]
    fn the_source_of_a_refusal_does_not_say_why() {
        let rejected = Reason::TunnelRejected.code();
        let one = edge(&json!({"source": side(0, 3, rejected)}));
        let other = edge(&json!({"destination": side(0, 3, "AMB2104")}));
        assert_eq!(edges([one, other].into_iter())[0]["codes"], json!({"AMB2104": 3}));
    }

    #[test]
    fn what_either_replica_knows_of_an_edge_is_known() {
        let mut one = edge(&json!({}));
        let mut other = edge(&json!({}));
        one["latency_ms_p50"] = json!(1.0);
        other["latency_ms_p50"] = json!(3.0);
        (other["why_not"], other["secured"]) = (json!("plaintext"), json!(false));
        other["paths"] = json!(["plaintext"]);
        other["source"] = json!({"workload": "web", "node": "n2"});
        other["last_seen"] = json!("2026-01-01T00:00:09Z");
        let all = edges([one, other].into_iter());
        let edge = &all[0];
        assert_eq!((&edge["secured"], &edge["why_not"]), (&json!(false), &json!("plaintext")));
        assert_eq!((&edge["paths"], &edge["source"]["node"]), (&json!(["hbone", "plaintext"]), &json!("n2")));
        assert_eq!(
            (&edge["latency_ms_p50"], &edge["last_seen"]),
            (&json!(3.0), &json!("2026-01-01T00:00:09Z"))
        );
    }

    #[test]
    fn a_refused_attempt_at_one_replica_makes_no_secured_edge_plaintext() {
        let mut one = edge(&json!({}));
        one["connections"] = json!(9);
        let mut attempt = edge(&json!({}));
        (attempt["why_not"], attempt["secured"]) = (json!("plaintext"), json!(false));
        attempt["paths"] = json!(["plaintext"]);
        let carried = |told: [&Value; 2]| {
            let all = edges(told.into_iter().cloned());
            (all[0]["secured"].clone(), all[0]["why_not"].clone(), all[0]["paths"].clone())
        };
        let secured = (json!(true), Value::Null, json!(["hbone"]));
        assert_eq!(carried([&one, &attempt]), secured);
        assert_eq!(carried([&attempt, &one]), secured, "whichever comes first");
        for key in ["connections", "open"] {
            let mut used = attempt.clone();
            used[key] = json!(1);
            assert_eq!(carried([&one, &used]).0, json!(false), "one that came about counts: {key}");
        }
    }

    #[test]
    fn edges_of_another_shape_are_survived() {
        let (one, mut other) = (edge(&json!({})), edge(&json!({})));
        (other["source"], other["paths"], other["by"]) = (json!("web"), json!(7), json!([1]));
        for told in [[one.clone(), other.clone()], [other, one]] {
            let all = edges(told.into_iter().chain([json!(1), json!("x"), json!([])]));
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!((&all[0]["source"]["workload"], &all[0]["paths"]), (&json!("web"), &json!(["hbone"])));
        }
    }
}
