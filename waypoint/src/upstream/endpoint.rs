//! One endpoint: how it is reached, what is under way to it, and the connections kept to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ambit_runtime::clock;
use ambit_types::{AppProtocol, Identity, Service, ServiceKey, TunnelProtocol, Workload};
use tokio::sync::{Notify, watch};

use super::http1::Http1;
use super::line::{STREAMS_MAX, Shared};
use super::lock;

/// How old a connection may become before it takes no further request, so that load finds its way to new proxies.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// One endpoint of a destination.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its record.
    pub(crate) workload: Arc<Workload>,
    /// Address and port of the application.
    pub(crate) address: SocketAddr,
    /// What the application speaks, as far as it is declared.
    pub(crate) protocol: AppProtocol,
    /// Who must be at the other end of a tunnel; none without one.
    pub(crate) expected: Option<Identity>,
    /// Since when it is there; none if it was there when its destination was first used.
    pub(crate) since: Option<Instant>,
    /// What stands for it in marks of sessions, once somebody has asked.
    tag: OnceLock<u64>,
    /// Requests under way.
    load: AtomicU32,
    /// Milliseconds since `epoch` until which it is left out.
    ejected_until: AtomicU64,
    epoch: Instant,
    is_gone: AtomicBool,
    /// There is no record any more that leads here.
    lost: watch::Sender<bool>,
    /// HTTP/1.1 connections that nobody uses, and since when.
    idle: Mutex<Vec<(Http1, Instant)>>,
    /// HTTP/2 connections.
    pub(super) shared: Mutex<Shared>,
    /// A shared connection that was full has room.
    pub(super) roomy: Arc<Notify>,
    /// Streams that its last connection admitted.
    pub(super) streams_seen: AtomicU32,
}

/// Connections that their caller is to use, not to lose: it may not have seen them a moment ago.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spared<'a> {
    /// To this endpoint.
    pub(super) endpoint: &'a Endpoint,
    /// Of this caller.
    pub(super) caller: &'a Identity,
    /// HTTP/2 ones; else HTTP/1.1.
    pub(super) is_http2: bool,
}

impl Endpoint {
    /// An endpoint of a service's port; none if it has no address or no such port, or could only be spoken to in a
    /// way that is not spoken here.
    pub(super) fn of_service(
        service: &Service,
        key: &ServiceKey,
        port: u16,
        workload: &Arc<Workload>,
        since: Option<Instant>,
        now: Instant,
    ) -> Option<Self> {
        let declared = service.port(port)?;
        let own = workload.services.get(key).and_then(|ports| ports.iter().find(|p| p.service_port == port));
        let targets = [own.map(|p| p.target_port), Some(declared.target_port)];
        let target = targets.into_iter().flatten().find(|target| *target != 0)?;
        Self::at(workload, target, declared.app_protocol, since, now)
    }

    /// An endpoint at a port of a workload.
    pub(super) fn at(
        workload: &Arc<Workload>,
        port: u16,
        protocol: AppProtocol,
        since: Option<Instant>,
        now: Instant,
    ) -> Option<Self> {
        let address = SocketAddr::new(*workload.addresses.first()?, port);
        let expected = match workload.tunnel {
            TunnelProtocol::Hbone => Some(workload.identity()),
            TunnelProtocol::None => None,
            // It expects mutual TLS of its own kind, and must never get plaintext instead.
            TunnelProtocol::LegacyIstioMtls => return None,
        };
        Some(Self {
            workload: workload.clone(),
            address,
            protocol,
            expected,
            since,
            tag: OnceLock::new(),
            load: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            epoch: now,
            is_gone: AtomicBool::new(false),
            lost: watch::Sender::new(false),
            idle: Mutex::default(),
            shared: Mutex::default(),
            roomy: Arc::default(),
            streams_seen: AtomicU32::new(STREAMS_MAX),
        })
    }

