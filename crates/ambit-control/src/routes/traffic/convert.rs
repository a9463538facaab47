//! Parts of a TrafficPolicy in the words of the model; what is not said has the model's default.

use std::time::Duration;

use ambit_route::model::{
    Abort, Backoff, Balance, Conditions, Connections, Consent, Delay, Fault, Fraction, HashKey, LimitKey,
    LimitScope, Outlier, RateLimit, Retry, RetryBudget, SlowStart,
};
use ambit_types::{Str, written};

use super::super::convert::{duration, number};
use super::super::resolve::is_granted;
use super::super::service_key;
use crate::index::{Inputs, Settings};
use crate::input::{Kind, Name};

/// Group of TrafficPolicy.
const POLICY_GROUP: &str = "ambit.internal";

/// How long a rate limit service may take.
const GLOBAL_TIMEOUT: Duration = Duration::from_millis(100);
/// The share with which a new endpoint begins, in percent.
const LEAST_PERCENT: i64 = 10;

fn or(given: Option<&str>, default: Duration) -> Duration {
    given.map_or(default, duration)
}

fn count(given: Option<i64>, default: u32) -> u32 {
    given.map_or(default, number)
}

pub(in super::super) fn retry(of: &written::RetryPolicy) -> Retry {
    let mut retry = Retry::of_the_mesh();
    retry.attempts = count(of.attempts, retry.attempts);
    if let Some(words) = &of.conditions {
        let has = |word: &str| words.iter().any(|one| one == word);
        retry.conditions = Conditions {
            connect_failure: has("connect-failure"),
            refused_stream: has("refused-stream"),
            reset: has("reset"),
            try_timeout: has("try-timeout"),
            gateway_error: has("gateway-error"),
            server_error: has("server-error"),
        };
    }
    retry.codes = of.codes.iter().map(|code| number(*code)).collect();
    retry.grpc_codes = of.grpc_codes.iter().map(|code| number(*code)).collect();
    if let Some(backoff) = &of.backoff {
        let base = or(backoff.base.as_deref(), retry.backoff.base);
        let max = or(backoff.max.as_deref(), retry.backoff.max.max(base));
        retry.backoff = Backoff { base, max: max.max(base) };
    }
    if of.consent.as_deref() == Some("AnyMethod") {
        retry.consent = Consent::AnyMethod;
    }
    retry
}

/// The service that counts a limit, by its words.
pub(super) fn counting(policy: &Name, global: &written::GlobalLimit) -> Name {
    let namespace = global.service.namespace.as_deref().unwrap_or(&policy.namespace);
    Name::new(namespace, global.service.name.as_str())
}

/// Whether a policy may have that service asked.
pub(super) fn may_ask(inputs: &Inputs, policy: &Name, service: &Name) -> bool {
    service.namespace == policy.namespace
        || is_granted(inputs, (POLICY_GROUP, Kind::TrafficPolicy), &policy.namespace, service)
}

pub(super) fn limit(
    inputs: &Inputs,
    settings: &Settings,
    policy: &Name,
    of: &written::RateLimit,
) -> RateLimit {
    let scope = match (&of.local, &of.global) {
        (_, Some(global)) => {
            let name = counting(policy, global);
            let mut service = service_key(settings, &name);
            if !may_ask(inputs, policy, &name) {
                // The limit stays, so that it refuses unless it fails open; what is asked is at most the policy's own.
                service.namespace = policy.namespace.clone();
            }
            LimitScope::Global {
                service,
                port: number(global.service.port),
                domain: global.domain.as_str().into(),
                timeout: or(global.timeout.as_deref(), GLOBAL_TIMEOUT),
                fail_open: global.fail_open.unwrap_or(false),
            }
        }
        (local, None) => {
            let local = local.clone().unwrap_or_default();
            LimitScope::Local {
                requests: number(local.requests),
                interval: or(local.interval.as_deref(), Duration::from_secs(1)),
                burst: count(local.burst, 0),
            }
        }
    };
    let keys = of.keys.iter().filter_map(limit_key).collect();
    // Two policies may use one name; what is counted must stay apart.
    let name = format!("{}/{}/{}", policy.namespace, policy.name, of.name);
    RateLimit { name: name.into(), keys, scope }
}

