//! A port of a service as requests are sent to it: its endpoints of now, and what is known of them over time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ambit_route::balance::{self, Ask, Balancer, Standing, View as Standings};
use ambit_route::limit::{self, Overflow, UnderWay, Way};
use ambit_route::model::Retry;
use ambit_route::model::{Balance, DestinationPolicy};
use ambit_route::outlier::{Health, Tracker};
use ambit_route::retry::{Attempt, Budget, Next, Stop, next};
use ambit_runtime::clock;
use ambit_state::ServiceEntry;
use ambit_types::service::{HealthPolicy, LoadBalancing};
use ambit_types::workload::Health as Readiness;
use ambit_types::{AppProtocol, ServiceKey, Workload};
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::endpoint::Spared;
use super::{DestinationKey, Endpoint, lock};
use crate::State;
use crate::state::place;

mod staying;

/// The endpoints of now.
#[derive(Debug)]
pub(crate) struct View {
    entry: Option<Arc<ServiceEntry>>,
    workload: Option<Arc<Workload>>,
    pub(crate) policy: Arc<DestinationPolicy>,
    endpoints: Vec<Arc<Endpoint>>,
    balancer: Balancer,
}

/// What is sent to.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) key: DestinationKey,
    view: ArcSwap<View>,
    tracker: Mutex<Option<Tracker>>,
    budget: Mutex<Budget>,
    turn: AtomicU64,
    counts: Arc<Counts>,
}

/// What is under way to a destination.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    /// A connection has become free, or its place.
    freed: Notify,
}

/// A request's place among those under way; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Ticket {
    counts: Arc<Counts>,
    endpoint: Arc<Endpoint>,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held(Arc<Counts>);

/// The place of a connection that is passed through unread, and its share in the load of its endpoint; dropping it
/// gives both back.
#[derive(Debug)]
pub(crate) struct Seat {
    endpoint: Arc<Endpoint>,
    _held: Held,
}

impl Destination {
    /// A destination that is used for the first time.
    pub(crate) fn new(key: DestinationKey, state: &State) -> Self {
        let now = clock::monotonic();
        let view = View::new(&key, state, None, now);
        let tracker = view.policy.outlier.map(|outlier| view.track(Tracker::new(outlier, now)));
        Self {
            budget: Mutex::new(Budget::new(view.policy.retry_budget, now)),
            tracker: Mutex::new(tracker),
            view: ArcSwap::from_pointee(view),
            turn: AtomicU64::new(0),
            counts: Arc::default(),
            key,
        }
    }

    /// The service, if it is one's.
    pub(crate) fn service(&self) -> Option<&ServiceKey> {
        match &self.key {
            DestinationKey::Service(key, _) => Some(key),
            DestinationKey::Workload(..) => None,
        }
    }

    /// The endpoints of now. They follow what is published and nothing else: a request that ends by an older state
    /// does not bring back what that knew.
    pub(crate) fn view(&self, _: &State) -> Arc<View> {
        self.view.load_full()
    }

    /// Goes by a state from now on; answers with what is not its endpoint any more. Only for who sees to it that states
    /// come in order, one at a time.
    pub(super) fn refresh(&self, state: &State) -> Vec<Arc<Endpoint>> {
        let held = self.view.load_full();
        if held.is_of(&self.key, state) {
            return Vec::new();
        }
        let now = clock::monotonic();
        let fresh = Arc::new(View::new(&self.key, state, Some(&held), now));
        self.view.store(fresh.clone());
        let is_kept = |one: &Arc<Endpoint>| fresh.endpoints.iter().any(|kept| Arc::ptr_eq(kept, one));
        let former: Vec<_> = held.endpoints.iter().filter(|one| !is_kept(one)).cloned().collect();
        for endpoint in &former {
            endpoint.retire();
        }
        if held.policy != fresh.policy {
            self.shed(&fresh);
            *lock(&self.budget) = Budget::new(fresh.policy.retry_budget, now);
        }
        let mut tracker = lock(&self.tracker);
        *tracker = match (tracker.take(), fresh.policy.outlier) {
            (Some(tracker), Some(_)) if held.policy.outlier == fresh.policy.outlier => {
                Some(fresh.track(tracker))
            }
            (_, Some(outlier)) => Some(fresh.track(Tracker::new(outlier, now))),
            (_, None) => None,
        };
        former
    }

    /// Closes connections that nobody uses, as far as there are more than there may be now.
    fn shed(&self, view: &View) {
        for endpoint in &view.endpoints {
            while self.has_too_many() && endpoint.evict(None) {}
        }
    }

    /// Whether more connections are open than may be: the limit was lowered.
    pub(super) fn has_too_many(&self) -> bool {
        let most = self.view.load().policy.connections.connections_max;
        most > 0 && self.counts.connections.load(Ordering::Acquire) > most
    }

