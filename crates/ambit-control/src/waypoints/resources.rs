//! All that one waypoint needs beside discovery, and what of it differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_policy::http::Policy;
use ambit_policy::http::provider::Provider;
use ambit_policy::jwt;
use ambit_route::model::{DestinationPolicy, Frontend};
use ambit_types::{PolicyKey, ServiceKey, Str};

/// A port of a service as clients address it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// The service.
    pub service: ServiceKey,
    /// Its port.
    pub port: u16,
}

/// Where a policy applies at a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To everything that goes through it.
    All,
    /// To what is addressed to these services.
    Services(BTreeSet<ServiceKey>),
}

/// A policy at a waypoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached<T> {
    /// The policy; nothing if it has a mistake, or stands for policies of services that the waypoint may not serve.
    /// Where such a one applies, nothing is allowed.
    pub of: Option<T>,
    /// Where it applies.
    pub reach: Reach,
}

/// An authorization policy at a waypoint.
pub type AttachedPolicy = Attached<Policy>;

/// A request authentication at a waypoint.
pub type AttachedRules = Attached<Vec<jwt::Rule>>;

/// What a waypoint needs: routes by frontend, policies of destinations, who may call, which tokens count.
///
/// Services, workloads and their binding travel in discovery. A service that is bound here and has no frontend is
/// forwarded as it is addressed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Ports that have routes.
    pub frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// Services that are treated otherwise than by default: those bound here, and those that routes here send to.
    pub destinations: BTreeMap<ServiceKey, Arc<DestinationPolicy>>,
    /// Authorization policies.
    pub policies: BTreeMap<PolicyKey, Arc<AttachedPolicy>>,
    /// Request authentications.
    pub authentications: BTreeMap<PolicyKey, Arc<AttachedRules>>,
    /// Providers that policies here name. A policy may name one that is not here, and then refuses.
    pub providers: BTreeMap<Str, Arc<Provider>>,
}

/// What differs: resources that are new or changed, and names that are gone. Nothing is in both.
///
/// Whoever passes this on sends providers, policies and authentications before frontends, and removes them after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// New or changed resources.
    pub changed: Resources,
    /// Frontends that are gone.
    pub removed_frontends: BTreeSet<FrontendKey>,
    /// Destinations that are treated by default again.
    pub removed_destinations: BTreeSet<ServiceKey>,
    /// Authorization policies that are gone.
    pub removed_policies: BTreeSet<PolicyKey>,
    /// Request authentications that are gone.
    pub removed_authentications: BTreeSet<PolicyKey>,
    /// Providers that are gone, or that no policy here names any more.
    pub removed_providers: BTreeSet<Str>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed == Resources::default()
            && self.removed_frontends.is_empty()
            && self.removed_destinations.is_empty()
            && self.removed_policies.is_empty()
            && self.removed_authentications.is_empty()
            && self.removed_providers.is_empty()
    }
}

impl Resources {
    /// What has to be sent to one that holds these, so that it holds `next`.
    pub fn difference(&self, next: &Self) -> Difference {
        let (frontends, removed_frontends) = differing(&self.frontends, &next.frontends);
        let (destinations, removed_destinations) = differing(&self.destinations, &next.destinations);
        let (policies, removed_policies) = differing(&self.policies, &next.policies);
        let (authentications, removed_authentications) =
            differing(&self.authentications, &next.authentications);
        let (providers, removed_providers) = differing(&self.providers, &next.providers);
        Difference {
            changed: Self { frontends, destinations, policies, authentications, providers },
            removed_frontends,
            removed_destinations,
            removed_policies,
            removed_authentications,
            removed_providers,
        }
    }
}

type Differing<K, V> = (BTreeMap<K, Arc<V>>, BTreeSet<K>);

fn differing<K: Ord + Clone, V: PartialEq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
) -> Differing<K, V> {
    let is_same = |key: &K, value: &Arc<V>| {
        old.get(key).is_some_and(|before| Arc::ptr_eq(before, value) || before == value)
    };
    let changed = new.iter().filter(|(key, value)| !is_same(key, value));
    let removed = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
    (changed.map(|(key, value)| (key.clone(), value.clone())).collect(), removed)
}
