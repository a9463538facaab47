//! Which workloads and services a client wants.

use std::collections::BTreeSet;

use ambit_types::Str;

use super::Resources;
use crate::client::WILDCARD;
use crate::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// The subscribed names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Every one.
    All,
    /// Those behind the keys, what they need, and those on the client's node; of workloads also the services in front.
    Named(BTreeSet<String>),
}

impl Interest {
    /// Reads a first request: no names, or `*`, mean everything; `*` subscribed and unsubscribed mean nothing yet.
    pub(super) fn open(request: &DeltaDiscoveryRequest) -> Self {
        let subscribe = &request.resource_names_subscribe;
        let unsubscribe = &request.resource_names_unsubscribe;
        let has_wildcard = |names: &[String]| names.iter().any(|name| name == WILDCARD);
        if subscribe.is_empty() || (has_wildcard(subscribe) && !has_wildcard(unsubscribe)) {
            return Self::All;
        }
        // What a client brings along it still wants.
        let names = subscribe.iter().chain(request.initial_resource_versions.keys());
        let wanted = names.filter(|name| *name != WILDCARD && !unsubscribe.contains(name));
        Self::Named(wanted.cloned().collect())
    }

    /// Everything a client with these keys on this node is to hold.
    pub(super) fn closure(keys: &BTreeSet<String>, resources: &Resources, node: &str) -> BTreeSet<Str> {
        let mut named: Vec<Str> = keys.iter().flat_map(|key| resources.resolve(key)).collect();
        named.extend(resources.on_node(node).cloned());
        let mut wanted = BTreeSet::new();
        follow(named.clone(), resources, &mut wanted);
        // Whether a workload is reached past a waypoint is for its services to say. Their other endpoints are not
        // needed for that.
        let in_front: BTreeSet<&Str> = named.iter().flat_map(|name| resources.in_front(name)).collect();
        let waypoints = in_front.iter().flat_map(|service| resources.gateways(service)).collect();
        follow(waypoints, resources, &mut wanted);
        wanted.extend(in_front.into_iter().cloned());
        wanted
    }
}

/// Adds names and what they need.
fn follow(mut pending: Vec<Str>, resources: &Resources, wanted: &mut BTreeSet<Str>) {
    while let Some(name) = pending.pop() {
        if wanted.contains(&name) {
            continue;
        }
        pending.extend(resources.beside(&name));
        wanted.insert(name);
    }
}
