//! One connection as what summaries count.

use std::net::{IpAddr, SocketAddr};

use ambit_runtime::access_log::Direction;
use ambit_types::Str;
use ambit_xds::observe::{Example, Key, Side};
use ambit_xds::proto::ambit::observe::v1::Reporter;

use crate::flow::{End, Flow, Outcome};

/// What tells its pair apart; while it is open, by what it was let in with.
pub(super) fn key(flow: &Flow, outcome: Option<&Outcome>) -> Key {
    Key {
        reporter: match flow.direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        },
        source: Side { address: outside(flow), ..side(&flow.src) },
        destination: side(&flow.route.dst),
        service: flow.route.service.as_ref().map_or_else(Str::default, |service| service.hostname.clone()),
        port: port(flow),
        path: flow.path.as_str(),
        is_denied: outcome.is_some_and(Outcome::is_failure),
        reason: outcome.and_then(|outcome| outcome.reason),
        policy: outcome.and_then(|outcome| outcome.policy.clone()),
        client: flow.client.clone(),
    }
}

/// Its two ends as an example of the pair.
pub(super) fn ends(flow: &Flow) -> [Example; 2] {
    [example(&flow.src), example(&flow.route.dst)]
}

/// An end by what discovery knows of it. What a peer only says of itself is no name here: it could make up any number.
fn side(end: &End) -> Side {
    let workload = end.workload.as_deref();
    let named = |name: &Str| !name.is_empty();
    let known = workload.map(|w| if named(&w.workload_name) { &w.workload_name } else { &w.name });
    Side {
        namespace: workload.map(|w| w.namespace.clone()).unwrap_or_default(),
        workload: known.cloned().unwrap_or_default(),
        identity: end.identity.clone(),
        node: workload.map(|w| w.node.clone()).unwrap_or_default(),
        address: None,
    }
}

/// The address of a caller that nothing else names.
fn outside(flow: &Flow) -> Option<IpAddr> {
    let End { addr, workload, identity, .. } = &flow.src;
    let is_nobody = workload.is_none() && identity.is_none();
    addr.filter(|_| is_nobody && flow.direction == Direction::Inbound).map(|addr| addr.ip().to_canonical())
}

fn example(end: &End) -> Example {
    Example {
        pod: end.workload.as_deref().map(|w| w.name.clone()).unwrap_or_default(),
        address: end.addr.map(|addr| addr.to_string()).unwrap_or_default(),
    }
}

/// The port of whatever was addressed, which is not the tunnel's.
fn port(flow: &Flow) -> u16 {
    let asked = flow.route.hbone_addr.as_deref().and_then(|addr| addr.rsplit_once(':')?.1.parse().ok());
    asked.unwrap_or_else(|| flow.route.dst.addr.as_ref().map_or(0, SocketAddr::port))
}
