//! PeerAuthentication as policies that refuse connections without identity.
//!
//! The oldest object of each level counts; a workload's mode stands over its namespace's, that over the mesh's.
//! Where every port is strict a workload names one static policy; where ports differ it names a policy of its own
//! instead, because two refusals cannot say "all but these".

use std::collections::BTreeMap;

use ambit_policy::decide::{CONVERTED_PREFIX, STATIC_STRICT};
use ambit_policy::model::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, Values};
use ambit_types::PolicyKey;

use crate::index::{Inputs, Settings};
use crate::input::selector::contains_all;
use crate::input::{Labels, Mode, PeerAuthentication};

/// Key of the policy that refuses every connection without identity.
fn static_strict_key(settings: &Settings) -> PolicyKey {
    PolicyKey::new(settings.root_namespace.clone(), STATIC_STRICT)
}

/// The policy that refuses every connection without identity.
pub(crate) fn static_strict(settings: &Settings) -> Policy {
    let rule = Rule { clauses: vec![clause(without_identity())], unevaluable: Vec::new() };
    refusal(static_strict_key(settings), vec![rule])
}

/// The policy for the ports of one object that differ from the rest of its workloads, if any do.
pub(crate) fn derived(inputs: &Inputs, settings: &Settings, of: &PeerAuthentication) -> Option<Policy> {
    if !is_for_workloads(settings, of) {
        return None;
    }
    let ports = Ports::new(of, inherited_strict(inputs, settings, &of.name.namespace));
    let rules = ports.rules()?;
    Some(refusal(derived_key(of), rules))
}

/// What a workload with these labels has to name: the static policy, its own, or nothing.
pub(super) fn named_by(
    inputs: &Inputs,
    settings: &Settings,
    namespace: &str,
    labels: &Labels,
) -> Option<PolicyKey> {
    let inherited = inherited_strict(inputs, settings, namespace);
    let own = oldest(
        inputs
            .peer_authentications
            .in_namespace(namespace)
            .filter(|p| is_for_workloads(settings, p) && contains_all(labels, &p.selector)),
    );
    let ports = own.map(|p| (p, Ports::new(p, inherited)));
    match ports {
        Some((object, ports)) if ports.rules().is_some() => Some(derived_key(object)),
        Some((_, ports)) => ports.strict.then(|| static_strict_key(settings)),
        None => inherited.then(|| static_strict_key(settings)),
    }
}

/// Whether the object is about workloads that it selects. In the root namespace nothing is selected (as Istio has it).
pub(crate) fn is_for_workloads(settings: &Settings, of: &PeerAuthentication) -> bool {
    !of.selector.is_empty() && of.name.namespace != settings.root_namespace
}

/// Whether a namespace is strict where no object selects the workload.
fn inherited_strict(inputs: &Inputs, settings: &Settings, namespace: &str) -> bool {
    let level = |of: &str| {
        let whole = inputs.peer_authentications.in_namespace(of).filter(|p| p.selector.is_empty());
        oldest(whole).map_or(Mode::Unset, |p| p.mode)
    };
    let mesh = strict_or(level(&settings.root_namespace), false);
    strict_or(level(namespace), mesh)
}

fn strict_or(mode: Mode, inherited: bool) -> bool {
    match mode {
        Mode::Unset => inherited,
        Mode::Disable | Mode::Permissive => false,
        Mode::Strict => true,
    }
}

fn oldest<'a>(of: impl Iterator<Item = &'a PeerAuthentication>) -> Option<&'a PeerAuthentication> {
    of.min_by_key(|p| (p.created, &p.name))
}

/// The strictness of a workload's ports.
struct Ports {
    /// That of every port not listed.
    strict: bool,
    /// Ports that are otherwise, ascending.
    exceptions: Vec<u16>,
}

impl Ports {
    fn new(of: &PeerAuthentication, inherited: bool) -> Self {
        let strict = strict_or(of.mode, inherited);
        let differs = |(_, mode): &(&u16, &Mode)| strict_or(**mode, strict) != strict;
        let ports: &BTreeMap<u16, Mode> = &of.ports;
        Self { strict, exceptions: ports.iter().filter(differs).map(|(port, _)| *port).collect() }
    }

    /// What refuses plaintext, where the ports differ.
    fn rules(&self) -> Option<Vec<Rule>> {
        if self.exceptions.is_empty() {
            return None;
        }
        if self.strict {
            let elsewhere = Match {
                destination_ports: Values { any: Vec::new(), none: self.exceptions.clone() },
                ..Match::default()
            };
            let clauses = vec![clause(without_identity()), clause(elsewhere)];
            return Some(vec![Rule { clauses, unevaluable: Vec::new() }]);
        }
        // One rule a port: rules are alternatives, so a further strict port can only refuse more (istio#54146).
        let port_rule = |port: &u16| {
            let mut strict = without_identity();
            strict.destination_ports.any = vec![*port];
            Rule { clauses: vec![clause(strict)], unevaluable: Vec::new() }
        };
        Some(self.exceptions.iter().map(port_rule).collect())
    }
}

fn without_identity() -> Match {
    Match { principals: Values { any: Vec::new(), none: vec![StringMatch::Presence] }, ..Match::default() }
}

fn clause(one: Match) -> Clause {
    Clause { matches: vec![one] }
}

fn derived_key(of: &PeerAuthentication) -> PolicyKey {
    PolicyKey::new(of.name.namespace.clone(), format!("{CONVERTED_PREFIX}{}", of.name.name))
}

fn refusal(key: PolicyKey, rules: Vec<Rule>) -> Policy {
    Policy { key, scope: Scope::WorkloadSelector, action: Action::Deny, rules, dry_run: false, until: None }
}
