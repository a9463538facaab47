//! TrafficPolicies merged into the rules and services they attach to.
//!
//! Of several policies that say one thing of one object the oldest counts, then the name decides (GEP-713). What is
//! said of a rule stands before what is said of its route, that before what is said of the service. Limits on rates
//! add up instead: the owner of a service must not lose his to the author of a route.

use std::time::Duration;

use ambit_route::model::{DestinationPolicy, Fault, RateLimit, Retry, Rule};
use ambit_types::Str;
use ambit_types::written::{PolicyTarget, TrafficPolicy as Written};

use super::references;
use crate::index::{Inputs, Settings};
use crate::input::{Key, Kind, Name, Route, RouteSpec, TrafficPolicy};
use crate::status::{ACCEPTED, Condition, PARTIALLY_INVALID, Report};

pub(super) mod convert;

use super::convert::{duration, persistence};

/// What policies say of requests.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Requests {
    retry: Option<Retry>,
    limits: Vec<RateLimit>,
    fault: Option<Fault>,
    idle: Option<Duration>,
}

impl Requests {
    /// Puts it into a rule, in place of what the rule says itself.
    pub(super) fn put_into<M>(self, rule: &mut Rule<M>) {
        rule.retry = self.retry.or_else(|| rule.retry.take());
        rule.rate_limits.extend(self.limits);
        rule.fault = self.fault.or_else(|| rule.fault.take());
        rule.timeouts.idle = self.idle;
    }
}

/// What policies say of the requests of a rule, or of a service without routes; nothing if they do not.
pub(super) fn of_requests(
    inputs: &Inputs,
    settings: &Settings,
    service: &Name,
    rule: Option<(&Route, Option<Str>)>,
) -> Option<Requests> {
    let mut levels: Vec<Vec<&TrafficPolicy>> = Vec::new();
    if let Some((route, name)) = rule {
        let key = Key::new(route.kind(), route.name.clone());
        let all = attached(inputs, &key);
        let section_of = |policy: &TrafficPolicy, wanted: Option<&str>| {
            targets(policy, &key).any(|target| target.section_name.as_deref() == wanted)
        };
        if let Some(name) = &name {
            levels.push(all.iter().copied().filter(|p| section_of(p, Some(name))).collect());
        }
        levels.push(all.iter().copied().filter(|p| section_of(p, None)).collect());
    }
    levels.push(attached(inputs, &Key::new(Kind::Service, service.clone())));
    let by_level: Vec<&TrafficPolicy> = levels.into_iter().flatten().collect();
    let first = |has: fn(&Written) -> bool| by_level.iter().copied().find(|policy| has(&policy.spec));
    let retry = first(|spec| spec.retry.is_some()).and_then(|policy| policy.spec.retry.as_ref());
    let fault = first(|spec| spec.fault.is_some()).and_then(|policy| policy.spec.fault.as_ref());
    let idle = first(|spec| spec.idle_timeout.is_some()).and_then(|p| p.spec.idle_timeout.as_deref());
    let mut limits: Vec<RateLimit> = Vec::new();
    for policy in &by_level {
        let made =
            policy.spec.rate_limits.iter().map(|limit| convert::limit(inputs, settings, &policy.name, limit));
        // A policy may reach a rule by its service and by its route.
        limits.extend(made.filter(|limit| !limits.contains(limit)).collect::<Vec<_>>());
    }
    let says = Requests {
        retry: retry.map(convert::retry),
        limits,
        fault: fault.map(convert::fault),
        idle: idle.map(duration),
    };
    (says != Requests::default()).then_some(says)
}

/// What policies say of a service's endpoints; nothing if they do not.
pub(crate) fn destination(inputs: &Inputs, service: &Name) -> Option<DestinationPolicy> {
    let policies = attached(inputs, &Key::new(Kind::Service, service.clone()));
    let specs = || policies.iter().map(|policy| &policy.spec);
    let mut made = DestinationPolicy::default();
    if let Some(balance) = specs().find_map(|spec| spec.balance.as_ref()) {
        (made.balance, made.slow_start) = convert::balance(balance);
    }
    made.outlier = specs().find_map(|spec| spec.outlier.as_ref()).map(convert::outlier);
    if let Some(connections) = specs().find_map(|spec| spec.connections.as_ref()) {
        made.connections = convert::connections(connections);
    }
    if let Some(budget) = specs().find_map(|spec| spec.retry_budget.as_ref()) {
        made.retry_budget = convert::budget(budget);
    }
    let session = specs().find_map(|spec| spec.session_persistence.as_ref());
    let name = || format!("ambit-{}-{}", service.namespace, service.name);
    made.persistence = session.map(|session| persistence(session, &name()));
    (made != DestinationPolicy::default()).then_some(made)
}

