//! The newest trust bundle of each trust domain: what one identity's renewal brought holds for all of them (G19).
//!
//! Requests of several identities are under way at once, and their answers come in any order. The newest is the one that
//! was asked for last.
//!
//! Also how often a peer of an unknown root may make a node ask its CA whether there is a newer one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ambit_types::TrustDomain;
use rustls::pki_types::CertificateDer;

/// Between two requests on account of unknown roots: anybody can show one, so the CA must not pay for each.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// Bundles by trust domain; as many as this node's own identities have.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    of: BTreeMap<TrustDomain, Bundle>,
    /// Requests so far.
    requests: u64,
}

#[derive(Debug, Default)]
struct Bundle {
    /// In the order the CA sent them; none until it has.
    roots: Vec<CertificateDer<'static>>,
    /// The newest request that was answered with them.
    request: Option<Request>,
    asked: Option<Instant>,
}

/// One request to the CA; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request(u64);

/// What the bundle of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// Another one than was in force, and it is in force now.
    New,
    /// The one that is in force.
    Same,
    /// Another one than is in force, which was asked for later: it may be older, and is not taken.
    Overtaken,
}

impl Bundles {
    /// The CA is about to be asked.
    pub(super) fn begin(&mut self) -> Request {
        self.requests += 1;
        Request(self.requests)
    }

    /// Takes the bundle of the answer to a request.
    ///
    /// The first one is new: certificates of an earlier process may be in use with another. An answer that was overtaken
    /// by the answer to a later request does not count: a root that came meanwhile must not go again.
    pub(super) fn learn(
        &mut self,
        domain: &TrustDomain,
        roots: &[CertificateDer<'static>],
        request: Request,
    ) -> Learned {
        let bundle = self.of.entry(domain.clone()).or_default();
        if bundle.roots == roots {
            bundle.request = bundle.request.max(Some(request));
            return Learned::Same;
        }
        if bundle.request > Some(request) {
            return Learned::Overtaken;
        }
        bundle.roots = roots.to_vec();
        bundle.request = Some(request);
        Learned::New
    }

    /// The newest bundle of a trust domain, if the CA has sent one.
    pub(super) fn in_force(&self, domain: &TrustDomain) -> Option<&[CertificateDer<'static>]> {
        self.of.get(domain).map(|bundle| bundle.roots.as_slice()).filter(|roots| !roots.is_empty())
    }

    /// Whether the CA may be asked at `now` because a root was unknown; if so, it counts as asked.
    pub(super) fn may_ask(&mut self, domain: &TrustDomain, now: Instant) -> bool {
        let bundle = self.of.entry(domain.clone()).or_default();
        let due = bundle.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_INTERVAL);
        if due {
            bundle.asked = Some(now);
        }
        due
    }
}
