//! TrafficPolicy, of group `ambit.internal/v1`: what the Gateway API has no words for.
//!
//! It attaches by `targetRefs` of its own namespace. On a Service it says how endpoints are treated and, for every
//! rule there, how requests are; on an HTTPRoute or GRPCRoute (one rule of it, with `sectionName`) the latter alone.

use super::{SessionPersistence, bodies};

bodies! {
    /// The body of a `TrafficPolicy`.
    TrafficPolicy {
        /// What it attaches to.
        target_refs: Vec<PolicyTarget>,
        /// When a request is sent again. In place of the rule's own `retry`.
        retry: Option<RetryPolicy>,
        /// Limits on the rate of requests; all of them apply.
        rate_limits: Vec<RateLimit>,
        /// Faults put in on purpose.
        fault: Option<Fault>,
        /// Longest time without a byte in either direction, such as `5m`.
        idle_timeout: Option<String>,
        /// How much may be repetition. Services only, as all below.
        retry_budget: Option<Budget>,
        /// When a failing endpoint is left out.
        outlier: Option<Outlier>,
        /// How much is sent at a time.
        connections: Option<Connections>,
        /// How an endpoint is chosen.
        balance: Option<Balance>,
        /// How a client stays with an endpoint, where its rule does not say it.
        session_persistence: Option<SessionPersistence>,
    }

    /// An object a policy attaches to, in the policy's own namespace.
    PolicyTarget {
        /// Its group; empty means core.
        group: String,
        /// `Service`, `HTTPRoute` or `GRPCRoute`.
        kind: String,
        /// Its name.
        name: String,
        /// Name of one rule of a route.
        section_name: Option<String>,
    }

    /// When a request is sent again.
    RetryPolicy {
        /// Attempts after the first, 1 to 20; absent means 2.
        attempts: Option<i64>,
        /// `connect-failure`, `refused-stream`, `reset`, `try-timeout`, `gateway-error`, `server-error`; absent
        /// means the first two.
        conditions: Option<Vec<String>>,
        /// Status codes, 400 to 599.
        codes: Vec<i64>,
        /// gRPC status codes, 1 to 16.
        grpc_codes: Vec<i64>,
        /// How long to wait between attempts.
        backoff: Option<Backoff>,
        /// `Idempotent` (the default) or `AnyMethod`: what may be repeated once a backend may have acted on it.
        consent: Option<String>,
    }

    /// How long to wait between attempts.
    Backoff {
        /// Before the first repetition; absent means 25 ms.
        base: Option<String>,
        /// Where doubling ends; absent means 250 ms.
        max: Option<String>,
    }

    /// How much may be repetition (GEP-3388).
    Budget {
        /// Of a hundred requests; absent means 20.
        percent: Option<i64>,
        /// Over how long both are counted, 1 s to 1 h; absent means 10 s.
        interval: Option<String>,
        /// Repetitions admitted in any case; absent means 10.
        min_retries: Option<i64>,
        /// In each such interval; absent means 1 s.
        min_interval: Option<String>,
    }

    /// When a failing endpoint is left out for a while.
    Outlier {
        /// Failures in a row, 0 does not count; absent means 5.
        consecutive_errors: Option<i64>,
        /// The same of 502, 503, 504 and failures without a status; absent means 0.
        consecutive_gateway_errors: Option<i64>,
        /// Hundredths of a standard deviation under the mean rate of success; 0, as if absent, does not compare.
        success_deviation_percent: Option<i64>,
        /// Requests below which a rate says nothing; absent means 100.
        success_requests_min: Option<i64>,
        /// Endpoints below which there is no mean; absent means 5.
        success_endpoints_min: Option<i64>,
        /// How often rates are compared; absent means 10 s.
        interval: Option<String>,
        /// For how long at first; absent means 30 s.
        ejection: Option<String>,
        /// Where doubling ends; absent means 300 s.
        ejection_max: Option<String>,
        /// Most endpoints at a time, in percent; absent means 50.
        ejected_percent_max: Option<i64>,
    }

    /// How much is sent to a service at a time; absent and 0 both mean no limit.
    Connections {
        /// Connections.
        connections_max: Option<i64>,
        /// Requests that wait for one.
        pending_max: Option<i64>,
        /// Requests under way.
        requests_max: Option<i64>,
        /// Requests that one connection carries in its life.
        requests_per_connection_max: Option<i64>,
    }

    /// How an endpoint is chosen.
    Balance {
        /// `LeastRequest` (the default), `RoundRobin`, `Random` or `ConsistentHash`.
        r#type: Option<String>,
        /// For `ConsistentHash`: the first of these that a request has.
        hash_keys: Vec<HashKey>,
        /// How new endpoints are spared.
        slow_start: Option<SlowStart>,
    }

    /// What a request is hashed by.
    HashKey {
        /// `Header`, `Cookie`, `Query` or `SourceAddress`.
        r#type: String,
        /// Its name, for the first three.
        name: Option<String>,
    }

    /// How a new endpoint is spared.
    SlowStart {
        /// Until it has its whole share.
        window: String,
        /// The share it begins with, 1 to 100; absent means 10.
        least_percent: Option<i64>,
    }

    /// A limit on the rate of requests: either local or global.
    RateLimit {
        /// Its name, for records and metrics.
        name: String,
        /// What requests are told apart by; none counts all together.
        keys: Vec<LimitKey>,
        /// Counted by each instance of the waypoint.
        local: Option<LocalLimit>,
        /// Counted by a rate limit service.
        global: Option<GlobalLimit>,
    }

    /// What requests are told apart by.
    LimitKey {
        /// `Caller`, `CallerNamespace`, `CallerAddress`, `Method`, `Path`, `Header` or `Fixed`.
        r#type: String,
        /// Name of the header, or key of the fixed text.
        name: Option<String>,
        /// Value of the fixed text.
        value: Option<String>,
    }

    /// A token bucket.
    LocalLimit {
        /// Requests in each interval.
        requests: i64,
        /// The interval; absent means 1 s.
        interval: Option<String>,
        /// Requests admitted at once after a pause; absent means `requests`.
        burst: Option<i64>,
    }

    /// A rate limit service (`envoy.service.ratelimit.v3`).
    GlobalLimit {
        /// Where it is.
        service: ServiceRef,
        /// Its domain.
        domain: String,
        /// How long it may take; absent means 100 ms.
        timeout: Option<String>,
        /// Whether requests pass when it does not answer; absent means no.
        fail_open: Option<bool>,
    }

    /// A service with its port.
    ServiceRef {
        /// Its name.
        name: String,
        /// Its namespace; absent means the policy's.
        namespace: Option<String>,
        /// Its port.
        port: i64,
    }

    /// Faults put in on purpose.
    Fault {
        /// A pause.
        delay: Option<Delay>,
        /// An answer in place of the request.
        abort: Option<Abort>,
    }

    /// A pause.
    Delay {
        /// How long.
        pause: String,
        /// Of how many of a hundred requests; absent means all.
        percent: Option<i64>,
    }

    /// How a request is cut short: by one of the two.
    Abort {
        /// This status, 200 to 599.
        http_status: Option<i64>,
        /// This gRPC status, 1 to 16.
        grpc_status: Option<i64>,
        /// Of how many of a hundred requests; absent means all.
        percent: Option<i64>,
    }
}
