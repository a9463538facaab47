//! Policies by key, and which of them apply to a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::PolicySet;
use ambit_policy::model::{Policy, Scope};
use ambit_types::{PolicyKey, Str, Workload};

/// The policy store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    by_key: BTreeMap<PolicyKey, Slot>,
    /// Those of the whole mesh, wherever they live.
    global: BTreeSet<PolicyKey>,
}

/// What is held under a key.
#[derive(Debug, Clone)]
enum Slot {
    Held(Arc<Policy>),
    /// Out of force by itself; covered this much.
    Ended(Scope),
    /// Sent but unusable; covers this much.
    Rejected(Scope),
}

impl Slot {
    fn scope(&self) -> Scope {
        match self {
            Self::Held(policy) => policy.scope,
            Self::Ended(scope) | Self::Rejected(scope) => *scope,
        }
    }
}

impl Policies {
    pub(crate) fn get(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        match self.by_key.get(key)? {
            Slot::Held(policy) => Some(policy),
            Slot::Ended(_) | Slot::Rejected(_) => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values().filter_map(|slot| match slot {
            Slot::Held(policy) => Some(policy),
            Slot::Ended(_) | Slot::Rejected(_) => None,
        })
    }

    /// Stores a policy; false if the same was held already.
    pub(crate) fn insert(&mut self, policy: Arc<Policy>) -> bool {
        if self.get(&policy.key).is_some_and(|held| *held == policy) {
            return false;
        }
        let key = policy.key.clone();
        self.put(key, Slot::Held(policy));
        true
    }

    /// Takes a policy out of force that is held; false if none is.
    pub(crate) fn end(&mut self, key: &PolicyKey) -> bool {
        let Some(scope) = self.get(key).map(|policy| policy.scope) else { return false };
        self.put(key.clone(), Slot::Ended(scope));
        true
    }

    /// Notes a policy that cannot be used; false if a good version is held, which stays as it is.
    ///
    /// A pass is no such version, ended or not: it lets in for a while, and what comes in its place may be a denial.
    /// Without a scope it may be one of the whole mesh, so it counts as that (G3).
    pub(crate) fn reject(&mut self, key: PolicyKey, scope: Option<Scope>) -> bool {
        let held = match self.by_key.get(&key) {
            Some(Slot::Held(policy)) => !policy.is_pass(),
            Some(Slot::Ended(_) | Slot::Rejected(_)) | None => false,
        };
        if !held {
            self.put(key, Slot::Rejected(scope.unwrap_or(Scope::Global)));
        }
        !held
    }

    /// Forgets a policy; false if there was none.
    pub(crate) fn remove(&mut self, key: &PolicyKey) -> bool {
        self.global.remove(key);
        self.by_key.remove(key).is_some()
    }

    fn put(&mut self, key: PolicyKey, slot: Slot) {
        match slot.scope() {
            Scope::Global => self.global.insert(key.clone()),
            Scope::Namespace | Scope::WorkloadSelector => self.global.remove(&key),
        };
        self.by_key.insert(key, slot);
    }

    /// The policies that apply to a workload: mesh-wide, of its namespace, and those it names; without what has ended.
    pub(crate) fn applicable(&self, workload: &Workload) -> PolicySet {
        let mut held = Vec::new();
        let mut unresolved = Vec::new();
        let named = workload.policies.iter().map(|key| (key, self.by_key.get(key)));
        let global = self.global.iter().map(|key| (key, self.by_key.get(key)));
        let namespace = self.of_namespace(&workload.namespace).map(|(key, slot)| (key, Some(slot)));
        for (key, slot) in global.chain(namespace).chain(named) {
            match slot {
                Some(Slot::Held(policy)) => held.push(policy.clone()),
                Some(Slot::Ended(_)) => {}
                Some(Slot::Rejected(_)) | None => unresolved.push(key.clone()),
            }
        }
        PolicySet::new(held, unresolved)
    }

    fn of_namespace<'a>(&'a self, namespace: &'a Str) -> impl Iterator<Item = (&'a PolicyKey, &'a Slot)> {
        let first = PolicyKey::new(namespace.clone(), "");
        self.by_key
            .range(first..)
            .take_while(move |(key, _)| key.namespace == *namespace)
            .filter(|(_, slot)| slot.scope() == Scope::Namespace)
    }
}
