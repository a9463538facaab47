//! `istio.security.Authorization` and [`Policy`].
//!
//! A policy is read whole or not at all: a value that cannot be compared would widen what it allows or narrow what
//! it denies. What the author wrote and L4 has no facts for ends up in [`Rule::unevaluable`].

use std::collections::BTreeSet;

use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, ServiceAccount, StringMatch, Values};
use ambit_types::{PolicyKey, Str};
use ipnet::IpNet;
use prost::Message;

use super::{Malformed, Problem, encode_extension, extension, network, port, required};
use crate::any::Any;
use crate::proto::ambit::internal::{Breakglass, RuleConditions, Unevaluable};
use crate::proto::istio::security as wire;

/// Name of the extension that lists conditions without facts.
pub const UNEVALUABLE_EXTENSION: &str = "ambit.internal/unevaluable";

/// Full name of the message in it.
const UNEVALUABLE: &str = "ambit.internal.Unevaluable";

/// Name of the extension that says until when a policy is in force.
pub const BREAKGLASS_EXTENSION: &str = "ambit.internal/breakglass";

/// Full name of the message in it.
const BREAKGLASS: &str = "ambit.internal.Breakglass";

/// What an empty match of a DENY stands for: a control plane removed the HTTP conditions and left the shell.
const STRIPPED: &str = "http conditions";

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole policy unusable.
pub fn decode_any(any: &Any) -> Result<Policy, Malformed> {
    let message = wire::Authorization::decode(any.value.clone())
        .map_err(|cause| Malformed::at("authorization", Problem::Encoding(cause.to_string())))?;
    decode(&message)
}

/// Which workloads a policy covers that [`decode_any`] refused, as far as its bytes say.
pub fn scope_hint(any: &Any) -> Option<Scope> {
    let message = wire::Authorization::decode(any.value.clone()).ok()?;
    scope(message.scope).ok()
}

