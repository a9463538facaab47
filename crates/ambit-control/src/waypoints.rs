//! Which waypoint an object asks for, and what each waypoint needs.
//!
//! The reference is sent as written. A waypoint that does not exist, is not ready, or may not serve the object is
//! refused where traffic flows (AMB3101, AMB3104); dropping the reference here would let traffic skip every rule that
//! the waypoint enforces. The waypoint itself is told to allow nothing to a service that it may not serve, since it goes
//! by the same reference. Only a canary is dropped, since the primary enforces the same rules.

use ambit_types::{Destination, GatewayAddress, ServiceKey, Str, WeightedWaypoint};

use crate::index::{Inputs, Settings};
use crate::input::{Labels, Name};
use crate::services::service_host;

pub(crate) mod gateway;
pub(crate) mod policies;
pub(crate) mod providers;
pub(crate) mod report;
pub mod resources;

/// Port of HBONE at a waypoint.
const HBONE_PORT: u16 = 15008;
/// Names the waypoint, or opts out.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Its namespace, on the same object.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Names a second waypoint that takes a share.
const CANARY: &str = "istio.io/use-waypoint-canary";
/// Its namespace, on the same object.
const CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Its share in percent; 0 if nothing is said.
const CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
/// The value that opts out.
const NONE: &str = "none";

/// Why a waypoint cannot be used, as a reason and in words.
pub(crate) type Fault = (&'static str, String);

/// What the labels of one object say.
enum Asked {
    Nothing,
    OptOut,
    Waypoint(Name),
}

/// The waypoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) primary: Name,
    /// Whether the object's own labels name it, not those of its namespace.
    pub(crate) is_own: bool,
    /// A second one with its share in percent.
    pub(crate) canary: Option<(Name, u32)>,
    /// Why the canary is left out, as a reason and in words.
    pub(crate) canary_fault: Option<Fault>,
}

/// Labels and annotations of a service or service entry.
#[derive(Clone, Copy)]
pub(crate) struct Tags<'a> {
    pub(crate) namespace: &'a Str,
    pub(crate) labels: &'a Labels,
    pub(crate) annotations: &'a Labels,
}

/// The waypoint of a pod or other workload: that of its own labels, or that of its namespace if it is for workloads.
pub(crate) fn of_workload(
    inputs: &Inputs,
    settings: &Settings,
    namespace: &Str,
    labels: &Labels,
) -> Option<GatewayAddress> {
    match asked(namespace, labels) {
        Asked::Waypoint(name) => Some(address(settings, &name)),
        Asked::OptOut => None,
        Asked::Nothing => {
            let name = of_namespace(inputs, namespace)?;
            // Most waypoints are for services alone, and one that is not there yet is taken for one of them.
            let is_for = gateway::traffic(inputs, &name).is_some_and(gateway::Traffic::has_workloads);
            is_for.then(|| address(settings, &name))
        }
    }
}

/// The waypoint that the object's own labels name.
pub(crate) fn own(settings: &Settings, namespace: &Str, labels: &Labels) -> Option<GatewayAddress> {
    match asked(namespace, labels) {
        Asked::Waypoint(name) => Some(address(settings, &name)),
        Asked::Nothing | Asked::OptOut => None,
    }
}

/// Writes a service's waypoints into its record of discovery.
pub(crate) fn bind(inputs: &Inputs, settings: &Settings, tags: Tags<'_>, service: &mut ambit_types::Service) {
    let Some(binding) = binding(inputs, tags) else { return };
    let primary = address(settings, &binding.primary);
    if let Some((canary, share)) = binding.canary {
        let weighted = [(primary.clone(), 100 - share), (address(settings, &canary), share)];
        service.weighted_waypoints =
            weighted.map(|(destination, weight)| WeightedWaypoint { destination, weight }).into();
    }
    service.waypoint = Some(primary);
}

