//! A suggested policy: as the engine evaluates it, and as people apply it.

use std::collections::{BTreeMap, BTreeSet};

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, Values};
use ambit_types::{PolicyKey, Str};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Caller, Wants};

/// Name of the policy that allows nothing.
const NOTHING: &str = "seen-nothing-else";

/// One ALLOW policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Its name.
    pub name: String,
    /// Labels of the workloads it covers; empty for the whole namespace.
    pub selector: BTreeMap<Str, Str>,
    /// Any of these; with none it allows nothing.
    pub rules: Vec<AllowRule>,
}

/// Callers that may use ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowRule {
    /// Who; never empty.
    pub callers: BTreeSet<Caller>,
    /// Which ports; never empty.
    pub ports: BTreeSet<u16>,
}

impl Allow {
    /// The policy that allows nothing to the whole namespace.
    pub(crate) fn nothing() -> Self {
        Self { name: NOTHING.to_owned(), selector: BTreeMap::new(), rules: Vec::new() }
    }

    /// Whether it covers a workload with these labels.
    pub fn selects(&self, labels: &BTreeMap<Str, Str>) -> bool {
        self.selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    /// As nodes evaluate it.
    pub fn policy(&self, namespace: &str) -> Policy {
        let scope = if self.selector.is_empty() { Scope::Namespace } else { Scope::WorkloadSelector };
        Policy {
            key: PolicyKey::new(namespace, self.name.as_str()),
            scope,
            action: Action::Allow,
            rules: self.rules.iter().map(AllowRule::rule).collect(),
            dry_run: false,
            until: None,
        }
    }

    /// As an AuthorizationPolicy.
    pub fn manifest(&self, namespace: &str) -> Value {
        let mut spec = json!({"action": "ALLOW"});
        if !self.selector.is_empty() {
            let labels: BTreeMap<&str, &str> = self.selector.iter().map(|(k, v)| (&**k, &**v)).collect();
            spec["selector"] = json!({"matchLabels": labels});
        }
        if !self.rules.is_empty() {
            spec["rules"] = self.rules.iter().map(AllowRule::manifest).collect();
        }
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": spec,
        })
    }
}

impl AllowRule {
    fn principals(&self) -> Vec<String> {
        let of = |caller: &Caller| match caller {
            Caller::Identity(identity) => Some(identity.principal()),
            Caller::Address(_) => None,
        };
        self.callers.iter().filter_map(of).collect()
    }

    fn addresses(&self) -> Vec<IpNet> {
        let of = |caller: &Caller| match caller {
            Caller::Identity(_) => None,
            Caller::Address(address) => Some(IpNet::from(*address)),
        };
        self.callers.iter().filter_map(of).collect()
    }

    fn rule(&self) -> Rule {
        let (principals, source_ips) = (self.principals(), self.addresses());
        let mut callers = Vec::new();
        if !principals.is_empty() {
            let any = principals.into_iter().map(|text| StringMatch::Exact(Str::from(text))).collect();
            callers.push(Match { principals: Values { any, none: Vec::new() }, ..Match::default() });
        }
        if !source_ips.is_empty() {
            let any = source_ips;
            callers.push(Match { source_ips: Values { any, none: Vec::new() }, ..Match::default() });
        }
        let any = self.ports.iter().copied().collect();
        let ports = Match { destination_ports: Values { any, none: Vec::new() }, ..Match::default() };
        let clauses = vec![Clause { matches: vec![ports] }, Clause { matches: callers }];
        Rule { clauses, unevaluable: Vec::new() }
    }

    fn manifest(&self) -> Value {
        let (principals, addresses) = (self.principals(), self.addresses());
        let mut from = Vec::new();
        if !principals.is_empty() {
            from.push(json!({"source": {"principals": principals}}));
        }
        if !addresses.is_empty() {
            let blocks: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            from.push(json!({"source": {"ipBlocks": blocks}}));
        }
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        json!({"from": from, "to": [{"operation": {"ports": ports}}]})
    }
}

/// The fewest rules that say exactly who used which ports: callers with the same ports together, or ports with the same
/// callers, whichever is shorter.
pub(crate) fn rules(wants: &Wants) -> Vec<AllowRule> {
    let mut by_ports: BTreeMap<&BTreeSet<u16>, BTreeSet<Caller>> = BTreeMap::new();
    let mut users: BTreeMap<u16, BTreeSet<Caller>> = BTreeMap::new();
    for (caller, ports) in wants {
        by_ports.entry(ports).or_default().insert(caller.clone());
        for port in ports {
            users.entry(*port).or_default().insert(caller.clone());
        }
    }
    let mut by_callers: BTreeMap<BTreeSet<Caller>, BTreeSet<u16>> = BTreeMap::new();
    for (port, callers) in users {
        by_callers.entry(callers).or_default().insert(port);
    }
    let mut rules: Vec<AllowRule> = if by_callers.len() < by_ports.len() {
        by_callers.into_iter().map(|(callers, ports)| AllowRule { callers, ports }).collect()
    } else {
        by_ports.into_iter().map(|(ports, callers)| AllowRule { callers, ports: ports.clone() }).collect()
    };
    rules.sort();
    rules
}
