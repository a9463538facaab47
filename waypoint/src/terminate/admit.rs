//! Whom a CONNECT asks for, and whether this waypoint serves them. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ambit_hbone::{Authority, INBOUND_CAPTURE_PORT, INBOUND_PORT, OUTBOUND_CAPTURE_PORT};
use ambit_state::ServiceEntry;
use ambit_types::{AppProtocol, Reason, ServiceKey, Workload};
use http::StatusCode;

use crate::State;

/// Who is called.
#[derive(Debug, Clone)]
pub enum Target {
    /// A service bound to this waypoint.
    Service {
        /// The service, as it was when the tunnel request came.
        key: ServiceKey,
        /// Virtual address and the service's port.
        address: SocketAddr,
        /// What the port carries, as far as it is declared.
        protocol: AppProtocol,
    },
    /// A workload addressed by itself: it is bound to this waypoint, or a service in front of that port is.
    Workload {
        /// The workload.
        workload: Arc<Workload>,
        /// Its address and port.
        address: SocketAddr,
    },
}

impl Target {
    /// The address that the client asked for.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Service { address, .. } | Self::Workload { address, .. } => *address,
        }
    }

    /// The service, if one was addressed.
    pub fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Service { key, .. } => Some(key),
            Self::Workload { .. } => None,
        }
    }
}

/// Why a CONNECT is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's code.
    pub reason: Reason,
    /// In words, for who debugs.
    pub what: &'static str,
}

impl Refused {
    /// A refusal with the status that peers know for its reason.
    pub fn new(reason: Reason, what: &'static str) -> Self {
        Self { status: ambit_hbone::response::status_of(reason), reason, what }
    }

    fn not_here(reason: Reason, what: &'static str) -> Self {
        Self { status: StatusCode::NOT_FOUND, reason, what }
    }
}

/// Finds whom an authority means to a client of a namespace.
///
/// # Errors
/// [`Refused`] for proxies' own ports, this waypoint's own addresses, unknown names, and everything that is not
/// bound to this waypoint.
pub fn admit(state: &State, authority: &Authority, client: &str) -> Result<Target, Refused> {
    let port = authority.port();
    if [INBOUND_PORT, INBOUND_CAPTURE_PORT, OUTBOUND_CAPTURE_PORT].contains(&port) {
        return Err(Refused {
            status: StatusCode::BAD_REQUEST,
            reason: Reason::ProxyPortTarget,
            what: "a proxy's own port is asked for",
        });
    }
    match authority {
        Authority::Host { host, port } => {
            let entry = state.mesh.service_by_host(host, client);
            service(state, entry, None, *port)
        }
        Authority::Address(address) if state.own.has_address(address.ip()) => {
            Err(Refused::new(Reason::LoopDetected, "the waypoint is asked for itself"))
        }
        Authority::Address(address) => {
            let network = &state.own.workload.network;
            // Nobody's service takes over the address of a pod; ztunnel has the same order.
            if state.mesh.workload_at(network, address.ip()).is_some_and(|w| w.uid.is_pod()) {
                return workload(state, *address);
            }
            match state.mesh.service_at(network, address.ip(), client) {
                Some(entry) => service(state, Some(entry), Some(address.ip()), address.port()),
                None => workload(state, *address),
            }
        }
    }
}

fn service(
    state: &State,
    entry: Option<&Arc<ServiceEntry>>,
    ip: Option<IpAddr>,
    port: u16,
) -> Result<Target, Refused> {
    let entry =
        entry.ok_or_else(|| Refused::not_here(Reason::UnknownDestination, "no service of that name"))?;
    if !state.own.serves(entry) {
        return Err(Refused::not_here(
            Reason::WaypointNotServing,
            "the service is not bound to this waypoint",
        ));
    }
    let service = entry.service();
    let declared = service
        .port(port)
        .ok_or_else(|| Refused::not_here(Reason::UnknownDestination, "the service has no such port"))?;
    let ip =
        ip.or_else(|| service.vips.first().map(|vip| vip.ip)).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(ip, port);
    Ok(Target::Service { key: service.key(), address, protocol: declared.app_protocol })
}

fn workload(state: &State, address: SocketAddr) -> Result<Target, Refused> {
    let found = state.mesh.workload_at(&state.own.workload.network, address.ip());
    let workload =
        found.ok_or_else(|| Refused::not_here(Reason::UnknownDestination, "nobody has that address"))?;
    let target = Target::Workload { workload: workload.clone(), address };
    if state.governing(&target).is_none() {
        return Err(Refused::not_here(
            Reason::WaypointNotServing,
            "neither the workload nor a service in front of this port is bound to this waypoint",
        ));
    }
    Ok(target)
}
