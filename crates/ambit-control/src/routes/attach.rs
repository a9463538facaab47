//! Which ports of a service a route is attached to, and which kind of route a port has.
//!
//! A route of the service's namespace is a producer's and applies to everybody; one of another namespace is a
//! consumer's and applies to the clients of that namespace, in place of the producer's (GEP-1294).

use std::collections::BTreeMap;

use ambit_types::Str;
use ambit_types::written::ParentRef;

use super::references;
use crate::index::{Inputs, Settings};
use crate::input::{Key, Kind, Route, RouteSpec, Service, ServicePort, Transport};
use crate::services::protocol;

/// Why a service can have no routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is an alias.
    ExternalName,
    /// It has no address that clients could dial.
    Headless,
}

/// Why a service can have no routes, if so.
pub(super) fn unfit(service: &Service) -> Option<Unfit> {
    if service.external_name {
        Some(Unfit::ExternalName)
    } else if service.cluster_ips.is_empty() {
        Some(Unfit::Headless)
    } else {
        None
    }
}

/// Ports that the mesh carries.
pub(super) fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.transport == Transport::Tcp)
}

/// Ports that a parent reference of a route means: all of them, or those of a number and name.
pub(super) fn ports<'s>(
    service: &'s Service,
    route: &'s Route,
    parent: &'s ParentRef,
) -> impl Iterator<Item = &'s ServicePort> {
    tcp_ports(service).filter(|port| {
        parent.port.is_none_or(|wanted| wanted == i64::from(port.port))
            && parent.section_name.as_ref().is_none_or(|wanted| **wanted == *port.name)
            && takes(route, port)
    })
}

/// Whether a route is for what a port carries. A VirtualService names no ports, and so is for none that is declared to
/// carry something else than HTTP.
fn takes(route: &Route, port: &ServicePort) -> bool {
    match &route.spec {
        RouteSpec::Virtual(_) => !protocol::is_no_http(port),
        RouteSpec::Http(_) | RouteSpec::Grpc(_) | RouteSpec::Tls(_) | RouteSpec::Tcp(_) => true,
    }
}

/// The routes of one service by port.
pub(super) struct Attached<'a> {
    /// Service port, namespace of a consumer, route.
    entries: Vec<(u16, Option<&'a Str>, &'a Route)>,
}

impl<'a> Attached<'a> {
    /// Every route attached to a service.
    pub(super) fn to(inputs: &'a Inputs, settings: &Settings, service: &'a Service) -> Self {
        let mut entries = Vec::new();
        let key = Key::new(Kind::Service, service.name.clone());
        for route in inputs.attached_to(&key).filter_map(|key| inputs.route(key)) {
            if route.foreign_domain(&settings.cluster_domain).is_some() {
                continue;
            }
            let is_producer = route.name.namespace == service.name.namespace;
            let consumer = (!is_producer).then_some(&route.name.namespace);
            let of_service = |parent: &&ParentRef| {
                references::parent(&route.name, parent).is_some_and(|name| name == service.name)
            };
            let parents = route.parents().iter().filter(of_service);
            let numbers = parents.flat_map(|parent| ports(service, route, parent).map(|port| port.port));
            let mut numbers: Vec<u16> = numbers.collect();
            numbers.sort_unstable();
            numbers.dedup();
            entries.extend(numbers.into_iter().map(|port| (port, consumer, route)));
        }
        Self { entries }
    }

    /// Routes of one port by group; that of the producer has no namespace.
    pub(super) fn on(&self, port: u16) -> BTreeMap<Option<Str>, Vec<&'a Route>> {
        let mut groups: BTreeMap<Option<Str>, Vec<&Route>> = BTreeMap::new();
        for (_, consumer, route) in self.entries.iter().filter(|entry| entry.0 == port) {
            groups.entry(consumer.cloned()).or_default().push(route);
        }
        groups
    }

    /// A route of a stronger kind in the same group of a port, if there is any.
    pub(super) fn stronger_than(&self, route: &Route, port: u16) -> Option<&'a Route> {
        let consumer = self.entries.iter().find(|(_, _, one)| one.name == route.name).map(|entry| entry.1)?;
        let rivals = self.entries.iter().filter(|entry| entry.0 == port && entry.1 == consumer);
        let strongest = strongest(rivals.map(|entry| entry.2))?;
        (strength(&strongest.spec) > strength(&route.spec)).then_some(strongest)
    }
}

/// A route of the kind that excludes the others.
pub(super) fn strongest<'r>(routes: impl Iterator<Item = &'r Route>) -> Option<&'r Route> {
    routes.max_by_key(|route| strength(&route.spec))
}

/// Whether any route of a stronger kind is attached to a service, whatever its port.
pub(super) fn has_stronger(inputs: &Inputs, service: &Key, than: &Route) -> bool {
    let stronger: &[Kind] = match &than.spec {
        RouteSpec::Grpc(_) => &[],
        RouteSpec::Http(_) => &[Kind::GrpcRoute],
        RouteSpec::Virtual(_) => &[Kind::GrpcRoute, Kind::HttpRoute],
        RouteSpec::Tls(_) => &[Kind::GrpcRoute, Kind::HttpRoute, Kind::VirtualService],
        RouteSpec::Tcp(_) => &[Kind::GrpcRoute, Kind::HttpRoute, Kind::VirtualService, Kind::TlsRoute],
    };
    stronger.iter().any(|kind| inputs.attached_of_kind(service, *kind).next().is_some())
}

/// GRPCRoute > HTTPRoute > TLSRoute > TCPRoute (GEP-1294); an import comes after what the Gateway API says of the same.
fn strength(spec: &RouteSpec) -> u8 {
    match spec {
        RouteSpec::Grpc(_) => 4,
        RouteSpec::Http(_) => 3,
        RouteSpec::Virtual(_) => 2,
        RouteSpec::Tls(_) => 1,
        RouteSpec::Tcp(_) => 0,
    }
}
