//! Everything a waypoint routes by, compiled: an immutable snapshot that is cheap to copy and change.
//!
//! One frontend that changes is compiled anew; the others are shared with the snapshot before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_types::{ServiceKey, Str};

use crate::compile::{self, RuleError};
use crate::model::{Destination, DestinationPolicy, Frontend, RouteConfig};
use crate::precedence::{Index, Map, WHOLE_REQUEST};
use crate::request::{Headers, Hidden, Request};
use crate::rule::Rule;
use crate::stream::StreamIndex;

/// Compiled routes and policies.
#[derive(Debug, Clone, Default)]
pub struct Table {
    frontends: Map<ServiceKey, Ports>,
    destinations: Map<ServiceKey, Arc<DestinationPolicy>>,
    no_policy: Arc<DestinationPolicy>,
}

/// Ports of one service: few, so that a list is quickest.
type Ports = Vec<(u16, Arc<FrontendRoutes>)>;

/// The routes of one port of a service.
#[derive(Debug, Default)]
pub struct FrontendRoutes {
    pub(crate) producer: Option<RouteSet>,
    pub(crate) consumers: BTreeMap<Str, RouteSet>,
}

/// The routes of one group.
#[derive(Debug)]
pub struct RouteSet {
    pub(crate) lookup: Lookup,
    pub(crate) rules: Box<[Rule]>,
}

/// How a group's rules are found.
#[derive(Debug)]
pub(crate) enum Lookup {
    Http(Index),
    Grpc(Index),
    Tls(StreamIndex),
    Tcp(StreamIndex),
    Unrouted(Index),
}

/// What the routes of a group are for, which decides how the port's traffic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTP requests.
    Http,
    /// gRPC calls.
    Grpc,
    /// TLS connections, told apart by server name and not opened.
    Tls,
    /// Connections.
    Tcp,
    /// Requests, if there are any: a port without routes that declares nothing.
    Unrouted,
}

impl Table {
    /// Compiles a configuration. What is wrong in a rule makes that rule answer 500 and is reported; everything else
    /// is in force.
    pub fn compile(config: &RouteConfig) -> (Self, Vec<RuleError>) {
        let mut table = Self::default();
        let mut errors = Vec::new();
        for frontend in &config.frontends {
            errors.extend(table.put(frontend));
        }
        for destination in &config.destinations {
            table.put_destination(destination);
        }
        (table, errors)
    }

    /// Puts a frontend in, or in the place of the one for the same port.
    pub fn put(&mut self, frontend: &Frontend) -> Vec<RuleError> {
        let (routes, errors) = compile::frontend(frontend);
        self.remove(&frontend.service, frontend.port);
        let ports = self.frontends.entry(frontend.service.clone()).or_default();
        ports.push((frontend.port, Arc::new(routes)));
        errors
    }

    /// Takes the routes of a port away.
    pub fn remove(&mut self, service: &ServiceKey, port: u16) {
        let Some(ports) = self.frontends.get_mut(service) else { return };
        ports.retain(|(p, _)| *p != port);
        if ports.is_empty() {
            self.frontends.remove(service);
        }
    }

    /// Puts a destination's policy in, or in the place of the one it had.
    pub fn put_destination(&mut self, destination: &Destination) {
        self.destinations
            .insert(destination.service.clone(), Arc::new(destination.policy.clone().in_lower_case()));
    }

    /// Takes a destination's policy away; defaults apply from then on.
    pub fn remove_destination(&mut self, service: &ServiceKey) {
        self.destinations.remove(service);
    }

    /// The routes attached to a port of a service; none forwards to the service itself.
    pub fn frontend(&self, service: &ServiceKey, port: u16) -> Option<&Arc<FrontendRoutes>> {
        let ports = self.frontends.get(service)?;
        ports.iter().find(|(p, _)| *p == port).map(|(_, routes)| routes)
    }

    /// Every rule of every group, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let routes = self.frontends.values().flatten().map(|(_, routes)| routes);
        let sets = routes.flat_map(|routes| routes.producer.iter().chain(routes.consumers.values()));
        sets.flat_map(|set| set.rules.iter())
    }

    /// The policy for a service as a destination.
    pub fn destination(&self, service: &ServiceKey) -> &Arc<DestinationPolicy> {
        self.destinations.get(service).unwrap_or(&self.no_policy)
    }
}

impl RouteSet {
    /// What the routes are for.
    pub fn kind(&self) -> RouteKind {
        match self.lookup {
            Lookup::Http(_) => RouteKind::Http,
            Lookup::Grpc(_) => RouteKind::Grpc,
            Lookup::Tls(_) => RouteKind::Tls,
            Lookup::Tcp(_) => RouteKind::Tcp,
            Lookup::Unrouted(_) => RouteKind::Unrouted,
        }
    }

    /// The rule that wants a request most.
    pub fn rule_for<H: Headers + ?Sized>(&self, request: &Request<'_, H>) -> Option<&Rule> {
        let number = match &self.lookup {
            Lookup::Http(index) | Lookup::Unrouted(index) => index.find(request),
            Lookup::Grpc(index) => request.grpc_call().and_then(|_| index.find(request)),
            Lookup::Tls(index) | Lookup::Tcp(index) => index.find(None),
        }?;
        self.rule(number)
    }

    /// What was not kept of a request and decides which rule takes it; nothing if the same does whatever that is.
    pub fn depends_on<H: Headers + ?Sized>(
        &self,
        request: &Request<'_, H>,
        hidden: Hidden,
    ) -> BTreeSet<String> {
        match &self.lookup {
            Lookup::Http(index) | Lookup::Unrouted(index) => index.depends_on(request, hidden),
            // Without a path nobody knows whether it was a gRPC call.
            Lookup::Grpc(_) if hidden.request => BTreeSet::from([WHOLE_REQUEST.to_owned()]),
            Lookup::Grpc(index) if request.grpc_call().is_some() => index.depends_on(request, hidden),
            Lookup::Grpc(_) | Lookup::Tls(_) | Lookup::Tcp(_) => BTreeSet::new(),
        }
    }

    /// The rule for a connection with this TLS server name, if it has one.
    pub fn rule_for_stream(&self, server_name: Option<&str>) -> Option<&Rule> {
        match &self.lookup {
            Lookup::Tls(index) => self.rule(index.find(server_name)?),
            Lookup::Tcp(index) => self.rule(index.find(None)?),
            // Routes for requests say nothing about what cannot be read as requests.
            Lookup::Http(_) | Lookup::Grpc(_) | Lookup::Unrouted(_) => None,
        }
    }

    /// All rules, in the order of routes and rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}
