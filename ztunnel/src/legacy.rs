//! Connections that a pod had before it was captured: they go on beside the mesh, and this tells of them once.
//!
//! They are read off the kernel's table before our listeners are there, so that nothing carried is among them. Where a
//! proxy was in the namespace before (a restart, a handover, a pod that comes back while old connections drain)
//! nothing is told: its own plain sockets look the same. Nothing here touches a connection.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ambit_hbone::{INBOUND_CAPTURE_PORT, INBOUND_PORT, OUTBOUND_CAPTURE_PORT};
use ambit_net::linux::netns::NetNs;
use ambit_net::linux::tcp_table::{self, Line, State};
use ambit_runtime::access_log::Direction;
use ambit_runtime::{clock, tasks};
use ambit_types::{Reason, Workload};
use tracing::{debug, info};

use crate::flow::{End, Flow, Outcome, Path, Route};
use crate::proxy::{Pod, Proxy};
use crate::random;

/// Connections of one pod that are told of; the others are counted.
const RECORDS_MAX: usize = 1000;

/// Longest part of each table that is read: about 50,000 sockets.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// A connection that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    direction: Direction,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The connections of a namespace in which no proxy is or was; to be asked before listeners are bound there.
pub fn look(netns: &NetNs) -> Vec<Found> {
    match netns.run(|| tcp_table::read(TABLE_BYTES_MAX)) {
        Ok(Ok(tables)) => found(&tables),
        Ok(Err(error)) => untold(&error),
        Err(error) => untold(&error),
    }
}

fn untold(error: &dyn std::error::Error) -> Vec<Found> {
    debug!(error = crate::admit::describe(error), "connections from before capture are not told of");
    Vec::new()
}

fn found(tables: &[String]) -> Vec<Found> {
    let lines = || tables.iter().flat_map(|table| table.lines()).filter_map(Line::parse);
    let ours = [OUTBOUND_CAPTURE_PORT, INBOUND_CAPTURE_PORT, INBOUND_PORT];
    if lines().any(|line| line.state != State::Over && ours.contains(&line.local.port())) {
        return Vec::new();
    }
    let served: HashSet<u16> =
        lines().filter(|line| line.state == State::Listen).map(|line| line.local.port()).collect();
    let remotes: HashSet<SocketAddr> = lines().filter_map(|line| line.remote).collect();
    let is_open = |line: &Line| line.state == State::Established && !line.local.ip().is_loopback();
    lines()
        // One whose other end is in the namespace as well does not leave the pod.
        .filter(|line| is_open(line) && !remotes.contains(&line.local))
        .filter_map(|line| {
            let is_inbound = served.contains(&line.local.port());
            let direction = if is_inbound { Direction::Inbound } else { Direction::Outbound };
            Some(Found { direction, local: line.local, remote: line.remote? })
        })
        .collect()
}

/// Writes a flow record of each, once it is known who the pod is.
pub fn tell(proxy: &Arc<Proxy>, pod: &Arc<Pod>, found: Vec<Found>) {
    let Some(first) = found.first().copied() else { return };
    let (proxy, pod) = (proxy.clone(), pod.clone());
    tasks::spawn("legacy-connections", async move {
        let own = proxy.mesh.own_workload(&pod.name, Some(first.local.ip())).await;
        for one in found.iter().take(RECORDS_MAX) {
            let flow = Arc::new(flow(&proxy, own.as_ref(), *one));
            let outcome = Outcome { reason: Some(Reason::LegacyConnection), ..Outcome::default() };
            proxy.telemetry.noticed(&flow, outcome);
        }
        info!(
            namespace = &*pod.name.namespace,
            name = &*pod.name.name,
            connections = found.len(),
            unrecorded = found.len().saturating_sub(RECORDS_MAX),
            code = Reason::LegacyConnection.code(),
            "connections from before capture go on outside the mesh"
        );
    });
}

fn flow(proxy: &Proxy, own: Option<&Arc<Workload>>, found: Found) -> Flow {
    let snapshot = proxy.mesh.snapshot();
    let other = own.and_then(|own| snapshot.workload_at(&own.network, found.remote.ip()));
    let here = End { addr: Some(found.local), workload: own.cloned(), ..End::default() };
    let there = End { addr: Some(found.remote), workload: other.cloned(), ..End::default() };
    let (src, dst) = match found.direction {
        Direction::Inbound => (there, here),
        Direction::Outbound => (here, there),
    };
    let route = Route { dst, ..Route::default() };
    Flow::new(random::draws().id, found.direction, Path::Plaintext, src, route, clock::monotonic())
}

#[cfg(test)]
mod tests;
