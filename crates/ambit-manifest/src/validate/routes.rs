//! HTTPRoute, GRPCRoute, TCPRoute, TLSRoute: parents, rules, matches, backends.
//!
//! Looks at shapes and bounds. What a path, a pattern, or filters beside each other mean is found out where routes are
//! compiled, rule by rule, so that one broken rule does not take its siblings out of force.

use std::collections::BTreeSet;

use ambit_types::written::{
    BackendRef, GrpcMatch, GrpcRoute, GrpcRule, HttpMatch, HttpRoute, HttpRule, NamedMatch, ObjectRef,
    ParentRef, Retry, SessionPersistence, StreamRule, TcpRoute, Timeouts, TlsRoute,
};

use super::gateway::GATEWAY_GROUP;
use super::{Checks, filters, text};

const PARENTS_MAX: usize = 32;
const HOSTNAMES_MAX: usize = 16;
const RULES_MAX: usize = 16;
const MATCHES_MAX: usize = 64;
const MATCHES_OF_ROUTE_MAX: usize = 128;
const CONDITIONS_MAX: usize = 16;
const BACKENDS_MAX: usize = 16;
const WEIGHT_MAX: i64 = 1_000_000;
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const VALUE_MATCHES: &[&str] = &["Exact", "RegularExpression"];
const PATH_MATCHES: &[&str] = &["Exact", "PathPrefix", "RegularExpression"];

pub(super) fn http(c: &mut Checks<'_>, route: &HttpRoute) {
    parents(c, &route.parent_refs);
    hostnames(c, &route.hostnames);
    c.at_most("spec.rules", &route.rules, RULES_MAX);
    names(c, route.rules.iter().map(|rule| rule.name.as_deref()));
    let matches: usize = route.rules.iter().map(|rule| rule.matches.len()).sum();
    if matches > MATCHES_OF_ROUTE_MAX {
        let words = format!("{matches} matches in all rules, at most {MATCHES_OF_ROUTE_MAX} are allowed");
        c.bad("spec.rules", words);
    }
    for (i, rule) in route.rules.iter().enumerate() {
        http_rule(c, &format!("spec.rules[{i}]"), rule);
    }
}

pub(super) fn grpc(c: &mut Checks<'_>, route: &GrpcRoute) {
    parents(c, &route.parent_refs);
    hostnames(c, &route.hostnames);
    c.at_most("spec.rules", &route.rules, RULES_MAX);
    names(c, route.rules.iter().map(|rule| rule.name.as_deref()));
    for (i, rule) in route.rules.iter().enumerate() {
        grpc_rule(c, &format!("spec.rules[{i}]"), rule);
    }
}

pub(super) fn tls(c: &mut Checks<'_>, route: &TlsRoute) {
    parents(c, &route.parent_refs);
    hostnames(c, &route.hostnames);
    streams(c, &route.rules);
}

pub(super) fn tcp(c: &mut Checks<'_>, route: &TcpRoute) {
    parents(c, &route.parent_refs);
    streams(c, &route.rules);
}

fn streams(c: &mut Checks<'_>, rules: &[StreamRule]) {
    if rules.is_empty() {
        c.bad("spec.rules", "a route needs a rule");
    }
    if rules.len() > 1 {
        c.bad("spec.rules[1]", "a connection has nothing to tell rules apart by; there can be one only");
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{i}].backendRefs");
        if rule.backend_refs.is_empty() {
            c.bad(&at, "a connection needs somewhere to go");
        }
        backends(c, &at, &rule.backend_refs);
        for (j, _) in rule.backend_refs.iter().enumerate().filter(|(_, b)| !b.filters.is_empty()) {
            c.bad(format!("{at}[{j}].filters"), "filters change requests, which a connection does not have");
        }
    }
}

fn parents(c: &mut Checks<'_>, parents: &[ParentRef]) {
    c.at_most("spec.parentRefs", parents, PARENTS_MAX);
    for (i, parent) in parents.iter().enumerate() {
        let at = format!("spec.parentRefs[{i}]");
        parent_kind(c, &at, parent);
        match parent.name.as_str() {
            "" => c.missing(format!("{at}.name")),
            name => c.text(format!("{at}.name"), name, text::dns_subdomain),
        }
        namespace(c, &at, parent.namespace.as_deref());
        if let Some(port) = parent.port {
            c.port(format!("{at}.port"), port);
        }
        if let Some(section) = &parent.section_name {
            c.text(format!("{at}.sectionName"), section, text::dns_subdomain);
        }
        if parents[..i].contains(parent) {
            c.bad(&at, "the same parent is given twice");
        }
    }
}

