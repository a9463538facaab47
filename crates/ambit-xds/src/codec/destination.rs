//! `ambit.waypoint.v1.Destination` and [`Destination`]: how a service is treated as a destination.
//!
//! Nothing compiles it later, so every range that the model names is checked here.

use std::time::Duration;

use ambit_route::model::{
    Balance, Connections, Destination, DestinationPolicy, HashKey, Outlier, RetryBudget, SlowStart,
};

use super::bounds::{encode_service, nanos, needs, number, service, time, unpack, within};
use super::route::persistence;
use super::{Malformed, Notes};
use crate::any::Any;
use crate::proto::ambit::waypoint::v1 as wire;

/// Longest and shortest time that a share of requests, or their rate, is counted over.
const COUNTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Any time but none.
const SOME_TIME: (Duration, Duration) = (Duration::from_nanos(1), Duration::MAX);

/// Name of its resource: `NAMESPACE/HOSTNAME`.
pub fn name(destination: &Destination) -> String {
    destination.service.to_string()
}

/// Reads what a response carries.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode_any(any: &Any, notes: &mut Notes) -> Result<Destination, Malformed> {
    decode(&unpack(any, "destination")?, notes)
}

/// Reads a destination.
///
/// Balancing of an unknown kind is the default, a hash key of an unknown kind is left out; both are noted.
///
/// # Errors
/// [`Malformed`] names the field that makes all of it unusable.
pub fn decode(message: &wire::Destination, notes: &mut Notes) -> Result<Destination, Malformed> {
    needs(&message.needs)?;
    let persistence = message.persistence.as_ref();
    let budget = message.retry_budget.as_ref();
    let policy = DestinationPolicy {
        balance: message.balance.as_ref().map(|one| balance(one, notes)).unwrap_or_default(),
        slow_start: message
            .slow_start
            .as_ref()
            .map(|one| within("slow_start", slow_start(*one)))
            .transpose()?,
        outlier: message.outlier.as_ref().map(|one| within("outlier", outlier(one))).transpose()?,
        connections: message.connections.as_ref().map(connections).unwrap_or_default(),
        retry_budget: budget
            .map(|one| within("retry_budget", retry_budget(one)))
            .transpose()?
            .unwrap_or_default(),
        persistence: persistence
            .map(|one| within("persistence", persistence::decode(one, notes)))
            .transpose()?,
    };
    Ok(Destination { service: service(message.service.as_ref())?, policy })
}

fn balance(message: &wire::Balance, notes: &mut Notes) -> Balance {
    use wire::balance::Kind;
    match &message.kind {
        Some(Kind::LeastRequest(())) => Balance::LeastRequest,
        Some(Kind::RoundRobin(())) => Balance::RoundRobin,
        Some(Kind::Random(())) => Balance::Random,
        Some(Kind::ConsistentHash(hash)) => {
            Balance::ConsistentHash(hash.keys.iter().filter_map(|key| hash_key(key, notes)).collect())
        }
        None => {
            notes.add("balance", "unknown kind read as LeastRequest");
            Balance::LeastRequest
        }
    }
}

fn hash_key(message: &wire::HashKey, notes: &mut Notes) -> Option<HashKey> {
    use wire::hash_key::Kind;
    match &message.kind {
        Some(Kind::Header(name)) => Some(HashKey::Header((&**name).into())),
        Some(Kind::Cookie(name)) => Some(HashKey::Cookie((&**name).into())),
        Some(Kind::Query(name)) => Some(HashKey::Query((&**name).into())),
        Some(Kind::SourceAddress(())) => Some(HashKey::SourceAddress),
        None => {
            notes.add("balance.consistent_hash.keys", "unknown kind left out");
            None
        }
    }
}

fn slow_start(message: wire::SlowStart) -> Result<SlowStart, Malformed> {
    Ok(SlowStart {
        window: Duration::from_nanos(message.window_nanos),
        least_percent: number("least_percent", message.least_percent, (1, 100))?,
    })
}

