//! NetworkPolicies that do not let tunnels through: connections then time out (AMB4001).

use serde_json::Value;

use super::world::{World, is_selected, list};
use super::{Finding, Severity, finding};

/// Port of tunnels.
const HBONE: u64 = 15008;

/// Which way a NetworkPolicy restricts.
struct Way {
    kind: &'static str,
    field: &'static str,
    words: &'static str,
}

const WAYS: [Way; 2] = [
    Way { kind: "Ingress", field: "ingress", words: "to" },
    Way { kind: "Egress", field: "egress", words: "from" },
];

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    if item.kind != "NetworkPolicy" {
        return;
    }
    let spec = &item.body["spec"];
    let selected = world.workloads(item.namespace).iter();
    let mut names: Vec<&str> = selected
        .filter(|one| world.is_enrolled(one) && is_selected(&spec["podSelector"], one.metadata))
        .map(|one| one.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    for way in WAYS.iter().filter(|way| restricts(spec, way) && !admits_tunnels(spec, way)) {
        let message = format!(
            "it does not admit port {HBONE}, so that no tunnel gets {} {}: connections of the mesh time out",
            way.words,
            names.join(", ")
        );
        let fix = format!("add to spec.{}: [{{ports: [{{protocol: TCP, port: {HBONE}}}]}}]", way.field);
        let path = format!("spec.{}", way.field);
        findings.push(finding("AMB4001", Severity::Error, (at, path), message, fix));
    }
}

/// As Kubernetes reads it: ingress always unless types are given, egress only with rules or its type.
fn restricts(spec: &Value, way: &Way) -> bool {
    match spec["policyTypes"].as_array() {
        Some(types) if !types.is_empty() => types.iter().any(|kind| kind == way.kind),
        Some(_) | None => way.kind == "Ingress" || spec[way.field].is_array(),
    }
}

fn admits_tunnels(spec: &Value, way: &Way) -> bool {
    list(&spec[way.field]).any(|(_, rule)| {
        let ports = rule["ports"].as_array().filter(|ports| !ports.is_empty());
        ports.is_none_or(|ports| ports.iter().any(is_of_tunnels))
    })
}

fn is_of_tunnels(port: &Value) -> bool {
    if !matches!(port["protocol"].as_str(), None | Some("TCP")) {
        return false;
    }
    match (port["port"].as_u64(), port["endPort"].as_u64()) {
        (None, _) => port["port"].is_null(),
        (Some(first), None) => first == HBONE,
        (Some(first), Some(last)) => (first..=last).contains(&HBONE),
    }
}