/// The waypoints that a service asks for, by its own labels or else by those of its namespace.
pub(crate) fn binding(inputs: &Inputs, tags: Tags<'_>) -> Option<Binding> {
    let (primary, is_own) = match asked(tags.namespace, tags.labels) {
        Asked::Waypoint(name) => (name, true),
        Asked::OptOut => return None,
        Asked::Nothing => {
            let name = of_namespace(inputs, tags.namespace)?;
            // A waypoint says itself that it is for workloads only: nobody wants it for a service then.
            let is_for = gateway::traffic(inputs, &name).is_none_or(gateway::Traffic::has_services);
            (is_for.then_some(name)?, false)
        }
    };
    let (canary, canary_fault) = match canary(inputs, tags, &primary, is_own) {
        None => (None, None),
        Some(Ok(canary)) => (Some(canary), None),
        Some(Err(fault)) => (None, Some(fault)),
    };
    Some(Binding { primary, is_own, canary, canary_fault })
}

fn of_namespace(inputs: &Inputs, namespace: &Str) -> Option<Name> {
    let of = inputs.namespaces.named(&Name::new("", namespace.clone()))?;
    match asked(namespace, &of.labels) {
        Asked::Waypoint(name) => Some(name),
        Asked::Nothing | Asked::OptOut => None,
    }
}

/// A waypoint that takes a share, or why it cannot. Of the namespace only if the object names no waypoint itself.
fn canary(
    inputs: &Inputs,
    tags: Tags<'_>,
    primary: &Name,
    is_own: bool,
) -> Option<Result<(Name, u32), Fault>> {
    let named = |labels: &Labels| {
        let name = labels.get(CANARY).filter(|name| !name.is_empty())?;
        Some(Name::new(labels.get(CANARY_NAMESPACE).unwrap_or(tags.namespace).clone(), name.clone()))
    };
    let of_namespace = inputs.namespaces.named(&Name::new("", tags.namespace.clone()));
    let (name, annotations) = match (named(tags.labels), of_namespace) {
        (Some(name), _) => (name, tags.annotations),
        (None, Some(namespace)) if !is_own => (named(&namespace.labels)?, &namespace.annotations),
        (None, _) => return None,
    };
    let written = annotations.get(CANARY_WEIGHT).map_or("0", |weight| weight);
    let Some(weight) = written.parse::<u32>().ok().filter(|weight| *weight <= 100) else {
        let words = format!("{CANARY_WEIGHT} is {written:?}, which is no number from 0 to 100");
        return Some(Err(("CanaryInvalidWeight", words)));
    };
    if name == *primary {
        return Some(Err(("CanarySameAsPrimary", format!("{name} is the primary already"))));
    }
    if let Some((reason, words)) = gateway::fault_for_service(inputs, &name, tags.namespace) {
        return Some(Err((reason, words)));
    }
    (weight > 0).then_some(Ok((name, weight)))
}

fn asked(namespace: &Str, labels: &Labels) -> Asked {
    let Some(name) = labels.get(USE_WAYPOINT).filter(|name| !name.is_empty()) else { return Asked::Nothing };
    if **name == *NONE {
        return Asked::OptOut;
    }
    let namespace = labels.get(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace);
    Asked::Waypoint(Name::new(namespace.clone(), name.clone()))
}

/// Whether labels of a namespace or service mention a gateway.
pub(crate) fn mentions(namespace: &Str, labels: &Labels, gateway: &Name) -> bool {
    let is = |name: &str, space: &str| {
        labels.get(name).is_some_and(|name| *name == gateway.name)
            && *labels.get(space).unwrap_or(namespace) == gateway.namespace
    };
    is(USE_WAYPOINT, USE_WAYPOINT_NAMESPACE) || is(CANARY, CANARY_NAMESPACE)
}

fn address(settings: &Settings, name: &Name) -> GatewayAddress {
    let host = service_host(settings, name);
    let destination = Destination::Hostname(ServiceKey::new(name.namespace.clone(), host));
    GatewayAddress { destination, hbone_mtls_port: HBONE_PORT }
}

/// The gateways that a record of discovery names.
pub(crate) fn named_in(service: &ambit_types::Service) -> impl Iterator<Item = Name> {
    let weighted = service.weighted_waypoints.iter().map(|one| &one.destination);
    service.waypoint.iter().chain(weighted).filter_map(|address| match &address.destination {
        Destination::Hostname(key) => {
            // As `address` wrote it: the service of a waypoint has the waypoint's name.
            let (name, _) = key.hostname.split_once('.')?;
            Some(Name::new(key.namespace.clone(), name))
        }
        Destination::Address(_) => None,
    })
}
