//! Connections that are copied unread, decided again whenever the waypoint goes by another state, and cut once they
//! would not be allowed any more.
//!
//! Requests are decided one by one. A TCP or TLS connection and one that was upgraded to another protocol were
//! decided once, by a state that may be long gone. Of an upgraded connection only its request's target is kept: where
//! what applies has changed, and it takes headers, a token or somebody's answer to decide, the client has to come
//! again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_policy::http::{self as policy, Attribute, Decision};
use ambit_policy::normalize::{Received, normalize};
use ambit_runtime::tasks;
use ambit_types::Reason;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Uri};
use tokio_util::sync::CancellationToken;

use super::Call;
use crate::State;
use crate::state::Applied;

/// Connections decided without a pause.
const UNIT: usize = 64;

/// Why a connection may not go on, or not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) reason: Reason,
    pub(crate) policy: Option<String>,
}

/// What a connection that is copied is decided by.
#[derive(Debug)]
pub(crate) enum Facts {
    /// A connection passed through.
    Connection {
        /// The server name of its TLS greeting.
        name: Option<String>,
        /// Its port declares nothing, so that it is read as HTTP as soon as anything needs that.
        is_undeclared: bool,
    },
    /// One that was upgraded.
    Upgraded(Box<Upgraded>),
}

/// What is kept of the request that asked for another protocol.
#[derive(Debug)]
pub(crate) struct Upgraded {
    method: Method,
    uri: Uri,
    hosts: Vec<HeaderValue>,
    /// What allowed it.
    applied: Vec<Arc<Applied>>,
}

impl Upgraded {
    /// What is to be kept of a request that is judged by `state`; none if the waypoint does not serve its target.
    pub(crate) fn new<B>(asked: &Request<B>, call: &Call, state: &State) -> Option<Self> {
        Some(Self {
            method: asked.method().clone(),
            uri: asked.uri().clone(),
            hosts: asked.headers().get_all(HOST).iter().take(2).cloned().collect(),
            applied: state.governing(&call.target)?.iter().cloned().collect(),
        })
    }

    /// Whether nothing that allowed it has changed.
    fn is_as_before(&self, now: &[&Arc<Applied>]) -> bool {
        let is_same = |(a, b): (&Arc<Applied>, &&Arc<Applied>)| Arc::ptr_eq(a, b) || a.decides_as(b);
        self.applied.len() == now.len() && self.applied.iter().zip(now).all(is_same)
    }

    fn is_allowed_by(&self, applied: &Applied, port: u16, call: &Call) -> bool {
        let is_kept = |attribute: Attribute| {
            let is_of_headers = matches!(attribute, Attribute::Header(_))
                || (attribute == Attribute::RemoteIp && applied.trusted_hops > 0);
            !is_of_headers && !attribute.needs_token()
        };
        let mut conditions = applied.policies.policies().flat_map(|policy| policy.conditions());
        if !applied.tokens.rules().is_empty() || !conditions.all(|condition| is_kept(condition.attribute())) {
            return false;
        }
        let hosts: Vec<&[u8]> = self.hosts.iter().map(HeaderValue::as_bytes).collect();
        let received = Received {
            method: self.method.as_str().as_bytes(),
            scheme: self.uri.scheme_str().map(str::as_bytes),
            authority: self.uri.authority().map(|authority| authority.as_str().as_bytes()),
            hosts: &hosts,
            path: self.uri.path_and_query().map(|path| path.as_str().as_bytes()),
            protocol: None,
        };
        let Ok(target) = normalize(&received, &applied.normalize) else { return false };
        let headers: Vec<(&str, &[u8])> = Vec::new();
        let remote = Some(call.peer.address.ip());
        let request = policy::Request { target: &target, headers: &headers, remote, token: None };
        let facts = policy::Facts::of_request(connection(call, port), request);
        policy::decide(&applied.policies, &facts, &[]).is_allow()
    }
}

/// What is known of a connection as such, to a port of a service.
fn connection(call: &Call, port: u16) -> ambit_policy::Facts<'_> {
    let (peer, address) = (&call.peer, call.target.address());
    ambit_policy::Facts::new(Some(&peer.identity), peer.address.ip(), address.ip(), port)
}

