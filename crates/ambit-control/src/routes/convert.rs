//! Routes as written in the words of `ambit_route::model`.
//!
//! Nothing is left out: what has no word there, because it is of a newer API, becomes a filter that refuses. Numbers
//! and durations have been looked at where the manifest was read; one that is out of range all the same is passed on
//! as a value that compiling refuses.

use std::time::Duration;

use ambit_route::model::{
    Backend, Backoff, CookieLife, Filter, GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, NameMatch, PathMatch,
    Persistence, PersistenceCarrier, Retry, Route, RouteKey, Rule, StreamRoute, Timeouts, ValueMatch,
};
use ambit_route::timeout::parse_duration;
use ambit_types::{Str, written};

use super::{resolve, traffic};
use crate::import::START;
use crate::index::{Inputs, Settings};
use crate::input::{self, Kind, Name, RouteSpec};

mod filters;

/// What a route is read in.
pub(super) struct Scope<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) settings: &'a Settings,
    /// The route.
    pub(super) route: &'a input::Route,
    /// The service it is attached to.
    pub(super) parent: &'a Name,
}

impl Scope<'_> {
    fn key(&self) -> RouteKey {
        RouteKey::new(self.route.name.namespace.clone(), self.route.name.name.clone())
    }
}

/// An HTTPRoute; nothing if it is of another kind.
pub(super) fn http(scope: &Scope<'_>, route: &input::Route) -> Option<HttpRoute> {
    let RouteSpec::Http(spec) = &route.spec else { return None };
    // The API's default: one rule for everything, which goes nowhere.
    let default = [written::HttpRule::default()];
    let rules = if spec.rules.is_empty() { &default[..] } else { &spec.rules };
    let rules = rules.iter().enumerate().map(|(at, rule)| http_rule(scope, at, rule)).collect();
    Some(Route { key: scope.key(), created: route.created, rules })
}

/// A VirtualService; nothing if it is a route of another kind.
pub(super) fn listed(scope: &Scope<'_>, route: &input::Route) -> Option<HttpRoute> {
    let RouteSpec::Virtual(spec) = &route.spec else { return None };
    let rules = spec.rules.iter().enumerate().map(|(at, one)| {
        let mut rule = rule_of_http(scope, at, &one.rule);
        rule.retry = one.retry.as_ref().map(traffic::convert::retry);
        rule.fault = one.fault.as_ref().map(traffic::convert::fault);
        with_traffic(scope, &mut rule);
        rule
    });
    Some(Route { key: scope.key(), created: route.created, rules: rules.collect() })
}

/// A GRPCRoute; nothing if it is of another kind.
pub(super) fn grpc(scope: &Scope<'_>, route: &input::Route) -> Option<GrpcRoute> {
    let RouteSpec::Grpc(spec) = &route.spec else { return None };
    let rules = spec.rules.iter().enumerate().map(|(at, rule)| grpc_rule(scope, at, rule)).collect();
    Some(Route { key: scope.key(), created: route.created, rules })
}

/// A TLSRoute; nothing if it is of another kind.
pub(super) fn tls(scope: &Scope<'_>, route: &input::Route) -> Option<StreamRoute> {
    let RouteSpec::Tls(spec) = &route.spec else { return None };
    Some(stream(scope, route, strs(&spec.hostnames), &spec.rules))
}

/// A TCPRoute; nothing if it is of another kind.
pub(super) fn tcp(scope: &Scope<'_>, route: &input::Route) -> Option<StreamRoute> {
    let RouteSpec::Tcp(spec) = &route.spec else { return None };
    Some(stream(scope, route, Vec::new(), &spec.rules))
}

fn stream(
    scope: &Scope<'_>,
    route: &input::Route,
    hostnames: Vec<Str>,
    rules: &[written::StreamRule],
) -> StreamRoute {
    let backends = rules.first().map(|rule| backends(scope, &rule.backend_refs)).unwrap_or_default();
    StreamRoute { key: scope.key(), created: route.created, hostnames, backends }
}

