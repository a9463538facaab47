//! Which rule takes a request or connection: first the group, then the rule.
//!
//! The service is the one that the client's connection was for, never one that a header names (GEP-1294). A client
//! whose namespace has routes of its own for the service gets those and no others; everybody else gets the
//! producer's; a service without routes is forwarded to.

use ambit_types::ServiceKey;

use crate::request::{Headers, Request};
use crate::rule::Rule;
use crate::table::{FrontendRoutes, RouteKind, RouteSet, Table};

/// Which group decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Routes in the service's own namespace.
    Producer,
    /// Routes in the client's namespace.
    Consumer,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Selected<'t> {
    /// No route is attached: forwarded to the service's own endpoints.
    Service,
    /// This rule takes it.
    Rule(&'t Rule, Side),
    /// Routes are attached, and none of their rules wants it.
    NoMatch(Side),
}

impl Table {
    /// Selects the rule for a request to a port of a service.
    ///
    /// `client_namespace` is that of the caller's proven identity; none for plaintext.
    pub fn select<H: Headers + ?Sized>(
        &self,
        service: &ServiceKey,
        client_namespace: Option<&str>,
        request: &Request<'_, H>,
    ) -> Selected<'_> {
        self.routes_for(service, request.port, client_namespace)
            .map_or(Selected::Service, |(routes, side)| Selected::of(routes.rule_for(request), side))
    }

    /// Selects the rule for a connection that is passed through, by the server name of its TLS handshake if it has
    /// one.
    pub fn select_stream(
        &self,
        service: &ServiceKey,
        port: u16,
        client_namespace: Option<&str>,
        server_name: Option<&str>,
    ) -> Selected<'_> {
        match self.routes_for(service, port, client_namespace) {
            Some((routes, side)) if routes.kind() != RouteKind::Unrouted => {
                Selected::of(routes.rule_for_stream(server_name), side)
            }
            Some(_) | None => Selected::Service,
        }
    }

    /// The group of routes for a client, before anything of its request is read.
    pub fn routes_for(
        &self,
        service: &ServiceKey,
        port: u16,
        client_namespace: Option<&str>,
    ) -> Option<(&RouteSet, Side)> {
        self.frontend(service, port)?.for_client(client_namespace)
    }
}

impl FrontendRoutes {
    /// The client's own group if its namespace has one, else the producer's.
    pub fn for_client(&self, namespace: Option<&str>) -> Option<(&RouteSet, Side)> {
        let own = namespace.and_then(|namespace| self.consumers.get(namespace));
        own.map(|routes| (routes, Side::Consumer))
            .or_else(|| self.producer.as_ref().map(|routes| (routes, Side::Producer)))
    }
}

impl<'t> Selected<'t> {
    fn of(rule: Option<&'t Rule>, side: Side) -> Self {
        rule.map_or(Self::NoMatch(side), |rule| Self::Rule(rule, side))
    }
}