/// Decides about a connection that is to be copied, or goes on being copied. `tell` hears every decision of policies.
///
/// # Errors
/// Why it may not.
pub(crate) fn decide(
    call: &Call,
    facts: &Facts,
    state: &State,
    mut tell: impl FnMut(&Decision),
) -> Result<(), Denied> {
    let governing =
        state.governing(&call.target).ok_or(Denied { reason: Reason::WaypointNotServing, policy: None })?;
    match facts {
        Facts::Connection { name, is_undeclared } => {
            if *is_undeclared && governing.iter().any(|applied| applied.needs_http()) {
                return Err(Denied { reason: Reason::PolicyUnevaluable, policy: None });
            }
            for (applied, port) in governing.judged() {
                let facts = policy::Facts::of_connection(connection(call, port), name.as_deref());
                let decision = policy::decide(&applied.policies, &facts, &[]);
                tell(&decision);
                if !decision.is_allow() {
                    // Nobody is asked about connections: an authorizer that would have to be counts as unavailable.
                    let reason = decision.reason.unwrap_or(Reason::ExtAuthzUnavailable);
                    return Err(Denied { reason, policy: decision.policy.map(|key| key.to_string()) });
                }
            }
            Ok(())
        }
        Facts::Upgraded(request) => {
            let now: Vec<&Arc<Applied>> = governing.iter().collect();
            let is_allowed = request.is_as_before(&now)
                || governing.judged().all(|(applied, port)| request.is_allowed_by(applied, port, call));
            is_allowed.then_some(()).ok_or(Denied { reason: Reason::PolicyChanged, policy: None })
        }
    }
}

/// All connections that are copied.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    open: Mutex<BTreeMap<u64, Arc<Relay>>>,
    next: AtomicU64,
    /// A review has been asked for and has not begun.
    is_due: AtomicBool,
}

#[derive(Debug)]
struct Relay {
    call: Arc<Call>,
    facts: Facts,
    cut: CancellationToken,
}

/// A connection's place among those that are looked after; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Entered {
    relays: Arc<Relays>,
    id: u64,
    relay: Arc<Relay>,
}

impl Relays {
    /// Looks after a connection from now on. It has to be decided afterwards, so that no change is missed.
    pub(crate) fn enter(self: &Arc<Self>, call: Arc<Call>, facts: Facts) -> Entered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let relay = Arc::new(Relay { call, facts, cut: CancellationToken::new() });
        self.lock().insert(id, relay.clone());
        Entered { relays: self.clone(), id, relay }
    }

    /// Decides all of them again, beside the caller's work.
    pub(crate) fn review(self: &Arc<Self>) {
        if self.lock().is_empty() || self.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let relays = self.clone();
        tasks::spawn("waypoint-relays", async move { relays.decide_all().await });
    }

    async fn decide_all(&self) {
        // Before the state is read: whoever changes it from here on asks for another review.
        self.is_due.store(false, Ordering::Release);
        let open: Vec<Arc<Relay>> = self.lock().values().cloned().collect();
        for unit in open.chunks(UNIT) {
            for relay in unit {
                relay.review();
            }
            tokio::task::yield_now().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Relay>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    fn review(&self) {
        let state = self.call.waypoint.state();
        let Err(denied) = decide(&self.call, &self.facts, &state, |_| {}) else { return };
        if !self.cut.is_cancelled() {
            tracing::debug!(conn = %self.call.id, code = denied.reason.code(), "a live connection is cut");
            metrics::counter!("ambit_waypoint_connections_cut_total", "code" => denied.reason.code())
                .increment(1);
            self.cut.cancel();
        }
    }
}

impl Entered {
    /// Decides once more by the state of now; for who entered after it was decided.
    pub(crate) fn review(&self) {
        self.relay.review();
    }

    /// What it is decided by.
    pub(crate) fn facts(&self) -> &Facts {
        &self.relay.facts
    }

    /// Cancelled when it has to end.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.relay.cut
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.relays.lock().remove(&self.id);
    }
}
