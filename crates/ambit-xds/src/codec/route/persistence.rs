//! How a client stays with an endpoint.

use ambit_route::model::{CookieLife, Persistence, PersistenceCarrier};

use crate::codec::bounds::{maybe_nanos, maybe_time};
use crate::codec::{Malformed, Notes, Problem, required};
use crate::proto::ambit::waypoint::v1 as wire;
use wire::persistence::Carrier;

/// Reads session persistence; a cookie of an unknown life ends with its browser.
pub(in crate::codec) fn decode(
    message: &wire::Persistence,
    notes: &mut Notes,
) -> Result<Persistence, Malformed> {
    let carrier = match &message.carrier {
        Some(Carrier::Cookie(cookie)) => {
            let life = match wire::CookieLife::try_from(cookie.life) {
                Ok(wire::CookieLife::Session) => CookieLife::Session,
                Ok(wire::CookieLife::Permanent) => CookieLife::Permanent,
                Err(_) => notes.unknown("persistence.cookie.life", cookie.life, CookieLife::Session),
            };
            PersistenceCarrier::Cookie { path: (&*cookie.path).into(), life }
        }
        Some(Carrier::Header(())) => PersistenceCarrier::Header,
        None => return Err(Malformed::at("carrier", Problem::Missing)),
    };
    Ok(Persistence {
        name: required("name", &message.name)?.into(),
        carrier,
        absolute_timeout: maybe_time(message.absolute_timeout_nanos),
    })
}

/// Writes session persistence.
pub(in crate::codec) fn encode(persistence: &Persistence) -> wire::Persistence {
    let carrier = match &persistence.carrier {
        PersistenceCarrier::Cookie { path, life } => {
            let life = match life {
                CookieLife::Session => wire::CookieLife::Session,
                CookieLife::Permanent => wire::CookieLife::Permanent,
            };
            Carrier::Cookie(wire::Cookie { path: path.to_string(), life: life.into() })
        }
        PersistenceCarrier::Header => Carrier::Header(()),
    };
    wire::Persistence {
        name: persistence.name.to_string(),
        carrier: Some(carrier),
        absolute_timeout_nanos: maybe_nanos(persistence.absolute_timeout),
    }
}
