//! A stream to the application through the endpoint's own proxy, with this waypoint's identity.
//!
//! The proxy must be exactly the endpoint's. On whose behalf the waypoint calls stands on the CONNECT, never on a
//! user's request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ambit_hbone::{INBOUND_PORT, baggage, context, forwarded, request};
use ambit_net::tls::client;
use ambit_net::tunnel;
use ambit_net::tunnel::client::{Opened, TunnelError};
use ambit_types::Identity;

use super::{Caller, Endpoint, Io, Upstream};
use crate::outbox::Outbox;
use crate::stream::Stream;
use crate::{State, Waypoint, random};

/// Tunnels of the pool that may turn out to be spent before a connection fails.
const REPLACED_MAX: usize = 8;

/// What tells tunnels apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TunnelKey {
    /// Who must be at the other end.
    expected: Identity,
    /// Where it goes.
    peer: SocketAddr,
}

impl Upstream {
    /// Opens a connection to an endpoint's application. Each step has its own bound, and so have all together,
    /// waiting for what others open included.
    pub(crate) async fn connect(
        &self,
        waypoint: &Waypoint,
        state: &State,
        endpoint: &Endpoint,
        caller: &Caller<'_>,
    ) -> Result<Io, TunnelError> {
        let limits = &waypoint.limits;
        // TCP, TLS, the tunnel's HTTP/2, and the answer to the CONNECT.
        let bound =
            limits.connect_timeout + limits.tunnel.handshake_timeout * 2 + limits.tunnel.connect_timeout;
        let opened = tokio::time::timeout(bound, self.open(waypoint, state, endpoint, caller)).await;
        opened.unwrap_or(Err(TunnelError::Timeout { peer: endpoint.address }))
    }

    async fn open(
        &self,
        waypoint: &Waypoint,
        state: &State,
        endpoint: &Endpoint,
        caller: &Caller<'_>,
    ) -> Result<Io, TunnelError> {
        let Some(expected) = &endpoint.expected else {
            metrics::counter!("ambit_waypoint_plaintext_connections_total").increment(1);
            let tcp = self.sockets.connect(endpoint.address, None, waypoint.limits.connect_timeout).await;
            let tcp = tcp.map_err(|e| TunnelError::Connect(Arc::new(e)))?;
            let _ = tcp.set_nodelay(true);
            return Ok(Io::Plain(tcp));
        };
        let peer = SocketAddr::new(endpoint.address.ip(), INBOUND_PORT);
        let key = TunnelKey { expected: expected.clone(), peer };
        let mut replaced = 0;
        loop {
            let fresh = AtomicBool::new(false);
            let open = || {
                fresh.store(true, Ordering::Relaxed);
                self.open_tunnel(waypoint, state, &key)
            };
            let lease = self.tunnels.lease(&key, open).await?;
            let asked = asked(state, endpoint, caller)?;
            let error = match lease.tunnel().connect(asked, &waypoint.limits.tunnel).await {
                Ok(Opened { send, recv, .. }) => {
                    return Ok(Io::Tunnel { stream: Stream::new(send, recv), _lease: Box::new(lease) });
                }
                Err(error) => error,
            };
            if error.is_of_the_tunnel() {
                lease.condemn();
            }
            let is_new = fresh.load(Ordering::Relaxed);
            if !error.is_of_a_spent_tunnel() || is_new || replaced >= REPLACED_MAX {
                return Err(error);
            }
            replaced += 1;
        }
    }

    async fn open_tunnel(
        &self,
        waypoint: &Waypoint,
        state: &State,
        key: &TunnelKey,
    ) -> Result<tunnel::client::Tunnel, TunnelError> {
        let settings = &waypoint.limits.tunnel;
        let credential = waypoint.certificates.get(&state.own.identity()).await?;
        let tcp = self.sockets.connect(key.peer, None, waypoint.limits.connect_timeout).await;
        let tcp = tcp.map_err(|e| TunnelError::Connect(Arc::new(e)))?;
        let _ = tcp.set_nodelay(true);
        let expected = std::slice::from_ref(&key.expected);
        let connected = client::connect(&credential, expected, tcp, key.peer, settings.handshake_timeout)
            .await
            .map_err(|e| TunnelError::Tls(Arc::new(e)))?;
        let connected = connected.map(Outbox::new);
        tunnel::client::open(connected, key.peer, credential.not_after(), settings.clone()).await
    }
}

fn asked(state: &State, endpoint: &Endpoint, caller: &Caller<'_>) -> Result<http::Request<()>, TunnelError> {
    let connect = request::Connect {
        authority: &endpoint.address.to_string(),
        baggage: &baggage::encode(&state.own.workload),
        forwarded: &forwarded::encode(caller.address, None),
        conn_id: caller.id,
        span: random::number(),
    };
    let mut asked = connect.request().map_err(|e| TunnelError::Request(e.to_string()))?;
    context::add(asked.headers_mut(), caller.peer, &state.own.identity());
    Ok(asked)
}
