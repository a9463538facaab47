//! The captured pods of this node with their open connections.
//!
//! A pod that could not be captured yet is not among them: it has no connections here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ambit_runtime::access_log::Direction;
use ambit_state::{PodRef, Snapshot};
use ambit_types::canonical;
use serde_json::{Value, json};

use crate::flow::{End, Flow, Path, Route};
use crate::proxy::Proxy;

/// Connections of one pod.
#[derive(Debug, Default)]
struct Connections {
    inbound: Vec<Value>,
    outbound: Vec<Value>,
}

/// Every captured pod by the uid of its workload, or by its name while discovery does not tell of it.
pub(super) fn states(proxy: &Proxy, snapshot: &Snapshot) -> Value {
    let captured = proxy.pods.all();
    let mut pods: BTreeMap<PodRef, Connections> =
        captured.iter().map(|pod| (pod.name.clone(), Connections::default())).collect();
    for flow in proxy.connections.flows() {
        let own = match flow.direction {
            Direction::Inbound => &flow.route.dst,
            Direction::Outbound => &flow.src,
        };
        let Some(name) = pod_of(own) else { continue };
        let Some(of) = pods.get_mut(&name) else { continue };
        match flow.direction {
            Direction::Inbound => of.inbound.push(inbound(&flow)),
            Direction::Outbound => of.outbound.push(outbound(&flow, snapshot)),
        }
    }
    let entry = |(name, of): (PodRef, Connections)| (key(&name, snapshot), state(&name, of));
    Value::Object(pods.into_iter().map(entry).collect())
}

fn pod_of(end: &End) -> Option<PodRef> {
    end.workload.as_deref().map(PodRef::of)
}

fn key(pod: &PodRef, snapshot: &Snapshot) -> String {
    let name = || format!("{}/{}", pod.namespace, pod.name);
    snapshot.own_workload(pod, None).map_or_else(name, |w| w.uid.to_string())
}

fn state(pod: &PodRef, of: Connections) -> Value {
    json!({
        "state": "Up",
        "info": {
            "name": &*pod.name,
            "namespace": &*pod.namespace,
            "serviceAccount": &*pod.service_account,
        },
        "connections": {"inbound": of.inbound, "outbound": of.outbound},
    })
}

/// A connection to the pod: from whom, to which service, to which of the pod's ports.
fn inbound(flow: &Flow) -> Value {
    json!({
        "src": text(flow.src.addr),
        "originalDst": flow.route.service.as_ref().map(|service| &*service.hostname),
        "actualDst": text(application(&flow.route)),
        "protocol": protocol(flow.path),
    })
}

/// A connection of the pod: what it connected to, and where the connection went.
fn outbound(flow: &Flow, snapshot: &Snapshot) -> Value {
    let asked = virtual_address(flow, snapshot).or_else(|| application(&flow.route));
    json!({
        "src": text(flow.src.addr),
        "originalDst": text(asked),
        "actualDst": text(flow.route.dst.addr),
        "protocol": protocol(flow.path),
    })
}

fn text(address: Option<SocketAddr>) -> String {
    address.map(|address| canonical(address).to_string()).unwrap_or_default()
}

/// How it is carried. Pods that are joined inside the process have no tunnel, and are not said to have one.
fn protocol(path: Path) -> &'static str {
    match path {
        Path::Hbone | Path::Waypoint => "HBONE",
        Path::Local => "LOCAL",
        Path::Plaintext | Path::Probe | Path::Passthrough => "TCP",
    }
}

/// The application's address and port: behind a tunnel they stand in what its request named.
fn application(route: &Route) -> Option<SocketAddr> {
    let address = route.dst.addr?;
    let Some(authority) = route.hbone_addr.as_deref() else { return Some(address) };
    let port = || -> Option<u16> { authority.rsplit_once(':')?.1.parse().ok() };
    let named: Option<SocketAddr> = authority.parse().ok();
    named.or_else(|| Some(SocketAddr::new(address.ip(), port()?))).or(Some(address))
}

/// The virtual address that the pod connected to, where the service it meant has only one that leads to the
/// endpoint's port: what a connection keeps is the service and the endpoint.
fn virtual_address(flow: &Flow, snapshot: &Snapshot) -> Option<SocketAddr> {
    let key = flow.route.service.as_ref()?;
    let service = snapshot.service(key)?.service();
    let (source, reached) = (canonical(flow.src.addr?), application(&flow.route)?);
    let own = flow.route.dst.workload.as_deref().and_then(|w| w.services.get(key));
    let ports = own.filter(|ports| !ports.is_empty()).unwrap_or(&service.ports);
    let addresses = service.vips.iter().map(|vip| vip.ip).filter(|ip| ip.is_ipv4() == source.is_ipv4());
    let leads_there = ports.iter().filter(|port| port.target_port == reached.port());
    Some(SocketAddr::new(only(addresses)?, only(leads_there)?.service_port))
}

/// The one item of a list that has no other.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
