//! How a client stays with the endpoint it first had (GEP-1619).
//!
//! The mark a client carries names no pod: it holds a number that stands for one, when it was issued, and a proof
//! that we made it for this rule, or for this service. Making proofs takes a secret key, which the caller has; here it
//! is a function from bytes to a keyed hash. Where the endpoint is gone, another is chosen and a new mark issued; that
//! is the caller's.

use std::fmt;

use ambit_types::{ServiceKey, Uid};

use crate::model::{CookieLife, Persistence, PersistenceCarrier};
use crate::request::{Headers, Request};
use crate::rule::RuleId;

mod stay;
#[cfg(test)]
mod tests;

pub use stay::{Held, Stay};

/// A keyed hash, such as HMAC with a key all replicas of a waypoint share.
pub type Mac<'a> = &'a dyn Fn(&[u8]) -> [u8; 16];

/// What marks are made and read with.
#[derive(Clone, Copy)]
pub struct Seal<'a> {
    /// The keyed hash.
    pub mac: Mac<'a>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Within what a mark counts: it means nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// A rule with all its backends.
    Rule(&'a RuleId),
    /// A port of a service, whatever rule leads there.
    Service(&'a ServiceKey, u16),
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "rule\0{rule}"),
            Self::Service(service, port) => write!(f, "service\0{service}:{port}"),
        }
    }
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session {
    /// The endpoint, see [`tag`].
    pub tag: u64,
    /// When the session began, in seconds since 1970.
    pub began: u64,
}

/// The number that stands for an endpoint of a service's port in marks. It tells nothing about the endpoint without
/// the key, and is another one where the same pod is behind another service.
pub fn tag((service, port): (&ServiceKey, u16), endpoint: &Uid, mac: Mac<'_>) -> u64 {
    let hash = mac(format!("endpoint\0{service}:{port}\0{}", endpoint.as_str()).as_bytes());
    u64::from_be_bytes(hash[..8].try_into().expect("eight of sixteen bytes"))
}

impl Session {
    /// The mark for a client: only characters that cookies and headers may have.
    pub fn mark(&self, scope: &Scope<'_>, mac: Mac<'_>) -> String {
        let proof = u128::from_be_bytes(self.proof(scope, mac));
        format!("{:016x}.{:x}.{proof:032x}", self.tag, self.began)
    }

    /// Reads a mark; none if it is not ours, of another scope, or too old. `now` is in seconds since 1970.
    pub fn read(
        mark: &[u8],
        scope: &Scope<'_>,
        persistence: &Persistence,
        now: u64,
        mac: Mac<'_>,
    ) -> Option<Self> {
        let mut parts = std::str::from_utf8(mark).ok()?.split('.');
        let (tag, began, proof) = (parts.next()?, parts.next()?, parts.next()?);
        let session = Self { tag: hex(tag, 16)?, began: hex(began, 16)? };
        let given = (u64_of(proof, 0)?, u64_of(proof, 16)?);
        if parts.next().is_some() || proof.len() != 32 {
            return None;
        }
        let made = session.proof(scope, mac);
        let made = u128::from_be_bytes(made);
        // One comparison of whole numbers, so that its time says nothing about where they differ.
        let is_ours = u128::from(given.0) << 64 | u128::from(given.1) == made;
        let is_young = persistence
            .absolute_timeout
            .is_none_or(|most| now.saturating_sub(session.began) < most.as_secs().max(1));
        (is_ours && is_young).then_some(session)
    }

    fn proof(&self, scope: &Scope<'_>, mac: Mac<'_>) -> [u8; 16] {
        // The rule's place is not a part of it when the rule has a name: such a session outlives a rule put before.
        let text = format!("session\0{scope}\0{:x}\0{:x}", self.tag, self.began);
        mac(text.as_bytes())
    }
}

/// The mark that a request carries.
pub fn carried<'a, H: Headers + ?Sized>(
    persistence: &'a Persistence,
    request: &'a Request<'_, H>,
) -> Option<&'a [u8]> {
    match &persistence.carrier {
        PersistenceCarrier::Cookie { .. } => request.cookie(&persistence.name),
        PersistenceCarrier::Header => request.headers.lines(&persistence.name).next(),
    }
}

/// The value of `set-cookie` that hands a mark to a browser; none if a header carries it, whose value is the mark
/// alone.
///
/// `is_https` says whether the client speaks TLS itself: a cookie marked `Secure` would never come back over plain
/// HTTP. `now` is in seconds since 1970.
pub fn set_cookie(
    persistence: &Persistence,
    session: &Session,
    mark: &str,
    is_https: bool,
    now: u64,
) -> Option<String> {
    let (path, life) = match &persistence.carrier {
        PersistenceCarrier::Cookie { path, life } => (path, *life),
        PersistenceCarrier::Header => return None,
    };
    let left = persistence.absolute_timeout.map(|most| {
        let age = now.saturating_sub(session.began);
        most.as_secs().saturating_sub(age)
    });
    let age = match life {
        CookieLife::Permanent => left.map(|left| format!("; Max-Age={left}")).unwrap_or_default(),
        CookieLife::Session => String::new(),
    };
    let secure = if is_https { "; Secure" } else { "" };
    Some(format!("{}={mark}; Path={path}{age}; HttpOnly; SameSite=Strict{secure}", persistence.name))
}

/// A hexadecimal number of at most so many digits.
fn hex(text: &str, most: usize) -> Option<u64> {
    let is_digits = !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn u64_of(text: &str, from: usize) -> Option<u64> {
    hex(text.get(from..from + 16)?, 16)
}
