//! One rule: its matches placed, its parts checked.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::error::{Effect, Findings, RETRIES, RuleFault, WEIGHTS};
use super::{checks, filters};
use crate::backend::{Backend, Backends};
use crate::filter::{Filters, is_token};
use crate::matcher::{Condition, Pattern};
use crate::model::limits::{BACKENDS_MAX, MATCHES_MAX};
use crate::model::{
    self, Abort, CookieLife, Fault, Fraction, LimitKey, LimitScope, Persistence, PersistenceCarrier,
    RateLimit, Retry, StreamRoute, Timeouts,
};
use crate::precedence::Place;
use crate::rule::{Rule, RuleId};

/// Shortest time limit that is not zero (GEP-2257).
const SHORTEST: Duration = Duration::from_millis(1);

/// A match, placed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) is_stand_in: bool,
    pub(crate) specificity: [u32; 4],
    pub(crate) conditions: Vec<Condition>,
}

impl Entry {
    /// What a match without conditions is.
    pub(crate) fn anywhere() -> Self {
        let place = Place::Prefix("".into());
        Self { place, is_stand_in: false, specificity: [0; 4], conditions: Vec::new() }
    }

    /// The same where the first match that agrees counts: all are looked for in one place, none is more specific, and
    /// what stands in for a condition that could not be read keeps its turn, because what comes after was not written
    /// for its requests.
    pub(crate) fn in_order(self) -> Self {
        let Self { place, mut conditions, .. } = self;
        match place {
            Place::Exact(path) => conditions.push(Condition::PathIs(path)),
            Place::Prefix(prefix) => conditions.push(Condition::PathBelow(prefix)),
            Place::Patterns => {}
        }
        Self { place: Place::Patterns, is_stand_in: false, specificity: [0; 4], conditions }
    }
}

/// A match of one kind of route.
pub(super) trait Match {
    /// Places it. `field` is the match inside the rule; `patterns_left` counts down what the group may still have.
    fn entry(&self, field: &str, findings: &mut Findings<'_>, patterns_left: &mut usize) -> Entry;

    /// The prefix it matches, if that is what it does.
    fn matched_prefix(&self) -> Option<Matched<&str>>;
}

/// What a match says of the begin of a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Matched<T> {
    /// These segments.
    Segments(T),
    /// These letters.
    Letters(T),
}

impl Matched<&str> {
    /// The same as requests have it; none if no request can.
    fn normal(self) -> Option<Matched<String>> {
        match self {
            Self::Segments(text) => checks::path(text).ok().map(Matched::Segments),
            Self::Letters(text) => checks::path(text).ok().map(Matched::Letters),
        }
    }
}

impl Matched<String> {
    fn as_str(&self) -> Matched<&str> {
        match self {
            Self::Segments(text) => Matched::Segments(text),
            Self::Letters(text) => Matched::Letters(text),
        }
    }
}

/// Places the matches of a rule; a rule without any takes everything.
pub(super) fn matches<M: Match>(
    rule: &model::Rule<M>,
    findings: &mut Findings<'_>,
    patterns_left: &mut usize,
) -> Vec<Entry> {
    findings.length("matches", rule.matches.len(), MATCHES_MAX);
    if rule.matches.is_empty() {
        return vec![Entry::anywhere()];
    }
    let placed = rule.matches.iter().enumerate();
    placed.map(|(at, one)| one.entry(&format!("matches[{at}]"), findings, patterns_left)).collect()
}

/// Compiles a pattern that is compared with the path of a request, of which a group may have few.
pub(super) fn path_pattern(
    text: &str,
    field: &str,
    findings: &mut Findings<'_>,
    patterns_left: &mut usize,
) -> Option<Pattern> {
    let Some(left) = patterns_left.checked_sub(1) else {
        findings.report(field, RuleFault::TooManyPatterns);
        return None;
    };
    *patterns_left = left;
    let fault = |cause| RuleFault::Pattern { pattern: text.to_owned(), cause };
    Pattern::compile(text).map_err(|cause| findings.report(field, fault(cause))).ok()
}

