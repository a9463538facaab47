//! A stream to a workload's proxy: a slot on a tunnel of the pod's pool, and the answer to the request on it.
//!
//! Nothing of the application is read here, so a tunnel that its peer is leaving is replaced without loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ambit_hbone::{forwarded, request};
use ambit_net::pool_driver::Lease;
use ambit_net::tls::client;
use ambit_net::tunnel;
use ambit_net::tunnel::client::{Opened, TunnelError};
use ambit_runtime::clock;
use ambit_state::plan::outbound::Hop;
use ambit_types::Workload;

use super::Captured;
use crate::proxy::TunnelKey;
use crate::telemetry::note_handshake;

/// Tunnels of the pool that may turn out to be spent before a connection fails.
const REPLACED_MAX: usize = 8;

/// Whether another tunnel may do where one failed: a new one that is refused says what any other would.
fn may_replace(error: &TunnelError, reused: bool, replaced: usize) -> bool {
    error.is_of_a_spent_tunnel() && reused && replaced < REPLACED_MAX
}

impl Captured<'_> {
    /// A slot on a tunnel, and a stream on it; tunnels of the pool that turn out to be spent are replaced.
    pub(super) async fn open_stream(
        &self,
        source: &Arc<Workload>,
        hop: &Hop,
    ) -> Result<(Lease<TunnelKey>, Opened), TunnelError> {
        let key = TunnelKey {
            source: source.identity(),
            source_ip: self.peer.ip(),
            expected: hop.expected_identities(),
            peer: hop.tunnel(),
        };
        let mut replaced = 0;
        loop {
            let fresh = AtomicBool::new(false);
            let open = || {
                fresh.store(true, Ordering::Relaxed);
                self.open_tunnel(&key)
            };
            let lease = self.pod.pool.lease(&key, open).await?;
            let request = self.request(source, hop)?;
            let error = match lease.tunnel().connect(request, &self.proxy.settings.tunnel).await {
                Ok(opened) => return Ok((lease, opened)),
                Err(error) => error,
            };
            if error.is_of_the_tunnel() {
                lease.condemn();
            }
            if !may_replace(&error, !fresh.load(Ordering::Relaxed), replaced) {
                return Err(error);
            }
            tracing::debug!(conn = %self.draws.id, %error, "a tunnel of the pool is spent, taking another");
            metrics::counter!("ambit_tunnels_replaced_total", "code" => error.reason().code()).increment(1);
            replaced += 1;
        }
    }

    async fn open_tunnel(&self, key: &TunnelKey) -> Result<tunnel::client::Tunnel, TunnelError> {
        let settings = &self.proxy.settings.tunnel;
        let credential = self.proxy.certificates.get(&key.source).await?;
        let tcp = self
            .pod
            .sockets
            .connect(key.peer, None, self.proxy.settings.connect_timeout)
            .await
            .map_err(|e| TunnelError::Connect(Arc::new(e)))?;
        let begun = clock::monotonic();
        let connected =
            client::connect(&credential, &key.expected, tcp, key.peer, settings.handshake_timeout)
                .await
                .map_err(|e| TunnelError::Tls(Arc::new(e)))?;
        let (_, tls) = connected.stream.get_ref();
        note_handshake("client", tls.negotiated_key_exchange_group().map(|group| group.name()), begun);
        tunnel::client::open(connected, key.peer, credential.not_after(), settings.clone()).await
    }

    fn request(&self, source: &Workload, hop: &Hop) -> Result<http::Request<()>, TunnelError> {
        let connect = request::Connect {
            authority: &hop.address.to_string(),
            baggage: &ambit_hbone::baggage::encode(source),
            forwarded: &forwarded::encode(self.peer, hop.service.as_ref().map(|s| &*s.hostname)),
            conn_id: self.draws.id,
            span: self.draws.span,
        };
        connect.request().map_err(|e| TunnelError::Request(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ambit_net::tunnel::client::TunnelError;
    use ambit_types::Reason;
    use http::StatusCode;

    use super::{REPLACED_MAX, may_replace};

    #[test]
    fn only_spent_tunnels_of_the_pool_are_replaced_and_not_without_end() {
        let peer: SocketAddr = ([10, 0, 0, 1], 15008).into();
        let refused = TunnelError::Refused {
            peer,
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: Reason::ConnectRefused,
        };
        let rows = [
            (TunnelError::Closed { peer }, true, 0, true),
            (TunnelError::StreamRefused { peer }, true, REPLACED_MAX - 1, true),
            (TunnelError::StreamRefused { peer }, true, REPLACED_MAX, false),
            (TunnelError::Closed { peer }, false, 0, false),
            (TunnelError::StreamRefused { peer }, false, 0, false),
            (TunnelError::Timeout { peer }, true, 0, false),
            (refused, true, 0, false),
        ];
        for (error, reused, replaced, want) in rows {
            assert_eq!(may_replace(&error, reused, replaced), want, "{error:?} {reused} {replaced}");
        }
    }
}
