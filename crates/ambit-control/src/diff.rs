//! The records that differ after a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::model::Policy;
use ambit_types::{PolicyKey, Service, ServiceKey, Uid, Workload};

use crate::input::{Key, Name};
use crate::status::Report;
use crate::waypoints::resources::Difference;

/// What changed: records that are new or differ, and names that are gone. Nothing is in both.
///
/// Whoever passes this on sends new policies before the workloads that name them, and removes policies after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// New or changed workloads.
    pub workloads: BTreeMap<Uid, Arc<Workload>>,
    /// New or changed services.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// New or changed policies.
    pub policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Workloads that are gone.
    pub removed_workloads: BTreeSet<Uid>,
    /// Services that are gone.
    pub removed_services: BTreeSet<ServiceKey>,
    /// Policies that are gone.
    pub removed_policies: BTreeSet<PolicyKey>,
    /// What differs for each waypoint, by namespace and name of its Gateway; of a new one even if that is nothing.
    pub waypoints: BTreeMap<Name, Difference>,
    /// Waypoints that are gone, or are none any more. Their proxies may still run and be sent requests: what they
    /// enforce must not be taken from them.
    pub removed_waypoints: BTreeSet<Name>,
    /// New or changed reports.
    pub reports: BTreeMap<Key, Arc<Report>>,
    /// Objects that have no report any more.
    pub removed_reports: BTreeSet<Key>,
}

impl Delta {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
            && self.services.is_empty()
            && self.policies.is_empty()
            && self.removed_workloads.is_empty()
            && self.removed_services.is_empty()
            && self.removed_policies.is_empty()
            && self.waypoints.is_empty()
            && self.removed_waypoints.is_empty()
            && self.reports.is_empty()
            && self.removed_reports.is_empty()
    }
}

/// Replaces the records one source makes, and says which differ.
///
/// `held` are all records of this kind, and are brought up to date; `mine` the keys the source made before. Returns those
/// it makes now, in order.
pub(crate) fn replace<K: Ord + Clone, V: PartialEq>(
    held: &mut BTreeMap<K, Arc<V>>,
    mine: &[K],
    made: Vec<(K, V)>,
    changed: &mut BTreeMap<K, Arc<V>>,
    removed: &mut BTreeSet<K>,
) -> Box<[K]> {
    let mut now = BTreeSet::new();
    for (key, value) in made {
        // The first of two records with one key stands; later ones would make the outcome depend on order.
        if !now.insert(key.clone()) {
            continue;
        }
        removed.remove(&key);
        if held.get(&key).is_some_and(|old| **old == value) {
            continue;
        }
        let value = Arc::new(value);
        held.insert(key.clone(), value.clone());
        changed.insert(key, value);
    }
    for gone in mine.iter().filter(|key| !now.contains(*key)) {
        if held.remove(gone).is_some() {
            changed.remove(gone);
            removed.insert(gone.clone());
        }
    }
    // A list takes far less memory than a set, and nearly every source makes one record.
    now.into_iter().collect()
}
