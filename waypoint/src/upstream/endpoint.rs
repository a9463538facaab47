//! One endpoint: how it is reached, what is under way to it, and the connections kept to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ambit_types::{AppProtocol, Identity, Service, ServiceKey, TunnelProtocol, Workload};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::client::{Http1, Http2};

/// How long connections that carry no requests of their own (streams, WebSockets) may outlive their endpoint.
const GONE_GRACE: Duration = Duration::from_secs(30);

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
    /// Requests under way.
    load: AtomicU32,
    /// Milliseconds since `epoch` until which it is left out.
    ejected_until: AtomicU64,
    epoch: Instant,
    is_gone: AtomicBool,
    gone: CancellationToken,
    pub(super) idle: Mutex<Vec<(Http1, Instant)>>,
    pub(super) shared: Mutex<Vec<Http2>>,
    /// Whoever opens a connection that others will share.
    pub(super) opening: Semaphore,
}

impl Endpoint {
    /// An endpoint of a service's port; none if it has no address or no such port.
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
            TunnelProtocol::None | TunnelProtocol::LegacyIstioMtls => None,
        };
        Some(Self {
            workload: workload.clone(),
            address,
            protocol,
            expected,
            since,
            load: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            epoch: now,
            is_gone: AtomicBool::new(false),
            gone: CancellationToken::new(),
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: Semaphore::new(1),
        })
    }

    /// Whether a newer record leads to the same place, so that connections to it stay good.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.workload.uid == other.workload.uid
            && self.address == other.address
            && self.expected == other.expected
            && self.protocol == other.protocol
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

    /// No new requests on connections to it; idle ones are closed.
    pub(super) fn retire(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        self.gone.cancel();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether it is not an endpoint any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Resolves some time after it has ceased to be an endpoint, when what is still open has to end.
    pub(crate) async fn cut(&self) {
        self.gone.cancelled().await;
        tokio::time::sleep(GONE_GRACE).await;
    }
}
