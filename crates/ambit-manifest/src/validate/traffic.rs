//! TrafficPolicy.

use std::collections::BTreeSet;

use ambit_types::written::{
    Balance, Budget, Fault, GlobalLimit, LimitKey, Outlier, PolicyTarget, RateLimit, RetryPolicy,
    TrafficPolicy,
};

use super::gateway::GATEWAY_GROUP;
use super::{Checks, routes, text};

const TARGETS_MAX: usize = 16;
const LIMITS_MAX: usize = 16;
const KEYS_MAX: usize = 8;
/// What is counted is kept in 32 bits.
const COUNT_MAX: i64 = u32::MAX as i64;
const TARGETS: &[(&str, &str)] =
    &[("Service", ""), ("HTTPRoute", GATEWAY_GROUP), ("GRPCRoute", GATEWAY_GROUP)];
const CONDITIONS: &[&str] =
    &["connect-failure", "refused-stream", "reset", "try-timeout", "gateway-error", "server-error"];
const BALANCES: &[&str] = &["LeastRequest", "RoundRobin", "Random", "ConsistentHash"];
const HASH_KEYS: &[&str] = &["Header", "Cookie", "Query", "SourceAddress"];
const LIMIT_KEYS: &[&str] =
    &["Caller", "CallerNamespace", "CallerAddress", "Method", "Path", "Header", "Fixed"];

pub(super) fn policy(c: &mut Checks<'_>, policy: &TrafficPolicy) {
    targets(c, policy);
    if let Some(retry) = &policy.retry {
        retries(c, retry);
    }
    c.at_most("spec.rateLimits", &policy.rate_limits, LIMITS_MAX);
    let mut names = BTreeSet::new();
    for (i, limit) in policy.rate_limits.iter().enumerate() {
        let at = format!("spec.rateLimits[{i}]");
        rate_limit(c, &at, limit);
        if !limit.name.is_empty() {
            c.unique(format!("{at}.name"), &limit.name, &mut names);
        }
    }
    if let Some(one) = &policy.fault {
        fault(c, one);
    }
    c.duration("spec.idleTimeout", policy.idle_timeout.as_deref());
    if let Some(one) = &policy.retry_budget {
        budget(c, one);
    }
    if let Some(one) = &policy.outlier {
        outlier(c, one);
    }
    if let Some(one) = &policy.connections {
        c.counts(
            "spec.connections",
            &[
                ("connectionsMax", one.connections_max),
                ("pendingMax", one.pending_max),
                ("requestsMax", one.requests_max),
                ("requestsPerConnectionMax", one.requests_per_connection_max),
            ],
        );
    }
    if let Some(one) = &policy.balance {
        balance(c, one);
    }
    if let Some(session) = &policy.session_persistence {
        routes::session(c, "spec.sessionPersistence", session);
    }
}

fn targets(c: &mut Checks<'_>, policy: &TrafficPolicy) {
    if policy.target_refs.is_empty() {
        c.bad("spec.targetRefs", "a policy needs something to attach to");
    }
    c.at_most("spec.targetRefs", &policy.target_refs, TARGETS_MAX);
    let kinds: Vec<&str> = TARGETS.iter().map(|(kind, _)| *kind).collect();
    for (i, target) in policy.target_refs.iter().enumerate() {
        let at = format!("spec.targetRefs[{i}]");
        match TARGETS.iter().find(|(kind, _)| *kind == target.kind) {
            None if target.kind.is_empty() => c.missing(format!("{at}.kind")),
            None => c.one_of(format!("{at}.kind"), &target.kind, &kinds),
            Some((kind, group)) if *group != target.group => {
                let words = format!("\"{}\" is not the group of {kind}", target.group);
                c.near(format!("{at}.group"), words, Some(*group).filter(|group| !group.is_empty()));
            }
            Some(_) => target_rest(c, &at, policy, target),
        }
        if target.name.is_empty() {
            c.missing(format!("{at}.name"));
        }
    }
}