fn limit_key(of: &written::LimitKey) -> Option<LimitKey> {
    let text = |text: &Option<String>| Str::from(text.as_deref().unwrap_or_default());
    Some(match of.r#type.as_str() {
        "Caller" => LimitKey::Caller,
        "CallerNamespace" => LimitKey::CallerNamespace,
        "CallerAddress" => LimitKey::CallerAddress,
        "Method" => LimitKey::Method,
        "Path" => LimitKey::Path,
        "Header" => LimitKey::Header(text(&of.name)),
        "Fixed" => LimitKey::Fixed { key: text(&of.name), value: text(&of.value) },
        // Telling fewer requests apart limits more of them.
        _ => return None,
    })
}

fn percent(given: Option<i64>) -> Fraction {
    given.map_or(Fraction::ALL, |percent| Fraction::percent(number(percent)))
}

pub(in super::super) fn fault(of: &written::Fault) -> Fault {
    let delay = of
        .delay
        .as_ref()
        .map(|delay| Delay { pause: duration(&delay.pause), fraction: percent(delay.percent) });
    let abort = of.abort.as_ref().and_then(|abort| {
        let how = match (abort.http_status, abort.grpc_status) {
            (Some(status), _) => Abort::Http(number(status)),
            (None, Some(status)) => Abort::Grpc(number(status)),
            (None, None) => return None,
        };
        Some((how, percent(abort.percent)))
    });
    Fault { delay, abort }
}

pub(super) fn budget(of: &written::Budget) -> RetryBudget {
    let default = RetryBudget::default();
    RetryBudget {
        percent: count(of.percent, default.percent),
        interval: or(of.interval.as_deref(), default.interval),
        min_retries: count(of.min_retries, default.min_retries),
        min_interval: or(of.min_interval.as_deref(), default.min_interval),
    }
}

pub(super) fn outlier(of: &written::Outlier) -> Outlier {
    let default = Outlier::default();
    Outlier {
        consecutive_errors: count(of.consecutive_errors, default.consecutive_errors),
        consecutive_gateway_errors: count(of.consecutive_gateway_errors, default.consecutive_gateway_errors),
        success_deviation_percent: count(of.success_deviation_percent, default.success_deviation_percent),
        success_requests_min: count(of.success_requests_min, default.success_requests_min),
        success_endpoints_min: count(of.success_endpoints_min, default.success_endpoints_min),
        interval: or(of.interval.as_deref(), default.interval),
        ejection: or(of.ejection.as_deref(), default.ejection),
        ejection_max: or(of.ejection_max.as_deref(), default.ejection_max),
        ejected_percent_max: count(of.ejected_percent_max, default.ejected_percent_max),
    }
}

pub(super) fn connections(of: &written::Connections) -> Connections {
    Connections {
        connections_max: count(of.connections_max, 0),
        pending_max: count(of.pending_max, 0),
        requests_max: count(of.requests_max, 0),
        requests_per_connection_max: count(of.requests_per_connection_max, 0),
    }
}

pub(super) fn balance(of: &written::Balance) -> (Balance, Option<SlowStart>) {
    let how = match of.r#type.as_deref() {
        Some("RoundRobin") => Balance::RoundRobin,
        Some("Random") => Balance::Random,
        Some("ConsistentHash") => Balance::ConsistentHash(of.hash_keys.iter().filter_map(hash_key).collect()),
        _ => Balance::LeastRequest,
    };
    let slow_start = of.slow_start.as_ref().map(|slow| SlowStart {
        window: duration(&slow.window),
        least_percent: number(slow.least_percent.unwrap_or(LEAST_PERCENT)),
    });
    (how, slow_start)
}

fn hash_key(of: &written::HashKey) -> Option<HashKey> {
    let name = || Str::from(of.name.as_deref().unwrap_or_default());
    Some(match of.r#type.as_str() {
        "Header" => HashKey::Header(name()),
        "Cookie" => HashKey::Cookie(name()),
        "Query" => HashKey::Query(name()),
        "SourceAddress" => HashKey::SourceAddress,
        _ => return None,
    })
}