/// Group and kind together say what is meant; the API's defaults are those of a Gateway.
fn parent_kind(c: &mut Checks<'_>, at: &str, parent: &ParentRef) {
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    match (parent.group.as_deref(), kind) {
        (None, "Service") => {
            c.bad(format!("{at}.group"), "the field is missing; a Service is of the core group, group: \"\"");
        }
        (Some(GATEWAY_GROUP), "Service") => {
            c.bad(format!("{at}.group"), "a Service is of the core group, group: \"\"");
        }
        (Some(""), kind) => c.one_of(format!("{at}.kind"), kind, &["Service"]),
        (None | Some(GATEWAY_GROUP), kind) => {
            c.one_of(format!("{at}.kind"), kind, &["Gateway", "ListenerSet"]);
        }
        // A kind of another implementation, which looks after it.
        (Some(_), _) => {}
    }
}

fn namespace(c: &mut Checks<'_>, at: &str, namespace: Option<&str>) {
    if let Some(namespace) = namespace {
        c.text(format!("{at}.namespace"), namespace, text::dns_label);
    }
}

fn hostnames(c: &mut Checks<'_>, hostnames: &[String]) {
    c.at_most("spec.hostnames", hostnames, HOSTNAMES_MAX);
    for (i, hostname) in hostnames.iter().enumerate() {
        c.text(format!("spec.hostnames[{i}]"), hostname, text::host_name);
    }
}

fn names<'n>(c: &mut Checks<'_>, names: impl Iterator<Item = Option<&'n str>>) {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        let Some(name) = name else { continue };
        let at = format!("spec.rules[{i}].name");
        c.text(&at, name, text::dns_subdomain);
        c.unique(at, name, &mut seen);
    }
}

fn http_rule(c: &mut Checks<'_>, at: &str, rule: &HttpRule) {
    c.at_most(format!("{at}.matches"), &rule.matches, MATCHES_MAX);
    for (i, one) in rule.matches.iter().enumerate() {
        http_match(c, &format!("{at}.matches[{i}]"), one);
    }
    filters::check(c, &format!("{at}.filters"), &rule.filters, filters::Kind::Http);
    http_backends(c, &format!("{at}.backendRefs"), &rule.backend_refs, filters::Kind::Http);
    if let Some(timeouts) = &rule.timeouts {
        durations(c, &format!("{at}.timeouts"), timeouts);
    }
    if let Some(retry) = &rule.retry {
        retries(c, &format!("{at}.retry"), retry);
    }
    if let Some(persistence) = &rule.session_persistence {
        session(c, &format!("{at}.sessionPersistence"), persistence);
    }
}

fn grpc_rule(c: &mut Checks<'_>, at: &str, rule: &GrpcRule) {
    c.at_most(format!("{at}.matches"), &rule.matches, MATCHES_MAX);
    for (i, one) in rule.matches.iter().enumerate() {
        grpc_match(c, &format!("{at}.matches[{i}]"), one);
    }
    filters::check(c, &format!("{at}.filters"), &rule.filters, filters::Kind::Grpc);
    http_backends(c, &format!("{at}.backendRefs"), &rule.backend_refs, filters::Kind::Grpc);
    if let Some(persistence) = &rule.session_persistence {
        session(c, &format!("{at}.sessionPersistence"), persistence);
    }
}