fn target_rest(c: &mut Checks<'_>, at: &str, policy: &TrafficPolicy, target: &PolicyTarget) {
    if target.kind == "Service" {
        if target.section_name.is_some() {
            c.bad(format!("{at}.sectionName"), "names a rule, which a Service does not have");
        }
        return;
    }
    let of_services = [
        ("retryBudget", policy.retry_budget.is_some()),
        ("outlier", policy.outlier.is_some()),
        ("connections", policy.connections.is_some()),
        ("balance", policy.balance.is_some()),
        ("sessionPersistence", policy.session_persistence.is_some()),
    ];
    for (field, _) in of_services.into_iter().filter(|(_, is_given)| *is_given) {
        let words = format!("is about the endpoints of a Service and cannot attach to {}", target.kind);
        c.bad(format!("spec.{field}"), words);
    }
}

fn retries(c: &mut Checks<'_>, retry: &RetryPolicy) {
    if let Some(attempts) = retry.attempts {
        c.range("spec.retry.attempts", attempts, 0, 20);
    }
    for (i, condition) in retry.conditions.iter().flatten().enumerate() {
        c.one_of(format!("spec.retry.conditions[{i}]"), condition, CONDITIONS);
    }
    for (i, code) in retry.codes.iter().enumerate() {
        c.range(format!("spec.retry.codes[{i}]"), *code, 400, 599);
    }
    for (i, code) in retry.grpc_codes.iter().enumerate() {
        c.range(format!("spec.retry.grpcCodes[{i}]"), *code, 1, 16);
    }
    if let Some(backoff) = &retry.backoff {
        c.duration("spec.retry.backoff.base", backoff.base.as_deref());
        c.duration("spec.retry.backoff.max", backoff.max.as_deref());
    }
    c.optional_one_of("spec.retry.consent", retry.consent.as_ref(), &["Idempotent", "AnyMethod"]);
}

fn rate_limit(c: &mut Checks<'_>, at: &str, limit: &RateLimit) {
    match limit.name.as_str() {
        "" => c.missing(format!("{at}.name")),
        name => c.text(format!("{at}.name"), name, text::dns_label),
    }
    c.at_most(format!("{at}.keys"), &limit.keys, KEYS_MAX);
    for (i, key) in limit.keys.iter().enumerate() {
        limit_key(c, &format!("{at}.keys[{i}]"), key);
    }
    match (&limit.local, &limit.global) {
        (Some(_), Some(_)) => c.bad(format!("{at}.global"), "not together with local"),
        (None, None) => c.bad(at, "one of local and global is needed"),
        (Some(local), None) => {
            let at = format!("{at}.local");
            c.range(format!("{at}.requests"), local.requests, 1, COUNT_MAX);
            c.positive_duration(format!("{at}.interval"), local.interval.as_deref());
            if let Some(burst) = local.burst {
                c.range(format!("{at}.burst"), burst, 1, COUNT_MAX);
            }
        }
        (None, Some(global)) => global_limit(c, &format!("{at}.global"), global),
    }
}

