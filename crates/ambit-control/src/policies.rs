//! Policies as written, turned into policies as proxies evaluate them.

use std::collections::BTreeSet;

use ambit_policy::model::Policy;
use ambit_types::PolicyKey;

use crate::index::{Inputs, Settings};
use crate::input::selector::contains_all;
use crate::input::{AuthorizationPolicy, Labels, Name};
use crate::status::Standing;

mod authorization;
mod peer;
#[cfg(test)]
mod tests;

pub(crate) use peer::{derived, is_for_workloads, static_strict};

/// A policy to send, if any, and how the object stands.
pub(crate) fn authorization(policy: &AuthorizationPolicy, settings: &Settings) -> (Option<Policy>, Standing) {
    authorization::convert(policy, settings)
}

/// Why a policy is refused that can be read: the field, and the words.
pub(crate) fn fault(policy: &AuthorizationPolicy, settings: &Settings) -> Option<(&'static str, String)> {
    authorization::fault(policy, settings)
}

/// Keys of the policies a workload has to name, those of authorization first.
pub(crate) fn named_by(
    inputs: &Inputs,
    settings: &Settings,
    namespace: &str,
    labels: &Labels,
) -> Vec<PolicyKey> {
    let mut keys = BTreeSet::new();
    let root = &*settings.root_namespace;
    let namespaces = if namespace == root { vec![root] } else { vec![namespace, root] };
    for from in namespaces {
        for policy in inputs.authorization_policies.in_namespace(from) {
            if authorization::is_named(policy, settings) && contains_all(labels, &policy.selector) {
                keys.insert(key(&policy.name));
            }
        }
    }
    let mut keys: Vec<PolicyKey> = keys.into_iter().collect();
    keys.extend(peer::named_by(inputs, settings, namespace, labels));
    keys
}

fn key(name: &Name) -> PolicyKey {
    PolicyKey::new(name.namespace.clone(), name.name.clone())
}
