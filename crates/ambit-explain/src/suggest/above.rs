//! ALLOW policies of the whole mesh, which let in beside whatever a namespace says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_policy::model::Policy;

use super::{Caller, InForce, Member, PolicySet, Scope, Seen, is_enforced_allow, is_let_in};

/// Those that are in force, break-glasses apart.
pub(super) struct Above<'p>(Vec<&'p InForce>);

impl<'p> Above<'p> {
    pub(super) fn of(in_force: &'p [InForce]) -> Self {
        let is_above = |one: &&InForce| one.policy.scope == Scope::Global && is_enforced_allow(&one.policy);
        Self(in_force.iter().filter(is_above).collect())
    }

    /// Whether they let in what was seen.
    pub(super) fn lets_in(&self, seen: &Seen, destination: IpAddr) -> bool {
        self.0.iter().any(|one| lets_in(one, seen, destination))
    }

    /// What each of them lets in of what was seen.
    pub(super) fn notes(&self, members: &[Member], seen: &[Seen]) -> Vec<String> {
        let addresses: BTreeMap<_, IpAddr> =
            members.iter().map(|member| (&member.uid, member.address)).collect();
        let note = |one: &&InForce| {
            let of_it = |seen: &&Seen| {
                addresses.get(&seen.destination).is_some_and(|address| lets_in(one, seen, *address))
            };
            let count = seen.iter().filter(of_it).count();
            format!(
                "{} covers the whole mesh and stays in force: {count} of the callers and ports seen are let in by it and \
                 have no rule here, and so is whatever else it names",
                one.policy.key
            )
        };
        self.0.iter().map(note).collect()
    }
}

fn lets_in(one: &InForce, seen: &Seen, destination: IpAddr) -> bool {
    let is_told = match seen.caller {
        // Where it called from is not told, so that nothing is said to be let in by its address.
        Caller::Identity(_) => !names_sources(&one.policy),
        Caller::Address(_) => true,
    };
    is_told
        && one.covers.contains(&seen.destination)
        && is_let_in(&PolicySet::new([Arc::clone(&one.policy)], []), seen, destination)
}

/// Whether a policy compares addresses of callers.
fn names_sources(policy: &Policy) -> bool {
    let mut matches = policy.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
    matches.any(|one| !one.source_ips.is_empty())
}
