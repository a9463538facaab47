//! HBONE arriving at a pod: handshake, then every stream of the tunnel on its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ambit_hbone::{context, request, response};
use ambit_net::relay::{self, Far};
use ambit_net::tls::server::{self, Accepted};
use ambit_net::tunnel::server::{Asking, serve, spawn_stream};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_types::{Identity, Reason, Workload, canonical};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::admit::{Admitted, Authenticated, admit, describe};
use crate::flow::{End, Flow, Outcome, Path, Route};
use crate::proxy::{Pod, Proxy};
use crate::random;
use crate::sources::Held;
use crate::telemetry::note_handshake;

/// Takes one TCP connection at port 15008 of a pod.
pub async fn tunnel(proxy: Arc<Proxy>, pod: Arc<Pod>, tcp: TcpStream, peer: SocketAddr) {
    let peer = canonical(peer);
    let started = clock::monotonic();
    let local = tcp.local_addr().map(canonical).ok();
    let Some(local) = local else { return };
    let (turn, mut held) = match begin(&pod, peer.ip()) {
        Ok(begun) => begun,
        Err(crowded) => {
            let outcome = Outcome::failed(Reason::PodQuota, crowded);
            return refuse(&proxy, None, (peer, local), started, outcome);
        }
    };
    let (own, accepted, not_after) = match handshake(&proxy, &pod, tcp, (peer, local)).await {
        Ok(accepted) => accepted,
        Err((own, outcome)) => return refuse(&proxy, own, (peer, local), started, outcome),
    };
    drop(turn);
    held.finish();
    let usable_until = accepted.peer_not_after.min(not_after);
    let shared = Arc::new(Tunnel {
        proxy: proxy.clone(),
        pod: pod.clone(),
        own,
        peer,
        local,
        identity: accepted.peer,
    });
    let settings = proxy.settings.tunnel.clone();
    let served = serve(accepted.stream, peer, usable_until, settings, &pod.drain, |asking| {
        spawn_stream(&pod.drain, stream(shared.clone(), asking));
    });
    if let Err(error) = served.await {
        tracing::debug!(%peer, %error, code = Reason::TunnelProtocol.code(), "an inbound tunnel ended");
    }
}

/// A turn among the pod's handshakes and one of the source's own, or why there is none.
fn begin(pod: &Pod, source: IpAddr) -> Result<(OwnedSemaphorePermit, Held), String> {
    let held = pod.sources.begin(source).map_err(|crowded| crowded.to_string())?;
    let turn = pod.handshakes.clone().try_acquire_owned();
    Ok((turn.map_err(|_| "too many unfinished handshakes at this pod".to_owned())?, held))
}

type Handshaken = (Arc<Workload>, Accepted, u64);

async fn handshake(
    proxy: &Proxy,
    pod: &Pod,
    tcp: TcpStream,
    (peer, local): (SocketAddr, SocketAddr),
) -> Result<Handshaken, (Option<Arc<Workload>>, Outcome)> {
    let own = proxy.mesh.own_workload(&pod.name, Some(local.ip())).await.ok_or_else(|| {
        let text = format!("discovery has not told of {}/{} yet", pod.name.namespace, pod.name.name);
        (None, Outcome::failed(Reason::WorkloadUnknown, text))
    })?;
    let fail = |reason, text: String| (Some(own.clone()), Outcome::failed(reason, text));
    let credential =
        proxy.certificates.get(&own.identity()).await.map_err(|e| fail(e.reason(), e.to_string()))?;
    let timeout = proxy.settings.tunnel.handshake_timeout;
    let begun = clock::monotonic();
    let accepted =
        server::accept(&credential, tcp, peer, timeout).await.map_err(|e| fail(e.reason(), describe(&e)))?;
    if !proxy.telemetry.is_hidden() {
        let (_, tls) = accepted.stream.get_ref();
        note_handshake("server", tls.negotiated_key_exchange_group().map(|group| group.name()), begun);
    }
    Ok((own, accepted, credential.not_after()))
}

