//! A connection a pod opens: plan, reach the other end, relay.
//!
//! Nothing is read from the application until the other end is reached, so another endpoint may be tried while no
//! byte was sent, and protocols in which the server speaks first just work.

mod named;
mod open;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_hbone::Authority;
use ambit_net::pool_driver::Lease;
use ambit_net::relay::{self, Counters, Far};
use ambit_net::socket::{original_destination, reset_on_close};
use ambit_net::tunnel::client::{Opened, TunnelError};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_state::plan::outbound::{Hop, ViaWaypoint};
use ambit_state::{OutboundFacts, OutboundPlan, PodRef, plan_outbound};
use ambit_types::{Identity, PolicyKey, Reason, Str, Uid, Workload, canonical};
use tokio::net::TcpStream;

use crate::admit::{Admitted, Authenticated, CROWDED, admit, describe, reason_of};
use crate::connections::Entered;
use crate::flow::{End, Flow, Outcome, Path, Route};
use crate::proxy::{Pod, Proxy, TunnelKey};
use crate::random::{self, Draws};
use open::Ask;

/// Endpoints tried for one connection.
const ATTEMPTS_MAX: usize = 4;

/// Longest wait for an endpoint while others are left to try.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// A captured connection with what is known at accept.
struct Captured<'a> {
    proxy: &'a Arc<Proxy>,
    pod: &'a Arc<Pod>,
    peer: SocketAddr,
    dst: SocketAddr,
    source: Option<Arc<Workload>>,
    draws: Draws,
    started: Instant,
}

/// The other end, reached.
struct Reached {
    far: Far,
    entered: Entered,
    /// The tunnel's slot; given back when the connection ends.
    lease: Option<Lease<TunnelKey>>,
    /// The inbound record of a connection joined in the process.
    inbound: Option<Entered>,
}

/// Why an endpoint was not reached.
struct Unreached {
    reason: Reason,
    error: String,
    /// The policy that refuses.
    policy: Option<PolicyKey>,
    /// Another endpoint may be tried.
    retry: bool,
    /// There was no endpoint to reach.
    early: bool,
}