/// Compiles everything of a rule but its matches.
pub(super) fn compile<M: Match>(id: RuleId, rule: &model::Rule<M>, mut findings: Findings<'_>) -> Rule {
    let prefix = match rule.matches.as_slice() {
        [] => Some(Matched::Segments("/")),
        [only] => only.matched_prefix(),
        [_, _, ..] => None,
    };
    // The prefix as requests have it.
    let prefix = prefix.and_then(Matched::normal);
    let prefix = prefix.as_ref().map(Matched::as_str);
    let scope = filters::Scope { prefix, is_rule: true };
    let filters = filters::compile(&rule.filters, "filters", scope, &mut findings);
    filters::check_end(&filters, !rule.backends.is_empty(), &mut findings);
    let backends = backends(&rule.backends, prefix, &mut findings);
    let timeouts = timeouts(&rule.timeouts, &mut findings);
    let retry = rule.retry.as_ref().map(|retry| self::retry(retry, &mut findings));
    let persistence =
        rule.persistence.as_ref().map(|persistence| self::persistence(persistence, &mut findings));
    let limits = rule.rate_limits.iter().enumerate();
    let rate_limits = limits.map(|(at, limit)| rate_limit(limit, at, &mut findings)).collect();
    rule.fault.iter().for_each(|fault| check_fault(fault, &mut findings));
    Rule {
        id,
        is_valid: findings.is_valid(),
        filters,
        backends,
        timeouts,
        retry: retry.map_or_else(retry_of_the_mesh, Arc::new),
        persistence: persistence.map(Box::new),
        rate_limits,
        fault: rule.fault.clone().map(Box::new),
    }
}

/// Compiles a route for connections.
pub(super) fn compile_stream(id: RuleId, route: &StreamRoute, mut findings: Findings<'_>) -> Rule {
    for (at, hostname) in route.hostnames.iter().enumerate() {
        let name = hostname.strip_prefix("*.").unwrap_or(hostname);
        if &**hostname != "*" && !checks::is_hostname(name) {
            let fault = RuleFault::Name { text: hostname.to_string(), what: "host name" };
            findings.report(&format!("hostnames[{at}]"), fault);
        }
    }
    let backends = backends(&route.backends, None, &mut findings);
    Rule {
        id,
        is_valid: findings.is_valid(),
        filters: Filters::default(),
        backends,
        timeouts: Timeouts::default(),
        retry: retry_of_the_mesh(),
        persistence: None,
        rate_limits: Box::default(),
        fault: None,
    }
}

fn backends(list: &[model::Backend], prefix: Option<Matched<&str>>, findings: &mut Findings<'_>) -> Backends {
    findings.length("backendRefs", list.len(), BACKENDS_MAX);
    let compiled = list.iter().enumerate().map(|(at, backend)| {
        findings.range(&format!("backendRefs[{at}].weight"), u64::from(backend.weight), WEIGHTS);
        let (filters, is_valid) = findings.of_backend(|findings| {
            let scope = filters::Scope { prefix, is_rule: false };
            filters::compile(&backend.filters, &format!("backendRefs[{at}].filters"), scope, findings)
        });
        (Backend { target: backend.target.clone(), filters, is_broken: !is_valid }, backend.weight)
    });
    let compiled = compiled.collect();
    Backends::new(compiled)
}

fn timeouts(timeouts: &Timeouts, findings: &mut Findings<'_>) -> Timeouts {
    let mut limit = |field: &str, given: Option<Duration>| {
        let given = given.filter(|given| !given.is_zero())?;
        if given < SHORTEST {
            findings.report(field, RuleFault::TooShort { given, min: SHORTEST });
        }
        Some(given)
    };
    let request = limit("timeouts.request", timeouts.request);
    let backend_request = limit("timeouts.backendRequest", timeouts.backend_request);
    let idle = limit("timeouts.idle", timeouts.idle);
    if let Some((request, backend_request)) = request.zip(backend_request).filter(|(all, one)| one > all) {
        findings.report("timeouts.backendRequest", RuleFault::TimeoutOrder { request, backend_request });
    }
    Timeouts { request, backend_request, idle }
}

