//! A policy as written, compiled: every value parsed, every mistake named with its field.
//!
//! Nothing is dropped: a policy with a mistake is refused whole, because a rule without one of its conditions says
//! something else. What would never match, and so quietly protect nothing, is a mistake too.

use ambit_types::{PolicyKey, TrustDomain};

use super::model::{Action, Clause, Condition, Policy, Rule};
use super::problem::{Invalid, Problem};
use super::set::CustomOrder;
use super::written;
use crate::normalize::Normalization;

mod key;
mod path;
mod values;

pub(super) use key::KEYS;
use values::{Lists, Reader};

/// Most rules of a policy, and most elements of `from`, `to` or `when` of a rule (Istio's bound for the first two).
pub const RULES_MAX: usize = 512;

/// Most values in one list.
pub const VALUES_MAX: usize = 4096;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// Most service accounts in one list (Istio's bound).
pub const SERVICE_ACCOUNTS_MAX: usize = 16;

/// What has to be known of the mesh to compile a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// How paths are normalised where the policy is enforced.
    pub normalization: Normalization,
    /// When CUSTOM is evaluated there.
    pub custom_order: CustomOrder,
    /// The mesh's own trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of it: principals of any of these names mean all of them.
    pub trust_domain_aliases: Vec<TrustDomain>,
}

/// Compiles a policy; `dry_run` is the annotation `istio.io/dry-run`.
///
/// # Errors
/// Every [`Invalid`] field, in the order of the manifest. Source: Istio's `AuthorizationPolicy` and its validation.
pub fn compile(
    key: &PolicyKey,
    written: &written::Policy,
    dry_run: bool,
    options: &Options,
) -> Result<Policy, Vec<Invalid>> {
    let mut reader = Reader::new(key, options, written.action);
    let action = action(&mut reader, written, dry_run);
    let rules = written.rules.as_deref().unwrap_or_default();
    reader.at_most("rules", rules.len(), RULES_MAX);
    let compiled: Vec<Rule> = rules
        .iter()
        .take(RULES_MAX)
        .enumerate()
        .map(|(index, written)| rule(&mut reader, &format!("rules[{index}]"), written))
        .collect();
    let invalid = reader.finish();
    if invalid.is_empty() {
        Ok(Policy { key: key.clone(), action, rules: compiled, dry_run })
    } else {
        Err(invalid)
    }
}

fn action(reader: &mut Reader<'_>, written: &written::Policy, dry_run: bool) -> Action {
    let has_rules = written.rules.as_ref().is_some_and(|rules| !rules.is_empty());
    let name = written.provider.as_ref().map_or("", |provider| &provider.name);
    let is_custom = written.action == written::Action::Custom;
    if dry_run && matches!(written.action, written::Action::Custom | written::Action::Audit) {
        reader.bad("metadata.annotations[istio.io/dry-run]", Problem::DryRun);
    }
    if is_custom && name.is_empty() {
        reader.bad("provider.name", Problem::Missing);
    } else if is_custom && !ambit_types::identity::is_label(name) {
        reader.bad("provider.name", Problem::ProviderName);
    } else if !is_custom && written.provider.is_some() {
        reader.bad("provider", Problem::ProviderUnused);
    }
    let (action, needs_rules) = match written.action {
        written::Action::Allow => (Action::Allow, None),
        written::Action::Audit => (Action::Audit, None),
        written::Action::Deny => (Action::Deny, Some("DENY")),
        written::Action::Custom => (Action::Custom(name.into()), Some("CUSTOM")),
    };
    if let Some(action) = needs_rules.filter(|_| !has_rules) {
        reader.bad("rules", Problem::NoRules { action });
    }
    action
}

