//! Connections that are passed through unread: policies of L4, routes for TCP and TLS, both directions copied.

use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::response;
use ambit_net::tunnel::client::TunnelError;
use ambit_net::tunnel::server::Asking;
use ambit_route::balance::{Ask, hash_of_connection};
use ambit_route::model::Balance;
use ambit_route::outlier::Health;
use ambit_route::{Failure, Selected};
use ambit_runtime::clock;
use ambit_types::Reason;
use tokio::io::copy_bidirectional_with_sizes;

use super::Call;
use super::relays::{self, Denied, Entered, Facts};
use super::server_name::{Greeting, HELLO_BYTES_MAX, Name};
use crate::observe::Connection;
use crate::stream::Stream;
use crate::upstream::{Caller, Destination, Endpoint, Io, Reached, View};
use crate::{State, random};

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 16 << 10;

/// Longest wait for a TLS greeting.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Endpoints tried for one connection.
const ATTEMPTS_MAX: usize = 3;

/// What a client gets, if it listens, that has given up before there was an endpoint.
const GIVEN_UP: Denied = Denied { reason: Reason::PeerSilent, policy: None };

/// Reaches the endpoint before the client is told that its connection is there, so that it sees a failure as one.
pub(super) async fn connect_first(call: Arc<Call>, mut asking: Asking) {
    let mut record = Connection::new(&call);
    let entered = enter(&call, None, false);
    let reached = tokio::select! {
        reached = reach(&call, &entered, &mut record) => reached,
        () = asking.given_up() => Err(GIVEN_UP),
    };
    match reached {
        Err(denied) => {
            asking.refuse(response::refused(response::status_of(denied.reason), denied.reason));
            record.refused(denied.reason, denied.policy);
        }
        Ok(reached) => match asking.accept(response::accepted(None)) {
            Ok((send, recv)) => copy(&call, Stream::new(send, recv), reached, &entered, record).await,
            Err(_) => record.refused(Reason::PeerSilent, None),
        },
    }
}

/// Passes a connection on whose first bytes are nothing that is read here.
pub(super) async fn serve(call: Arc<Call>, stream: Stream, is_undeclared: bool) {
    pass(call, stream, None, is_undeclared).await;
}

/// Passes a TLS connection on by the server name of its greeting.
pub(super) async fn serve_tls(call: Arc<Call>, mut stream: Stream, is_undeclared: bool) {
    let greeting = tokio::time::timeout(HELLO_WAIT, greeted(&mut stream)).await;
    let Ok(name) = greeting else { return };
    pass(call, stream, name, is_undeclared).await;
}

async fn greeted(stream: &mut Stream) -> Option<String> {
    let mut greeting = Greeting::default();
    loop {
        match greeting.name(stream.held()) {
            Name::Is(name) => return Some(name),
            Name::None => return None,
            Name::More if stream.held().len() > HELLO_BYTES_MAX => return None,
            Name::More => {
                if !stream.more().await.unwrap_or(false) {
                    return None;
                }
            }
        }
    }
}

async fn pass(call: Arc<Call>, mut stream: Stream, name: Option<String>, is_undeclared: bool) {
    let mut record = Connection::new(&call);
    let entered = enter(&call, name, is_undeclared);
    let reached = tokio::select! {
        reached = reach(&call, &entered, &mut record) => reached,
        () = stream.given_up() => Err(GIVEN_UP),
    };
    match reached {
        Ok(reached) => copy(&call, stream, reached, &entered, record).await,
        // Dropping the stream resets it: the client must not take this for an orderly end.
        Err(denied) => record.refused(denied.reason, denied.policy),
    }
}

/// Has the connection decided again with every change from now on.
fn enter(call: &Arc<Call>, name: Option<String>, is_undeclared: bool) -> Entered {
    call.waypoint.relays.enter(call.clone(), Facts::Connection { name, is_undeclared })
}

