//! Whom a tunnel request asks a waypoint for, whether it serves them, and how what follows is to be read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ambit_route::RouteKind;
use ambit_types::{AppProtocol, Reason, ServiceKey, Workload};

use super::State;
use crate::plan::inbound::Authority;
use crate::plan::is_proxy_port;
use crate::services::ServiceEntry;

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

/// Why a tunnel request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotServed {
    /// The answer's code.
    pub reason: Reason,
    /// In words, for who debugs.
    pub what: &'static str,
}

impl NotServed {
    fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }
}

/// Finds whom an authority means to a client of a namespace.
///
/// # Errors
/// [`NotServed`] for proxies' own ports, this waypoint's own addresses, unknown names, and everything that is not
/// bound to this waypoint.
pub fn admit(state: &State, authority: &Authority<'_>, client: &str) -> Result<Target, NotServed> {
    let port = match authority {
        Authority::Address(address) => address.port(),
        Authority::Host { port, .. } => *port,
    };
    if is_proxy_port(port) {
        return Err(NotServed::new(Reason::ProxyPortTarget, "a proxy's own port is asked for"));
    }
    match authority {
        Authority::Host { host, port } => {
            let entry = state.mesh.service_by_host(host, client);
            service(state, entry, None, *port)
        }
        Authority::Address(address) if state.own.has_address(address.ip()) => {
            Err(NotServed::new(Reason::LoopDetected, "the waypoint is asked for itself"))
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
) -> Result<Target, NotServed> {
    let unknown = |what| NotServed::new(Reason::UnknownDestination, what);
    let entry = entry.ok_or_else(|| unknown("no service of that name"))?;
    if !state.own.serves(entry) {
        let what = "the service is not bound to this waypoint";
        return Err(NotServed::new(Reason::WaypointNotServing, what));
    }
    let service = entry.service();
    let declared = service.port(port).ok_or_else(|| unknown("the service has no such port"))?;
    let ip =
        ip.or_else(|| service.vips.first().map(|vip| vip.ip)).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(ip, port);
    Ok(Target::Service { key: service.key(), address, protocol: declared.app_protocol })
}

fn workload(state: &State, address: SocketAddr) -> Result<Target, NotServed> {
    let found = state.mesh.workload_at(&state.own.workload.network, address.ip());
    let nobody = || NotServed::new(Reason::UnknownDestination, "nobody has that address");
    let workload = found.ok_or_else(nobody)?;
    let target = Target::Workload { workload: workload.clone(), address };
    if state.governing(&target).is_none() {
        let what = "neither the workload nor a service in front of this port is bound to this waypoint";
        return Err(NotServed::new(Reason::WaypointNotServing, what));
    }
    Ok(target)
}

/// How a connection is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As HTTP of whichever version.
    Http,
    /// As TLS that is passed through.
    Tls,
    /// Not at all.
    Stream,
    /// By its first bytes.
    Unknown,
}

/// How a port is to be read: what it declares, else what its routes are for.
///
/// Where nothing is declared and a token is asked for, or a policy compares what only HTTP has, it is read as HTTP:
/// anything else would be a way around that.
pub fn reading(state: &State, target: &Target, client: &str) -> Reading {
    match state.protocol(target) {
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => Reading::Http,
        AppProtocol::Tcp => Reading::Stream,
        AppProtocol::Tls => Reading::Tls,
        AppProtocol::Unknown => {
            let port = target.address().port();
            let routes =
                target.service().and_then(|service| state.routes.routes_for(service, port, Some(client)));
            match routes.map(|(routes, _)| routes.kind()) {
                Some(RouteKind::Http | RouteKind::Grpc) => Reading::Http,
                Some(RouteKind::Tls) => Reading::Tls,
                Some(RouteKind::Tcp) => Reading::Stream,
                Some(RouteKind::Unrouted) | None if needs_http(state, target) => Reading::Http,
                Some(RouteKind::Unrouted) | None => Reading::Unknown,
            }
        }
    }
}

fn needs_http(state: &State, target: &Target) -> bool {
    state.governing(target).is_some_and(|governing| governing.iter().any(|applied| applied.needs_http()))
}