    /// Whether a newer record leads to the same place, so that connections to it stay good.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.workload.uid == other.workload.uid
            && self.address == other.address
            && self.expected == other.expected
            && self.protocol == other.protocol
    }

    /// What stands for it in marks of sessions; made once, as it never changes.
    pub(super) fn tag(&self, make: impl FnOnce() -> u64) -> u64 {
        *self.tag.get_or_init(make)
    }

    /// Requests under way.
    pub(crate) fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn began(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is left out for its failures.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until > 0 && now.saturating_duration_since(self.epoch) < Duration::from_millis(until)
    }

    pub(super) fn eject(&self, until: Instant) {
        let until = until.saturating_duration_since(self.epoch).as_millis();
        self.ejected_until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Nothing new on connections to it; idle ones are closed. What is open stays: it may be that the workload is only
    /// not ready, about to end, or reached in another way from now on.
    pub(super) fn retire(&self) {
        // Before the lists are emptied: who adds to them looks at it under their locks.
        self.is_gone.store(true, Ordering::Release);
        let idle = std::mem::take(&mut *lock(&self.idle));
        let shared = lock(&self.shared).clear();
        // Closing takes other locks, so it is done outside these.
        drop((idle, shared));
    }

    /// An idle connection of a caller, the one used last, unless it has been idle too long.
    pub(super) fn take_idle(&self, caller: &Identity, keep: Duration) -> Option<Http1> {
        let mut idle = lock(&self.idle);
        let at = idle.iter().rposition(|(connection, _)| connection.caller == *caller)?;
        let (connection, since) = idle.remove(at);
        drop(idle);
        // Those of the caller that are left are older still, and are looked for by time.
        (clock::monotonic().saturating_duration_since(since) < keep).then_some(connection)
    }

    /// Keeps a connection that nobody uses now, if it is worth it.
    pub(super) fn keep(&self, connection: Http1, idle_max: usize, now: Instant) {
        if now.saturating_duration_since(connection.opened) >= AGE_MAX {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < idle_max && !self.is_gone() {
            idle.push((connection, now));
        }
    }

    /// Closes a connection that nobody uses now; false if there is none.
    pub(super) fn evict(&self, spared: Option<&Spared<'_>>) -> bool {
        let own = spared.filter(|spared| std::ptr::eq(self, spared.endpoint));
        let of = |is_http2| own.filter(|own| own.is_http2 == is_http2).map(|own| own.caller);
        let (http1, http2) = (of(false), of(true));
        let mut idle = lock(&self.idle);
        // The first one has been idle for the longest time.
        let at = idle.iter().position(|(connection, _)| http1 != Some(&connection.caller));
        let evicted = at.map(|at| idle.remove(at));
        drop(idle);
        evicted.is_some() || self.evict_shared(http2)
    }

    /// Closes what has been idle too long, or is too old.
    pub(super) fn expire(&self, now: Instant, keep: Duration) {
        let stale = |(_, since): &mut (Http1, Instant)| now.saturating_duration_since(*since) >= keep;
        let idle: Vec<_> = lock(&self.idle).extract_if(.., stale).collect();
        let shared = lock(&self.shared).expire(now, keep, AGE_MAX);
        drop((idle, shared));
    }

    /// Whether it is not an endpoint any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Takes note of the workload's record as it is now, once it is not an endpoint any more. A record that comes back
    /// undoes that it was lost.
    pub(super) fn follow(&self, now: Option<&Workload>) {
        let is_lost = !now.is_some_and(|now| self.is_of(now));
        self.lost.send_if_modified(|lost| std::mem::replace(lost, is_lost) != is_lost);
    }

    /// Whether a record is of who is at the other end of what is open.
    fn is_of(&self, workload: &Workload) -> bool {
        let is_same = |expected: &Identity| *expected == workload.identity();
        workload.addresses.contains(&self.address.ip()) && self.expected.as_ref().is_none_or(is_same)
    }

    /// Resolves once the workload has been lost for `grace` without a break, when what is still open has to end. May be
    /// dropped.
    pub(crate) async fn cut(&self, grace: Duration) {
        let mut lost = self.lost.subscribe();
        loop {
            turned(&mut lost, true).await;
            if tokio::time::timeout(grace, turned(&mut lost, false)).await.is_err() {
                return;
            }
        }
    }
}

async fn turned(lost: &mut watch::Receiver<bool>, to: bool) {
    // It fails with the sender only, which the endpoint holds.
    let _ = lost.wait_for(|lost| *lost == to).await;
}

#[cfg(test)]
mod tests;
