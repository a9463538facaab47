//! HBONE arriving at the waypoint: who calls, for whom, and in which protocol.
//!
//! A tunnel's task only takes streams apart; each CONNECT becomes a task of its own. Whoever the caller is says its
//! certificate and nothing else. What is asked for must be bound to this waypoint; a request that another waypoint
//! has sent on is refused, so that nothing goes in circles.

mod admit;
mod detect;
mod http;
mod meter;
mod pass;
pub(crate) mod relays;
mod server_name;
pub(crate) mod shares;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::{ConnId, context, request as connect, response};
use ambit_net::tls::server;
use ambit_net::tunnel::server::{Asking, serve as serve_tunnel, spawn_stream};
use ambit_runtime::tasks;
use ambit_types::{Identity, Reason, Workload, canonical};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

pub use admit::{Refused, Target, admit};
use detect::Reading;
pub(crate) use http::{Course, Tasks};
use meter::Metered;

use crate::outbox::Outbox;
use crate::stream::Stream;
use crate::{Waypoint, random};

/// Pause after the kernel could give no connection, so that a shortage is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a tunnel.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Proven by its certificate.
    pub(crate) identity: Identity,
    /// Where it calls from.
    pub(crate) address: SocketAddr,
    /// Requests that it gave up on this tunnel.
    tally: Arc<http::Tally>,
}

/// One CONNECT: who calls whom. Shared by the requests on it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) waypoint: Arc<Waypoint>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) target: Target,
    /// The id in the records of all proxies on the way.
    pub(crate) id: ConnId,
    /// The caller's record, by its address; for labels, and only if it agrees with the proven identity.
    pub(crate) source: Option<Arc<Workload>>,
}

/// Takes connections until the waypoint drains.
pub async fn listen(waypoint: Arc<Waypoint>, listener: TcpListener) {
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = waypoint.drain.draining() => return,
        };
        match taken {
            Ok((tcp, peer)) => {
                let work = serve(waypoint.clone(), tcp, peer);
                tasks::spawn("waypoint-tunnel", waypoint.drain.track(work));
            }
            Err(error) => {
                warn!(%error, "a connection could not be taken");
                metrics::counter!("ambit_waypoint_accept_errors_total").increment(1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection at the tunnel port.
pub async fn serve(waypoint: Arc<Waypoint>, tcp: TcpStream, peer: SocketAddr) {
    let address = canonical(peer);
    // Nagle would hold back the small frames of which tunnels are made.
    let _ = tcp.set_nodelay(true);
    let Some(share) = waypoint.sources.take(&address.ip()) else { return refused(Reason::PodQuota) };
    let Ok(turn) = waypoint.handshakes.clone().try_acquire_owned() else {
        return refused(Reason::PodQuota);
    };
    let settings = waypoint.limits.tunnel.clone();
    let own = waypoint.state().own.identity();
    // The place among the handshakes is not to be held for longer than a handshake may take.
    let credential =
        match tokio::time::timeout(settings.handshake_timeout, waypoint.certificates.get(&own)).await {
            Ok(Ok(credential)) => credential,
            Ok(Err(error)) => return refused(error.reason()),
            Err(_) => return refused(Reason::NoCertificate),
        };
    let accepted = match server::accept(&credential, tcp, address, settings.handshake_timeout).await {
        Ok(accepted) => accepted,
        Err(error) => {
            debug!(%address, %error, code = error.reason().code(), "no tunnel came about");
            return refused(error.reason());
        }
    };
    let Some(_tunnel) = waypoint.peers.take(&accepted.peer) else {
        debug!(%address, peer = %accepted.peer, "an identity has all the tunnels that it may have");
        return refused(Reason::PodQuota);
    };
    drop((turn, share));
    let usable_until = accepted.peer_not_after.min(credential.not_after());
    let peer = Arc::new(Peer { identity: accepted.peer, address, tally: Arc::default() });
    let metered = Metered::new(Outbox::new(accepted.stream), waypoint.limits.control_frames_max);
    let drain = &waypoint.drain;
    let served = serve_tunnel(metered, address, usable_until, settings, drain, |asking| {
        spawn_stream(drain, stream(waypoint.clone(), peer.clone(), asking));
    });
    if let Err(error) = served.await {
        debug!(%address, %error, code = Reason::TunnelProtocol.code(), "a tunnel ended");
    }
}

fn refused(reason: Reason) {
    metrics::counter!("ambit_waypoint_tunnels_refused_total", "code" => reason.code()).increment(1);
}

/// One stream of a tunnel.
async fn stream(waypoint: Arc<Waypoint>, peer: Arc<Peer>, asking: Asking) {
    let (call, reading) = match called(&waypoint, &peer, &asking) {
        Ok(called) => called,
        Err(Refused { status, reason, what }) => {
            debug!(peer = %peer.address, code = reason.code(), what, "a stream is refused");
            waypoint.observe.refused(reason);
            return asking.refuse(response::refused(status, reason));
        }
    };
    let call = Arc::new(call);
    match reading {
        Reading::Stream => pass::connect_first(call, asking).await,
        Reading::Http | Reading::Tls | Reading::Unknown => {
            let baggage = ambit_hbone::baggage::encode(&waypoint.state().own.workload);
            let Ok((send, recv)) = asking.accept(response::accepted(Some(&baggage))) else { return };
            let mut stream = Stream::new(send, recv);
            let settled = detect::settle(&mut stream, reading, &waypoint.limits, &waypoint.drain);
            let Some(found) = settled.await else { return };
            let is_undeclared = reading == Reading::Unknown;
            match found {
                detect::Found::Http1 => http::serve_http1(call, stream).await,
                detect::Found::Http2 => http::serve_http2(call, stream).await,
                detect::Found::Tls => pass::serve_tls(call, stream, is_undeclared).await,
                detect::Found::Other => pass::serve(call, stream, is_undeclared).await,
            }
        }
    }
}

/// Reads a CONNECT and finds who is called, and how the bytes on it are to be read.
fn called(waypoint: &Arc<Waypoint>, peer: &Arc<Peer>, asking: &Asking) -> Result<(Call, Reading), Refused> {
    let asked = connect::read(&asking.request, asking.extended).map_err(|refused| Refused {
        status: refused.status(),
        reason: Reason::TunnelProtocol,
        what: "no tunnel request",
    })?;
    let state = waypoint.state();
    if context::has_passed_a_waypoint(asking.request.headers()) {
        return Err(Refused::new(Reason::LoopDetected, "a waypoint has sent this on already"));
    }
    let target = admit(&state, &asked.authority, peer.identity.namespace())?;
    let reading = detect::reading(&state, &target, peer.identity.namespace());
    let network = &state.own.workload.network;
    let source = state.mesh.workload_at(network, peer.address.ip()).cloned();
    // A record that contradicts the certificate is somebody else's.
    let source = source.filter(|workload| workload.identity() == peer.identity);
    let call = Call {
        waypoint: waypoint.clone(),
        peer: peer.clone(),
        target,
        id: asked.conn_id.unwrap_or_else(|| ConnId::from_random(random::wide())),
        source,
    };
    Ok((call, reading))
}