fn http_rule(scope: &Scope<'_>, at: usize, rule: &written::HttpRule) -> Rule<HttpMatch> {
    let mut made = rule_of_http(scope, at, rule);
    with_traffic(scope, &mut made);
    made
}

/// The rule without what policies say of it.
fn rule_of_http(scope: &Scope<'_>, at: usize, rule: &written::HttpRule) -> Rule<HttpMatch> {
    let mut unknown = Unknown::default();
    let matches = rule.matches.iter().map(|one| http_match(scope, &mut unknown, one)).collect();
    let mut made = Rule {
        name: rule.name.as_deref().map(Str::from),
        matches,
        filters: filters::all(scope, &rule.filters),
        backends: backends(scope, &rule.backend_refs),
        timeouts: rule.timeouts.as_ref().map(timeouts).unwrap_or_default(),
        retry: rule.retry.as_ref().map(retry),
        persistence: rule.session_persistence.as_ref().map(|p| persistence(p, &session_name(scope, at))),
        ..Rule::default()
    };
    unknown.put_into(&mut made.filters);
    made
}

fn grpc_rule(scope: &Scope<'_>, at: usize, rule: &written::GrpcRule) -> Rule<GrpcMatch> {
    let mut unknown = Unknown::default();
    let matches = rule.matches.iter().map(|one| grpc_match(&mut unknown, one)).collect();
    let mut made = Rule {
        name: rule.name.as_deref().map(Str::from),
        matches,
        filters: filters::all(scope, &rule.filters),
        backends: backends(scope, &rule.backend_refs),
        persistence: rule.session_persistence.as_ref().map(|p| persistence(p, &session_name(scope, at))),
        ..Rule::default()
    };
    unknown.put_into(&mut made.filters);
    with_traffic(scope, &mut made);
    made
}

fn with_traffic<M>(scope: &Scope<'_>, rule: &mut Rule<M>) {
    let of = (scope.route, rule.name.clone());
    if let Some(says) = traffic::of_requests(scope.inputs, scope.settings, scope.parent, Some(of)) {
        says.put_into(rule);
    }
}

/// Words of a newer API; a rule with any of them refuses.
#[derive(Default)]
struct Unknown(Vec<Str>);

impl Unknown {
    fn word(&mut self, of: &str, word: &str) {
        self.0.push(format!("{of} match of type {word}").into());
    }

    fn put_into(self, filters: &mut Vec<Filter>) {
        filters.extend(self.0.into_iter().map(|what| Filter::Unsupported { what }));
    }
}

fn http_match(scope: &Scope<'_>, unknown: &mut Unknown, one: &written::HttpMatch) -> HttpMatch {
    let path = one.path.as_ref().map(|path| {
        let value: Str = path.value.as_deref().unwrap_or("/").into();
        match path.r#type.as_deref() {
            Some("Exact") => PathMatch::Exact(value),
            Some("RegularExpression") => PathMatch::Regex(value),
            Some("PathPrefix") | None => PathMatch::Prefix(value),
            Some(START) if scope.route.kind() == Kind::VirtualService => PathMatch::Start(value),
            Some(other) => {
                unknown.word("path", other);
                PathMatch::Prefix(value)
            }
        }
    });
    HttpMatch {
        path,
        method: one.method.as_deref().map(Str::from),
        headers: named(unknown, "header", &one.headers),
        query: named(unknown, "query", &one.query_params),
    }
}

