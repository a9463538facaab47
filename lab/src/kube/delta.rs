//! What differs between an object as it is served and as it should be, as a patch; and patches laid over objects. Pure.
//!
//! A patch is JSON merge patch but for `conditions`, which have many writers and are merged by their `type`. What the
//! server leaves out because it is empty (null, no text, no entries) does not differ from what says so.

use serde_json::{Map, Value, json};

/// The field whose entries are merged by their type.
const CONDITIONS: &str = "conditions";

/// What has to be laid over `old` to make it say what `new` says; none if it does.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return None };
    let patch = of_maps(old, new);
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn of_maps(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key);
        if same(before, Some(value)) {
            continue;
        }
        let part = match (before, value) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                let part = of_maps(before, after);
                (!part.is_empty()).then_some(Value::Object(part))
            }
            (before, Value::Array(after)) if key == CONDITIONS => {
                let part = of_conditions(before.and_then(Value::as_array), after);
                (!part.is_empty()).then_some(Value::Array(part))
            }
            (_, value) => Some(value.clone()),
        };
        patch.extend(part.map(|part| (key.clone(), part)));
    }
    let gone = old.iter().filter(|(key, value)| !new.contains_key(*key) && !is_empty(value));
    patch.extend(gone.map(|(key, _)| (key.clone(), Value::Null)));
    patch
}

/// The conditions that changed; nobody's condition is ever removed.
fn of_conditions(old: Option<&Vec<Value>>, new: &[Value]) -> Vec<Value> {
    let of_type = |kind: &Value| old.into_iter().flatten().find(|c| c.get("type") == Some(kind));
    let changed = |condition: &Value| {
        let kind = condition.get("type")?;
        let before = of_type(kind);
        if same(before, Some(condition)) {
            return None;
        }
        let (Some(Value::Object(before)), Value::Object(after)) = (before, condition) else {
            return Some(condition.clone());
        };
        let mut patch = of_maps(before, after);
        patch.insert("type".to_owned(), kind.clone());
        Some(Value::Object(patch))
    };
    new.iter().filter_map(changed).collect()
}

/// Lays a patch over an object.
pub fn overlay(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        base.clone_from(patch);
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    let Value::Object(base) = base else { return };
    for (key, value) in patch {
        match value {
            Value::Null => _ = base.remove(key),
            Value::Array(conditions) if key == CONDITIONS => {
                let place = base.entry(key.clone()).or_insert_with(|| json!([]));
                by_type(place, conditions, overlay);
            }
            Value::Object(_) => overlay(base.entry(key.clone()).or_insert_with(|| json!({})), value),
            _ => _ = base.insert(key.clone(), value.clone()),
        }
    }
}

/// Makes of two patches the one that does what both do, one after the other.
pub fn combine(first: &mut Value, second: &Value) {
    let (Value::Object(first), Value::Object(second)) = (&mut *first, second) else {
        first.clone_from(second);
        return;
    };
    for (key, value) in second {
        match (first.get_mut(key), value) {
            (Some(place @ Value::Array(_)), Value::Array(more)) if key == CONDITIONS => {
                by_type(place, more, combine);
            }
            (Some(place @ Value::Object(_)), Value::Object(_)) => combine(place, value),
            _ => _ = first.insert(key.clone(), value.clone()),
        }
    }
}

/// Merges entries of a list by their type; new ones are appended.
fn by_type(list: &mut Value, entries: &[Value], merge: fn(&mut Value, &Value)) {
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(list) = list else { return };
    for entry in entries {
        match list.iter_mut().find(|old| old.get("type") == entry.get("type")) {
            Some(old) => merge(old, entry),
            None => list.push(entry.clone()),
        }
    }
}

/// Whether two values say the same, where what is empty says nothing.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.keys().chain(b.keys()).all(|key| same(a.get(key), b.get(key)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(a), Some(b)) if a == b => true,
        (a, b) => a.is_none_or(is_empty) && b.is_none_or(is_empty),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
