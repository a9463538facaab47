//! What the admin surface shows of waypoints: what each is given, and how objects for them stand.

use std::collections::BTreeSet;

use ambit_control::Index;
use ambit_control::input::Key;
use ambit_control::status::{Condition, Report};
use ambit_control::waypoints::resources::FrontendKey;
use ambit_types::written::ParentRef;
use serde_json::{Value, json};

/// Most reports that `/sync` holds; all of them are in `/config_dump`.
const FAULTY_MAX: usize = 256;

/// Names of what each waypoint is given.
pub(super) fn waypoints(index: &Index) -> Vec<Value> {
    let all = index.waypoints().iter().map(|(gateway, own)| {
        let frontend = |FrontendKey { service, port }: &FrontendKey| format!("{service}/{port}");
        json!({
            "gateway": gateway.to_string(),
            "frontends": own.frontends.keys().map(frontend).collect::<Vec<_>>(),
            "destinations": own.destinations.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "policies": own.policies.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "authentications": own.authentications.keys().map(ToString::to_string).collect::<Vec<_>>(),
            "providers": own.providers.keys().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    all.collect()
}

/// How every object stands that has conditions.
pub(super) fn reports(index: &Index) -> Vec<Value> {
    index.reports().iter().map(|(key, report)| shown(key, report)).collect()
}

/// The first of those that tell of a fault.
pub(super) fn faulty(index: &Index) -> Vec<Value> {
    let faulty = index.reports().iter().filter(|(_, report)| report.all().any(Condition::is_fault));
    faulty.take(FAULTY_MAX).map(|(key, report)| shown(key, report)).collect()
}

/// What a report tells is wrong, in words.
pub(super) fn faults(report: &Report) -> BTreeSet<String> {
    report.all().filter(|condition| condition.is_fault()).map(ToString::to_string).collect()
}

fn shown(key: &Key, report: &Report) -> Value {
    let own = report.conditions.iter().map(|one| condition(one, report.generation, None));
    let of_parents = report.parents.iter().flat_map(|parent| {
        parent.conditions.iter().map(|one| condition(one, report.generation, Some(&parent.parent)))
    });
    json!({
        "kind": key.kind.as_str(),
        "name": key.name.to_string(),
        "conditions": own.chain(of_parents).collect::<Vec<_>>(),
    })
}

fn condition(of: &Condition, generation: i64, parent: Option<&ParentRef>) -> Value {
    let mut shown = json!({
        "type": of.kind,
        "status": if of.holds { "True" } else { "False" },
        "reason": of.reason,
        "message": of.message,
        "generation": generation,
    });
    if let (Some(parent), Some(fields)) = (parent, shown.as_object_mut()) {
        fields.insert("parent".to_owned(), json!(parent));
    }
    shown
}
