//! Letting a connection in to a pod of this node: target, policy, the application's socket. One code for tunnels
//! and for connections joined in the process.
//!
//! The steps are types: only an [`Admitted`] connection has a socket to relay to, and only policy makes one.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_hbone::{Authority, ConnId};
use ambit_net::socket::SocketError;
use ambit_policy::Decision;
use ambit_policy::decide::is_strict;
use ambit_runtime::access_log::Direction;
use ambit_state::{
    Admission, HboneFacts, HboneTarget, Open, Snapshot, authorize, explain, plan_inbound_hbone,
    speaks_for_others,
};
use ambit_types::{Identity, IdentityError, Reason, Service, Str, Workload, canonical};
use http::StatusCode;
use tokio::net::TcpStream;

use crate::connections::Entered;
use crate::flow::{End, Flow, Outcome, Path, Route};
use crate::mesh::Mesh;
use crate::proxy::{Pod, Proxy};
use crate::telemetry::PlaintextMode;

/// What is told of a connection that its pod has no place for.
pub(crate) const CROWDED: &str = "this pod has as many connections as it may";

/// Longest wait of a new connection for a policy that was announced.
const POLICY_WAIT: Duration = Duration::from_secs(1);

/// A connection that asks to be let in, its peer proven.
#[derive(Debug, Clone)]
pub struct Authenticated<'a> {
    /// The pod it asks for.
    pub pod: &'a Pod,
    /// That pod's workload.
    pub own: Arc<Workload>,
    /// Who asks: from a verified certificate, or from the namespace it was captured in.
    pub peer: Identity,
    /// Address it comes from.
    pub peer_addr: SocketAddr,
    /// Address of the pod that was dialled.
    pub local: SocketAddr,
    /// What it asks for.
    pub authority: Authority,
    /// Service it says it meant.
    pub service: Option<String>,
    /// What it says of itself.
    pub baggage: Option<String>,
    /// On whose behalf it says to call, which only counts from the pod's own waypoint.
    pub client: Result<Option<Identity>, IdentityError>,
    /// Its id.
    pub id: ConnId,
    /// How it came.
    pub path: Path,
    /// When it came.
    pub started: Instant,
    /// The counters of the other record, for a connection joined in the process.
    pub counters: Option<Arc<ambit_net::relay::Counters>>,
}

/// A connection that policy let in, with the application's socket.
#[derive(Debug)]
pub struct Admitted {
    /// The application's socket.
    pub app: TcpStream,
    /// Its entry in the books.
    pub entered: Entered,
}

/// A connection that was not let in; its record is written.
#[derive(Debug, Clone)]
pub struct NotAdmitted {
    /// Status for a tunnel's peer.
    pub status: StatusCode,
    /// The code.
    pub reason: Reason,
    /// In words.
    pub error: String,
}

/// Decides and connects; `gone` resolves when the peer gives up meanwhile.
///
/// # Errors
/// [`NotAdmitted`]; nothing reached the application.
pub async fn admit(
    proxy: &Proxy,
    asking: Authenticated<'_>,
    gone: impl Future<Output = ()>,
) -> Result<Admitted, NotAdmitted> {
    settle(proxy, &asking).await;
    let snapshot = proxy.mesh.snapshot();
    let facts = HboneFacts {
        own: Some(&asking.own),
        authority: as_planned(&asking.authority),
        local: asking.local,
        peer: asking.peer_addr,
        forwarded_host: asking.service.as_deref(),
    };
    let planned = plan_inbound_hbone(&snapshot, &facts);
    let planned = planned.map_err(|refused| (refused.status, refused.refusal.reason, refused.refusal.detail));
    let planned = planned.and_then(|target| Ok((client_of(&snapshot, &asking, &target)?, target)));
    let ((client, believed), target) = match planned {
        Ok(planned) => planned,
        Err((status, reason, error)) => {
            let outcome = Outcome::failed(reason, format!("{reason}: {error}"));
            let flow = Arc::new(flow_of(&asking, Route::default(), None));
            proxy.telemetry.refused(&flow, outcome);
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return Err(NotAdmitted { status, reason, error });
        }
    };
    let route = route_of(&asking, target.address, target.service.as_deref());
    let told = client.clone().filter(|_| believed);
    let flow = Arc::new(flow_of(&asking, route, target.source).on_behalf_of(told));
    let open = Open {
        id: proxy.connections.number(),
        workload: asking.own.uid.clone(),
        own: asking.own.identity(),
        peer: Some(asking.peer.clone()),
        client,
        believed,
        source: asking.peer_addr.ip(),
        destination: target.address,
        admission: Admission::Policy,
    };
    let mut entered = proxy.connections.enter_inbound(open.clone(), flow);
    match asking.pod.place() {
        Some(place) => entered.hold(place),
        None => return Err(crowded(entered)),
    }
    let source = (target.spoof && asking.pod.transparent).then(|| asking.peer_addr.ip());
    authorized_connect(proxy, asking.pod, entered, &open, source, gone).await
}

