//! The waypoint: HTTP routing and authorization for services whose owners ask for it.
//!
//! HBONE in ([`terminate`]), one pass through each request ([`request`]), HBONE out to the endpoint's own proxy
//! ([`upstream`]), and one record of it ([`observe`]). What it goes by is one immutable [`State`], loaded once a
//! request. It decides nothing by itself: who may call is `ambit-policy`'s, where a request goes `ambit-route`'s.
//! It never forwards what it could not evaluate, and serves no service that is not bound to it.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod filters;
pub mod hooks;
mod limiters;
pub mod limits;
pub mod observe;
mod random;
pub mod request;
pub mod state;
pub mod stream;
pub mod terminate;
pub mod upstream;

use std::sync::Arc;

use ambit_net::tls::store::CertificateStore;
use ambit_runtime::drain::Drain;
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use hooks::Hooks;
pub use limits::Limits;
pub use observe::Observe;
pub use state::{Applied, Own, Policies, State};

use upstream::Upstream;

/// One waypoint: what it goes by, what it may use, and the connections it keeps.
#[derive(Debug)]
pub struct Waypoint {
    state: ArcSwap<State>,
    /// Certificates of its own identity.
    pub certificates: CertificateStore,
    /// Who is asked about signatures and by CUSTOM policies.
    pub hooks: Hooks,
    /// Bounds of everything.
    pub limits: Limits,
    /// Records and metrics.
    pub observe: Arc<Observe>,
    /// Ends tunnels in order.
    pub drain: Drain,
    upstream: Upstream,
    limiters: limiters::Limiters,
    /// Requests under way, over all clients.
    places: Arc<Semaphore>,
    /// TLS handshakes under way.
    handshakes: Arc<Semaphore>,
    /// Copies of requests under way.
    mirrors: Arc<Semaphore>,
}

impl Waypoint {
    /// A waypoint that goes by `state`; to be called inside a runtime.
    pub fn new(
        state: State,
        certificates: CertificateStore,
        hooks: Hooks,
        limits: Limits,
        observe: Arc<Observe>,
        drain: Drain,
    ) -> Arc<Self> {
        let upstream = Upstream::new(&limits);
        let places = Arc::new(Semaphore::new(limits.requests_max));
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
        let mirrors = Arc::new(Semaphore::new(limits.mirrors_max));
        Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            certificates,
            hooks,
            limits,
            observe,
            drain,
            upstream,
            limiters: limiters::Limiters::default(),
            places,
            handshakes,
            mirrors,
        })
    }

    /// What it goes by now.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Goes by another state from now on. Requests under way end by the old one; connections to endpoints that are
    /// gone take no new requests.
    pub fn publish(&self, state: State) {
        let state = Arc::new(state);
        self.state.store(state.clone());
        self.upstream.reconcile(&state);
    }
}
