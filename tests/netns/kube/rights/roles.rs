//! The roles of `deploy/20-rbac.yaml`, verb by verb, and the same roles with some of the verbs taken away.

use std::collections::BTreeSet;

use ambit::bundle;
use serde_json::{Value, json};

/// One verb on one resource that a role grants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) account: &'static str,
    pub(super) group: String,
    /// With its subresource behind a slash.
    pub(super) resource: String,
    /// The one object; empty for every object.
    pub(super) name: String,
    /// Of the control plane's namespace only.
    pub(super) own: bool,
    pub(super) verb: String,
}

impl Right {
    /// How `ambit check` says that it lacks.
    pub(super) fn lacking(&self) -> String {
        let Self { account, group, resource, name, own, verb } = self;
        let part = |word: &str, text: &str| match text {
            "" => String::new(),
            text => format!(" {word} {text}"),
        };
        let namespace = if *own { "istio-system" } else { "" };
        let (of, named, inside) = (part("of", group), part("named", name), part("in", namespace));
        format!("service account {account} may not {verb} {resource}{of}{named}{inside}")
    }
}

/// The roles as they are installed.
pub(super) fn installed() -> Vec<Value> {
    let objects = bundle::everything().expect("the manifests are YAML");
    objects.into_iter().filter(|one| one["kind"] == "Role" || one["kind"] == "ClusterRole").collect()
}

/// Every right that roles grant, those of one rule together.
///
/// # Panics
/// If a rule has no form that is known here, or grants what another one does: it would not be missed.
pub(super) fn rights(roles: &[Value]) -> Vec<Right> {
    let mut all = Vec::new();
    for role in roles {
        for rule in list(&role["rules"]) {
            for (group, resource) in pairs(rule) {
                all.extend(texts(&rule["verbs"]).map(|verb| right(role, rule, (group, resource, verb))));
            }
        }
    }
    let distinct: BTreeSet<&Right> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "a right is granted twice");
    all
}

/// The roles without these rights.
pub(super) fn without(roles: &[Value], gone: &BTreeSet<Right>) -> Vec<Value> {
    let mut roles = roles.to_vec();
    for role in &mut roles {
        let mut rules = Vec::new();
        for rule in list(&role["rules"]) {
            for (group, resource) in pairs(rule) {
                let stays = |verb: &&str| !gone.contains(&right(role, rule, (group, resource, verb)));
                let verbs: Vec<&str> = texts(&rule["verbs"]).filter(stays).collect();
                if verbs.is_empty() {
                    continue;
                }
                let mut rest = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
                if !rule["resourceNames"].is_null() {
                    rest["resourceNames"] = rule["resourceNames"].clone();
                }
                rules.push(rest);
            }
        }
        role["rules"] = Value::Array(rules);
    }
    roles
}

fn right(role: &Value, rule: &Value, (group, resource, verb): (&str, &str, &str)) -> Right {
    let is_istiods = role["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("istiod"));
    let names: Vec<&str> = texts(&rule["resourceNames"]).collect();
    assert!(names.len() <= 1, "one rule for several names: {rule:#}");
    Right {
        account: if is_istiods { "istiod" } else { "ambit-cni" },
        group: group.to_owned(),
        resource: resource.to_owned(),
        name: names.first().copied().unwrap_or_default().to_owned(),
        own: role["kind"] == "Role",
        verb: verb.to_owned(),
    }
}

fn pairs(rule: &Value) -> impl Iterator<Item = (&str, &str)> {
    texts(&rule["apiGroups"])
        .flat_map(|group| texts(&rule["resources"]).map(move |resource| (group, resource)))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).iter().filter_map(Value::as_str)
}