/// Policies of an object, the oldest first.
fn attached<'a>(inputs: &'a Inputs, to: &Key) -> Vec<&'a TrafficPolicy> {
    let keys = inputs.attached_of_kind(to, Kind::TrafficPolicy);
    let mut policies: Vec<&TrafficPolicy> =
        keys.filter_map(|key| inputs.traffic_policies.named(&key.name)).collect();
    policies.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    policies
}

/// The targets of a policy that mean an object.
fn targets<'p>(policy: &'p TrafficPolicy, key: &Key) -> impl Iterator<Item = &'p PolicyTarget> {
    let kind = key.kind.as_str();
    let is_meant = policy.name.namespace == key.name.namespace;
    let name = key.name.name.clone();
    policy.spec.target_refs.iter().filter(move |t| is_meant && t.kind == kind && *t.name == *name)
}

/// A part of a policy: its field, and whether it is given.
type Part = (&'static str, fn(&Written) -> bool);

/// Parts of a policy of which one object has one only.
const PARTS: &[Part] = &[
    ("retry", |spec| spec.retry.is_some()),
    ("fault", |spec| spec.fault.is_some()),
    ("idleTimeout", |spec| spec.idle_timeout.is_some()),
    ("retryBudget", |spec| spec.retry_budget.is_some()),
    ("outlier", |spec| spec.outlier.is_some()),
    ("connections", |spec| spec.connections.is_some()),
    ("balance", |spec| spec.balance.is_some()),
    ("sessionPersistence", |spec| spec.session_persistence.is_some()),
];

/// How a policy stands: what it attaches to, and what an older one says already.
pub(crate) fn report(inputs: &Inputs, policy: &TrafficPolicy) -> Report {
    let (mut missing, mut lost) = (Vec::new(), Vec::new());
    let mut in_force = 0;
    for (key, target) in references::of_traffic_policy(policy).iter().zip(&policy.spec.target_refs) {
        if let Some(words) = absent(inputs, key, target) {
            missing.push(words);
            continue;
        }
        in_force += policy.spec.rate_limits.len();
        for (part, has) in PARTS.iter().filter(|(_, has)| has(&policy.spec)) {
            let rivals = attached(inputs, key).into_iter();
            let section =
                |one: &TrafficPolicy| targets(one, key).any(|t| t.section_name == target.section_name);
            let first = rivals.filter(|one| section(one)).find(|one| has(&one.spec));
            match first.filter(|first| first.name != policy.name) {
                Some(older) => {
                    lost.push(format!("{part} of {key} is said by the older TrafficPolicy {}", older.name));
                }
                None => in_force += 1,
            }
        }
    }
    let denied = denied(inputs, policy);
    let words = [missing.as_slice(), denied.as_slice(), lost.as_slice()].concat().join("; ");
    let reason = match (missing.is_empty(), denied.is_empty()) {
        (false, _) => "TargetNotFound",
        (true, false) => "RefNotPermitted",
        (true, true) => "Conflicted",
    };
    let conditions = match (words.is_empty(), in_force) {
        (true, _) => vec![Condition::holds(ACCEPTED, "Accepted", "in force")],
        (false, 0) => vec![Condition::fails(ACCEPTED, reason, words)],
        (false, _) => vec![
            Condition::holds(ACCEPTED, "Accepted", "in force in part"),
            Condition::holds(PARTIALLY_INVALID, reason, format!("Fall Back: {words}")),
        ],
    };
    Report { generation: policy.generation, conditions, parents: Vec::new() }
}

/// Rate limit services of other namespaces that no grant lets the policy ask, in words.
fn denied(inputs: &Inputs, policy: &TrafficPolicy) -> Vec<String> {
    let globals = policy.spec.rate_limits.iter().filter_map(|limit| Some((limit, limit.global.as_ref()?)));
    let words = globals.filter_map(|(limit, global)| {
        let service = convert::counting(&policy.name, global);
        (!convert::may_ask(inputs, &policy.name, &service)).then(|| {
            format!(
                "rate limit {}: no ReferenceGrant of namespace {} lets it ask Service {service}",
                limit.name, service.namespace
            )
        })
    });
    words.collect()
}

/// What is not there of a target, in words.
fn absent(inputs: &Inputs, key: &Key, target: &PolicyTarget) -> Option<String> {
    let gone = || Some(format!("there is no {key}"));
    if key.kind == Kind::Service {
        return if inputs.services.named(&key.name).is_some() { None } else { gone() };
    }
    let Some(route) = inputs.route(key) else { return gone() };
    let wanted = target.section_name.as_deref()?;
    let mut names: Vec<Option<&str>> = match &route.spec {
        RouteSpec::Http(spec) => spec.rules.iter().map(|rule| rule.name.as_deref()).collect(),
        RouteSpec::Grpc(spec) => spec.rules.iter().map(|rule| rule.name.as_deref()).collect(),
        RouteSpec::Tls(_) | RouteSpec::Tcp(_) | RouteSpec::Virtual(_) => Vec::new(),
    };
    names.retain(|name| *name == Some(wanted));
    names.is_empty().then(|| format!("{key} has no rule of the name {wanted}"))
}
