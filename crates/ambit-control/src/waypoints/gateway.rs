//! Facts about gateways that are waypoints: class, readiness, traffic, whom they let attach.

use ambit_types::Str;
use ambit_types::written::{AllowedRoutes, Gateway as Written, LabelSelector};

use super::HBONE_PORT;
use crate::index::Inputs;
use crate::input::{Gateway, GatewayClass, Labels, Name};

/// Class of waypoints.
pub(crate) const CLASS: &str = "istio-waypoint";
/// Controller of waypoints.
const CONTROLLER: &str = "istio.io/mesh-controller";
/// Says what traffic a waypoint is for, on a gateway or its class.
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";

/// What traffic a waypoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// To addresses of services.
    Services,
    /// To addresses of pods.
    Workloads,
    /// Both.
    All,
    /// None.
    Nothing,
}

impl Traffic {
    pub(crate) fn has_services(self) -> bool {
        matches!(self, Self::Services | Self::All)
    }

    pub(crate) fn has_workloads(self) -> bool {
        matches!(self, Self::Workloads | Self::All)
    }

    fn read(word: &str) -> Self {
        match word {
            "workload" => Self::Workloads,
            "all" => Self::All,
            "none" => Self::Nothing,
            _ => Self::Services,
        }
    }
}

/// What a waypoint is for; nothing if there is no such gateway. The gateway's label stands before that of its class.
pub(crate) fn traffic(inputs: &Inputs, name: &Name) -> Option<Traffic> {
    let gateway = inputs.gateways.named(name)?;
    let class = inputs.gateway_classes.named(&class_name(gateway));
    let word = gateway.labels.get(WAYPOINT_FOR).or_else(|| class?.labels.get(WAYPOINT_FOR));
    Some(word.map_or(Traffic::Services, |word| Traffic::read(word)))
}

fn class_name(gateway: &Gateway) -> Name {
    Name::new("", gateway.spec.gateway_class_name.as_str())
}

/// Whether a class is one of waypoints, by its controller.
pub(crate) fn is_ours(class: &GatewayClass) -> bool {
    *class.controller == *CONTROLLER
}

/// Whether a gateway is a waypoint, by its class's controller or, where the class is not known, by its name.
pub(crate) fn is_waypoint(inputs: &Inputs, gateway: &Gateway) -> bool {
    match inputs.gateway_classes.named(&class_name(gateway)) {
        Some(class) => is_ours(class),
        None => gateway.spec.gateway_class_name == CLASS,
    }
}

/// Whether a waypoint serves the services of a namespace, ready or not.
pub(crate) fn serves(inputs: &Inputs, name: &Name, namespace: &Str) -> bool {
    matches!(fault_for_service(inputs, name, namespace), None | Some((NOT_READY, _)))
        && inputs.gateways.named(name).is_some()
}

/// Reason of a gateway of another class.
pub(crate) const NOT_A_WAYPOINT: &str = "NotAWaypoint";

/// Reason of a waypoint that is not there or was not made.
pub(crate) const NOT_READY: &str = "WaypointIsNotReady";

/// Why a waypoint cannot serve the services of a namespace, as a reason and in words.
pub(crate) fn fault_for_service(
    inputs: &Inputs,
    name: &Name,
    namespace: &Str,
) -> Option<(&'static str, String)> {
    let Some(gateway) = inputs.gateways.named(name) else {
        return Some((NOT_READY, format!("there is no waypoint {name}")));
    };
    if !is_waypoint(inputs, gateway) {
        let class = &gateway.spec.gateway_class_name;
        return Some((NOT_A_WAYPOINT, format!("Gateway {name} is of class {class}, not {CLASS}")));
    }
    if !is_allowed(inputs, gateway, namespace) {
        let words = format!("waypoint {name} does not allow namespace {namespace}: missing allowedRoutes?");
        return Some(("AttachmentDenied", words));
    }
    if !traffic(inputs, name).is_some_and(Traffic::has_services) {
        let words = format!("waypoint {name} is not for services, by its label {WAYPOINT_FOR}");
        return Some(("UnsupportedTrafficType", words));
    }
    (!gateway.has_address).then(|| (NOT_READY, format!("waypoint \"{name}\" is not ready")))
}

/// Whether a namespace may attach, by the listener of HBONE; by default only the gateway's own may.
fn is_allowed(inputs: &Inputs, gateway: &Gateway, namespace: &Str) -> bool {
    let allowed = listener(&gateway.spec).and_then(|allowed| allowed.namespaces.as_ref());
    match allowed.and_then(|namespaces| namespaces.from.as_deref()) {
        Some("All") => true,
        Some("None") => false,
        Some("Selector") => {
            let of = inputs.namespaces.named(&Name::new("", namespace.clone()));
            let labels = of.map(|of| &of.labels);
            let selector = allowed.and_then(|namespaces| namespaces.selector.as_ref());
            labels.zip(selector).is_some_and(|(labels, selector)| selects(selector, labels))
        }
        _ => *namespace == gateway.name.namespace,
    }
}

fn listener(gateway: &Written) -> Option<&AllowedRoutes> {
    let is_hbone =
        |one: &&ambit_types::written::Listener| one.protocol == "HBONE" || one.port == i64::from(HBONE_PORT);
    gateway.listeners.iter().find(is_hbone).and_then(|one| one.allowed_routes.as_ref())
}

/// Whether labels fulfil a selector; an operator that is not known does not agree.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key.as_str()).is_some_and(|found| **found == **value));
    equal
        && selector.match_expressions.iter().all(|one| {
            let found = labels.get(one.key.as_str());
            let is_listed = || found.is_some_and(|found| one.values.iter().any(|value| **value == **found));
            match one.operator.as_str() {
                "In" => is_listed(),
                "NotIn" => !is_listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}
