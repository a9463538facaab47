//! What is in force, for those who sign, and whether it was confirmed lately enough to sign with.
//!
//! It is put in force elsewhere. While a rotation goes on, it notes which proxy was answered under which generation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::{Identity, Str};
use tokio::sync::watch;

use crate::ca::ledger::Ledger;
use crate::ca::rotation::{Phase, Times};
use crate::ca::sign::Authority;

/// Nothing can be signed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate authority was not confirmed for {since:?}, so nothing is signed; is the API server away?"
)]
pub struct Stale {
    /// For how long.
    pub since: Duration,
}

/// What signs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signer(Arc<InForce>);

#[derive(Debug)]
struct InForce {
    authority: watch::Sender<Arc<Authority>>,
    /// When it was read last and for how long that holds; none if nobody else can change it.
    confirmed: Option<(Mutex<Instant>, Duration)>,
    times: Times,
    ledger: Mutex<Ledger>,
}

impl Signer {
    pub(super) fn new(authority: Arc<Authority>, times: Times, fresh: Option<Duration>) -> Self {
        let authority = watch::Sender::new(authority);
        let confirmed = fresh.map(|fresh| (Mutex::new(clock::monotonic()), fresh));
        Self(Arc::new(InForce { authority, confirmed, times, ledger: Mutex::default() }))
    }

    /// The authority in force, whether it was confirmed lately or not: for the server's own certificate.
    pub fn current(&self) -> Arc<Authority> {
        self.0.authority.borrow().clone()
    }

    /// The authority in force, and word of others.
    pub fn changes(&self) -> watch::Receiver<Arc<Authority>> {
        self.0.authority.subscribe()
    }

    /// A proxy asks for a certificate: the authority to sign it.
    ///
    /// # Errors
    /// [`Stale`] if another one may be in force by now.
    pub fn asked(&self, proxy: &Str, identity: &Identity) -> Result<Arc<Authority>, Stale> {
        let authority = self.current();
        if authority.state().phase != Phase::Idle {
            self.ledger().asked(proxy, identity, clock::unix_seconds());
        }
        if let Some((at, fresh)) = &self.0.confirmed {
            let at = *at.lock().unwrap_or_else(PoisonError::into_inner);
            let since = clock::monotonic().saturating_duration_since(at);
            if since > *fresh {
                return Err(Stale { since });
            }
        }
        Ok(authority)
    }

    /// It is answered with a certificate of `authority`.
    pub fn answered(&self, authority: &Authority, proxy: &Str, identity: &Identity) {
        let state = authority.state();
        if state.phase != Phase::Idle {
            let now = clock::unix_seconds();
            self.ledger().answered(proxy, identity, state.counting(now, self.0.times), now);
        }
    }

    /// A call was refused that may have been of one of these proxies.
    pub fn refused(&self, proxies: &[Str]) {
        let now = clock::unix_seconds();
        let mut ledger = self.ledger();
        proxies.iter().for_each(|proxy| ledger.refused(proxy, now));
    }

    /// A call was turned away without a look at who called.
    pub fn disturbed(&self) {
        self.ledger().disturbed(clock::unix_seconds());
    }

    /// Whether what is in force was read so lately that no other replica can have taken more than one step since.
    pub(super) fn is_fresh(&self) -> bool {
        self.0.confirmed.as_ref().is_none_or(|(at, fresh)| {
            let at = *at.lock().unwrap_or_else(PoisonError::into_inner);
            clock::monotonic().saturating_duration_since(at) <= *fresh
        })
    }

    pub(super) fn confirm(&self, at: Instant) {
        if let Some((confirmed, _)) = &self.0.confirmed {
            *confirmed.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another authority in force.
    pub(super) fn put(&self, authority: Authority) {
        self.0.authority.send_replace(Arc::new(authority));
    }
}