fn rule(reader: &mut Reader<'_>, at: &str, written: &written::Rule) -> Rule {
    let mut clauses = Vec::new();
    if let Some(from) = &written.from {
        let sources = reader.elements(&format!("{at}.from"), from, |reader, at, from| {
            let at = format!("{at}.source");
            match &from.source {
                Some(one) => source(reader, &at, one),
                None => reader.missing(&at),
            }
        });
        clauses.push(Clause { alternatives: sources });
    }
    if let Some(to) = &written.to {
        let operations = reader.elements(&format!("{at}.to"), to, |reader, at, to| {
            let at = format!("{at}.operation");
            match &to.operation {
                Some(one) => operation(reader, &at, one),
                None => reader.missing(&at),
            }
        });
        clauses.push(Clause { alternatives: operations });
    }
    let when = written.when.as_deref().unwrap_or_default();
    reader.at_most(&format!("{at}.when"), when.len(), RULES_MAX);
    for (index, one) in when.iter().take(RULES_MAX).enumerate() {
        let condition = key::condition(reader, &format!("{at}.when[{index}]"), one);
        clauses.extend(condition.map(|one| Clause { alternatives: vec![vec![one]] }));
    }
    Rule { clauses, unevaluable: Vec::new() }
}

fn source(reader: &mut Reader<'_>, at: &str, source: &written::Source) -> Vec<Condition> {
    let of = |name, any, none| Lists::of(at, name, any, none);
    let s = source;
    let principals = reader.principals(&of("principals", &s.principals, &s.not_principals));
    let token = of("requestPrincipals", &s.request_principals, &s.not_request_principals);
    let token = reader.values(&token, values::request_principal);
    reader.token_in_time(at, "requestPrincipals", token.is_some());
    let namespaces = of("namespaces", &s.namespaces, &s.not_namespaces);
    let namespaces = reader.values(&namespaces, values::namespace);
    let direct = reader.values(&of("ipBlocks", &s.ip_blocks, &s.not_ip_blocks), values::range);
    let remote = of("remoteIpBlocks", &s.remote_ip_blocks, &s.not_remote_ip_blocks);
    let remote = reader.values(&remote, values::range);
    let accounts = reader.accounts(&of("serviceAccounts", &s.service_accounts, &s.not_service_accounts));
    let domains = of("trustDomains", &s.trust_domains, &s.not_trust_domains);
    let domains = reader.values(&domains, values::trust_domain);
    stands_alone(reader, at, source);
    let conditions = [
        principals.map(Condition::Principal),
        token.map(Condition::RequestPrincipal),
        namespaces.map(Condition::Namespace),
        direct.map(Condition::SourceIp),
        remote.map(Condition::RemoteIp),
        accounts.map(Condition::ServiceAccount),
        domains.map(Condition::TrustDomain),
    ];
    reader.something(at, conditions)
}

/// Service accounts stand alone: beside principals or namespaces they would be read in two ways.
fn stands_alone(reader: &mut Reader<'_>, at: &str, source: &written::Source) {
    let accounts =
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)];
    let others = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
    ];
    let Some((other, _)) = others.into_iter().find(|(_, list)| !list.is_empty()) else { return };
    for (name, _) in accounts.into_iter().filter(|(_, list)| !list.is_empty()) {
        reader.bad(&format!("{at}.{name}"), Problem::NotTogether { other });
    }
}

fn operation(reader: &mut Reader<'_>, at: &str, operation: &written::Operation) -> Vec<Condition> {
    let of = |name, any, none| Lists::of(at, name, any, none);
    let o = operation;
    let hosts = reader.values(&of("hosts", &o.hosts, &o.not_hosts), values::host);
    let ports = reader.values(&of("ports", &o.ports, &o.not_ports), values::port);
    let methods = reader.values(&of("methods", &o.methods, &o.not_methods), values::text);
    let paths = reader.paths(&of("paths", &o.paths, &o.not_paths));
    let conditions = [
        hosts.map(Condition::Host),
        ports.map(Condition::DestinationPort),
        methods.map(Condition::Method),
        paths.map(Condition::Path),
    ];
    reader.something(at, conditions)
}