/// Records a connection that never became a tunnel.
fn refuse(
    proxy: &Proxy,
    own: Option<Arc<Workload>>,
    (peer, local): (SocketAddr, SocketAddr),
    started: Instant,
    outcome: Outcome,
) {
    let src = End { addr: Some(peer), ..End::default() };
    let dst = End { addr: Some(local), workload: own, ..End::default() };
    let route = Route { dst, ..Route::default() };
    let id = random::draws().id;
    let flow = Flow::new(id, Direction::Inbound, Path::Hbone, src, route, started);
    proxy.telemetry.refused(&Arc::new(flow), outcome);
}

/// What the streams of one tunnel have in common.
struct Tunnel {
    proxy: Arc<Proxy>,
    pod: Arc<Pod>,
    own: Arc<Workload>,
    peer: SocketAddr,
    local: SocketAddr,
    identity: Identity,
}

impl Tunnel {
    /// The workload as it is now: a tunnel may outlive a change of it.
    fn own_now(&self) -> Arc<Workload> {
        let snapshot = self.proxy.mesh.snapshot();
        snapshot.own_workload(&self.pod.name, Some(self.local.ip())).unwrap_or(&self.own).clone()
    }
}

async fn stream(tunnel: Arc<Tunnel>, asking: Asking) {
    // Setting up needs far more state than relaying; boxed, it does not weigh on a connection for life.
    let carrier = asking.tunnel();
    let Some((admitted, send, recv)) = Box::pin(open(&tunnel, asking)).await else { return };
    let Admitted { app, mut entered } = admitted;
    let counters = entered.flow().counters.clone();
    tokio::select! {
        end = relay::relay(app, Far::Tunnel { send, recv }, &counters) => {
            crate::outbound::finish(&mut entered, end, carrier.has_lost_large());
        }
        () = entered.cut() => {}
        () = tunnel.pod.drain.forced() => entered.end(crate::outbound::drained()),
    }
}

type OpenStream = (Admitted, h2::SendStream<bytes::Bytes>, h2::RecvStream);

async fn open(tunnel: &Tunnel, mut asking: Asking) -> Option<OpenStream> {
    let started = clock::monotonic();
    let asked = match request::read(&asking.request, asking.extended) {
        Ok(asked) => asked,
        Err(refused) => {
            let outcome = Outcome::failed(Reason::TunnelProtocol, refused.to_string());
            let at = (tunnel.peer, tunnel.local);
            refuse(&tunnel.proxy, Some(tunnel.own.clone()), at, started, outcome);
            asking.refuse(response::refused(refused.status(), Reason::TunnelProtocol));
            return None;
        }
    };
    let own = tunnel.own_now();
    let admitted = admit(
        &tunnel.proxy,
        Authenticated {
            pod: &tunnel.pod,
            own: own.clone(),
            peer: tunnel.identity.clone(),
            peer_addr: tunnel.peer,
            local: tunnel.local,
            authority: asked.authority,
            service: asked.service,
            baggage: asked.baggage,
            client: context::client(asking.request.headers()),
            id: asked.conn_id.unwrap_or_else(|| random::draws().id),
            path: Path::Hbone,
            started,
            counters: None,
        },
        asking.given_up(),
    )
    .await;
    match admitted {
        Ok(mut admitted) => {
            let baggage = tunnel.proxy.settings.response_baggage.then(|| ambit_hbone::baggage::encode(&own));
            match asking.accept(response::accepted(baggage.as_deref())) {
                Ok((send, recv)) => Some((admitted, send, recv)),
                Err(error) => {
                    ambit_net::socket::reset_on_close(&admitted.app);
                    admitted
                        .entered
                        .end(Outcome::failed(Reason::PeerSilent, format!("the peer left: {error}")));
                    None
                }
            }
        }
        Err(refused) => {
            asking.refuse(response::refused(refused.status, refused.reason));
            None
        }
    }
}