    /// It does not exist any more; answers with what was an endpoint of it until now.
    pub(super) fn retire(&self) -> Vec<Arc<Endpoint>> {
        let view = self.view.load();
        let former: Vec<_> = view.endpoints.iter().filter(|one| !one.is_gone()).cloned().collect();
        for endpoint in &former {
            endpoint.retire();
        }
        former
    }

    /// Counts a request for the budget of repetitions.
    pub(crate) fn count(&self, now: Instant) {
        lock(&self.budget).request(now);
    }

    /// What follows an attempt.
    pub(crate) fn next(
        &self,
        policy: &Retry,
        attempt: &Attempt<'_>,
        left: Option<std::time::Duration>,
        now: Instant,
        draw: u64,
    ) -> Next {
        if policy.attempts == 0 {
            return Next::Stop(Stop::NotListed);
        }
        next(policy, attempt, left, &mut lock(&self.budget), now, draw)
    }

    /// Takes note of how an endpoint did.
    pub(crate) fn observe(&self, endpoint: &Endpoint, health: Health, now: Instant) {
        let view = self.view.load();
        if view.policy.outlier.is_none() {
            return;
        }
        let mut tracker = lock(&self.tracker);
        let Some(tracker) = tracker.as_mut() else { return };
        let mut ejections = tracker.compare(now);
        ejections.extend(tracker.observe(&endpoint.workload.uid, health, now));
        for ejection in ejections {
            let ejected = view.endpoints.iter().find(|e| e.workload.uid == ejection.endpoint);
            if let Some(ejected) = ejected {
                ejected.eject(ejection.until);
                tracing::info!(endpoint = %ejection.endpoint, cause = ?ejection.cause, "endpoint left out for its failures");
                metrics::counter!("ambit_waypoint_ejections_total").increment(1);
            }
        }
    }

    /// A request's place, if the destination may have one more.
    pub(crate) fn ticket(
        &self,
        policy: &DestinationPolicy,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Ticket, Overflow> {
        limit::admit(&policy.connections, &self.counts.under_way(), false)?;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        endpoint.began();
        Ok(Ticket { counts: self.counts.clone(), endpoint: endpoint.clone() })
    }

    /// The place of a connection that is passed through, if the destination may have one more. It is no request and
    /// waits for none.
    pub(crate) fn seat(
        &self,
        policy: &DestinationPolicy,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Seat, Overflow> {
        let held = self.place_or_evict(policy, None).ok_or(Overflow::Pending)?;
        endpoint.began();
        Ok(Seat { endpoint: endpoint.clone(), _held: held })
    }

    /// A connection's place, if the destination may have one more.
    fn place(&self, policy: &DestinationPolicy) -> Option<Held> {
        // The request itself is counted already; that it fills the last place is no reason to refuse it.
        let admitted = |connections| {
            let under_way = UnderWay { connections, ..UnderWay::default() };
            let way = limit::admit(&policy.connections, &under_way, true);
            matches!(way, Ok(Way::Connect | Way::Send)).then(|| connections.saturating_add(1))
        };
        let taken = self.counts.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, admitted);
        taken.is_ok().then(|| Held(self.counts.clone()))
    }

    /// A connection's place. Where the destination has as many as it may, those that nobody uses give way, whoever's
    /// they are; not those that could be used instead.
    pub(super) fn place_or_evict(
        &self,
        policy: &DestinationPolicy,
        spared: Option<&Spared<'_>>,
    ) -> Option<Held> {
        if let Some(held) = self.place(policy) {
            return Some(held);
        }
        let view = self.view.load();
        for endpoint in &view.endpoints {
            while endpoint.evict(spared) {
                if let Some(held) = self.place(policy) {
                    return Some(held);
                }
            }
        }
        None
    }

    /// A place among those who wait for a connection.
    pub(super) fn queue(&self, policy: &DestinationPolicy) -> Result<Queued<'_>, Overflow> {
        let now = self.counts.pending.fetch_add(1, Ordering::Relaxed);
        let queued = Queued(&self.counts);
        let under_way = UnderWay { connections: u32::MAX, pending: now, requests: 0 };
        limit::admit(&policy.connections, &under_way, true).map(|_| queued)
    }

    /// A connection has gone back to those that are idle.
    pub(super) fn freed(&self) {
        self.counts.freed.notify_one();
    }

    /// Closes connections that have been idle for so long, or are too old.
    pub(super) fn expire(&self, now: Instant, keep: std::time::Duration) {
        for endpoint in &self.view.load().endpoints {
            endpoint.expire(now, keep);
        }
    }

    /// How many requests it has had; turns are told by it.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// Waits for a connection; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Queued<'a>(&'a Counts);

impl<'a> Queued<'a> {
    /// Resolves when a connection or its place may have become free.
    pub(super) fn freed(&self) -> Notified<'a> {
        self.0.freed.notified()
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
        // What it was told of last it may not have taken.
        self.0.freed.notify_one();
    }
}

impl Held {
    /// The connection is idle, so that its place may be had.
    pub(super) fn tell(&self) {
        self.0.freed.notify_one();
    }
}