/// Whom the peer calls for, and whether its word counts here. From anybody but the waypoint that the port is reached
/// through it is a forgery, or comes from a waypoint of something else: it is as if nothing had been said.
///
/// # Errors
/// Status, reason and words, if the waypoint names its client in a way that cannot be read.
fn client_of(
    snapshot: &Snapshot,
    asking: &Authenticated<'_>,
    target: &HboneTarget,
) -> Result<(Option<Identity>, bool), (u16, Reason, String)> {
    if matches!(asking.client, Ok(None)) {
        return Ok((None, false));
    }
    let counts = speaks_for_others(snapshot, &asking.own.uid, &asking.peer, target.address.port());
    match (asking.client.clone(), counts) {
        (client, Some(false)) => {
            metrics::counter!("ambit_forwarded_identities_ignored_total").increment(1);
            tracing::debug!(conn = %asking.id, peer = %asking.peer, "a client is named by what is no waypoint here");
            Ok((client.unwrap_or(None), false))
        }
        // As long as that is not known, nobody is let in.
        (Ok(client), counts) => Ok((client, counts.is_some())),
        (Err(error), _) => {
            let text = format!("{} names a client that cannot be read: {error}", asking.peer);
            Err((401, Reason::ForwardedIdentityRefused, text))
        }
    }
}

/// The pod has as many connections as it may.
pub fn crowded(mut entered: Entered) -> NotAdmitted {
    refused(&mut entered, Reason::PodQuota, CROWDED.to_owned())
}

/// What will stand in the record of an entered connection that did not come about.
fn refused(entered: &mut Entered, reason: Reason, error: String) -> NotAdmitted {
    entered.end(Outcome::failed(reason, error.clone()));
    NotAdmitted { status: StatusCode::SERVICE_UNAVAILABLE, reason, error }
}

/// Waits until it is known what another authority than the pod's own address stands for.
///
/// Without an answer nothing is known of it, and the plan refuses it.
async fn settle(proxy: &Proxy, asking: &Authenticated<'_>) {
    let settled = match &asking.authority {
        Authority::Address(address) if canonical(*address).ip() == canonical(asking.local).ip() => Ok(()),
        Authority::Address(address) => proxy.mesh.settle(&asking.own.network, canonical(*address).ip()).await,
        Authority::Host { host, .. } => {
            match asking.own.services.keys().find(|key| *key.hostname == **host) {
                Some(key) => proxy.mesh.lookups().settle(key.to_string()).await,
                None => Ok(()),
            }
        }
    };
    if let Err(refusal) = settled {
        tracing::debug!(conn = %asking.id, %refusal, "the authority stays unknown");
    }
}

/// Asks policy with the newest world, then connects to the application unless `gone` resolves first.
///
/// # Errors
/// [`NotAdmitted`].
pub async fn authorized_connect(
    proxy: &Proxy,
    pod: &Pod,
    mut entered: Entered,
    open: &Open,
    source: Option<std::net::IpAddr>,
    gone: impl Future<Output = ()>,
) -> Result<Admitted, NotAdmitted> {
    // Loaded after the connection was entered: a change from here on reaches it as a live connection.
    let plaintext = match open.admission {
        Admission::Policy => decided(proxy, &mut entered, open).await?,
        Admission::Probe => plaintext_mode(&proxy.mesh.snapshot(), open),
    };
    let reached = tokio::select! {
        reached = pod.sockets.connect(open.destination, source, proxy.settings.connect_timeout) => reached,
        () = gone => {
            let text = "the peer gave up before the application was reached".to_owned();
            return Err(refused(&mut entered, Reason::PeerSilent, text));
        }
        () = pod.drain.forced() => {
            let text = "the proxy or the pod is leaving".to_owned();
            return Err(refused(&mut entered, Reason::Draining, text));
        }
    };
    match reached {
        Ok(app) => {
            ambit_net::socket::prefer_congestion(&app, pod.sockets.options());
            entered.let_in(plaintext);
            Ok(Admitted { app, entered })
        }
        Err(error) => {
            let text = format!("the application did not take the connection: {}", describe(&error));
            Err(refused(&mut entered, reason_of(&error), text))
        }
    }
}