fn grpc_match(unknown: &mut Unknown, one: &written::GrpcMatch) -> GrpcMatch {
    let method = one.method.clone().unwrap_or_default();
    let mut text = |text: Option<String>| {
        let text = text.filter(|text| !text.is_empty())?;
        Some(value(unknown, "method", method.r#type.as_deref(), &text))
    };
    let (service, called) = (text(method.service), text(method.method));
    GrpcMatch { service, method: called, headers: named(unknown, "header", &one.headers) }
}

fn named(unknown: &mut Unknown, of: &str, list: &[written::NamedMatch]) -> Vec<NameMatch> {
    let one = |entry: &written::NamedMatch| NameMatch {
        name: entry.name.as_str().into(),
        value: value(unknown, of, entry.r#type.as_deref(), &entry.value),
    };
    list.iter().map(one).collect()
}

fn value(unknown: &mut Unknown, of: &str, kind: Option<&str>, text: &str) -> ValueMatch {
    match kind {
        Some("Exact") | None => ValueMatch::Exact(text.into()),
        Some("RegularExpression") => ValueMatch::Regex(text.into()),
        Some(other) => {
            unknown.word(of, other);
            ValueMatch::Present
        }
    }
}

fn backends(scope: &Scope<'_>, list: &[written::BackendRef]) -> Vec<Backend> {
    let one = |backend: &written::BackendRef| Backend {
        target: resolve::target(scope, &backend.object()),
        weight: number(backend.weight.unwrap_or(1)),
        filters: filters::all(scope, &backend.filters),
    };
    list.iter().map(one).collect()
}

fn timeouts(of: &written::Timeouts) -> Timeouts {
    Timeouts {
        request: of.request.as_deref().map(duration),
        backend_request: of.backend_request.as_deref().map(duration),
        idle: None,
    }
}

fn retry(of: &written::Retry) -> Retry {
    let codes = of.codes.iter().map(|code| number(*code)).collect();
    let mut retry = Retry::of_codes(number(of.attempts.unwrap_or(1)), codes);
    if let Some(base) = of.backoff.as_deref().map(duration) {
        retry.backoff = Backoff { base, max: base.max(retry.backoff.max) };
    }
    retry
}

/// What a session is called if nobody said it: two rules must not share one (GEP-1619).
fn session_name(scope: &Scope<'_>, at: usize) -> String {
    format!("ambit-{}-{}-{at}", scope.route.name.namespace, scope.route.name.name)
}

/// How a client stays with an endpoint.
pub(super) fn persistence(of: &written::SessionPersistence, default: &str) -> Persistence {
    let cookie = of.cookie.as_ref().or(of.cookie_config.as_ref());
    let header = of.header.as_ref().map(|header| header.name.as_str());
    let named = header.or_else(|| cookie.and_then(|cookie| cookie.name.as_deref()));
    let carrier = match of.r#type.as_deref() {
        Some("Header") => PersistenceCarrier::Header,
        _ => PersistenceCarrier::Cookie {
            path: cookie.and_then(|cookie| cookie.path.as_deref()).unwrap_or("/").into(),
            life: match cookie.and_then(|cookie| cookie.lifetime_type.as_deref()) {
                Some("Permanent") => CookieLife::Permanent,
                _ => CookieLife::Session,
            },
        },
    };
    Persistence {
        name: named.or(of.session_name.as_deref()).unwrap_or(default).into(),
        carrier,
        absolute_timeout: of.absolute_timeout.as_deref().map(duration),
    }
}

/// A duration that has been looked at before; one that has not been sets no limit.
pub(super) fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap_or_default()
}

/// A number of narrower type; one that does not fit becomes the greatest, which is out of every range.
pub(super) fn number<N: TryFrom<i64> + Bounded>(number: i64) -> N {
    N::try_from(number).unwrap_or(N::MAX)
}

/// A type with a greatest value.
pub(super) trait Bounded {
    /// The greatest value.
    const MAX: Self;
}

impl Bounded for u32 {
    const MAX: Self = Self::MAX;
}

impl Bounded for u16 {
    const MAX: Self = Self::MAX;
}

/// Texts as the model has them.
pub(super) fn strs(list: &[String]) -> Vec<Str> {
    list.iter().map(|text| text.as_str().into()).collect()
}
