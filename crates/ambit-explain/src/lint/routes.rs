//! Routes that no waypoint serves, or that lead nowhere.

use serde_json::Value;

use super::world::{World, list, texts};
use super::{Finding, Severity, finding};

const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    if item.kind == "VirtualService" {
        return virtual_service(world, at, findings);
    }
    if !ROUTES.contains(&item.kind) {
        return;
    }
    let spec = &item.body["spec"];
    for (index, parent) in list(&spec["parentRefs"]) {
        self::parent(world, at, &format!("spec.parentRefs[{index}]"), parent, findings);
    }
    for (r, rule) in list(&spec["rules"]) {
        for (b, backend) in list(&rule["backendRefs"]) {
            self::backend(world, at, &format!("spec.rules[{r}].backendRefs[{b}]"), backend, findings);
        }
    }
}

/// An import for services that no waypoint serves. One whose hosts are not all of its namespace is not in force, which
/// the control plane says itself.
fn virtual_service(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    let spec = &item.body["spec"];
    let mut gateways = texts(&spec["gateways"]).peekable();
    if gateways.peek().is_some() && !gateways.any(|(_, gateway)| gateway == "mesh") {
        return;
    }
    for (index, host) in texts(&spec["hosts"]) {
        let mut parts = host.split('.');
        let name = parts.next().unwrap_or_default();
        let is_own = parts.next().is_none_or(|namespace| namespace == item.namespace);
        if is_own && world.is_without_waypoint("Service", item.namespace, name) {
            let message = format!(
                "no waypoint serves Service {}/{name}, so that the route is used by nobody",
                item.namespace
            );
            let fix = format!("ambit waypoint apply -n {} --enroll-namespace", item.namespace);
            let path = format!("spec.hosts[{index}]");
            findings.push(finding("AMB3103", Severity::Error, (at, path), message, fix).also(&["KIA1109"]));
        }
    }
}

/// Namespace, kind and name of a reference.
fn reference<'a>(of: &'a Value, own: &'a str, usual: &'static str) -> (&'a str, &'a str, &'a str) {
    let text = |key: &str| of[key].as_str();
    (text("namespace").unwrap_or(own), text("kind").unwrap_or(usual), text("name").unwrap_or_default())
}

fn parent(world: &World<'_>, at: usize, path: &str, of: &Value, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    let (namespace, kind, name) = reference(of, item.namespace, "Gateway");
    if world.is_missing(kind, namespace, name) {
        let message = format!("there is no {kind} {namespace}/{name}, so that the route is used by nobody");
        findings.push(finding("IST0101", Severity::Error, (at, path), message, "name a parent that exists"));
    } else if kind == "Service" && world.is_without_waypoint(kind, namespace, name) {
        let message =
            format!("no waypoint serves Service {namespace}/{name}, so that the route is used by nobody");
        let fix = format!("ambit waypoint apply -n {namespace} --enroll-namespace");
        findings.push(finding("AMB3103", Severity::Error, (at, path), message, fix).also(&["KIA1113"]));
    } else if kind == "Service" {
        protocol(world, at, path, (namespace, name), of, findings);
    }
}

/// A route on HTTP for a port that is read as a stream of bytes.
fn protocol(
    world: &World<'_>,
    at: usize,
    path: &str,
    (namespace, name): (&str, &str),
    of: &Value,
    findings: &mut Vec<Finding>,
) {
    if !["HTTPRoute", "GRPCRoute"].contains(&world.items[at].kind) {
        return;
    }
    let Some(service) = world.object("Service", namespace, name) else { return };
    for (_, port) in list(&service["spec"]["ports"]) {
        let is_meant = of["port"].is_null() || of["port"] == port["port"];
        let named = port["name"].as_str().and_then(|n| n.split('-').next()).unwrap_or_default();
        let is_tcp = port["appProtocol"].is_null() && ["tcp", "tls", "https"].contains(&named);
        if is_meant && is_tcp {
            let number = port["port"].to_string();
            let message = format!(
                "port {number} of Service {namespace}/{name} is named as {named}, which has no HTTP in it"
            );
            let fix = "name the port http, or set its appProtocol";
            findings.push(finding("IST0118", Severity::Warning, (at, path), message, fix));
        }
    }
}

fn backend(world: &World<'_>, at: usize, path: &str, of: &Value, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    let (namespace, kind, name) = reference(of, item.namespace, "Service");
    if kind != "Service" {
        return;
    }
    if world.is_missing(kind, namespace, name) {
        let message = format!("there is no Service {namespace}/{name}: its share of the requests is refused");
        let fix = "name a Service that exists";
        findings.push(finding("AMB3004", Severity::Error, (at, path), message, fix).also(&["IST0101"]));
        return;
    }
    let is_foreign = namespace != item.namespace;
    if is_foreign && world.scope == super::Scope::Whole && !is_granted(world, item, namespace, name) {
        let message = format!(
            "Service {namespace}/{name} is in another namespace, and no ReferenceGrant there lets this route use it"
        );
        let fix = format!("add a ReferenceGrant in {namespace} from {} of {}", item.kind, item.namespace);
        findings.push(finding("AMB3004", Severity::Error, (at, path), message, fix));
    } else if let Some(service) = world.object("Service", namespace, name) {
        let ports = list(&service["spec"]["ports"]).map(|(_, port)| &port["port"]);
        if !of["port"].is_null() && !ports.into_iter().any(|port| *port == of["port"]) {
            let message = format!("Service {namespace}/{name} has no port {}", of["port"]);
            let fix = "name one of its ports";
            let path = format!("{path}.port");
            findings.push(finding("AMB3004", Severity::Error, (at, path), message, fix).also(&["IST0101"]));
        }
    }
}

fn is_granted(world: &World<'_>, route: &super::Item<'_>, namespace: &str, name: &str) -> bool {
    let grants = world.of_kind("ReferenceGrant").filter(|grant| grant.namespace == namespace);
    grants.into_iter().any(|grant| {
        let spec = &grant.body["spec"];
        let from =
            list(&spec["from"]).any(|(_, of)| of["kind"] == route.kind && of["namespace"] == route.namespace);
        let to = list(&spec["to"])
            .any(|(_, of)| of["kind"] == "Service" && (of["name"].is_null() || of["name"] == name));
        from && to
    })
}