impl Counts {
    fn under_way(&self) -> UnderWay {
        UnderWay {
            connections: self.connections.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counts.requests.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.ended();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.endpoint.ended();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl View {
    fn new(key: &DestinationKey, state: &State, before: Option<&Self>, now: Instant) -> Self {
        // Who was there when nobody watched is not spared as new.
        let since = before.map(|_| now);
        let (entry, workload) = sources(key, state);
        let policy = match key {
            DestinationKey::Service(key, _) => state.routes.destination(key).clone(),
            DestinationKey::Workload(..) => Arc::default(),
        };
        let mut endpoints: Vec<Endpoint> = match (key, &entry, &workload) {
            (DestinationKey::Service(key, port), Some(entry), _) => {
                let service = entry.service();
                let all = service.load_balancing.health == HealthPolicy::AllowAll;
                let ready = entry.endpoints().iter().filter(|w| all || w.health == Readiness::Healthy);
                let here = ready.filter(|w| w.network == state.own.workload.network);
                here.filter_map(|w| Endpoint::of_service(service, key, *port, w, since, now)).collect()
            }
            (DestinationKey::Workload(_, address), _, Some(workload)) => {
                Endpoint::at(workload, address.port(), AppProtocol::Unknown, since, now).into_iter().collect()
            }
            (DestinationKey::Service(..) | DestinationKey::Workload(..), _, _) => Vec::new(),
        };
        let held = before.map_or(&[][..], |view| &view.endpoints);
        let endpoints: Vec<Arc<Endpoint>> = endpoints
            .drain(..)
            .map(|new| match held.iter().find(|old| old.is_same_place(&new) && !old.is_gone()) {
                Some(old) => old.clone(),
                None => Arc::new(new),
            })
            .collect();
        let spread =
            entry.as_ref().map_or_else(LoadBalancing::default, |e| e.service().load_balancing.clone());
        let listed = endpoints.iter().map(|endpoint| balance::Endpoint {
            uid: endpoint.workload.uid.clone(),
            weight: endpoint.workload.capacity,
            place: place(&endpoint.workload),
            ready_since: endpoint.since,
        });
        let balancer = Balancer::new(listed.collect(), &spread, policy.slow_start, &state.own.place());
        Self { entry, workload, policy, endpoints, balancer }
    }

    /// Whether nothing that it was made of has changed.
    fn is_of(&self, key: &DestinationKey, state: &State) -> bool {
        let same = |a: Option<&Arc<ServiceEntry>>, b: Option<&Arc<ServiceEntry>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match key {
            DestinationKey::Service(key, _) => {
                same(self.entry.as_ref(), state.mesh.service(key))
                    && Arc::ptr_eq(&self.policy, state.routes.destination(key))
            }
            DestinationKey::Workload(uid, _) => match (&self.workload, state.mesh.workload(uid)) {
                (Some(held), Some(now)) => Arc::ptr_eq(held, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            },
        }
    }

    fn track(&self, mut tracker: Tracker) -> Tracker {
        tracker.retain(self.endpoints.iter().map(|endpoint| &endpoint.workload.uid));
        tracker
    }

    /// An endpoint by its place.
    pub(crate) fn endpoint(&self, at: usize) -> &Arc<Endpoint> {
        &self.endpoints[at]
    }

    /// Chooses an endpoint; those tried before only if there is no other.
    pub(crate) fn pick(&self, ask: &Ask<'_>, tried: &[Arc<Endpoint>]) -> Option<usize> {
        self.balancer.pick(ask, &Facts { view: self, tried, now: ask.now })
    }

    /// Chooses the endpoint of a call that has nothing to be told apart by.
    pub(crate) fn pick_any(&self, tried: &[Arc<Endpoint>], draw: u64, now: Instant) -> Option<usize> {
        let ask = Ask { balance: &Balance::LeastRequest, hash: None, turn: 0, draw, now };
        self.pick(&ask, tried)
    }
}

fn sources(key: &DestinationKey, state: &State) -> (Option<Arc<ServiceEntry>>, Option<Arc<Workload>>) {
    match key {
        DestinationKey::Service(key, _) => (state.mesh.service(key).cloned(), None),
        DestinationKey::Workload(uid, _) => (None, state.mesh.workload(uid).cloned()),
    }
}

/// How endpoints stand for one request.
struct Facts<'a> {
    view: &'a View,
    tried: &'a [Arc<Endpoint>],
    now: Instant,
}

impl Standings for Facts<'_> {
    fn load(&self, endpoint: usize) -> u64 {
        self.view.endpoints.get(endpoint).map_or(0, |e| u64::from(e.load()))
    }

    fn standing(&self, endpoint: usize) -> Standing {
        let Some(endpoint) = self.view.endpoints.get(endpoint) else { return Standing::Ready };
        // By what it is: places in the list are others after a change.
        if self.tried.iter().any(|tried| tried.workload.uid == endpoint.workload.uid) {
            Standing::Tried
        } else if endpoint.is_ejected(self.now) {
            Standing::Ejected
        } else {
            Standing::Ready
        }
    }
}
