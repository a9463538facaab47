//! Which policies and token rules apply to which service, made anew only for the services that a change touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_policy::http::PolicySet;
use ambit_policy::jwt::RuleSet;
use ambit_types::ServiceKey;
use ambit_xds::client::Store;
use ambit_xds::codec::PolicyTarget;

use crate::{Applied, Policies};

/// Brings `policies` up to date after a change of what is attached to `targets`.
///
/// What is attached to the waypoint concerns every service that has something of its own, and all the others at once.
pub(super) fn refresh(
    policies: &mut Policies,
    store: &Store,
    basis: &Applied,
    targets: &BTreeSet<PolicyTarget>,
) {
    if targets.is_empty() {
        return;
    }
    let named = named(store);
    if targets.contains(&PolicyTarget::Waypoint) {
        // No service has this key, so only what covers everything applies to it.
        let others = ServiceKey::new("", "");
        policies.all = Arc::new(applied(store, basis, &others));
        let each = |service: &ServiceKey| (service.clone(), Arc::new(applied(store, basis, service)));
        policies.services = named.into_iter().map(each).collect();
        return;
    }
    for target in targets {
        match target {
            PolicyTarget::Service(service) if named.contains(service) => {
                let applied = Arc::new(applied(store, basis, service));
                policies.services.insert(service.clone(), applied);
            }
            PolicyTarget::Service(service) => drop(policies.services.remove(service)),
            PolicyTarget::Waypoint => {}
        }
    }
}

/// What applies to a service. While anything that covers it cannot be used, nothing is allowed.
fn applied(store: &Store, basis: &Applied, service: &ServiceKey) -> Applied {
    let policies = store.policies_for(service);
    let tokens = store.token_rules_for(service);
    let unresolved = policies.unresolved.into_iter().chain(tokens.unresolved);
    Applied {
        policies: PolicySet::new(policies.held, unresolved, basis.policies.custom_order()),
        tokens: RuleSet::new(tokens.held),
        ..basis.clone()
    }
}

/// Services that something names as its target, held or refused.
fn named(store: &Store) -> BTreeSet<&ServiceKey> {
    let held = store.policies().flat_map(|policy| &policy.targets);
    let tokens = store.authentications().flat_map(|one| &one.targets);
    let refused = store.refusals().flat_map(|(.., refusal)| refusal.targets.iter().flatten());
    held.chain(tokens).chain(refused).filter_map(service).collect()
}

fn service(target: &PolicyTarget) -> Option<&ServiceKey> {
    match target {
        PolicyTarget::Service(service) => Some(service),
        PolicyTarget::Waypoint => None,
    }
}
