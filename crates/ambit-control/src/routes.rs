//! Routes attached to the services they name: what a waypoint routes by, one port of a service at a time.
//!
//! Every change touches the ports it concerns and no others; what they are made of is looked up anew. Which waypoint
//! serves a service is `waypoints`' affair. Source: Gateway API v1.6, GEP-1294 (meshes).

use std::collections::BTreeMap;

use ambit_route::model::{Backend, Frontend, Group, HttpMatch, Route, RouteKey, Rule, Target};
use ambit_types::{AppProtocol, ServiceKey, Str};

use crate::index::{Inputs, Settings};
use crate::input::{self, Key, Name, RouteSpec, Service};
use crate::services::{protocol, service_host};

mod attach;
mod convert;
pub(crate) mod references;
mod report;
mod resolve;
mod traffic;

pub(crate) use report::{of_route as report_of_route, rule_errors};
pub(crate) use traffic::{destination, report as report_of_policy};

use attach::Attached;
use convert::Scope;

/// Key of a service in discovery.
pub(crate) fn service_key(settings: &Settings, name: &Name) -> ServiceKey {
    ServiceKey::new(name.namespace.clone(), service_host(settings, name))
}

/// The ports of a service that have routes, or policies in place of routes.
pub(crate) fn frontends(inputs: &Inputs, settings: &Settings, name: &Name) -> Vec<Frontend> {
    let Some(service) = inputs.services.named(name).filter(|s| attach::unfit(s).is_none()) else {
        return Vec::new();
    };
    let attached = Attached::to(inputs, settings, service);
    let maker = Maker { inputs, settings, service };
    let ports = attach::tcp_ports(service).filter_map(|port| {
        let mut groups = attached.on(port.port);
        let producer = groups.remove(&None).and_then(|routes| maker.group(&routes));
        let producer = producer.or_else(|| maker.in_place_of_routes(port));
        let consumers: BTreeMap<Str, Group> = groups
            .into_iter()
            .filter_map(|(namespace, routes)| Some((namespace?, maker.group(&routes)?)))
            .collect();
        let is_needed = producer.is_some() || !consumers.is_empty();
        is_needed.then(|| Frontend {
            service: service_key(settings, name),
            port: port.port,
            producer,
            consumers,
        })
    });
    ports.collect()
}

/// Makes the routes of one service.
struct Maker<'a> {
    inputs: &'a Inputs,
    settings: &'a Settings,
    service: &'a Service,
}

impl Maker<'_> {
    /// Routes of one kind; the others have lost to it.
    fn group(&self, routes: &[&input::Route]) -> Option<Group> {
        let strongest = attach::strongest(routes.iter().copied())?;
        // Converters pass over routes of any other kind.
        let scopes = routes.iter().map(|route| (self.scope(route), *route));
        Some(match &strongest.spec {
            RouteSpec::Grpc(_) => Group::Grpc(scopes.filter_map(|(s, r)| convert::grpc(&s, r)).collect()),
            RouteSpec::Tls(_) => Group::Tls(scopes.filter_map(|(s, r)| convert::tls(&s, r)).collect()),
            RouteSpec::Tcp(_) => Group::Tcp(scopes.filter_map(|(s, r)| convert::tcp(&s, r)).collect()),
            RouteSpec::Http(_) => Group::Http(scopes.filter_map(|(s, r)| convert::http(&s, r)).collect()),
            RouteSpec::Virtual(_) => {
                Group::Listed(scopes.filter_map(|(s, r)| convert::listed(&s, r)).collect())
            }
        })
    }

    fn scope<'a>(&'a self, route: &'a input::Route) -> Scope<'a> {
        Scope { inputs: self.inputs, settings: self.settings, route, parent: &self.service.name }
    }

    /// One rule that sends everything on, where a policy has something to say about requests and no route says it.
    /// On a port that declares nothing it holds for what turns out to be requests.
    fn in_place_of_routes(&self, port: &input::ServicePort) -> Option<Group> {
        let group: fn(Vec<Route<HttpMatch>>) -> Group = match protocol::of_port(port) {
            AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => Group::Http,
            AppProtocol::Unknown => Group::Unrouted,
            AppProtocol::Tcp | AppProtocol::Tls => return None,
        };
        let says = traffic::of_requests(self.inputs, self.settings, &self.service.name, None)?;
        let target =
            Target::Service { service: service_key(self.settings, &self.service.name), port: port.port };
        let mut rule: Rule<HttpMatch> =
            Rule { backends: vec![Backend { target, weight: 1, filters: Vec::new() }], ..Rule::default() };
        says.put_into(&mut rule);
        let Name { namespace, name } = self.service.name.clone();
        Some(group(vec![Route { key: RouteKey { namespace, name }, created: 0, rules: vec![rule] }]))
    }
}

/// The model of a route alone, as its report compiles it; references are resolved as for one of its parents.
pub(crate) fn alone(inputs: &Inputs, settings: &Settings, key: &Key, parent: &Name) -> Option<Group> {
    let route = inputs.route(key)?;
    let scope = Scope { inputs, settings, route, parent };
    match &route.spec {
        RouteSpec::Http(_) => convert::http(&scope, route).map(|r| Group::Http(vec![r])),
        RouteSpec::Grpc(_) => convert::grpc(&scope, route).map(|r| Group::Grpc(vec![r])),
        RouteSpec::Tls(_) => convert::tls(&scope, route).map(|r| Group::Tls(vec![r])),
        RouteSpec::Tcp(_) => convert::tcp(&scope, route).map(|r| Group::Tcp(vec![r])),
        RouteSpec::Virtual(_) => convert::listed(&scope, route).map(|r| Group::Listed(vec![r])),
    }
}
