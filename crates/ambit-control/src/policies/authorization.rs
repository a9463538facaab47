//! AuthorizationPolicy as a proxy without HTTP facts can evaluate it.
//!
//! What this layer cannot evaluate only ever makes a policy stricter: an ALLOW rule that needs it is left out, a
//! DENY rule counts it as agreeing and lists it. Values that cannot be read are treated the same way, never
//! skipped. Every difference from what was written is noted.

use ambit_policy::decide::BREAKGLASS;
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope};
use ambit_types::{Reason, Str};

use super::key;
use crate::index::Settings;
use crate::input::{AuthorizationPolicy, Operation, PolicyAction, PolicyRule, Source};
use crate::status::{Note, Standing};

mod values;

use values::Reader;

/// Whether workloads name the policy because of its selector.
pub(super) fn is_named(policy: &AuthorizationPolicy, settings: &Settings) -> bool {
    let is_sent = settings.dry_run_policies || !policy.dry_run;
    let is_for_nodes = policy.targets == 0 && action(policy.action).is_some();
    !policy.selector.is_empty() && is_for_nodes && is_sent && fault(policy, settings).is_none()
}

/// The policy to send, if any, and how the object stands.
pub(super) fn convert(policy: &AuthorizationPolicy, settings: &Settings) -> (Option<Policy>, Standing) {
    if policy.targets > 0 {
        let text = "it has targetRefs, which a waypoint enforces, and no waypoint serves them";
        return (None, Standing::NotEnforced(Note::coded(Reason::L7WithoutWaypoint, text)));
    }
    let Some(action) = action(policy.action) else {
        let text = format!("the node proxy has no {} action", policy.action.as_str());
        return (None, Standing::NotEnforced(Note::plain(text)));
    };
    if policy.dry_run && !settings.dry_run_policies {
        return (None, Standing::NotEnforced(Note::plain("dry-run policies are switched off")));
    }
    if let Some((field, words)) = fault(policy, settings) {
        return (None, Standing::NotEnforced(Note::plain(format!("{field}: {words}"))));
    }
    let mut notes = Vec::new();
    let mut rules = Vec::new();
    for (index, written) in policy.rules.iter().enumerate() {
        let (mut made, note) = rule(action, &policy.name.namespace, index, written);
        rules.append(&mut made);
        notes.extend(note);
    }
    if policy.dry_run {
        notes.push(Note::plain("dry-run: evaluated and recorded, not enforced"));
    }
    let converted = Policy {
        key: key(&policy.name),
        scope: scope(policy, settings),
        action,
        rules,
        dry_run: policy.dry_run,
        until: policy.until,
    };
    (Some(converted), Standing::of(notes))
}

/// Why a policy that can be read is refused: the field, and the words. Only of a pass (break-glass).
pub(super) fn fault(policy: &AuthorizationPolicy, settings: &Settings) -> Option<(&'static str, String)> {
    let root = &settings.root_namespace;
    (is_pass(policy) && policy.name.namespace == *root).then(|| {
        let words = format!(
            "a break-glass is for one namespace; in {root}, the root namespace, it would open all of them"
        );
        ("metadata.namespace", words)
    })
}

fn is_pass(policy: &AuthorizationPolicy) -> bool {
    action(policy.action) == Some(Action::Allow) && *policy.name.name == *BREAKGLASS
}

fn action(of: PolicyAction) -> Option<Action> {
    match of {
        PolicyAction::Allow => Some(Action::Allow),
        PolicyAction::Deny => Some(Action::Deny),
        PolicyAction::Audit | PolicyAction::Custom => None,
    }
}

fn scope(policy: &AuthorizationPolicy, settings: &Settings) -> Scope {
    match (policy.selector.is_empty(), policy.name.namespace == settings.root_namespace) {
        (false, _) => Scope::WorkloadSelector,
        (true, true) => Scope::Global,
        (true, false) => Scope::Namespace,
    }
}

/// One alternative way for the `from` part of a rule to agree.
struct Callers {
    clauses: Vec<Clause>,
    unevaluable: Vec<Str>,
}

