//! The smallest rules that let in what was seen, and nothing that was not.
//!
//! Flows in, policies as data out. It knows nothing of clusters or files: the caller says which workloads there are,
//! which labels they have and what was seen. One policy of the namespace allows nothing, so that all that no other one
//! names is refused; the others name callers by identity and the ports they used. Whoever has no identity can only be
//! named by address, which is told, since an address proves nothing. What a suggestion lets in is asked of the engine
//! that decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::decide::BREAKGLASS;
use ambit_policy::model::{Action, Policy, Scope, StringMatch};
use ambit_policy::{Facts, PolicySet, decide};
use ambit_types::{Identity, Str, Uid};
use serde::Serialize;

mod above;
mod allow;
mod known;
mod seen;
mod select;
#[cfg(test)]
mod tests;

use above::Above;
pub use allow::{Allow, AllowRule};
pub use known::Known;
pub use seen::{Gathered, seen};

/// A workload that a policy may select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub uid: Uid,
    /// Its name, as people call it.
    pub name: Str,
    /// Name of its controller; its own or empty if it has none.
    pub controller: Str,
    /// Its labels.
    pub labels: BTreeMap<Str, Str>,
    /// Its address.
    pub address: IpAddr,
}

/// Who connected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Somebody with a proven identity: the one on whose behalf a waypoint called, or else the peer's own.
    Identity(Identity),
    /// Somebody without, at this address.
    Address(IpAddr),
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(identity) => f.write_str(&identity.principal()),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Connections of one caller to one port of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The workload.
    pub destination: Uid,
    /// Who called.
    pub caller: Caller,
    /// Port at the workload, behind any service.
    pub port: u16,
    /// How many.
    pub connections: u64,
}

/// How much of what was seen the suggestion lets in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Different callers, workloads and ports.
    pub pairs: usize,
    /// Those that are let in.
    pub pairs_covered: usize,
    /// Connections.
    pub connections: u64,
    /// Those that are let in.
    pub connections_covered: u64,
}

/// What a policy in force allows by name and nobody did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unseen {
    /// The policy, `NAMESPACE/NAME`.
    pub policy: String,
    /// Whom it names, `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub principal: String,
}

/// A policy in force and the members it covers.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The members.
    pub covers: BTreeSet<Uid>,
}

/// Policies that let in what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// The namespace they are for.
    pub namespace: Str,
    /// The policies; the first one allows nothing, so that the others say everything.
    pub policies: Vec<Allow>,
    /// How much they let in.
    pub coverage: Coverage,
    /// What policies in force name and nobody used.
    pub unseen: Vec<Unseen>,
    /// ALLOW policies of the namespace in force, which may let in more than was seen: to be removed with the change.
    pub superseded: Vec<String>,
    /// What a person should know before applying it.
    pub notes: Vec<String>,
}

/// Who used which ports.
pub(crate) type Wants = BTreeMap<Caller, BTreeSet<u16>>;

/// Suggests policies for a namespace.
///
/// `members` are all workloads of it that policies reach, also those that nobody called: a selector must not catch
/// them. Of `seen`, what goes to other workloads is left out. What policies of the whole mesh let in stays allowed beside
/// the suggestion, and needs no rule of it.
pub fn suggest(namespace: &str, members: &[Member], seen: &[Seen], in_force: &[InForce]) -> Suggestion {
    let mut notes = Vec::new();
    let above = Above::of(in_force);
    let wants = wants(members, seen, &above);
    let mut policies = vec![Allow::nothing()];
    for group in select::groups(members, &wants, &mut notes) {
        let taken: BTreeSet<&str> = policies.iter().map(|one| one.name.as_str()).collect();
        let name = free_name(&group.name, &taken);
        policies.push(Allow { name, selector: group.selector, rules: allow::rules(&group.wants) });
    }
    notes.extend(by_address(&wants, members));
    notes.extend(above.notes(members, seen));
    let coverage = coverage(namespace, &policies, members, seen, &above);
    let unseen = unseen(in_force, seen);
    let superseded = superseded(namespace, &policies, in_force);
    Suggestion { namespace: Str::from(namespace), policies, coverage, unseen, superseded, notes }
}

/// What was used of each member, by its place in the list.
fn wants(members: &[Member], seen: &[Seen], above: &Above<'_>) -> Vec<Wants> {
    let places: BTreeMap<&Uid, usize> = members.iter().enumerate().map(|(at, m)| (&m.uid, at)).collect();
    let mut wants = vec![Wants::new(); members.len()];
    for one in seen {
        if let Some(at) = places.get(&one.destination)
            && !above.lets_in(one, members[*at].address)
        {
            wants[*at].entry(one.caller.clone()).or_default().insert(one.port);
        }
    }
    wants
}