/// Reads a policy.
///
/// # Errors
/// [`Malformed`] names the field that makes the whole policy unusable; an unknown scope or action is such a field.
pub fn decode(message: &wire::Authorization) -> Result<Policy, Malformed> {
    let namespace = required("namespace", &message.namespace)?;
    let name = required("name", &message.name)?;
    let key = PolicyKey::parse(&format!("{namespace}/{name}"))
        .map_err(|cause| Malformed::at("name", Problem::Key(cause)))?;
    let action = action(message.action)?;
    let mut rules = message
        .rules
        .iter()
        .enumerate()
        .map(|(index, each)| {
            rule(each, action).map_err(|malformed| malformed.inside(&format!("rules[{index}]")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    add_unevaluable(message, &mut rules)?;
    let end = extension::<Breakglass>(&message.extensions, BREAKGLASS_EXTENSION, BREAKGLASS)?;
    let until = end.map(|end| end.until);
    Ok(Policy { key, scope: scope(message.scope)?, action, rules, dry_run: message.dry_run, until })
}

fn scope(value: i32) -> Result<Scope, Malformed> {
    match wire::Scope::try_from(value) {
        Ok(wire::Scope::Global) => Ok(Scope::Global),
        Ok(wire::Scope::Namespace) => Ok(Scope::Namespace),
        Ok(wire::Scope::WorkloadSelector) => Ok(Scope::WorkloadSelector),
        Err(_) => Err(Malformed::at("scope", Problem::UnknownValue { found: value })),
    }
}

fn action(value: i32) -> Result<Action, Malformed> {
    match wire::Action::try_from(value) {
        Ok(wire::Action::Allow) => Ok(Action::Allow),
        Ok(wire::Action::Deny) => Ok(Action::Deny),
        Err(_) => Err(Malformed::at("action", Problem::UnknownValue { found: value })),
    }
}

fn rule(message: &wire::Rule, action: Action) -> Result<Rule, Malformed> {
    let mut unevaluable = BTreeSet::new();
    let clauses = message
        .clauses
        .iter()
        .enumerate()
        .map(|(index, each)| {
            clause(each, action, &mut unevaluable)
                .map_err(|malformed| malformed.inside(&format!("clauses[{index}]")))
        })
        .collect::<Result<_, _>>()?;
    Ok(Rule { clauses, unevaluable: unevaluable.into_iter().collect() })
}

fn clause(
    message: &wire::Clause,
    action: Action,
    unevaluable: &mut BTreeSet<Str>,
) -> Result<Clause, Malformed> {
    let mut matches = Vec::with_capacity(message.matches.len());
    let mut stripped = false;
    for (index, each) in message.matches.iter().enumerate() {
        let inside = |malformed: Malformed| malformed.inside(&format!("matches[{index}]"));
        let read = one_match(each).map_err(inside)?;
        for extension in &each.extensions {
            unevaluable.insert(Str::from(format!("extension {}", extension.name)));
        }
        if action == Action::Deny && read == Match::default() {
            if each.extensions.is_empty() {
                unevaluable.insert(Str::from(STRIPPED));
            }
            stripped = true;
        }
        matches.push(read);
    }
    if stripped {
        // One alternative holds for everything L4 can see, so the clause does: a clause without matches is true.
        matches.clear();
    }
    Ok(Clause { matches })
}

fn one_match(message: &wire::Match) -> Result<Match, Malformed> {
    Ok(Match {
        namespaces: Values {
            any: strings("namespaces", &message.namespaces)?,
            none: strings("not_namespaces", &message.not_namespaces)?,
        },
        principals: Values {
            any: strings("principals", &message.principals)?,
            none: strings("not_principals", &message.not_principals)?,
        },
        service_accounts: Values {
            any: accounts("service_accounts", &message.service_accounts)?,
            none: accounts("not_service_accounts", &message.not_service_accounts)?,
        },
        source_ips: Values {
            any: ranges("source_ips", &message.source_ips)?,
            none: ranges("not_source_ips", &message.not_source_ips)?,
        },
        destination_ips: Values {
            any: ranges("destination_ips", &message.destination_ips)?,
            none: ranges("not_destination_ips", &message.not_destination_ips)?,
        },
        destination_ports: Values {
            any: numbers("destination_ports", &message.destination_ports)?,
            none: numbers("not_destination_ports", &message.not_destination_ports)?,
        },
    })
}

/// Reads each entry of a list; errors carry its index.
fn each<W, T>(
    field: &str,
    list: &[W],
    read: impl Fn(&str, &W) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    list.iter().enumerate().map(|(index, entry)| read(&format!("{field}[{index}]"), entry)).collect()
}

fn strings(field: &str, list: &[wire::StringMatch]) -> Result<Vec<StringMatch>, Malformed> {
    each(field, list, |field, entry| match &entry.match_type {
        Some(wire::string_match::MatchType::Exact(text)) => Ok(StringMatch::Exact(Str::from(&**text))),
        Some(wire::string_match::MatchType::Prefix(text)) => Ok(StringMatch::Prefix(Str::from(&**text))),
        Some(wire::string_match::MatchType::Suffix(text)) => Ok(StringMatch::Suffix(Str::from(&**text))),
        Some(wire::string_match::MatchType::Presence(())) => Ok(StringMatch::Presence),
        None => Err(Malformed::at(format!("{field}.match_type"), Problem::Missing)),
    })
}

fn accounts(field: &str, list: &[wire::ServiceAccountMatch]) -> Result<Vec<ServiceAccount>, Malformed> {
    each(field, list, |field, entry| {
        Ok(ServiceAccount {
            namespace: Str::from(required(&format!("{field}.namespace"), &entry.namespace)?),
            name: Str::from(required(&format!("{field}.service_account"), &entry.service_account)?),
        })
    })
}

fn ranges(field: &str, list: &[wire::Address]) -> Result<Vec<IpNet>, Malformed> {
    each(field, list, |field, entry| network::range(field, &entry.address, entry.length))
}

fn numbers(field: &str, list: &[u32]) -> Result<Vec<u16>, Malformed> {
    each(field, list, |field, entry| port(field, *entry))
}

fn add_unevaluable(message: &wire::Authorization, rules: &mut [Rule]) -> Result<(), Malformed> {
    let Some(listed) = extension::<Unevaluable>(&message.extensions, UNEVALUABLE_EXTENSION, UNEVALUABLE)?
    else {
        return Ok(());
    };
    let count = rules.len();
    for (index, entry) in listed.rules.iter().enumerate() {
        let rule = usize::try_from(entry.rule).ok().and_then(|at| rules.get_mut(at)).ok_or_else(|| {
            Malformed::at(
                format!("unevaluable.rules[{index}].rule"),
                Problem::Rule { rule: entry.rule, rules: count },
            )
        })?;
        // A named condition is better than the guess that something was there.
        rule.unevaluable.retain(|condition| &**condition != STRIPPED);
        let known: BTreeSet<Str> = rule.unevaluable.iter().cloned().collect();
        let named = entry.conditions.iter().map(|condition| Str::from(&**condition));
        rule.unevaluable = known.into_iter().chain(named).collect::<BTreeSet<_>>().into_iter().collect();
    }
    Ok(())
}

/// Writes a policy as a message of its type.
pub fn encode_any(policy: &Policy) -> Any {
    Any::pack(super::AUTHORIZATION, &encode(policy))
}

/// Writes a policy.
pub fn encode(policy: &Policy) -> wire::Authorization {
    wire::Authorization {
        name: policy.key.name.to_string(),
        namespace: policy.key.namespace.to_string(),
        scope: match policy.scope {
            Scope::Global => wire::Scope::Global,
            Scope::Namespace => wire::Scope::Namespace,
            Scope::WorkloadSelector => wire::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => wire::Action::Allow,
            Action::Deny => wire::Action::Deny,
        }
        .into(),
        rules: policy.rules.iter().map(encode_rule).collect(),
        dry_run: policy.dry_run,
        extensions: encode_unevaluable(&policy.rules).into_iter().chain(encode_end(policy)).collect(),
    }
}

fn encode_rule(rule: &Rule) -> wire::Rule {
    let clause =
        |clause: &Clause| wire::Clause { matches: clause.matches.iter().map(encode_match).collect() };
    wire::Rule { clauses: rule.clauses.iter().map(clause).collect() }
}

fn encode_match(one: &Match) -> wire::Match {
    let ports = |list: &[u16]| list.iter().map(|port| u32::from(*port)).collect();
    wire::Match {
        namespaces: encode_strings(&one.namespaces.any),
        not_namespaces: encode_strings(&one.namespaces.none),
        principals: encode_strings(&one.principals.any),
        not_principals: encode_strings(&one.principals.none),
        source_ips: encode_ranges(&one.source_ips.any),
        not_source_ips: encode_ranges(&one.source_ips.none),
        destination_ips: encode_ranges(&one.destination_ips.any),
        not_destination_ips: encode_ranges(&one.destination_ips.none),
        destination_ports: ports(&one.destination_ports.any),
        not_destination_ports: ports(&one.destination_ports.none),
        service_accounts: encode_accounts(&one.service_accounts.any),
        not_service_accounts: encode_accounts(&one.service_accounts.none),
        extensions: Vec::new(),
    }
}

fn encode_strings(list: &[StringMatch]) -> Vec<wire::StringMatch> {
    use wire::string_match::MatchType;
    let one = |entry: &StringMatch| match entry {
        StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringMatch::Presence => MatchType::Presence(()),
    };
    list.iter().map(|entry| wire::StringMatch { match_type: Some(one(entry)) }).collect()
}

fn encode_ranges(list: &[IpNet]) -> Vec<wire::Address> {
    list.iter()
        .map(|range| {
            let (address, length) = network::encode_net(*range);
            wire::Address { address, length }
        })
        .collect()
}

fn encode_accounts(list: &[ServiceAccount]) -> Vec<wire::ServiceAccountMatch> {
    list.iter()
        .map(|account| wire::ServiceAccountMatch {
            namespace: account.namespace.to_string(),
            service_account: account.name.to_string(),
        })
        .collect()
}

fn encode_unevaluable(rules: &[Rule]) -> Vec<crate::proto::istio::workload::Extension> {
    let listed: Vec<_> = (0u32..)
        .zip(rules)
        .filter(|(_, rule)| !rule.unevaluable.is_empty())
        .map(|(index, rule)| RuleConditions {
            rule: index,
            conditions: rule.unevaluable.iter().map(ToString::to_string).collect(),
        })
        .collect();
    if listed.is_empty() {
        return Vec::new();
    }
    vec![encode_extension(UNEVALUABLE_EXTENSION, UNEVALUABLE, &Unevaluable { rules: listed })]
}

fn encode_end(policy: &Policy) -> Option<crate::proto::istio::workload::Extension> {
    let end = Breakglass { until: policy.until? };
    Some(encode_extension(BREAKGLASS_EXTENSION, BREAKGLASS, &end))
}