/// Rules that together say what one written rule says, and what differs.
///
/// It is one rule but where a source names principals *and* trust domains: both are about the peer's identity, and
/// a match compares it once, so every source then becomes a rule of its own.
fn rule(action: Action, namespace: &Str, index: usize, written: &PolicyRule) -> (Vec<Rule>, Option<Note>) {
    let mut reader = Reader::new(namespace);
    let to: Vec<Match> = written.to.iter().map(|o| operation(&mut reader, o)).collect();
    let to = clause(action, to);
    let when: Vec<Clause> =
        written.when.iter().filter_map(|c| clause(action, vec![reader.condition(c)])).collect();
    let common = reader.finish();
    let callers = callers(action, namespace, &written.from);

    let mut rules = Vec::new();
    let mut differs: Vec<Str> = Vec::new();
    for one in callers {
        let mut unevaluable = common.clone();
        unevaluable.extend(one.unevaluable);
        differs.extend(unevaluable.iter().cloned());
        let left_out = match action {
            Action::Allow => !unevaluable.is_empty(),
            Action::Deny => false,
        };
        if left_out {
            continue;
        }
        let clauses = to.iter().cloned().chain(one.clauses).chain(when.iter().cloned()).collect();
        unevaluable.dedup();
        rules.push(Rule { clauses, unevaluable });
    }
    (rules, note(action, index, differs))
}

fn note(action: Action, index: usize, mut differs: Vec<Str>) -> Option<Note> {
    differs.sort_unstable();
    differs.dedup();
    let names: Vec<&str> = differs.iter().map(|d| &**d).collect();
    let names = names.join(", ");
    match (differs.is_empty(), action) {
        (true, _) => None,
        (false, Action::Allow) => {
            Some(Note::plain(format!("rule {index} allows nothing: {names} cannot be evaluated here")))
        }
        (false, Action::Deny) => Some(Note::coded(
            Reason::PolicyUnevaluable,
            format!(
                "rule {index} denies more than written: {names} cannot be evaluated here and count as matching"
            ),
        )),
    }
}

/// The ways in which the `from` part agrees; one way that always does when there is none.
fn callers(action: Action, namespace: &Str, from: &[Source]) -> Vec<Callers> {
    let always = || Callers { clauses: Vec::new(), unevaluable: Vec::new() };
    if from.is_empty() {
        return vec![always()];
    }
    if from.iter().any(names_identity_twice) {
        return from.iter().map(|source| one_caller(action, namespace, source)).collect();
    }
    let mut reader = Reader::new(namespace);
    let matches: Vec<Match> = from.iter().map(|source| caller(&mut reader, source, true)).collect();
    let clauses = clause(action, matches).into_iter().collect();
    vec![Callers { clauses, unevaluable: reader.finish() }]
}

fn names_identity_twice(source: &Source) -> bool {
    !source.principals.any.is_empty() && !source.trust_domains.any.is_empty()
}

fn one_caller(action: Action, namespace: &Str, source: &Source) -> Callers {
    let mut reader = Reader::new(namespace);
    let twice = names_identity_twice(source);
    let mut clauses: Vec<Clause> =
        clause(action, vec![caller(&mut reader, source, !twice)]).into_iter().collect();
    if twice {
        let domains = Match { principals: reader.trust_domains(&source.trust_domains), ..Match::default() };
        clauses.extend(clause(action, vec![domains]));
    }
    Callers { clauses, unevaluable: reader.finish() }
}

/// Any of the matches; nothing to compare if a DENY has to take one of them for agreeing.
fn clause(action: Action, matches: Vec<Match>) -> Option<Clause> {
    let certain = match action {
        // A match without conditions counts as false on the wire, which in a DENY would let through.
        Action::Deny => matches.iter().any(|m| *m == Match::default()),
        Action::Allow => false,
    };
    (!matches.is_empty() && !certain).then_some(Clause { matches })
}

fn caller(reader: &mut Reader<'_>, source: &Source, with_trust_domains: bool) -> Match {
    reader.beyond("requestPrincipals", "notRequestPrincipals", &source.request_principals);
    reader.beyond("remoteIpBlocks", "notRemoteIpBlocks", &source.remote_ip_blocks);
    let mut principals = reader.principals("principals", "notPrincipals", &source.principals);
    if with_trust_domains {
        let domains = reader.trust_domains(&source.trust_domains);
        principals.any.extend(domains.any);
        principals.none.extend(domains.none);
    }
    Match {
        namespaces: reader.texts("namespaces", "notNamespaces", &source.namespaces),
        principals,
        service_accounts: reader.accounts("serviceAccounts", "notServiceAccounts", &source.service_accounts),
        source_ips: reader.ranges("ipBlocks", "notIpBlocks", &source.ip_blocks),
        ..Match::default()
    }
}

fn operation(reader: &mut Reader<'_>, operation: &Operation) -> Match {
    reader.beyond("hosts", "notHosts", &operation.hosts);
    reader.beyond("methods", "notMethods", &operation.methods);
    reader.beyond("paths", "notPaths", &operation.paths);
    Match { destination_ports: reader.ports("ports", "notPorts", &operation.ports), ..Match::default() }
}
