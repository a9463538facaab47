//! When a request is sent again.

use std::time::Duration;

use ambit_route::model::limits::RETRIES_MAX;
use ambit_route::model::{Backoff, Conditions, Consent, Retry};

use crate::codec::bounds::{each, nanos, number, status};
use crate::codec::{Malformed, Notes};
use crate::proto::ambit::waypoint::v1 as wire;

/// Reads a retry policy; consent of an unknown kind is the least there is.
pub(super) fn decode(message: &wire::Retry, notes: &mut Notes) -> Result<Retry, Malformed> {
    let consent = match wire::Consent::try_from(message.consent) {
        Ok(wire::Consent::Idempotent) => Consent::Idempotent,
        Ok(wire::Consent::AnyMethod) => Consent::AnyMethod,
        Err(_) => notes.unknown("retry.consent", message.consent, Consent::Idempotent),
    };
    let backoff = message.backoff.as_ref().map(|one| Backoff {
        base: Duration::from_nanos(one.base_nanos),
        max: Duration::from_nanos(one.max_nanos),
    });
    Ok(Retry {
        attempts: number("attempts", message.attempts, (0, RETRIES_MAX))?,
        conditions: message.conditions.as_ref().map(conditions).unwrap_or_default(),
        codes: each("codes", &message.codes, |code| status("", *code))?,
        grpc_codes: message.grpc_codes.clone(),
        backoff: backoff.unwrap_or_default(),
        consent,
    })
}

fn conditions(message: &wire::RetryConditions) -> Conditions {
    Conditions {
        connect_failure: message.connect_failure,
        refused_stream: message.refused_stream,
        reset: message.reset,
        try_timeout: message.try_timeout,
        gateway_error: message.gateway_error,
        server_error: message.server_error,
    }
}

pub(super) fn encode(retry: &Retry) -> wire::Retry {
    let Conditions { connect_failure, refused_stream, reset, try_timeout, gateway_error, server_error } =
        retry.conditions;
    let conditions = wire::RetryConditions {
        connect_failure,
        refused_stream,
        reset,
        try_timeout,
        gateway_error,
        server_error,
    };
    let Backoff { base, max } = retry.backoff;
    let backoff = wire::Backoff { base_nanos: nanos(base), max_nanos: nanos(max) };
    let consent = match retry.consent {
        Consent::Idempotent => wire::Consent::Idempotent,
        Consent::AnyMethod => wire::Consent::AnyMethod,
    };
    wire::Retry {
        attempts: retry.attempts,
        conditions: (retry.conditions != Conditions::default()).then_some(conditions),
        codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
        grpc_codes: retry.grpc_codes.clone(),
        backoff: (retry.backoff != Backoff::default()).then_some(backoff),
        consent: consent.into(),
    }
}