/// The policy of rules that have none of their own, one for all of them.
fn retry_of_the_mesh() -> Arc<Retry> {
    static SHARED: LazyLock<Arc<Retry>> = LazyLock::new(|| Arc::new(Retry::of_the_mesh()));
    Arc::clone(&SHARED)
}

fn retry(retry: &Retry, findings: &mut Findings<'_>) -> Retry {
    findings.range("retry.attempts", u64::from(retry.attempts), RETRIES);
    for (at, code) in retry.codes.iter().enumerate() {
        findings.range(&format!("retry.codes[{at}]"), u64::from(*code), (400, 599));
    }
    for (at, code) in retry.grpc_codes.iter().enumerate() {
        findings.range(&format!("retry.grpcCodes[{at}]"), u64::from(*code), (1, 16));
    }
    let mut retry = retry.clone();
    retry.backoff.max = retry.backoff.max.max(retry.backoff.base);
    retry
}

fn persistence(persistence: &Persistence, findings: &mut Findings<'_>) -> Persistence {
    if !is_token(&persistence.name) {
        let fault =
            RuleFault::Name { text: persistence.name.to_string(), what: "name of a cookie or header" };
        findings.report("sessionPersistence.sessionName", fault);
    }
    if let PersistenceCarrier::Cookie { path, life } = &persistence.carrier {
        let is_endless = *life == CookieLife::Permanent && persistence.absolute_timeout.is_none();
        if is_endless {
            findings.report("sessionPersistence.absoluteTimeout", RuleFault::CookieWithoutEnd);
        }
        if let Err(why) = checks::path(path) {
            let fault = RuleFault::Path { path: path.to_string(), why };
            findings.report("sessionPersistence.cookieConfig.path", fault);
        }
    }
    persistence.clone().in_lower_case()
}

fn rate_limit(limit: &RateLimit, at: usize, findings: &mut Findings<'_>) -> RateLimit {
    let field = format!("rateLimits[{at}]");
    if let LimitScope::Local { requests, interval, .. } = &limit.scope {
        findings.range(&format!("{field}.requests"), u64::from(*requests), (1, u64::from(u32::MAX)));
        if *interval < SHORTEST {
            findings.report(
                &format!("{field}.interval"),
                RuleFault::TooShort { given: *interval, min: SHORTEST },
            );
        }
    }
    let mut limit = limit.clone();
    for key in &mut limit.keys {
        let LimitKey::Header(name) = key else { continue };
        if !is_token(name) {
            let fault = RuleFault::Name { text: name.to_string(), what: "header name" };
            findings.report(&format!("{field}.keys"), fault);
        }
        *name = name.to_ascii_lowercase().into();
    }
    limit
}

fn check_fault(fault: &Fault, findings: &mut Findings<'_>) {
    if let Some(delay) = &fault.delay {
        check_fraction(delay.fraction, "fault.delay", findings);
    }
    if let Some((abort, fraction)) = &fault.abort {
        check_fraction(*fraction, "fault.abort", findings);
        match abort {
            Abort::Http(status) => findings.range("fault.abort.status", u64::from(*status), (200, 599)),
            Abort::Grpc(status) => findings.range("fault.abort.grpcStatus", u64::from(*status), (0, 16)),
        }
    }
}

pub(super) fn check_fraction(fraction: Fraction, field: &str, findings: &mut Findings<'_>) {
    let Fraction { numerator, denominator } = fraction;
    if denominator == 0 || numerator > denominator {
        findings.report(field, RuleFault::Fraction { numerator, denominator });
    }
}

/// Reports a mirror that gets nothing.
pub(super) fn note_mirror(target: &model::Target, field: &str, findings: &mut Findings<'_>) {
    match target {
        model::Target::Service { .. } => {}
        model::Target::Invalid { .. } => {
            let fault = RuleFault::MirrorTarget { what: target.to_string() };
            findings.note(field, fault, Effect::MirrorIsDropped);
        }
    }
}
