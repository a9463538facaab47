//! Which waypoint an object asks for.
//!
//! The reference is sent as written. A waypoint that does not exist, or is not ready, is refused where traffic
//! flows (AMB3101); dropping the reference here would let traffic skip every rule the waypoint enforces.

use ambit_types::{Destination, GatewayAddress, ServiceKey, Str};

use crate::index::{Inputs, Settings};
use crate::input::{Labels, Name};
use crate::services::service_host;

/// Port of HBONE at a waypoint.
const HBONE_PORT: u16 = 15008;
/// Names the waypoint, or opts out.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Its namespace, on the same object.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// The value that opts out.
const NONE: &str = "none";

/// What the labels of one object say.
enum Asked {
    Nothing,
    OptOut,
    Waypoint(GatewayAddress),
}

/// The waypoint the object's own labels name.
pub(crate) fn own(settings: &Settings, namespace: &Str, labels: &Labels) -> Option<GatewayAddress> {
    match asked(settings, namespace, labels) {
        Asked::Waypoint(gateway) => Some(gateway),
        Asked::Nothing | Asked::OptOut => None,
    }
}

/// The waypoint the object's own labels name, or else those of its namespace.
pub(crate) fn inherited(
    inputs: &Inputs,
    settings: &Settings,
    namespace: &Str,
    labels: &Labels,
) -> Option<GatewayAddress> {
    match asked(settings, namespace, labels) {
        Asked::Waypoint(gateway) => Some(gateway),
        Asked::OptOut => None,
        Asked::Nothing => {
            let of = inputs.namespaces.named(&Name::new("", namespace.clone()))?;
            own(settings, namespace, &of.labels)
        }
    }
}

fn asked(settings: &Settings, namespace: &Str, labels: &Labels) -> Asked {
    let Some(name) = labels.get(USE_WAYPOINT).filter(|name| !name.is_empty()) else { return Asked::Nothing };
    if **name == *NONE {
        return Asked::OptOut;
    }
    let namespace = labels.get(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace);
    let host = service_host(settings, &Name::new(namespace.clone(), name.clone()));
    let destination = Destination::Hostname(ServiceKey::new(namespace.clone(), host));
    Asked::Waypoint(GatewayAddress { destination, hbone_mtls_port: HBONE_PORT })
}
