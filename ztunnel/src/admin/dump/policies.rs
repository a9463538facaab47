//! Policies: rules of clauses of matches, three lists deep.

use ambit_policy::model::{Action, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use serde_json::{Map, Value, json};

/// One policy.
pub(super) fn policy(p: &Policy) -> Value {
    let scope = match p.scope {
        Scope::Global => "Global",
        Scope::Namespace => "Namespace",
        Scope::WorkloadSelector => "WorkloadSelector",
    };
    let action = match p.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
    };
    json!({
        "name": &*p.key.name,
        "namespace": &*p.key.namespace,
        "scope": scope,
        "action": action,
        "rules": p.rules.iter().map(rule).collect::<Vec<_>>(),
        "dryRun": p.dry_run,
    })
}

fn rule(r: &Rule) -> Value {
    r.clauses.iter().map(|clause| clause.matches.iter().map(one_match).collect::<Value>()).collect()
}

fn one_match(m: &Match) -> Value {
    let mut object = Map::new();
    put(&mut object, ("namespaces", "notNamespaces"), &m.namespaces, string_match);
    put(&mut object, ("principals", "notPrincipals"), &m.principals, string_match);
    put(&mut object, ("serviceAccounts", "notServiceAccounts"), &m.service_accounts, service_account);
    put(&mut object, ("sourceIps", "notSourceIps"), &m.source_ips, range);
    put(&mut object, ("destinationIps", "notDestinationIps"), &m.destination_ips, range);
    put(&mut object, ("destinationPorts", "notDestinationPorts"), &m.destination_ports, |p| Value::from(*p));
    Value::Object(object)
}

fn put<T>(
    object: &mut Map<String, Value>,
    names: (&str, &str),
    values: &Values<T>,
    show: impl Fn(&T) -> Value,
) {
    for (name, list) in [(names.0, &values.any), (names.1, &values.none)] {
        if !list.is_empty() {
            object.insert(name.to_owned(), Value::from(list.iter().map(&show).collect::<Vec<_>>()));
        }
    }
}

fn string_match(m: &StringMatch) -> Value {
    match m {
        StringMatch::Exact(s) => json!({"Exact": &**s}),
        StringMatch::Prefix(s) => json!({"Prefix": &**s}),
        StringMatch::Suffix(s) => json!({"Suffix": &**s}),
        StringMatch::Presence => json!({"Presence": []}),
    }
}

fn service_account(account: &ServiceAccount) -> Value {
    json!({"namespace": &*account.namespace, "serviceAccount": &*account.name})
}

fn range(addresses: &impl ToString) -> Value {
    Value::from(addresses.to_string())
}
