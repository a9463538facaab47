//! A rule: what it matches, and all that follows.

use ambit_route::model::limits::MATCHES_MAX;
use ambit_route::model::{Rule, Timeouts};

use super::{Match, backends, filters, persistence, policy, retry};
use crate::codec::bounds::{each, each_of, maybe, maybe_nanos, maybe_time, within};
use crate::codec::{Malformed, Notes};
use crate::proto::ambit::waypoint::v1 as wire;

/// Reads a rule; one without anything but matches need not be there.
pub(in crate::codec) fn decode<M: Match>(
    matches: &[M::Wire],
    rule: Option<&wire::Rule>,
    notes: &mut Notes,
) -> Result<Rule<M>, Malformed> {
    let matches = each_of("matches", matches, MATCHES_MAX, M::decode)?;
    match rule {
        Some(rule) => within("rule", rest(matches, rule, notes)),
        None => Ok(Rule { matches, ..Rule::default() }),
    }
}

fn rest<M>(matches: Vec<M>, message: &wire::Rule, notes: &mut Notes) -> Result<Rule<M>, Malformed> {
    let retry = message.retry.as_ref();
    let persistence = message.persistence.as_ref();
    let fault = message.fault.as_ref();
    Ok(Rule {
        name: maybe(message.name.as_ref()),
        matches,
        filters: filters::decode(&message.filters, notes)?,
        backends: backends::decode(&message.backends, notes)?,
        timeouts: message.timeouts.as_ref().map(timeouts).unwrap_or_default(),
        retry: retry.map(|one| within("retry", retry::decode(one, notes))).transpose()?,
        persistence: persistence
            .map(|one| within("persistence", persistence::decode(one, notes)))
            .transpose()?,
        rate_limits: each("rate_limits", &message.rate_limits, policy::rate_limit)?,
        fault: fault.map(|one| within("fault", policy::fault(one))).transpose()?,
    })
}

fn timeouts(message: &wire::Timeouts) -> Timeouts {
    Timeouts {
        request: maybe_time(message.request_nanos),
        backend_request: maybe_time(message.backend_request_nanos),
        idle: maybe_time(message.idle_nanos),
    }
}

/// Writes all of a rule but its matches; nothing if that is all it has.
pub(in crate::codec) fn encode<M>(rule: &Rule<M>) -> Option<wire::Rule> {
    let message = wire::Rule {
        name: rule.name.as_ref().map(ToString::to_string),
        filters: filters::encode(&rule.filters),
        backends: backends::encode(&rule.backends),
        timeouts: encode_timeouts(&rule.timeouts),
        retry: rule.retry.as_ref().map(retry::encode),
        persistence: rule.persistence.as_ref().map(persistence::encode),
        rate_limits: rule.rate_limits.iter().map(policy::encode_rate_limit).collect(),
        fault: rule.fault.as_ref().map(policy::encode_fault),
    };
    (message != wire::Rule::default()).then_some(message)
}

fn encode_timeouts(timeouts: &Timeouts) -> Option<wire::Timeouts> {
    let message = wire::Timeouts {
        request_nanos: maybe_nanos(timeouts.request),
        backend_request_nanos: maybe_nanos(timeouts.backend_request),
        idle_nanos: maybe_nanos(timeouts.idle),
    };
    (*timeouts != Timeouts::default()).then_some(message)
}
