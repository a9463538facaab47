//! The answers of several control planes to the question how far they are, as one. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What all of them together say: the oldest revision, every connection, every problem once.
///
/// A proxy is connected to one of them; what the others remember of it does not count beside that.
pub fn merged(all: &[Value]) -> Value {
    let [first, rest @ ..] = all else { return Value::Null };
    if rest.is_empty() {
        return first.clone();
    }
    let mut merged = first.clone();
    let revision = |sync: &Value| sync.get("revision").and_then(Value::as_u64).unwrap_or(0);
    merged["revision"] = json!(all.iter().map(revision).min());
    merged["nodes"] = entries(all, "nodes", &["/node"]);
    if all.iter().any(|sync| sync.get("waypoints").is_some()) {
        merged["waypoints"] = entries(all, "waypoints", &["/gateway", "/pod"]);
    }
    let mut problems: Vec<&Value> = Vec::new();
    for problem in all.iter().filter_map(|sync| sync.get("problems")?.as_array()).flatten() {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    merged["problems"] = json!(problems);
    merged
}

/// The entries of a list, one a name, connected ones before others.
fn entries(all: &[Value], list: &str, name: &[&str]) -> Value {
    let mut by_name: BTreeMap<Vec<&str>, &Value> = BTreeMap::new();
    let is_connected = |entry: &Value| entry.get("connected").and_then(Value::as_bool) == Some(true);
    for entry in all.iter().filter_map(|sync| sync.get(list)?.as_array()).flatten() {
        let text = |pointer: &&str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let key: Vec<&str> = name.iter().map(text).collect();
        if is_connected(entry) || !by_name.contains_key(&key) {
            by_name.insert(key, entry);
        }
    }
    by_name.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_answers_are_one() {
        let node = |name: &str, connected: bool, acked: u64| json!({"node": name, "connected": connected, "acked_revision": acked});
        let one = json!({"revision": 7, "nodes": [node("a", true, 7), node("b", false, 3)], "problems": [{"text": "x"}]});
        let two = json!({"revision": 6, "nodes": [node("a", false, 2), node("b", true, 6)], "problems": [{"text": "x"}]});
        let want = json!({"revision": 6, "nodes": [node("a", true, 7), node("b", true, 6)], "problems": [{"text": "x"}]});
        assert_eq!(merged(&[one.clone(), two]), want);
        assert_eq!(merged(std::slice::from_ref(&one)), one);
    }
}