fn http_match(c: &mut Checks<'_>, at: &str, one: &HttpMatch) {
    if let Some(path) = &one.path {
        c.optional_known_or_newer(format!("{at}.path.type"), path.r#type.as_deref(), PATH_MATCHES);
    }
    named(c, &format!("{at}.headers"), &one.headers);
    named(c, &format!("{at}.queryParams"), &one.query_params);
    c.optional_one_of(format!("{at}.method"), one.method.as_ref(), METHODS);
}

fn grpc_match(c: &mut Checks<'_>, at: &str, one: &GrpcMatch) {
    named(c, &format!("{at}.headers"), &one.headers);
    let Some(method) = &one.method else { return };
    let at = format!("{at}.method");
    c.optional_known_or_newer(format!("{at}.type"), method.r#type.as_deref(), VALUE_MATCHES);
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if empty(&method.service) && empty(&method.method) {
        c.bad(at, "one of service and method is needed");
    }
}

fn named(c: &mut Checks<'_>, at: &str, conditions: &[NamedMatch]) {
    c.at_most(at, conditions, CONDITIONS_MAX);
    for (i, one) in conditions.iter().enumerate() {
        if one.name.is_empty() {
            c.missing(format!("{at}[{i}].name"));
        }
        c.optional_known_or_newer(format!("{at}[{i}].type"), one.r#type.as_deref(), VALUE_MATCHES);
    }
}

fn http_backends(c: &mut Checks<'_>, at: &str, list: &[BackendRef], kind: filters::Kind) {
    backends(c, at, list);
    for (i, backend) in list.iter().enumerate() {
        filters::check(c, &format!("{at}[{i}].filters"), &backend.filters, kind);
    }
}

fn backends(c: &mut Checks<'_>, at: &str, list: &[BackendRef]) {
    c.at_most(at, list, BACKENDS_MAX);
    for (i, backend) in list.iter().enumerate() {
        let at = format!("{at}[{i}]");
        object_ref(c, &at, &backend.object());
        if let Some(weight) = backend.weight {
            c.range(format!("{at}.weight"), weight, 0, WEIGHT_MAX);
        }
    }
}

/// A reference to something that traffic goes to.
pub(super) fn object_ref(c: &mut Checks<'_>, at: &str, object: &ObjectRef) {
    match object.name.as_str() {
        "" => c.missing(format!("{at}.name")),
        name => c.text(format!("{at}.name"), name, text::dns_subdomain),
    }
    let core = object.group.as_deref().unwrap_or_default().is_empty();
    if core && let Some(kind) = &object.kind {
        c.known_or_newer(format!("{at}.kind"), kind, &["Service"]);
    }
    namespace(c, at, object.namespace.as_deref());
    if let Some(port) = object.port {
        c.port(format!("{at}.port"), port);
    }
}

fn durations(c: &mut Checks<'_>, at: &str, timeouts: &Timeouts) {
    c.duration(format!("{at}.request"), timeouts.request.as_deref());
    c.duration(format!("{at}.backendRequest"), timeouts.backend_request.as_deref());
}

fn retries(c: &mut Checks<'_>, at: &str, retry: &Retry) {
    for (i, code) in retry.codes.iter().enumerate() {
        c.range(format!("{at}.codes[{i}]"), *code, 400, 599);
    }
    if let Some(attempts) = retry.attempts {
        c.range(format!("{at}.attempts"), attempts, 0, i64::from(u16::MAX));
    }
    c.duration(format!("{at}.backoff"), retry.backoff.as_deref());
}

/// How a client stays with an endpoint; also of a TrafficPolicy.
pub(super) fn session(c: &mut Checks<'_>, at: &str, session: &SessionPersistence) {
    c.optional_one_of(format!("{at}.type"), session.r#type.as_ref(), &["Cookie", "Header"]);
    c.duration(format!("{at}.absoluteTimeout"), session.absolute_timeout.as_deref());
    if session.idle_timeout.is_some() {
        c.bad(format!("{at}.idleTimeout"), "is not kept: only absoluteTimeout bounds a session here");
    }
    for (field, cookie) in [("cookieConfig", &session.cookie_config), ("cookie", &session.cookie)] {
        let Some(cookie) = cookie else { continue };
        let at = format!("{at}.{field}");
        c.optional_one_of(
            format!("{at}.lifetimeType"),
            cookie.lifetime_type.as_ref(),
            &["Session", "Permanent"],
        );
        if session.r#type.as_deref() == Some("Header") {
            c.bad(at, "not together with type: Header");
        }
    }
    let header = session.header.as_ref().map(|header| header.name.as_str());
    match (session.r#type.as_deref(), header) {
        (Some("Header"), None) if session.session_name.is_none() => c.missing(format!("{at}.header")),
        (Some("Header"), Some("")) => c.missing(format!("{at}.header.name")),
        (Some("Header"), _) | (_, None) => {}
        (_, Some(_)) => c.bad(format!("{at}.header"), "counts only with type: Header"),
    }
}
