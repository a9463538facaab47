//! NetworkPolicies that do not let tunnels through: connections then time out (AMB4001).
//!
//! They add up, as Kubernetes has it: a pod that any of them restricts in a direction may be reached, or may connect,
//! where one of those says so. So each pod and direction is judged by all that select it, and told once, at the first.

use serde_json::Value;

use super::world::{HBONE, Workload, World, is_selected, list};
use super::{Finding, Item, Scope, Severity, finding};

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
    // What is elsewhere may admit what these do not.
    if item.kind != "NetworkPolicy" || world.scope == Scope::Part {
        return;
    }
    let all = world.of_kind("NetworkPolicy").filter(|one| one.namespace == item.namespace);
    let all: Vec<&Item<'_>> = all.collect();
    let spec = &item.body["spec"];
    for way in WAYS.iter().filter(|way| restricts(spec, way) && !admits_tunnels(spec, way)) {
        let restricting: Vec<&Item<'_>> =
            all.iter().copied().filter(|one| restricts(&one.body["spec"], way)).collect();
        let cut_off = world.workloads(item.namespace).iter();
        let cut_off =
            cut_off.filter(|pod| world.is_enrolled(pod) && is_told_at(item, pod, &restricting, way));
        let mut names: Vec<&str> = cut_off.map(|pod| pod.name).collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            findings.push(no_tunnels(at, way, &names));
        }
    }
}

fn no_tunnels(at: usize, way: &Way, names: &[&str]) -> Finding {
    let message = format!(
        "no NetworkPolicy admits port {HBONE}, so that no tunnel gets {} {}: connections of the mesh time out",
        way.words,
        names.join(", ")
    );
    let fix = format!("add to spec.{}: [{{ports: [{{protocol: TCP, port: {HBONE}}}]}}]", way.field);
    let path = format!("spec.{}", way.field);
    finding("AMB4001", Severity::Error, (at, path), message, fix)
}

/// Whether a pod's tunnels are cut off in a direction, and this is the first policy that restricts it there.
fn is_told_at(item: &Item<'_>, pod: &Workload<'_>, restricting: &[&Item<'_>], way: &Way) -> bool {
    let selects = |one: &&&Item<'_>| is_selected(&one.body["spec"]["podSelector"], pod.metadata);
    let mut selecting = restricting.iter().filter(selects).peekable();
    let is_first = selecting.peek().is_some_and(|first| std::ptr::eq(**first, item));
    is_first && !selecting.any(|one| admits_tunnels(&one.body["spec"], way))
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