/// Takes one connection that was redirected to port 15001 of a pod.
pub async fn serve(proxy: Arc<Proxy>, pod: Arc<Pod>, tcp: TcpStream, peer: SocketAddr) {
    let Some(_place) = pod.place() else {
        note_crowded(&proxy, &pod, &tcp, canonical(peer));
        return reset_on_close(&tcp);
    };
    // Setting up needs far more state than relaying; boxed, it does not weigh on a connection for life.
    let Some(Reached { far, mut entered, lease, mut inbound }) =
        Box::pin(open(&proxy, &pod, &tcp, canonical(peer))).await
    else {
        return reset_on_close(&tcp);
    };
    let counters = entered.flow().counters.clone();
    let cut = async {
        match &inbound {
            Some(inbound) => inbound.cut().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = relay::relay(tcp, far, &counters) => {
            finish(&mut entered, end, lease.as_ref().is_some_and(|lease| lease.tunnel().has_lost_large()));
            if let Some(inbound) = &mut inbound {
                finish(inbound, end, false);
            }
        }
        () = cut => {
            let outcome = inbound.as_ref().and_then(|i| i.flow().cut_outcome().cloned());
            entered.end(outcome.unwrap_or_default());
        }
        () = pod.drain.forced() => {
            entered.end(drained());
            if let Some(inbound) = &mut inbound {
                inbound.end(drained());
            }
        }
    }
}

/// Notes how a relay ended. A reset is no failure of the mesh, unless the tunnel `has_lost_large` segments and was cut
/// for that.
pub fn finish(entered: &mut Entered, end: relay::End, has_lost_large: bool) {
    tracing::trace!(conn = %entered.flow().id, ?end, "relay ended");
    if has_lost_large && end != relay::End::Closed {
        let text = "cut with its tunnel: large segments vanish on the path and small ones pass";
        return entered.end(Outcome::failed(Reason::PathMtu, text));
    }
    entered.finished();
}

/// What stands in the record of a connection that had to go with its proxy or pod.
pub fn drained() -> Outcome {
    Outcome::failed(Reason::Draining, "closed because the proxy or the pod is leaving")
}

/// Writes the record of a connection that its pod has no place for; nobody waits for discovery to tell more of it.
fn note_crowded(proxy: &Proxy, pod: &Pod, tcp: &TcpStream, peer: SocketAddr) {
    let source = proxy.mesh.snapshot().own_workload(&pod.name, Some(peer.ip())).cloned();
    let src = End { addr: Some(peer), workload: source, ..End::default() };
    let dst = End { addr: original_destination(tcp).ok(), ..End::default() };
    let route = Route { dst, ..Route::default() };
    let (id, now) = (random::draws().id, clock::monotonic());
    let flow = Flow::new(id, Direction::Outbound, Path::Passthrough, src, route, now);
    proxy.telemetry.refused(&Arc::new(flow), Outcome::failed(Reason::PodQuota, CROWDED));
}

async fn open(proxy: &Arc<Proxy>, pod: &Arc<Pod>, tcp: &TcpStream, peer: SocketAddr) -> Option<Reached> {
    let started = clock::monotonic();
    let dst = original_destination(tcp).ok()?;
    let draws = random::draws();
    let source = proxy.mesh.own_workload(&pod.name, Some(peer.ip())).await;
    let captured = Captured { proxy, pod, peer, dst, source, draws, started };
    captured.settle().await?;
    captured.reach().await
}

impl Captured<'_> {
    /// Waits until it is known what the destination is; writes the record if it is not told.
    async fn settle(&self) -> Option<()> {
        // Without its own workload the connection is refused whatever the destination is.
        let Some(source) = &self.source else { return Some(()) };
        let settled = self.proxy.mesh.settle(&source.network, self.dst.ip().to_canonical()).await;
        let Err(refusal) = settled else { return Some(()) };
        let (flow, Unreached { reason, error, early, .. }) =
            self.refused(refusal.reason, refusal.to_string());
        self.note(flow, Outcome::failed(reason, error), early);
        None
    }

    /// Plans and tries endpoints until one is reached; writes the record if none is.
    async fn reach(&self) -> Option<Reached> {
        let mut tried: Vec<Uid> = Vec::new();
        let mut last: Option<(Flow, Outcome)> = None;
        loop {
            let plan = self.plan(&tried);
            if let (OutboundPlan::Refuse(_), Some((flow, outcome))) = (&plan, last.take()) {
                // No endpoint is left: what the last one said tells more than that.
                self.note(flow, outcome, false);
                return None;
            }
            let others = chosen(&plan).is_some_and(|(_, candidates)| others_left(candidates, tried.len()));
            let chosen = chosen(&plan).map(|(workload, _)| workload.uid.clone());
            let (flow, unreached) = match self.attempt(plan, others).await {
                Ok(reached) => return Some(reached),
                Err(failed) => failed,
            };
            let outcome =
                Outcome { policy: unreached.policy, ..Outcome::failed(unreached.reason, unreached.error) };
            match chosen {
                Some(uid) if unreached.retry && others => {
                    tracing::debug!(conn = %self.draws.id, endpoint = %uid, "endpoint not reached, trying another");
                    metrics::counter!("ambit_endpoint_retries_total", "code" => unreached.reason.code())
                        .increment(1);
                    tried.push(uid);
                    last = Some((flow, outcome));
                }
                Some(_) | None => {
                    self.note(flow, outcome, unreached.early);
                    return None;
                }
            }
        }
    }

    /// Writes the record of a connection that came to nothing, `early` if there was no endpoint to reach.
    fn note(&self, flow: Flow, outcome: Outcome, early: bool) {
        let (telemetry, flow) = (&self.proxy.telemetry, Arc::new(flow));
        if early { telemetry.refused(&flow, outcome) } else { telemetry.failed(&flow, outcome) }
    }

    fn plan(&self, tried: &[Uid]) -> OutboundPlan {
        plan_outbound(&self.proxy.mesh.snapshot(), &self.facts(tried))
    }

    fn facts<'t>(&'t self, tried: &'t [Uid]) -> OutboundFacts<'t> {
        OutboundFacts {
            source: self.source.as_ref(),
            source_address: self.peer.ip(),
            destination: self.dst,
            same_node: self.proxy.settings.same_node,
            tried,
            // A new draw for every attempt, from the same randomness.
            draw: self.draws.endpoint.rotate_left(u32::try_from(tried.len()).unwrap_or(0) * 16),
        }
    }

    /// Carries out a plan; `others` says whether another endpoint is left to try.
    async fn attempt(&self, plan: OutboundPlan, others: bool) -> Result<Reached, (Flow, Unreached)> {
        match plan {
            OutboundPlan::Passthrough { address } => {
                self.plain(address, self.flow(Path::Passthrough, Route::to(address)), false).await
            }
            OutboundPlan::Plain(hop) => self.plaintext(&hop, others).await,
            OutboundPlan::Hbone(hop) => self.hbone(&hop, others).await,
            OutboundPlan::Local(hop) => {
                match self.proxy.pods.find(&PodRef::of(&hop.workload), hop.address.ip()) {
                    Some(pod) => self.local(&hop, &pod).await,
                    // Discovery puts it on this node, the node agent has not handed it over, or handed over another
                    // one of that name: a tunnel finds out.
                    None => self.hbone(&hop, others).await,
                }
            }
            OutboundPlan::Refuse(refusal) => {
                let (flow, unreached) = self.refused(refusal.reason, refusal.to_string());
                Err((flow, Unreached { policy: refusal.policy, ..unreached }))
            }
            OutboundPlan::Waypoint(via) => self.waypoint(&via).await,
            OutboundPlan::Resolve(by) => self.named(&by, others).await,
            OutboundPlan::Gateway(_) => {
                Err(self
                    .refused(Reason::UnknownDestination, "this proxy does not cross networks yet".to_owned()))
            }
        }
    }

    fn refused(&self, reason: Reason, error: String) -> (Flow, Unreached) {
        let flow = self.flow(Path::Passthrough, Route::to(self.dst));
        (flow, Unreached { reason, error, policy: None, retry: false, early: true })
    }

    /// A plain socket to a workload.
    async fn plaintext(&self, hop: &Hop, others: bool) -> Result<Reached, (Flow, Unreached)> {
        let flow = self.flow(Path::Plaintext, self.route(hop, hop.address, false));
        self.plain(hop.address, flow, others).await
    }

    /// A plain socket to a workload or to somewhere unknown.
    async fn plain(
        &self,
        address: SocketAddr,
        flow: Flow,
        others: bool,
    ) -> Result<Reached, (Flow, Unreached)> {
        let timeout = self.attempt_timeout(others);
        match self.pod.sockets.connect(address, None, timeout).await {
            Ok(far) => Ok(self.reached(Far::Tcp(far), flow, None, None)),
            Err(error) => {
                let (reason, error) = (reason_of(&error), describe(&error));
                Err((flow, Unreached { reason, error, policy: None, retry: true, early: false }))
            }
        }
    }

    /// A stream of a tunnel to the workload's proxy.
    async fn hbone(&self, hop: &Hop, others: bool) -> Result<Reached, (Flow, Unreached)> {
        let flow = self.flow(Path::Hbone, self.route(hop, hop.tunnel(), true));
        self.tunnelled(&Ask::from(hop), flow, others).await
    }

    /// A stream of a tunnel to the waypoint, which chooses the workload.
    async fn waypoint(&self, via: &ViaWaypoint) -> Result<Reached, (Flow, Unreached)> {
        let route = Route {
            dst: End {
                addr: Some(via.tunnel),
                workload: Some(via.workload.clone()),
                identity: Some(via.workload.identity()),
                asserted: None,
            },
            service: via.service.as_ref().map(|s| s.key()),
            service_name: via.service.as_ref().map(|s| s.name.clone()),
            hbone_addr: Some(Str::from(via.authority.to_string())),
        };
        self.tunnelled(&Ask::from(via), self.flow(Path::Waypoint, route), false).await
    }

    async fn tunnelled(&self, ask: &Ask<'_>, flow: Flow, others: bool) -> Result<Reached, (Flow, Unreached)> {
        let Some(source) = &self.source else {
            return Err(self.refused(Reason::WorkloadUnknown, "the source is not known".to_owned()));
        };
        let opening = self.open_stream(source, ask);
        // With nobody else to ask, the limits of its steps are limit enough.
        let opened = match others {
            true => tokio::time::timeout(ATTEMPT_TIMEOUT, opening)
                .await
                .unwrap_or(Err(TunnelError::Timeout { peer: ask.tunnel })),
            false => opening.await,
        };
        match opened {
            Ok((lease, Opened { send, recv, .. })) => {
                Ok(self.reached(Far::Tunnel { send, recv }, flow, Some(lease), None))
            }
            Err(error) => {
                let unreached = Unreached {
                    reason: error.reason(),
                    error: describe(&error),
                    policy: None,
                    retry: error.is_before_any_byte(),
                    early: false,
                };
                Err((flow, unreached))
            }
        }
    }

    /// Both pods are here: admitted by the destination's rules, joined without a tunnel.
    async fn local(&self, hop: &Hop, pod: &Arc<Pod>) -> Result<Reached, (Flow, Unreached)> {
        let mut flow = self.flow(Path::Local, self.route(hop, hop.address, true));
        let Some(source) = &self.source else {
            return Err(self.refused(Reason::WorkloadUnknown, "the source is not known".to_owned()));
        };
        let peer: Identity = source.identity();
        flow.src.identity = Some(peer.clone());
        flow.route.hbone_addr = None;
        let counters: Arc<Counters> = flow.counters.clone();
        let asking = Authenticated {
            pod,
            own: hop.workload.clone(),
            peer,
            peer_addr: self.peer,
            local: hop.tunnel(),
            authority: Authority::Address(hop.address),
            service: hop.service.as_ref().map(|s| s.hostname.to_string()),
            baggage: None,
            client: Ok(None),
            id: self.draws.id,
            path: Path::Local,
            started: self.started,
            counters: Some(counters),
        };
        // The application's own end is not watched: it is read only once the other end is reached.
        match admit(self.proxy, asking, std::future::pending()).await {
            Ok(Admitted { app, entered }) => Ok(self.reached(Far::Tcp(app), flow, None, Some(entered))),
            Err(refused) => {
                let retry = matches!(
                    refused.reason,
                    Reason::ConnectRefused | Reason::ConnectTimeout | Reason::ConntrackFull
                );
                let (reason, error) = (refused.reason, refused.error);
                Err((flow, Unreached { reason, error, policy: None, retry, early: false }))
            }
        }
    }

    fn reached(
        &self,
        far: Far,
        flow: Flow,
        lease: Option<Lease<TunnelKey>>,
        inbound: Option<Entered>,
    ) -> Reached {
        let mut entered = self.proxy.connections.enter_outbound(Arc::new(flow));
        entered.opened();
        Reached { far, entered, lease, inbound }
    }

    fn attempt_timeout(&self, others: bool) -> Duration {
        let all = self.proxy.settings.connect_timeout;
        if others { all.min(ATTEMPT_TIMEOUT) } else { all }
    }

    fn flow(&self, path: Path, route: Route) -> Flow {
        let identity = match path {
            Path::Hbone | Path::Waypoint | Path::Local => self.source.as_ref().map(|w| w.identity()),
            Path::Plaintext | Path::Probe | Path::Passthrough => None,
        };
        let src = End { addr: Some(self.peer), workload: self.source.clone(), identity, asserted: None };
        Flow::new(self.draws.id, Direction::Outbound, path, src, route, self.started)
    }

    fn route(&self, hop: &Hop, addr: SocketAddr, proven: bool) -> Route {
        Route {
            dst: End {
                addr: Some(addr),
                workload: Some(hop.workload.clone()),
                identity: proven.then(|| hop.workload.identity()),
                asserted: None,
            },
            service: hop.service.as_ref().map(|s| s.key()),
            service_name: hop.service.as_ref().map(|s| s.name.clone()),
            hbone_addr: proven.then(|| Str::from(hop.address.to_string())),
        }
    }
}

impl Route {
    /// A route to an address nothing is known about.
    fn to(address: SocketAddr) -> Self {
        Self { dst: End { addr: Some(address), ..End::default() }, ..Self::default() }
    }
}

/// Whether another endpoint may be tried after this one.
fn others_left(candidates: usize, tried: usize) -> bool {
    candidates > tried + 1 && tried + 1 < ATTEMPTS_MAX
}

/// The endpoint a plan chose, if it chose one, and among how many.
fn chosen(plan: &OutboundPlan) -> Option<(&Workload, usize)> {
    match plan {
        OutboundPlan::Plain(hop) | OutboundPlan::Hbone(hop) | OutboundPlan::Local(hop) => {
            Some((&*hop.workload, hop.candidates))
        }
        OutboundPlan::Resolve(by) => Some((&*by.workload, by.candidates)),
        OutboundPlan::Passthrough { .. }
        | OutboundPlan::Waypoint(_)
        | OutboundPlan::Gateway(_)
        | OutboundPlan::Refuse(_) => None,
    }
}