/// Asks policy, and notes what it said; what the port asks of plaintext, if the connection is that.
///
/// # Errors
/// [`NotAdmitted`].
async fn decided(
    proxy: &Proxy,
    entered: &mut Entered,
    open: &Open,
) -> Result<Option<PlaintextMode>, NotAdmitted> {
    let (snapshot, decision) = decide(&proxy.mesh, open).await;
    let outcome = Outcome::decided(&decision);
    let own = snapshot.workload(&open.workload);
    if !decision.is_allow() {
        let reason = decision.reason.unwrap_or(Reason::PolicyDenied);
        entered.end(
            own.map_or(outcome, |own| Outcome::refused(&explain(&snapshot, own, &open.facts(&snapshot)))),
        );
        let status = ambit_hbone::response::status_of(reason);
        return Err(NotAdmitted { status, reason, error: decision.to_string() });
    }
    entered.end(outcome);
    let name = own.map_or_else(|| Str::from(""), |own| own.workload_name.clone());
    if let Err(never) = proxy.pairs.admit(open, &name) {
        return Err(refused(entered, never.reason(), never.to_string()));
    }
    Ok(plaintext_mode(&snapshot, open))
}

/// What the port of a connection asks of plaintext; none if it comes with an identity.
fn plaintext_mode(snapshot: &Snapshot, open: &Open) -> Option<PlaintextMode> {
    let policies = snapshot.own_policies(&open.workload);
    let strict = || policies.is_some_and(|set| is_strict(set, &open.facts(snapshot)));
    open.peer.is_none().then(|| if strict() { PlaintextMode::Strict } else { PlaintextMode::Permissive })
}

/// Asks policy, waiting a little for one that is named and has not arrived: control planes announce a policy with the
/// workload before they send it. What never arrives refuses (G2).
async fn decide(mesh: &Mesh, open: &Open) -> (Arc<Snapshot>, Decision) {
    let mut changes = mesh.changes();
    let now = || {
        let snapshot = mesh.snapshot();
        let decision = authorize(&snapshot, &open.workload, &open.facts(&snapshot));
        (snapshot, decision)
    };
    let settled = async {
        loop {
            let decided = now();
            if decided.1.reason != Some(Reason::PolicyUnresolved) {
                return decided;
            }
            // The sender lives in the mesh.
            let _ = changes.changed().await;
        }
    };
    tokio::time::timeout(POLICY_WAIT, settled).await.unwrap_or_else(|_| now())
}

/// The code of a socket that did not come about.
pub fn reason_of(error: &SocketError) -> Reason {
    if error.is_descriptor_shortage() {
        Reason::FdExhausted
    } else if error.is_port_shortage() {
        Reason::PortsExhausted
    } else if error.is_conntrack_shortage() {
        Reason::ConntrackFull
    } else if error.is_refusal() {
        Reason::ConnectRefused
    } else {
        Reason::ConnectTimeout
    }
}

/// An error with its causes, once each.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn as_planned(authority: &Authority) -> ambit_state::Authority<'_> {
    match authority {
        Authority::Address(address) => ambit_state::Authority::Address(*address),
        Authority::Host { host, port } => ambit_state::Authority::Host { host, port: *port },
    }
}

fn flow_of(asking: &Authenticated<'_>, mut route: Route, source: Option<Arc<Workload>>) -> Flow {
    let asserted = || asking.baggage.as_deref().map(|text| Arc::new(ambit_hbone::Baggage::parse(text)));
    let src = End {
        addr: Some(asking.peer_addr),
        asserted: if source.is_none() { asserted() } else { None },
        workload: source,
        identity: Some(asking.peer.clone()),
    };
    if route.dst.workload.is_none() {
        route = route_of(asking, asking.local, None);
    }
    let flow = Flow::new(asking.id, Direction::Inbound, asking.path, src, route, asking.started);
    match &asking.counters {
        Some(counters) => flow.sharing(counters.clone()),
        None => flow,
    }
}

fn route_of(asking: &Authenticated<'_>, address: SocketAddr, service: Option<&Service>) -> Route {
    let tunnelled = asking.path == Path::Hbone;
    Route {
        dst: End {
            // A tunnel's record keeps the port of the tunnel; the application's stands in the authority.
            addr: Some(if tunnelled { asking.local } else { address }),
            workload: Some(asking.own.clone()),
            identity: Some(asking.own.identity()),
            asserted: None,
        },
        service: service.map(Service::key),
        service_name: service.map(|service| service.name.clone()),
        hbone_addr: tunnelled.then(|| Str::from(asking.authority.to_string())),
    }
}
