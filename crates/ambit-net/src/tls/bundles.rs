//! The newest trust bundle of each trust domain: what one identity's renewal brought holds for all of them (G19).
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
pub(super) struct Bundles(BTreeMap<TrustDomain, Bundle>);

#[derive(Debug, Default)]
struct Bundle {
    /// In the order the CA sent them; none until it has.
    roots: Vec<CertificateDer<'static>>,
    asked: Option<Instant>,
}

impl Bundles {
    /// Takes the bundle of an answer; whether it differs from the one in force.
    ///
    /// So does the first one: certificates of an earlier process may be in use with another.
    pub(super) fn learn(&mut self, domain: &TrustDomain, roots: &[CertificateDer<'static>]) -> bool {
        let bundle = self.0.entry(domain.clone()).or_default();
        let is_new = bundle.roots != roots;
        if is_new {
            bundle.roots = roots.to_vec();
        }
        is_new
    }

    /// The newest bundle of a trust domain, if the CA has sent one.
    pub(super) fn in_force(&self, domain: &TrustDomain) -> Option<&[CertificateDer<'static>]> {
        self.0.get(domain).map(|bundle| bundle.roots.as_slice()).filter(|roots| !roots.is_empty())
    }

    /// Whether the CA may be asked at `now` because a root was unknown; if so, it counts as asked.
    pub(super) fn may_ask(&mut self, domain: &TrustDomain, now: Instant) -> bool {
        let bundle = self.0.entry(domain.clone()).or_default();
        let due = bundle.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_INTERVAL);
        if due {
            bundle.asked = Some(now);
        }
        due
    }
}
