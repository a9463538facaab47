//! Taking fields away that a newer API has and this program does not know.

use serde_json::Value;

/// Removes the field at a path such as `spec.rules[0].extra` or `metadata.labels[a.b/c]`; whether there was one.
pub(super) fn remove(value: &mut Value, path: &str) -> bool {
    let steps = steps(path);
    let Some((last, above)) = steps.split_last() else { return false };
    let mut at = value;
    for step in above {
        let next = match at {
            Value::Object(map) => map.get_mut(*step),
            Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    at.as_object_mut().is_some_and(|map| map.remove(*last).is_some())
}

/// The names and numbers of a path.
fn steps(path: &str) -> Vec<&str> {
    let (mut steps, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(step);
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let (step, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            steps.push(step);
            rest = after.strip_prefix('.').unwrap_or(after);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::remove;

    #[test]
    fn only_the_field_that_is_named_goes() {
        let mut value = json!({ "a": [{ "b": 1, "c": 2 }], "m": { "x.y/z": 1, "w": 2 } });
        assert!(remove(&mut value, "a[0].b"));
        assert!(remove(&mut value, "m[x.y/z]"));
        for absent in ["", "a[1].b", "a[0].b", "a.c", "m.w.v"] {
            assert!(!remove(&mut value, absent), "{absent}");
        }
        assert_eq!(value, json!({ "a": [{ "c": 2 }], "m": { "w": 2 } }));
    }
}
