//! References to a waypoint or a network gateway.

use crate::{NetworkAddress, ServiceKey};

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A service (or, failing that, a workload) by namespace and host name.
    Hostname(ServiceKey),
    /// An address.
    Address(NetworkAddress),
}

/// A waypoint or network gateway and its HBONE port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayAddress {
    /// Where it is.
    pub destination: Destination,
    /// Port of HBONE with mutual TLS, normally 15008.
    pub hbone_mtls_port: u16,
}

/// One of several waypoints that share the traffic of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share: weight over the sum of weights.
    pub weight: u32,
}