fn free_name(stem: &str, taken: &BTreeSet<&str>) -> String {
    let first = format!("seen-{stem}");
    if !taken.contains(first.as_str()) {
        return first;
    }
    let numbered = |number: usize| format!("{first}-{number}");
    let free = (2..).map(numbered).find(|name| !taken.contains(name.as_str()));
    free.unwrap_or(first)
}

/// A warning for every caller that could only be named by its address.
fn by_address(wants: &[Wants], members: &[Member]) -> Vec<String> {
    let mut notes = Vec::new();
    for (wants, member) in wants.iter().zip(members) {
        for caller in wants.keys() {
            if let Caller::Address(address) = caller {
                notes.push(format!(
                    "{} is called by {address}, which has no identity: it is allowed by its address, which anybody who \
                     gets that address has; enrol it, then ask again",
                    member.name
                ));
            }
        }
    }
    notes
}

/// How much of what was seen the policies let in, by the engine that decides.
fn coverage(
    namespace: &str,
    policies: &[Allow],
    members: &[Member],
    seen: &[Seen],
    above: &Above<'_>,
) -> Coverage {
    let made: Vec<(&Allow, Arc<Policy>)> =
        policies.iter().map(|allow| (allow, Arc::new(allow.policy(namespace)))).collect();
    let mut coverage = Coverage::default();
    for one in seen {
        let Some(member) = members.iter().find(|m| m.uid == one.destination) else { continue };
        let applies = made.iter().filter(|(allow, _)| allow.selects(&member.labels));
        let set = PolicySet::new(applies.map(|(_, policy)| policy.clone()), []);
        coverage.pairs += 1;
        coverage.connections = coverage.connections.saturating_add(one.connections);
        if is_let_in(&set, one, member.address) || above.lets_in(one, member.address) {
            coverage.pairs_covered += 1;
            coverage.connections_covered = coverage.connections_covered.saturating_add(one.connections);
        }
    }
    coverage
}

/// Whether policies let in what was seen.
pub(crate) fn is_let_in(set: &PolicySet, seen: &Seen, destination: IpAddr) -> bool {
    let facts = match &seen.caller {
        // Rules of ours name no address of somebody with an identity.
        Caller::Identity(identity) => Facts::new(Some(identity), destination, destination, seen.port),
        Caller::Address(address) => Facts::new(None, *address, destination, seen.port),
    };
    decide(set, &facts).is_allow()
}

/// Principals that policies in force name one by one and that called none of what they cover.
fn unseen(in_force: &[InForce], seen: &[Seen]) -> Vec<Unseen> {
    let mut unseen = BTreeSet::new();
    for one in in_force.iter().filter(|one| is_enforced_allow(&one.policy)) {
        let callers: BTreeSet<String> = seen
            .iter()
            .filter(|seen| one.covers.contains(&seen.destination))
            .map(|seen| seen.caller.to_string())
            .collect();
        let named = named(&one.policy).into_iter().filter(|principal| !callers.contains(principal));
        let policy = one.policy.key.to_string();
        unseen.extend(named.map(|principal| Unseen { policy: policy.clone(), principal }));
    }
    unseen.into_iter().collect()
}

/// Principals that a policy names without a pattern.
fn named(policy: &Policy) -> BTreeSet<String> {
    let matches = policy.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
    let texts = matches.flat_map(|one| &one.principals.any);
    let exact = texts.filter_map(|text| match text {
        StringMatch::Exact(text) => Some(text.to_string()),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
    });
    exact.collect()
}

/// An ALLOW that is in force for good.
fn is_enforced_allow(policy: &Policy) -> bool {
    !policy.dry_run
        && *policy.key.name != *BREAKGLASS
        && match policy.action {
            Action::Allow => true,
            Action::Deny => false,
        }
}

/// ALLOW policies of the namespace that the suggestion does not replace by its own of the same name.
fn superseded(namespace: &str, policies: &[Allow], in_force: &[InForce]) -> Vec<String> {
    let ours: BTreeSet<&str> = policies.iter().map(|one| one.name.as_str()).collect();
    let mut all: Vec<String> = in_force
        .iter()
        .filter(|one| is_enforced_allow(&one.policy) && !one.policy.rules.is_empty())
        .map(|one| &one.policy.key)
        .filter(|key| *key.namespace == *namespace && !ours.contains(&*key.name))
        .map(|key| key.to_string())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
