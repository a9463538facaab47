//! Limits on the rate of requests, and faults put in on purpose.
//!
//! A limit with a key or scope of an unknown kind makes its frontend unusable: without the key it would count together
//! what was to be told apart, and left out it would limit nothing.

use std::time::Duration;

use ambit_route::model::{Abort, Delay, Fault, LimitKey, LimitScope, RateLimit};

use super::backends::{encode_service_port, service_port};
use super::filters::{encode_fraction, fraction};
use crate::codec::bounds::{each, nanos, present, status, within};
use crate::codec::{Malformed, Problem};
use crate::proto::ambit::waypoint::v1 as wire;

pub(super) fn rate_limit(message: &wire::RateLimit) -> Result<RateLimit, Malformed> {
    use wire::rate_limit::Scope;
    let scope = match &message.scope {
        Some(Scope::Local(local)) => LimitScope::Local {
            requests: local.requests,
            interval: Duration::from_nanos(local.interval_nanos),
            burst: local.burst,
        },
        Some(Scope::Global(global)) => within("global", global_limit(global))?,
        None => return Err(Malformed::at("scope", Problem::Missing)),
    };
    let keys = each("keys", &message.keys, limit_key)?;
    Ok(RateLimit { name: (&*message.name).into(), keys, scope })
}

fn global_limit(message: &wire::GlobalLimit) -> Result<LimitScope, Malformed> {
    let (service, port) = within("service", service_port(present("service", message.service.as_ref())?))?;
    Ok(LimitScope::Global {
        service,
        port,
        domain: (&*message.domain).into(),
        timeout: Duration::from_nanos(message.timeout_nanos),
        fail_open: message.fail_open,
    })
}

fn limit_key(message: &wire::LimitKey) -> Result<LimitKey, Malformed> {
    use wire::limit_key::Kind;
    Ok(match &message.kind {
        Some(Kind::Caller(())) => LimitKey::Caller,
        Some(Kind::CallerNamespace(())) => LimitKey::CallerNamespace,
        Some(Kind::CallerAddress(())) => LimitKey::CallerAddress,
        Some(Kind::Method(())) => LimitKey::Method,
        Some(Kind::Path(())) => LimitKey::Path,
        Some(Kind::Header(name)) => LimitKey::Header((&**name).into()),
        Some(Kind::Fixed(one)) => LimitKey::Fixed { key: (&*one.key).into(), value: (&*one.value).into() },
        None => return Err(Malformed::at("kind", Problem::Missing)),
    })
}

pub(super) fn encode_rate_limit(limit: &RateLimit) -> wire::RateLimit {
    use wire::limit_key::Kind;
    use wire::rate_limit::Scope;
    let key = |key: &LimitKey| match key {
        LimitKey::Caller => Kind::Caller(()),
        LimitKey::CallerNamespace => Kind::CallerNamespace(()),
        LimitKey::CallerAddress => Kind::CallerAddress(()),
        LimitKey::Method => Kind::Method(()),
        LimitKey::Path => Kind::Path(()),
        LimitKey::Header(name) => Kind::Header(name.to_string()),
        LimitKey::Fixed { key, value } => {
            Kind::Fixed(wire::FixedKey { key: key.to_string(), value: value.to_string() })
        }
    };
    let scope = match &limit.scope {
        LimitScope::Local { requests, interval, burst } => Scope::Local(wire::LocalLimit {
            requests: *requests,
            interval_nanos: nanos(*interval),
            burst: *burst,
        }),
        LimitScope::Global { service, port, domain, timeout, fail_open } => {
            Scope::Global(wire::GlobalLimit {
                service: Some(encode_service_port(service, *port)),
                domain: domain.to_string(),
                timeout_nanos: nanos(*timeout),
                fail_open: *fail_open,
            })
        }
    };
    wire::RateLimit {
        name: limit.name.to_string(),
        keys: limit.keys.iter().map(|one| wire::LimitKey { kind: Some(key(one)) }).collect(),
        scope: Some(scope),
    }
}

pub(super) fn fault(message: &wire::Fault) -> Result<Fault, Malformed> {
    let delay = message.delay.as_ref().map(|one| {
        let pause = Duration::from_nanos(one.pause_nanos);
        within("delay", fraction(one.fraction.as_ref())).map(|fraction| Delay { pause, fraction })
    });
    let abort = message.abort.as_ref().map(|one| within("abort", abort(one)));
    Ok(Fault { delay: delay.transpose()?, abort: abort.transpose()? })
}

fn abort(message: &wire::Abort) -> Result<(Abort, ambit_route::model::Fraction), Malformed> {
    use wire::abort::Kind;
    let abort = match &message.kind {
        Some(Kind::Http(code)) => Abort::Http(status("http", *code)?),
        Some(Kind::Grpc(code)) => Abort::Grpc(*code),
        None => return Err(Malformed::at("kind", Problem::Missing)),
    };
    Ok((abort, fraction(message.fraction.as_ref())?))
}

pub(super) fn encode_fault(fault: &Fault) -> wire::Fault {
    use wire::abort::Kind;
    let abort = |(abort, fraction): &(Abort, _)| wire::Abort {
        kind: Some(match abort {
            Abort::Http(code) => Kind::Http(u32::from(*code)),
            Abort::Grpc(code) => Kind::Grpc(*code),
        }),
        fraction: Some(encode_fraction(*fraction)),
    };
    wire::Fault {
        delay: fault.delay.map(|delay| wire::Delay {
            pause_nanos: nanos(delay.pause),
            fraction: Some(encode_fraction(delay.fraction)),
        }),
        abort: fault.abort.as_ref().map(abort),
    }
}
