//! The words every part of Ambit shares: identities, addresses, workloads, services, reasons.
//!
//! Values only. Nothing here decides, reads, sends or knows a wire format.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod addr;
pub mod breakglass;
pub mod egress;
pub mod fault;
pub mod gateway;
pub mod identity;
pub mod locality;
pub mod name;
pub mod nearby;
pub mod path;
pub mod protocol;
pub mod reason;
pub mod service;
pub mod service_ports;
pub mod workload;
pub mod written;

pub use addr::{NetworkAddress, NetworkCidr, canonical};
pub use egress::{Egress, EgressRule};
pub use fault::Fault;
pub use gateway::{Destination, GatewayAddress, WeightedWaypoint};
pub use identity::{Identity, IdentityError, TrustDomain};
pub use locality::Locality;
pub use name::{Network, PolicyKey, ServiceKey, Str, Uid};
pub use protocol::{AppProtocol, ApplicationTunnel, TunnelProtocol};
pub use reason::Reason;
pub use service::Service;
pub use service_ports::ServicePorts;
pub use workload::Workload;