fn outlier(message: &wire::Outlier) -> Result<Outlier, Malformed> {
    Ok(Outlier {
        consecutive_errors: message.consecutive_errors,
        consecutive_gateway_errors: message.consecutive_gateway_errors,
        success_deviation_percent: message.success_deviation_percent,
        success_requests_min: message.success_requests_min,
        success_endpoints_min: message.success_endpoints_min,
        interval: time("interval_nanos", message.interval_nanos, SOME_TIME)?,
        ejection: time("ejection_nanos", message.ejection_nanos, SOME_TIME)?,
        ejection_max: time("ejection_max_nanos", message.ejection_max_nanos, SOME_TIME)?,
        ejected_percent_max: number("ejected_percent_max", message.ejected_percent_max, (0, 100))?,
    })
}

fn connections(message: &wire::Connections) -> Connections {
    Connections {
        connections_max: message.connections_max,
        pending_max: message.pending_max,
        requests_max: message.requests_max,
        requests_per_connection_max: message.requests_per_connection_max,
    }
}

fn retry_budget(message: &wire::RetryBudget) -> Result<RetryBudget, Malformed> {
    Ok(RetryBudget {
        percent: number("percent", message.percent, (0, 100))?,
        interval: time("interval_nanos", message.interval_nanos, COUNTED)?,
        min_retries: message.min_retries,
        min_interval: time("min_interval_nanos", message.min_interval_nanos, SOME_TIME)?,
    })
}

/// Writes a destination as a message of its type.
pub fn encode_any(destination: &Destination) -> Any {
    Any::pack(super::DESTINATION, &encode(destination))
}

/// Writes a destination; what is as by default is left out.
pub fn encode(destination: &Destination) -> wire::Destination {
    let DestinationPolicy { balance, slow_start, outlier, connections, retry_budget, persistence } =
        &destination.policy;
    wire::Destination {
        service: Some(encode_service(&destination.service)),
        balance: (*balance != Balance::default()).then(|| encode_balance(balance)),
        slow_start: slow_start
            .map(|one| wire::SlowStart { window_nanos: nanos(one.window), least_percent: one.least_percent }),
        outlier: outlier.as_ref().map(encode_outlier),
        connections: (*connections != Connections::default()).then_some(wire::Connections {
            connections_max: connections.connections_max,
            pending_max: connections.pending_max,
            requests_max: connections.requests_max,
            requests_per_connection_max: connections.requests_per_connection_max,
        }),
        retry_budget: (*retry_budget != RetryBudget::default()).then_some(wire::RetryBudget {
            percent: retry_budget.percent,
            interval_nanos: nanos(retry_budget.interval),
            min_retries: retry_budget.min_retries,
            min_interval_nanos: nanos(retry_budget.min_interval),
        }),
        persistence: persistence.as_ref().map(persistence::encode),
        needs: Vec::new(),
    }
}

fn encode_balance(balance: &Balance) -> wire::Balance {
    use wire::balance::Kind;
    use wire::hash_key::Kind as Key;
    let key = |key: &HashKey| match key {
        HashKey::Header(name) => Key::Header(name.to_string()),
        HashKey::Cookie(name) => Key::Cookie(name.to_string()),
        HashKey::Query(name) => Key::Query(name.to_string()),
        HashKey::SourceAddress => Key::SourceAddress(()),
    };
    let kind = match balance {
        Balance::LeastRequest => Kind::LeastRequest(()),
        Balance::RoundRobin => Kind::RoundRobin(()),
        Balance::Random => Kind::Random(()),
        Balance::ConsistentHash(keys) => Kind::ConsistentHash(wire::ConsistentHash {
            keys: keys.iter().map(|one| wire::HashKey { kind: Some(key(one)) }).collect(),
        }),
    };
    wire::Balance { kind: Some(kind) }
}

fn encode_outlier(outlier: &Outlier) -> wire::Outlier {
    wire::Outlier {
        consecutive_errors: outlier.consecutive_errors,
        consecutive_gateway_errors: outlier.consecutive_gateway_errors,
        success_deviation_percent: outlier.success_deviation_percent,
        success_requests_min: outlier.success_requests_min,
        success_endpoints_min: outlier.success_endpoints_min,
        interval_nanos: nanos(outlier.interval),
        ejection_nanos: nanos(outlier.ejection),
        ejection_max_nanos: nanos(outlier.ejection_max),
        ejected_percent_max: outlier.ejected_percent_max,
    }
}
