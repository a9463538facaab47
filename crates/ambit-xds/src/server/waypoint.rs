//! What one waypoint is told beside workloads and services: its own resources, encoded once for all its replicas.

use std::sync::Arc;

use ambit_policy::http::model::Action;
use ambit_policy::http::provider::Provider;
use ambit_route::model::{Destination, DestinationPolicy, Frontend};
use ambit_types::{ServiceKey, Str};

use super::entry::Entry;
use super::shards::Shards;
use crate::any::Any;
use crate::codec::{
    HttpPolicy, RequestAuthentication, destination, frontend, http_policy, provider, request_authentication,
};
use crate::kind::{Kind, PerKind};

/// Changes for one waypoint.
#[derive(Debug, Clone, Default)]
pub struct WaypointDelta {
    /// New or changed routes of ports.
    pub frontends: Vec<Arc<Frontend>>,
    /// New or changed policies of destinations.
    pub destinations: Vec<Arc<Destination>>,
    /// New or changed policies.
    pub policies: Vec<Arc<HttpPolicy>>,
    /// New or changed rules for tokens.
    pub authentications: Vec<Arc<RequestAuthentication>>,
    /// New or changed providers that policies name.
    pub providers: Vec<Arc<Provider>>,
    /// Names of resources that are gone, each with its kind.
    pub removed: Vec<(Kind, String)>,
}

impl WaypointDelta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
            && self.destinations.is_empty()
            && self.policies.is_empty()
            && self.authentications.is_empty()
            && self.providers.is_empty()
            && self.removed.is_empty()
    }

    /// Adds the policy of a destination, as a control plane holds it: apart from the service it is for.
    pub fn put_destination(&mut self, service: ServiceKey, policy: DestinationPolicy) {
        self.destinations.push(Arc::new(Destination { service, policy }));
    }
}

/// Everything of one waypoint.
#[derive(Debug, Clone, Default)]
pub(super) struct WaypointResources {
    kinds: PerKind<Shards<Arc<Entry>>>,
}

impl WaypointResources {
    /// Takes changes; whether anything differs.
    pub(super) fn apply(&mut self, delta: WaypointDelta) -> bool {
        let mut changed = false;
        for (kind, name) in &delta.removed {
            changed |= self.kinds.of_mut(*kind).remove(name).is_some();
        }
        for one in &delta.frontends {
            changed |= self.put(Kind::Frontend, frontend::name(one), frontend::encode_any(one));
        }
        for one in &delta.destinations {
            changed |= self.put(Kind::Destination, destination::name(one), destination::encode_any(one));
        }
        for one in &delta.policies {
            let entry = Entry::policy(http_policy::encode_any(one), stands_in(one));
            changed |= self.kinds.of_mut(Kind::HttpPolicy).put(Str::from(one.name()), Arc::new(entry));
        }
        for one in &delta.authentications {
            let content = request_authentication::encode_any(one);
            changed |= self.put(Kind::RequestAuthentication, one.name(), content);
        }
        for one in &delta.providers {
            changed |= self.put(Kind::Provider, provider::name(one), provider::encode_any(one));
        }
        changed
    }

    fn put(&mut self, kind: Kind, name: String, content: Any) -> bool {
        self.kinds.of_mut(kind).put(Str::from(name), Arc::new(Entry::plain(content)))
    }

    /// Resources of one of its kinds.
    pub(super) fn of(&self, kind: Kind) -> Option<&Shards<Arc<Entry>>> {
        match kind {
            Kind::Frontend
            | Kind::Destination
            | Kind::HttpPolicy
            | Kind::RequestAuthentication
            | Kind::Provider => Some(self.kinds.of(kind)),
            Kind::Address | Kind::Authorization => None,
        }
    }
}

/// Whether a policy stands for something that nobody can use: an AUDIT policy that is only to be recorded, which no
/// manifest can say. While it applies nothing is allowed.
fn stands_in(policy: &HttpPolicy) -> bool {
    policy.policy.action == Action::Audit && policy.policy.dry_run
}
