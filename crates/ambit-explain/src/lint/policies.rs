//! Policies that enforce less, more or something else than their author wrote.

use serde_json::Value;

use super::world::{ROOT, World, list, matches_labels, texts};
use super::{Finding, Severity, finding};

/// Conditions of an operation that only HTTP has.
const HTTP_OPERATIONS: [&str; 6] = ["methods", "notMethods", "paths", "notPaths", "hosts", "notHosts"];
/// Conditions of a source that only HTTP has.
const HTTP_SOURCES: [&str; 4] =
    ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"];

/// Kinds that a waypoint serves.
const SERVICES: [&str; 2] = ["Service", "ServiceEntry"];

pub(super) fn check(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let kind = world.items[at].kind;
    if !["AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication"].contains(&kind) {
        return;
    }
    targets(world, at, findings);
    selector(world, at, findings);
    if kind == "AuthorizationPolicy" {
        http_without_waypoint(world, at, findings);
        callers(world, at, findings);
        denies_everything(world, at, findings);
    }
    if kind == "RequestAuthentication" && target_refs(&world.items[at].body["spec"]).is_empty() {
        let message = "it has no targetRefs: no waypoint enforces it, and nodes read no tokens";
        let fix = "bind a waypoint and name the service in spec.targetRefs";
        let made = finding("AMB3103", Severity::Error, (at, "spec"), message, fix);
        findings.push(made.also(&["KIA1110"]));
    }
}

/// Its targets with their paths.
fn target_refs(spec: &Value) -> Vec<(String, &Value)> {
    let one = (!spec["targetRef"].is_null()).then(|| ("spec.targetRef".to_owned(), &spec["targetRef"]));
    let more = list(&spec["targetRefs"]).map(|(i, of)| (format!("spec.targetRefs[{i}]"), of));
    one.into_iter().chain(more).collect()
}

/// Targets that are not there, or that no waypoint serves.
fn targets(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    for (path, target) in target_refs(&item.body["spec"]) {
        let (kind, name) =
            (target["kind"].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default());
        if kind == "GatewayClass" {
            continue;
        }
        if world.is_missing(kind, item.namespace, name) {
            let message =
                format!("there is no {kind} {}/{name}, so that nothing enforces it", item.namespace);
            let fix = "name an object of the policy's own namespace";
            findings.push(finding("IST0101", Severity::Error, (at, path), message, fix));
        } else if SERVICES.contains(&kind) && world.is_without_waypoint(kind, item.namespace, name) {
            let message =
                format!("no waypoint serves {kind} {}/{name}, so that nothing enforces it", item.namespace);
            let fix = format!("ambit waypoint apply -n {} --enroll-namespace", item.namespace);
            let also: &[&str] =
                if item.kind == "RequestAuthentication" { &["KIA1110"] } else { &["KIA0109"] };
            findings.push(finding("AMB3103", Severity::Error, (at, path), message, fix).also(also));
        }
    }
}

/// A selector that takes no workload.
fn selector(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let item = &world.items[at];
    let labels = &item.body["spec"]["selector"]["matchLabels"];
    let is_empty = labels.as_object().is_none_or(serde_json::Map::is_empty);
    if is_empty || world.scope == super::Scope::Part {
        return;
    }
    let mut all = world.workloads(item.namespace).iter();
    if item.namespace != ROOT && !all.any(|one| matches_labels(labels, one.metadata)) {
        let message = format!("its selector takes no workload of namespace {}", item.namespace);
        let fix = "compare it with the labels of the pods";
        let path = (at, "spec.selector.matchLabels");
        findings.push(finding("IST0127", Severity::Warning, path, message, fix).also(&["KIA0004"]));
    }
}

