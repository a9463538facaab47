//! `ambit.waypoint.v1.Frontend` and [`Frontend`]: the routes attached to one port of a service.
//!
//! Checked here: form, and the bounds of [`ambit_route::model::limits`]; two are for the compiler, which knows what a
//! pattern costs. What a path, pattern or combination of filters means is for [`ambit_route::Table`], rule by rule.

use std::collections::BTreeMap;

use ambit_route::model::{Frontend, Group, GrpcRoute, HttpRoute, Route, RouteKey, Rule, StreamRoute};
use ambit_types::Str;

use super::bounds::{
    each, encode_object, encode_service, encode_texts, needs, object, service, texts, unpack, within,
};
use super::route::{Match, backends, rule};
use super::{Malformed, Notes, Problem, port};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;
use wire::group::Kind;

/// Name of its resource: `NAMESPACE/HOSTNAME/PORT`.
pub fn name(frontend: &Frontend) -> String {
    format!("{}/{}", frontend.service, frontend.port)
}

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode_any(any: &Any, notes: &mut Notes) -> Result<Frontend, Malformed> {
    decode(&unpack(any, "frontend")?, notes)
}

/// Reads the routes of a port.
///
/// A filter or backend of an unknown kind answers 500 in its place and is noted; a group, match or limit of an unknown
/// kind has no meaning that is safe.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode(message: &wire::Frontend, notes: &mut Notes) -> Result<Frontend, Malformed> {
    needs(&message.needs)?;
    let producer = message.producer.as_ref().map(|one| within("producer", group(one, notes))).transpose()?;
    let mut consumers = BTreeMap::new();
    for (namespace, one) in &message.consumers {
        let field = format!("consumers[{namespace:?}]");
        if namespace.is_empty() || namespace.contains('/') {
            let text = namespace.clone();
            return Err(Malformed::at(field, Problem::Form { text, what: "namespace" }));
        }
        consumers.insert(Str::from(&**namespace), within(&field, group(one, notes))?);
    }
    Ok(Frontend {
        service: service(message.service.as_ref())?,
        port: port("port", message.port)?,
        producer,
        consumers,
    })
}

fn group(message: &wire::Group, notes: &mut Notes) -> Result<Group, Malformed> {
    match &message.kind {
        Some(Kind::Http(list)) => http("http.routes", list, notes).map(Group::Http),
        Some(Kind::Unrouted(list)) => http("unrouted.routes", list, notes).map(Group::Unrouted),
        Some(Kind::Listed(list)) => http("listed.routes", list, notes).map(Group::Listed),
        Some(Kind::Grpc(list)) => each("grpc.routes", &list.routes, |one| {
            route(one.key.as_ref(), one.created, &one.rules, |one| {
                rule::decode(&one.matches, one.rule.as_ref(), notes)
            })
        })
        .map(Group::Grpc),
        Some(Kind::Tls(list)) => each("tls.routes", &list.routes, |one| stream(one, notes)).map(Group::Tls),
        Some(Kind::Tcp(list)) => each("tcp.routes", &list.routes, |one| stream(one, notes)).map(Group::Tcp),
        None => Err(Malformed::at("kind", Problem::Missing)),
    }
}

fn http(field: &str, list: &wire::HttpRoutes, notes: &mut Notes) -> Result<Vec<HttpRoute>, Malformed> {
    each(field, &list.routes, |one| {
        route(one.key.as_ref(), one.created, &one.rules, |one| {
            rule::decode(&one.matches, one.rule.as_ref(), notes)
        })
    })
}

fn key(message: Option<&wire::ObjectRef>) -> Result<RouteKey, Malformed> {
    let key = object("key", message)?;
    Ok(RouteKey { namespace: key.namespace, name: key.name })
}

fn route<W, M>(
    name: Option<&wire::ObjectRef>,
    created: u64,
    rules: &[W],
    read: impl FnMut(&W) -> Result<Rule<M>, Malformed>,
) -> Result<Route<M>, Malformed> {
    Ok(Route { key: key(name)?, created, rules: each("rules", rules, read)? })
}

fn stream(message: &wire::StreamRoute, notes: &mut Notes) -> Result<StreamRoute, Malformed> {
    Ok(StreamRoute {
        key: key(message.key.as_ref())?,
        created: message.created,
        hostnames: texts(&message.hostnames),
        backends: backends::decode(&message.backends, notes)?,
    })
}

/// Writes the routes of a port as a message of its type.
pub fn encode_any(frontend: &Frontend) -> Any {
    Any::pack(super::FRONTEND, &encode(frontend))
}

/// Writes the routes of a port.
pub fn encode(frontend: &Frontend) -> wire::Frontend {
    let consumers = frontend.consumers.iter();
    wire::Frontend {
        service: Some(encode_service(&frontend.service)),
        port: frontend.port.into(),
        producer: frontend.producer.as_ref().map(encode_group),
        consumers: consumers.map(|(namespace, one)| (namespace.to_string(), encode_group(one))).collect(),
        needs: Vec::new(),
    }
}

fn encode_group(group: &Group) -> wire::Group {
    let kind = match group {
        Group::Http(routes) => Kind::Http(encode_all_http(routes)),
        Group::Unrouted(routes) => Kind::Unrouted(encode_all_http(routes)),
        Group::Listed(routes) => Kind::Listed(encode_all_http(routes)),
        Group::Grpc(routes) => {
            Kind::Grpc(wire::GrpcRoutes { routes: routes.iter().map(encode_grpc).collect() })
        }
        Group::Tls(routes) => Kind::Tls(encode_streams(routes)),
        Group::Tcp(routes) => Kind::Tcp(encode_streams(routes)),
    };
    wire::Group { kind: Some(kind) }
}

fn encode_all_http(routes: &[HttpRoute]) -> wire::HttpRoutes {
    wire::HttpRoutes { routes: routes.iter().map(encode_http).collect() }
}

fn encode_http(route: &HttpRoute) -> wire::HttpRoute {
    let rules = route.rules.iter().map(|one| wire::HttpRule {
        matches: one.matches.iter().map(Match::encode).collect(),
        rule: rule::encode(one),
    });
    wire::HttpRoute { key: encode_key(&route.key), created: route.created, rules: rules.collect() }
}

fn encode_grpc(route: &GrpcRoute) -> wire::GrpcRoute {
    let rules = route.rules.iter().map(|one| wire::GrpcRule {
        matches: one.matches.iter().map(Match::encode).collect(),
        rule: rule::encode(one),
    });
    wire::GrpcRoute { key: encode_key(&route.key), created: route.created, rules: rules.collect() }
}

fn encode_key(key: &RouteKey) -> Option<wire::ObjectRef> {
    Some(encode_object(&key.namespace, &key.name))
}

fn encode_streams(routes: &[StreamRoute]) -> wire::StreamRoutes {
    let route = |route: &StreamRoute| wire::StreamRoute {
        key: encode_key(&route.key),
        created: route.created,
        hostnames: encode_texts(&route.hostnames),
        backends: backends::encode(&route.backends),
    };
    wire::StreamRoutes { routes: routes.iter().map(route).collect() }
}