/// Asks policies and routes, and opens a connection to an endpoint. May be dropped.
async fn reach(call: &Call, entered: &Entered, record: &mut Connection) -> Result<Reached<Io>, Denied> {
    let state = call.waypoint.state();
    relays::decide(call, entered.facts(), &state, |decision| record.decided(decision))?;
    let name = match entered.facts() {
        Facts::Connection { name, .. } => name.as_deref(),
        Facts::Upgraded(_) => None,
    };
    let peer = &call.peer;
    let failed = |failure: Failure| {
        let reason = failure.reason().unwrap_or(Reason::NoHealthyEndpoint);
        Denied { reason, policy: None }
    };
    let destination = destination(call, &state, name).map_err(failed)?;
    record.destined(&destination);
    let caller = Caller { peer: Some(&peer.identity), address: peer.address, id: call.id };
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    loop {
        let view = destination.view(&state);
        let at = pick(call, &destination, &view, &tried);
        let endpoint = at.map(|at| view.endpoint(at));
        let endpoint = endpoint.filter(|at| tried.iter().all(|one| one.workload.uid != at.workload.uid));
        let Some(endpoint) = endpoint else { return Err(failed(Failure::NoEndpoint)) };
        let seat = destination.seat(&view.policy, endpoint).map_err(|_| failed(Failure::Overflow))?;
        let opened = call.waypoint.upstream.connect(&call.waypoint, &state, endpoint, &caller).await;
        if let Some(health) = health(&opened) {
            destination.observe(endpoint, health, clock::monotonic());
        }
        match opened {
            Ok(io) => {
                record.reached(endpoint);
                return Ok(Reached { io, endpoint: endpoint.clone(), destination, seat });
            }
            Err(error) => {
                tried.push(endpoint.clone());
                if !error.is_before_any_byte() || tried.len() >= ATTEMPTS_MAX {
                    return Err(Denied { reason: error.reason(), policy: None });
                }
            }
        }
    }
}

/// Chooses an endpoint as the destination's policy says, by what is known of a connection.
fn pick(call: &Call, destination: &Destination, view: &View, tried: &[Arc<Endpoint>]) -> Option<usize> {
    let balance = &view.policy.balance;
    let hash = match balance {
        Balance::ConsistentHash(keys) => hash_of_connection(keys, call.peer.address.ip()),
        Balance::LeastRequest | Balance::RoundRobin | Balance::Random => None,
    };
    let (turn, draw) = (destination.turn(), random::number());
    view.pick(&Ask { balance, hash, turn, draw, now: clock::monotonic() }, tried)
}

/// What opening a connection says about its endpoint. A refusal by policy is an answer, and says nothing.
fn health(opened: &Result<Io, TunnelError>) -> Option<Health> {
    match opened {
        Ok(_) => Some(Health::Success),
        Err(error) => error.is_before_any_byte().then_some(Health::GatewayError),
    }
}

fn destination(call: &Call, state: &State, name: Option<&str>) -> Result<Arc<Destination>, Failure> {
    let client = Some(&**call.peer.identity.namespace());
    let port = call.target.address().port();
    let selected = match call.target.service() {
        Some(service) => state.routes.select_stream(service, port, client, name),
        None => Selected::Service,
    };
    let backend = selected.plan_stream(random::number())?;
    let target = backend.map(|backend| &backend.target);
    call.waypoint.upstream.destination(state, &call.target, target).ok_or(Failure::NoEndpoint)
}

/// Copies both ways until both have ended, the connection is not allowed any more, or the waypoint leaves.
async fn copy(call: &Call, mut near: Stream, reached: Reached<Io>, entered: &Entered, record: Connection) {
    let Reached { io: mut far, endpoint, destination: _destination, seat: _seat } = reached;
    let moved = tokio::select! {
        moved = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES) => moved,
        () = call.waypoint.drain.forced() => Err(std::io::ErrorKind::ConnectionAborted.into()),
        () = endpoint.cut(call.waypoint.limits.gone_grace) => Err(std::io::ErrorKind::ConnectionAborted.into()),
        () = entered.cut().cancelled() => return record.refused(Reason::PolicyChanged, None),
    };
    record.ended(moved.ok());
}