fn limit_key(c: &mut Checks<'_>, at: &str, key: &LimitKey) {
    if key.r#type.is_empty() {
        return c.missing(format!("{at}.type"));
    }
    c.one_of(format!("{at}.type"), &key.r#type, LIMIT_KEYS);
    let is_fixed = key.r#type == "Fixed";
    let wants = [("name", &key.name, is_fixed || key.r#type == "Header"), ("value", &key.value, is_fixed)];
    for (field, given, is_wanted) in wants {
        match given.as_deref() {
            None | Some("") if is_wanted => c.missing(format!("{at}.{field}")),
            Some(_) if !is_wanted => {
                c.bad(format!("{at}.{field}"), format!("does not belong to the type {}", key.r#type));
            }
            Some(_) | None => {}
        }
    }
}

fn global_limit(c: &mut Checks<'_>, at: &str, global: &GlobalLimit) {
    match global.service.name.as_str() {
        "" => c.missing(format!("{at}.service.name")),
        name => c.text(format!("{at}.service.name"), name, text::service_name),
    }
    if let Some(namespace) = &global.service.namespace {
        c.text(format!("{at}.service.namespace"), namespace, text::dns_label);
    }
    c.port(format!("{at}.service.port"), global.service.port);
    if global.domain.is_empty() {
        c.missing(format!("{at}.domain"));
    }
    c.positive_duration(format!("{at}.timeout"), global.timeout.as_deref());
}

fn fault(c: &mut Checks<'_>, fault: &Fault) {
    if fault.delay.is_none() && fault.abort.is_none() {
        c.bad("spec.fault", "one of delay and abort is needed");
    }
    if let Some(delay) = &fault.delay {
        match delay.pause.as_str() {
            "" => c.missing("spec.fault.delay.pause"),
            pause => c.positive_duration("spec.fault.delay.pause", Some(pause)),
        }
        c.percent("spec.fault.delay.percent", delay.percent);
    }
    let Some(abort) = &fault.abort else { return };
    match (abort.http_status, abort.grpc_status) {
        (Some(status), None) => c.range("spec.fault.abort.httpStatus", status, 200, 599),
        (None, Some(status)) => c.range("spec.fault.abort.grpcStatus", status, 1, 16),
        (Some(_), Some(_)) => c.bad("spec.fault.abort.grpcStatus", "not together with httpStatus"),
        (None, None) => c.bad("spec.fault.abort", "one of httpStatus and grpcStatus is needed"),
    }
    c.percent("spec.fault.abort.percent", abort.percent);
}

fn budget(c: &mut Checks<'_>, budget: &Budget) {
    c.percent("spec.retryBudget.percent", budget.percent);
    c.positive_duration("spec.retryBudget.interval", budget.interval.as_deref());
    c.positive_duration("spec.retryBudget.minInterval", budget.min_interval.as_deref());
    c.counts("spec.retryBudget", &[("minRetries", budget.min_retries)]);
}

fn outlier(c: &mut Checks<'_>, outlier: &Outlier) {
    c.counts(
        "spec.outlier",
        &[
            ("consecutiveErrors", outlier.consecutive_errors),
            ("consecutiveGatewayErrors", outlier.consecutive_gateway_errors),
            ("successDeviationPercent", outlier.success_deviation_percent),
            ("successRequestsMin", outlier.success_requests_min),
            ("successEndpointsMin", outlier.success_endpoints_min),
        ],
    );
    for (field, given) in [
        ("interval", &outlier.interval),
        ("ejection", &outlier.ejection),
        ("ejectionMax", &outlier.ejection_max),
    ] {
        c.positive_duration(format!("spec.outlier.{field}"), given.as_deref());
    }
    c.percent("spec.outlier.ejectedPercentMax", outlier.ejected_percent_max);
}

fn balance(c: &mut Checks<'_>, balance: &Balance) {
    c.optional_one_of("spec.balance.type", balance.r#type.as_ref(), BALANCES);
    let hashes = balance.r#type.as_deref() == Some("ConsistentHash");
    match (hashes, balance.hash_keys.is_empty()) {
        (true, true) => c.missing("spec.balance.hashKeys"),
        (false, false) => c.bad("spec.balance.hashKeys", "counts only with type: ConsistentHash"),
        (true, false) | (false, true) => {}
    }
    c.at_most("spec.balance.hashKeys", &balance.hash_keys, KEYS_MAX);
    for (i, key) in balance.hash_keys.iter().enumerate() {
        let at = format!("spec.balance.hashKeys[{i}]");
        c.one_of(format!("{at}.type"), &key.r#type, HASH_KEYS);
        let is_named = key.name.as_deref().is_some_and(|name| !name.is_empty());
        match (key.r#type.as_str(), is_named) {
            ("SourceAddress", true) => {
                c.bad(format!("{at}.name"), "does not belong to the type SourceAddress");
            }
            ("Header" | "Cookie" | "Query", false) => c.missing(format!("{at}.name")),
            _ => {}
        }
    }
    let Some(slow) = &balance.slow_start else { return };
    match slow.window.as_str() {
        "" => c.missing("spec.balance.slowStart.window"),
        window => c.positive_duration("spec.balance.slowStart.window", Some(window)),
    }
    if let Some(percent) = slow.least_percent {
        c.range("spec.balance.slowStart.leastPercent", percent, 1, 100);
    }
}

impl Checks<'_> {
    fn percent(&mut self, path: &str, percent: Option<i64>) {
        if let Some(percent) = percent {
            self.range(path, percent, 0, 100);
        }
    }

    /// Numbers that are counts, by the name of their field.
    fn counts(&mut self, at: &str, counts: &[(&str, Option<i64>)]) {
        for (field, count) in counts {
            if let Some(count) = count {
                self.range(format!("{at}.{field}"), *count, 0, COUNT_MAX);
            }
        }
    }
}
