//! Plaintext arriving at a pod: a probe of the node, or a peer without identity that policy decides about.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_net::relay::{self, Far};
use ambit_net::socket::{original_destination, reset_on_close};
use ambit_runtime::access_log::Direction;
use ambit_runtime::clock;
use ambit_state::{Admission, MeshedPlaintext, Open, PlainFacts, PlainPlan, plan_inbound_plain};
use ambit_types::{Reason, Workload, canonical};
use tokio::net::TcpStream;

use crate::admit::{Admitted, authorized_connect, crowded};
use crate::flow::{End, Flow, Outcome, Path, Route};
use crate::outbound::{drained, finish};
use crate::proxy::{Pod, Proxy};
use crate::random;

/// Takes one connection that was redirected to port 15006 of a pod.
pub async fn plaintext(proxy: Arc<Proxy>, pod: Arc<Pod>, tcp: TcpStream, peer: SocketAddr) {
    let Some((tcp, admitted)) = Box::pin(open(&proxy, &pod, tcp, canonical(peer))).await else { return };
    let Admitted { app, mut entered } = admitted;
    let counters = entered.flow().counters.clone();
    tokio::select! {
        end = relay::relay(tcp, Far::Tcp(app), &counters) => finish(&mut entered, end, false),
        () = entered.cut() => {}
        () = pod.drain.forced() => entered.end(drained()),
    }
}

async fn open(proxy: &Proxy, pod: &Pod, tcp: TcpStream, peer: SocketAddr) -> Option<(TcpStream, Admitted)> {
    let started = clock::monotonic();
    let dst = original_destination(&tcp).ok()?;
    // Taken before the wait for discovery, which may be long.
    let place = pod.place();
    let own = match &place {
        Some(_) => proxy.mesh.own_workload(&pod.name, Some(dst.ip())).await,
        None => proxy.mesh.snapshot().own_workload(&pod.name, Some(dst.ip())).cloned(),
    };
    let snapshot = proxy.mesh.snapshot();
    let may_be_probe = own.as_ref().is_some_and(|own| own.probe_ports().contains(&dst.port()));
    let facts = PlainFacts {
        own: own.as_ref(),
        source: peer,
        destination: dst,
        from_node: may_be_probe && proxy.settings.node_addresses.contains(peer.ip()),
        meshed_plaintext: MeshedPlaintext::default(),
    };
    let flow = |path, source: Option<Arc<Workload>>| {
        let src = End { addr: Some(peer), workload: source, ..End::default() };
        let route = Route {
            dst: End { addr: Some(dst), workload: own.clone(), ..End::default() },
            ..Route::default()
        };
        Arc::new(Flow::new(random::draws().id, Direction::Inbound, path, src, route, started))
    };
    let (path, source, admission) = match plan_inbound_plain(&snapshot, &facts) {
        PlainPlan::Probe => (Path::Probe, None, Admission::Probe),
        PlainPlan::Authorize { source, .. } => (Path::Plaintext, source, Admission::Policy),
        PlainPlan::Refuse(refusal) => {
            proxy
                .telemetry
                .refused(&flow(Path::Plaintext, None), Outcome::failed(refusal.reason, refusal.to_string()));
            reset_on_close(&tcp);
            return None;
        }
    };
    let own = own.as_ref()?;
    let open = Open {
        id: proxy.connections.number(),
        workload: own.uid.clone(),
        own: own.identity(),
        peer: None,
        client: None,
        believed: false,
        source: peer.ip(),
        destination: dst,
        admission,
    };
    let mut entered = proxy.connections.enter_inbound(open.clone(), flow(path, source));
    if admission == Admission::Probe {
        entered.end(Outcome { reason: Some(Reason::ProbeAdmitted), ..Outcome::default() });
    }
    let Some(place) = place else {
        let _ = crowded(entered);
        reset_on_close(&tcp);
        return None;
    };
    entered.hold(place);
    let spoof = (pod.transparent && peer.ip() != dst.ip()).then(|| peer.ip());
    match authorized_connect(proxy, pod, entered, &open, spoof, std::future::pending()).await {
        Ok(admitted) => Some((tcp, admitted)),
        Err(_) => {
            // The record is written; the peer sees what a refused connection looks like.
            reset_on_close(&tcp);
            None
        }
    }
}
