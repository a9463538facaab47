//! Rights: every rule is about something that exists, and everything that is read may be read.

use std::collections::{BTreeMap, BTreeSet};

use ambit::bundle;
use ambit_kube::watch::Scope;
use ambit_manifest::Kind;
use serde_json::Value;

use super::{find, list, objects, text};

const VERBS: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
/// Resources that are no kinds of manifests, by group.
const OTHERS: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apps", "daemonsets"),
    ("authentication.k8s.io", "tokenreviews"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("certificates.k8s.io", "clustertrustbundles"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("policy", "poddisruptionbudgets"),
];

fn group_of(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether a cluster with our definitions has the resource.
fn exists(group: &str, resource: &str) -> bool {
    let plural = resource.strip_suffix("/status").unwrap_or(resource);
    let is_kind = |kind: &&Kind| kind.plural() == plural && group_of(kind.api_versions()[0]) == group;
    Kind::ALL.iter().any(|kind| is_kind(&kind)) || OTHERS.contains(&(group, plural))
}

/// The rules of an account, those of its namespace and those of the cluster.
fn rules_of<'a>(objects: &'a [Value], account: &str) -> Vec<&'a Value> {
    let bindings = objects.iter().filter(|o| text(o, "/kind").ends_with("RoleBinding"));
    let bindings = bindings.filter(|b| list(b, "/subjects").any(|subject| text(subject, "/name") == account));
    let role = |b: &Value| find(objects, text(b, "/roleRef/kind"), text(b, "/roleRef/name"));
    bindings.flat_map(|b| list(role(b).expect("the role of a binding"), "/rules")).collect()
}

fn strings<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    list(rule, &format!("/{key}")).filter_map(Value::as_str).collect()
}

#[test]
fn every_rule_is_about_something_that_exists() {
    let objects = objects();
    for role in objects.iter().filter(|o| matches!(text(o, "/kind"), "Role" | "ClusterRole")) {
        for rule in list(role, "/rules") {
            let (groups, resources) = (strings(rule, "apiGroups"), strings(rule, "resources"));
            assert_eq!(groups.len(), 1, "a rule is about one group: {rule}");
            for resource in resources {
                if (groups[0], resource) == ("certificates.k8s.io", "signers") {
                    assert_eq!(strings(rule, "verbs"), ["attest"], "{rule}");
                    continue;
                }
                assert!(exists(groups[0], resource), "{resource} of {:?} does not exist", groups[0]);
                for verb in strings(rule, "verbs") {
                    assert!(VERBS.contains(&verb), "{verb} in {rule}");
                    // The name is known before the object only where it is made by server-side apply, which asks for
                    // `patch` too.
                    let is_applied = strings(rule, "verbs").contains(&"patch");
                    let is_bounded = rule.get("resourceNames").is_some();
                    assert!(
                        !is_bounded || verb != "create" || is_applied,
                        "no name bounds that creation: {rule}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_right_is_given_twice_to_an_account() {
    let objects = objects();
    for account in ["istiod", "ambit-cni", "ztunnel"] {
        let mut given = BTreeSet::new();
        for rule in rules_of(&objects, account) {
            let (group, names) = (strings(rule, "apiGroups")[0], strings(rule, "resourceNames"));
            for resource in strings(rule, "resources") {
                for verb in strings(rule, "verbs") {
                    // What waypoints are made of is a role of its own, which may be left out.
                    let is_twice = !given.insert((group, resource, verb, names.clone()));
                    assert!(!is_twice || resource == "services", "{account}: {verb} {resource} of {group:?}");
                }
            }
        }
        assert_eq!(given.is_empty(), account == "ztunnel", "{account}");
    }
}

#[test]
fn what_the_control_plane_follows_it_may_list_and_watch() {
    let objects = objects();
    let mut may: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for rule in rules_of(&objects, "istiod") {
        for resource in strings(rule, "resources") {
            may.entry((strings(rule, "apiGroups")[0], resource)).or_default().extend(strings(rule, "verbs"));
        }
    }
    for selection in Scope::everything(bundle::NAMESPACE).kinds {
        let key = (group_of(selection.kind.api_versions()[0]), selection.kind.plural());
        let verbs = may.get(&key).cloned().unwrap_or_default();
        assert!(verbs.contains("list") && verbs.contains("watch"), "{}: {verbs:?}", selection.kind);
    }
}

#[test]
fn secrets_are_bounded_by_name_and_namespace() {
    for object in objects() {
        for rule in list(&object, "/rules").filter(|rule| strings(rule, "resources").contains(&"secrets")) {
            assert_eq!(text(&object, "/kind"), "Role", "{rule}");
            let is_creation = strings(rule, "verbs") == ["create"];
            assert!(is_creation || rule.get("resourceNames").is_some(), "{rule}");
        }
    }
}
