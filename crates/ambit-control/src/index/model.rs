//! After any sequence of events the index equals one built from scratch, and its deltas add up to its state.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Index, Settings};
use crate::diff::Delta;
use crate::input::{Event, Key, Name, Object};
use crate::status::Report;
use crate::waypoints::resources::{Difference, Resources};

mod objects;

use objects::event;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(batches in vec(vec(event(), 1..4), 1..24)) {
        let mut index = Index::new(Settings::default());
        let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
        let mut sum = Sum::default();
        for batch in batches {
            for event in &batch {
                match event {
                    Event::Put(object) => _ = objects.insert(object.key(), object.clone()),
                    Event::Remove(key) => _ = objects.remove(key),
                }
            }
            sum.add(index.apply(batch));
            let mut scratch = Index::new(Settings::default());
            scratch.apply(objects.values().cloned().map(Event::Put));
            prop_assert_eq!(index.workloads(), scratch.workloads());
            prop_assert_eq!(index.services(), scratch.services());
            prop_assert_eq!(index.policies(), scratch.policies());
            let statuses = |index: &Index| index.statuses().collect::<Vec<_>>();
            prop_assert_eq!(statuses(&index), statuses(&scratch));
            prop_assert_eq!(index.waypoints(), scratch.waypoints());
            prop_assert_eq!(index.reports(), scratch.reports());
            prop_assert_eq!(&sum.workloads, index.workloads());
            prop_assert_eq!(&sum.services, index.services());
            prop_assert_eq!(&sum.policies, index.policies());
            prop_assert_eq!(&sum.reports, index.reports());
            prop_assert_eq!(&sum.waypoints(), index.waypoints());
        }
        let all: Vec<Event> = objects.into_keys().map(Event::Remove).collect();
        index.apply(all);
        prop_assert!(index.workloads.is_empty() && index.services.is_empty() && index.policies.is_empty());
        prop_assert!(index.uids.is_empty() && index.keys.is_empty() && index.policy_keys.is_empty());
        prop_assert!(index.standings.is_empty());
        prop_assert!(index.layer7.is_empty(), "{:?}", index.layer7);
    }
}

/// What a client holds that got nothing but deltas.
#[derive(Default)]
struct Sum {
    workloads: BTreeMap<ambit_types::Uid, std::sync::Arc<ambit_types::Workload>>,
    services: BTreeMap<ambit_types::ServiceKey, std::sync::Arc<ambit_types::Service>>,
    policies: BTreeMap<ambit_types::PolicyKey, std::sync::Arc<ambit_policy::model::Policy>>,
    waypoints: BTreeMap<Name, Resources>,
    reports: BTreeMap<Key, std::sync::Arc<Report>>,
}

impl Sum {
    fn add(&mut self, delta: Delta) {
        add(&mut self.workloads, delta.workloads, &delta.removed_workloads);
        add(&mut self.services, delta.services, &delta.removed_services);
        add(&mut self.policies, delta.policies, &delta.removed_policies);
        add(&mut self.reports, delta.reports, &delta.removed_reports);
        for gone in &delta.removed_waypoints {
            assert!(!delta.waypoints.contains_key(gone), "{gone} is both changed and removed");
            self.waypoints.remove(gone);
        }
        for (name, difference) in delta.waypoints {
            let is_known = self.waypoints.contains_key(&name);
            assert!(!is_known || !difference.is_empty(), "{name} is sent although it did not change");
            let held = self.waypoints.entry(name).or_default();
            let Difference { changed, .. } = difference;
            add(&mut held.frontends, changed.frontends, &difference.removed_frontends);
            add(&mut held.destinations, changed.destinations, &difference.removed_destinations);
            add(&mut held.policies, changed.policies, &difference.removed_policies);
            add(&mut held.authentications, changed.authentications, &difference.removed_authentications);
            add(&mut held.providers, changed.providers, &difference.removed_providers);
        }
    }

    /// What every waypoint holds; of one that needs nothing there was word too.
    fn waypoints(&self) -> BTreeMap<Name, std::sync::Arc<Resources>> {
        self.waypoints.iter().map(|(name, held)| (name.clone(), held.clone().into())).collect()
    }
}

fn add<K: Ord + std::fmt::Debug, V: PartialEq>(
    to: &mut BTreeMap<K, std::sync::Arc<V>>,
    changed: BTreeMap<K, std::sync::Arc<V>>,
    removed: &std::collections::BTreeSet<K>,
) {
    for gone in removed {
        assert!(!changed.contains_key(gone), "{gone:?} is both changed and removed");
        // A record that came and went within one batch was never sent; its removal may be.
        to.remove(gone);
    }
    for (key, value) in changed {
        assert!(to.get(&key) != Some(&value), "{key:?} is sent although it did not change");
        to.insert(key, value);
    }
}
