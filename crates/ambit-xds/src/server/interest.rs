//! Which workloads and services a client wants.

use std::collections::BTreeSet;

use ambit_types::Str;

use super::room::Names;
use super::{Limits, Resources};
use crate::client::WILDCARD;
use crate::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// The subscribed names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Every one.
    All,
    /// Every one, because it came with more names than are kept.
    Beyond,
    /// Those behind the keys, what they need, and those on the client's node; of workloads also the services in front.
    Named(Names),
}

impl Interest {
    /// Reads a first request: no names, or `*`, mean everything; `*` subscribed and unsubscribed mean nothing yet. Also
    /// the names that are to be answered.
    ///
    /// A client that comes back with more names than are kept would do so each time, so it gets everything.
    pub(super) fn open(request: &DeltaDiscoveryRequest, limits: &Limits) -> (Self, Names) {
        let subscribe = &request.resource_names_subscribe;
        if subscribe.is_empty() || wildcard(request) == Some(true) {
            return (Self::All, Names::default());
        }
        let unsubscribe: BTreeSet<&String> = request.resource_names_unsubscribe.iter().collect();
        let wanted = subscribe.iter().filter(|name| *name != WILDCARD && !unsubscribe.contains(name));
        let wanted: Names = wanted.collect();
        let interest = if wanted.size().exceeds(limits) { Self::Beyond } else { Self::Named(wanted.clone()) };
        (interest, wanted)
    }

    /// Everything a client with these keys on this node is to hold; `brought`: names that it came with.
    pub(super) fn closure(
        keys: &Names,
        brought: &BTreeSet<Str>,
        resources: &Resources,
        node: &str,
    ) -> BTreeSet<Str> {
        let mut named: Vec<Str> = keys.iter().flat_map(|key| resources.resolve(key)).collect();
        named.extend(brought.iter().cloned());
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

/// What a request says of `*`: it is subscribed, or it is not any more; both at once is the latter.
pub(super) fn wildcard(request: &DeltaDiscoveryRequest) -> Option<bool> {
    let is_in = |names: &[String]| names.iter().any(|name| name == WILDCARD);
    if is_in(&request.resource_names_unsubscribe) {
        return Some(false);
    }
    is_in(&request.resource_names_subscribe).then_some(true)
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
