//! Policies and facts in one line each, so that tests can be tables.
//!
//! Policies, separated by `;`: `ACTION NAME: RULES`, with `?` behind the action for dry-run. Rules are separated by
//! `||`, clauses by `&`, matches by `|`, attributes by blanks: `ns=a,b* !principal=*x sa=ns/name ip=10.0.0.0/8
//! dst=… port=80`. `none` is no rules, `any` a rule without clauses, `_` an empty match, `~methods` a condition
//! without facts, `missing NAME` a policy that has not arrived.
//!
//! Facts: `PEER[@SOURCE] [for CLIENT] -> [DESTINATION:]PORT`, where PEER is `ns/sa`, `domain:ns/sa` or `plain`.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_types::{Identity, PolicyKey, TrustDomain};

use crate::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use crate::{Decision, Facts, PolicySet, Verdict};

pub(crate) fn policies(text: &str) -> PolicySet {
    let mut held = Vec::new();
    let mut missing = Vec::new();
    for line in text.split(';').map(str::trim).filter(|l| !l.is_empty()) {
        match line.strip_prefix("missing ") {
            Some(name) => missing.push(key(name)),
            None => held.push(Arc::new(policy(line))),
        }
    }
    PolicySet::new(held, missing)
}

fn key(name: &str) -> PolicyKey {
    if name.contains('/') { PolicyKey::parse(name).unwrap() } else { PolicyKey::new("shop", name.trim()) }
}

fn policy(line: &str) -> Policy {
    let (head, rules) = line.split_once(": ").unwrap_or_else(|| panic!("no colon in {line:?}"));
    let (action, name) = head.split_once(' ').unwrap_or_else(|| panic!("no name in {head:?}"));
    let action_name = action.trim_end_matches('?');
    let action_of = [("ALLOW", Action::Allow), ("DENY", Action::Deny)];
    let found = action_of.iter().find(|(word, _)| *word == action_name);
    Policy {
        key: key(name),
        scope: Scope::Namespace,
        action: found.unwrap_or_else(|| panic!("action {action:?}")).1,
        rules: if rules.trim() == "none" { Vec::new() } else { rules.split("||").map(rule).collect() },
        dry_run: action.ends_with('?'),
        until: None,
    }
}

fn rule(text: &str) -> Rule {
    let mut rule = Rule::default();
    for clause in text.split('&').map(str::trim).filter(|c| *c != "any") {
        match clause.strip_prefix('~') {
            Some(names) => rule.unevaluable.extend(names.split(',').map(Into::into)),
            None => rule.clauses.push(Clause { matches: clause.split('|').map(one_match).collect() }),
        }
    }
    rule
}

fn one_match(text: &str) -> Match {
    let mut one = Match::default();
    for attribute in text.split_whitespace().filter(|a| *a != "_") {
        let (name, values) = attribute.split_once('=').unwrap_or_else(|| panic!("no = in {attribute:?}"));
        let negated = name.starts_with('!');
        match name.trim_start_matches('!') {
            "ns" => add(&mut one.namespaces, negated, values, string_match),
            "principal" => add(&mut one.principals, negated, values, string_match),
            "sa" => add(&mut one.service_accounts, negated, values, account),
            "ip" => add(&mut one.source_ips, negated, values, |v| v.parse().unwrap()),
            "dst" => add(&mut one.destination_ips, negated, values, |v| v.parse().unwrap()),
            "port" => add(&mut one.destination_ports, negated, values, |v| v.parse().unwrap()),
            other => panic!("attribute {other:?}"),
        }
    }
    one
}

fn add<T>(to: &mut Values<T>, negated: bool, values: &str, read: impl Fn(&str) -> T) {
    let list = if negated { &mut to.none } else { &mut to.any };
    list.extend(values.split(',').map(read));
}

/// As a person writes it; `\\x` is exact even if `x` has stars.
pub(crate) fn string_match(text: &str) -> StringMatch {
    if let Some(literal) = text.strip_prefix('\\') {
        return StringMatch::Exact(literal.into());
    }
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => StringMatch::Presence,
        (Some(rest), _) => StringMatch::Suffix(rest.into()),
        (None, Some(rest)) => StringMatch::Prefix(rest.into()),
        (None, None) => StringMatch::Exact(text.into()),
    }
}

fn account(text: &str) -> ServiceAccount {
    let (namespace, name) = text.split_once('/').unwrap();
    ServiceAccount { namespace: namespace.into(), name: name.into() }
}

/// Facts that own their identity.
pub(crate) struct Owned {
    peer: Option<Identity>,
    client: Option<Identity>,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl Owned {
    pub(crate) fn facts(&self) -> Facts<'_> {
        let facts = Facts::new(self.peer.as_ref(), self.source, self.destination, self.port);
        facts.on_behalf_of(self.client.as_ref())
    }
}

pub(crate) fn facts(text: &str) -> Owned {
    let (from, to) = text.split_once("->").unwrap_or_else(|| panic!("no -> in {text:?}"));
    let (from, client) = from.trim().split_once(" for ").map_or((from, None), |(f, c)| (f, Some(c)));
    let (peer, source) = from.trim().split_once('@').unwrap_or_else(|| (from.trim(), "10.244.0.7"));
    let (destination, port) = to.trim().rsplit_once(':').unwrap_or_else(|| ("10.244.0.9", to.trim()));
    Owned {
        peer: (peer != "plain").then(|| identity(peer)),
        client: client.map(identity),
        source: source.parse().unwrap(),
        destination: destination.trim_matches(['[', ']']).parse().unwrap(),
        port: port.parse().unwrap(),
    }
}

fn identity(text: &str) -> Identity {
    let (domain, account) = text.split_once(':').unwrap_or(("cluster.local", text));
    let (namespace, name) = account.split_once('/').unwrap();
    Identity::new(TrustDomain::parse(domain).unwrap(), namespace, name)
}

/// A decision with what dry-run policies say.
pub(crate) fn told(decision: &Decision) -> String {
    let mut text = decision.to_string();
    for one in &decision.dry_run {
        let verdict = match one.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        text += &format!(", dry-run {verdict}");
        if let Some(policy) = &one.policy {
            text += &format!(" by {policy}");
        }
        if let Some(rule) = one.rule {
            text += &format!(" rule {rule}");
        }
    }
    text
}
