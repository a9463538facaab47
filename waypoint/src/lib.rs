//! The waypoint: HTTP routing and authorization for services whose owners ask for it.
//!
//! HBONE in ([`terminate`]), one pass through each request ([`request`]), HBONE out to the endpoint's own proxy
//! ([`upstream`]), and one record of it ([`observe`]). What it goes by is one immutable [`State`], loaded once a
//! request. It decides nothing by itself: who may call is `ambit-policy`'s, where a request goes `ambit-route`'s.
//! It never forwards what it could not evaluate, and serves no service that is not bound to it.
//!
//! The program around it: [`config`] is read, [`app`] connects the parts, [`discovery`] makes each state, [`admin`]
//! answers people.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod admin;
pub mod app;
mod attend;
mod calls;
pub mod config;
pub mod discovery;
pub mod external;
pub mod filters;
mod grpc;
pub mod hooks;
pub mod keys;
mod limiters;
pub mod limits;
pub mod observe;
mod outbox;
mod random;
pub mod request;
pub mod sessions;
pub mod state;
pub mod stream;
pub mod terminate;
pub mod upstream;

use std::net::IpAddr;
use std::sync::Arc;

use ambit_net::tls::store::CertificateStore;
use ambit_runtime::drain::Drain;
use ambit_types::Identity;
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use hooks::Hooks;
pub use limits::Limits;
pub use observe::Observe;
pub use state::{Applied, Own, Policies, State};

use request::places::Places;
use terminate::relays::Relays;
use terminate::shares::Shares;
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
    limiters: Arc<limiters::Limiters>,
    /// Requests under way, over all clients.
    places: Arc<Places>,
    /// TLS handshakes under way.
    handshakes: Arc<Semaphore>,
    /// The same by where they come from.
    sources: Shares<IpAddr>,
    /// Tunnels by who has them.
    peers: Shares<Identity>,
    /// Connections that are copied unread.
    relays: Arc<Relays>,
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
        let each = limits.requests_per_caller_max.unwrap_or_else(|| (limits.requests_max / 2).max(1));
        let places = Places::new(limits.requests_max, each);
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
        let mirrors = Arc::new(Semaphore::new(limits.mirrors_max));
        let sources = Shares::new(limits.source_handshakes_max);
        let peers = Shares::new(limits.peer_tunnels_max);
        let waypoint = Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            certificates,
            hooks,
            limits,
            observe,
            drain,
            upstream,
            limiters: limiters::Limiters::swept(),
            places,
            handshakes,
            sources,
            peers,
            relays: Arc::default(),
            mirrors,
        });
        waypoint.upstream.publish(&waypoint.state.load_full(), || ());
        if let Some(keys) = &waypoint.hooks.keys {
            keys.attach(&waypoint);
            keys.publish(&waypoint.state.load().policies);
        }
        waypoint
    }

    /// What it goes by now.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Goes by another state from now on. Requests under way end by the old one; connections to endpoints that are
    /// gone take no new requests; connections that are copied unread are decided again. To be called inside a runtime.
    pub fn publish(&self, state: State) {
        let state = Arc::new(state);
        if let Some(keys) = &self.hooks.keys {
            // Before the rules are in force, so that no request meets one whose keys nobody fetches.
            keys.publish(&state.policies);
        }
        self.upstream.publish(&state, || self.state.store(state.clone()));
        self.limiters.retain(&state.routes);
        self.relays.review();
    }
}