/// Conditions on HTTP in a policy that only nodes evaluate.
fn http_without_waypoint(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let spec = &world.items[at].body["spec"];
    if !target_refs(spec).is_empty() {
        return;
    }
    let refuses = spec["action"] == "DENY";
    for (index, rule) in list(&spec["rules"]) {
        let names = http_conditions(rule);
        if names.is_empty() {
            continue;
        }
        let names = names.join(", ");
        let (code, words) = if refuses {
            (
                "AMB2106",
                format!(
                    "{names} cannot be seen without a waypoint and count as matching: it denies more than written"
                ),
            )
        } else {
            ("AMB3103", format!("{names} cannot be seen without a waypoint: this rule allows nothing"))
        };
        let fix = "bind a waypoint to the service and use targetRefs instead of a selector";
        let path = (at, format!("spec.rules[{index}]"));
        findings.push(finding(code, Severity::Error, path, words, fix).also(&["KIA0110"]));
    }
}

fn http_conditions(rule: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, to) in list(&rule["to"]) {
        names.extend(HTTP_OPERATIONS.iter().copied().filter(|name| to["operation"][*name].is_array()));
    }
    for (_, from) in list(&rule["from"]) {
        names.extend(HTTP_SOURCES.iter().copied().filter(|name| from["source"][*name].is_array()));
    }
    names.extend(
        list(&rule["when"]).filter_map(|(_, one)| one["key"].as_str()).filter(|k| k.starts_with("request.")),
    );
    names.sort_unstable();
    names.dedup();
    names
}

/// Callers that are named and cannot be.
fn callers(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    for (r, rule) in list(&world.items[at].body["spec"]["rules"]) {
        for (f, from) in list(&rule["from"]) {
            for field in ["principals", "notPrincipals"] {
                for (p, text) in texts(&from["source"][field]) {
                    let path = format!("spec.rules[{r}].from[{f}].source.{field}[{p}]");
                    findings.extend(principal(world, at, path, text));
                }
            }
            for field in ["namespaces", "notNamespaces"] {
                for (n, text) in texts(&from["source"][field]).filter(|(_, text)| !text.contains('*')) {
                    if world.is_missing("Namespace", "", text) {
                        let path = format!("spec.rules[{r}].from[{f}].source.{field}[{n}]");
                        let message = format!("there is no namespace {text}");
                        let fix = "name a namespace that exists, or leave it out";
                        let made = finding("KIA0101", Severity::Warning, (at, path), message, fix);
                        findings.push(made);
                    }
                }
            }
        }
    }
}

fn principal(world: &World<'_>, at: usize, path: String, text: &str) -> Option<Finding> {
    if text.starts_with("spiffe://") {
        let message = format!("a principal is written without spiffe://, so that {text:?} matches nobody");
        let fix = format!("write {:?}", text.trim_start_matches("spiffe://"));
        return Some(finding("KIA0106", Severity::Error, (at, path), message, fix));
    }
    let mut parts = text.split('/');
    let (_, ns, namespace, sa, account) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_pattern = text.contains('*') || account == "default";
    if is_pattern || (ns, sa) != ("ns", "sa") || !world.is_missing("ServiceAccount", namespace, account) {
        return None;
    }
    let message = format!("there is no ServiceAccount {namespace}/{account}, so that nobody can be {text}");
    let fix = "name the service account that the callers' pods run as";
    Some(finding("KIA0106", Severity::Warning, (at, path), message, fix))
}

/// A DENY for everybody, which is rarely meant.
fn denies_everything(world: &World<'_>, at: usize, findings: &mut Vec<Finding>) {
    let spec = &world.items[at].body["spec"];
    let always = |rule: &Value| rule.as_object().is_some_and(serde_json::Map::is_empty);
    if spec["action"] == "DENY" && list(&spec["rules"]).any(|(_, rule)| always(rule)) {
        let message = "a DENY rule without conditions refuses every connection, and no ALLOW can undo it";
        let fix = "for `nothing but what is allowed`, write an ALLOW policy without rules";
        findings.push(finding("AMB2103", Severity::Warning, (at, "spec.rules"), message, fix));
    }
}
