//! The server's TLS: its certificate from our own authority, renewed in place; bounded handshakes and connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ambit_net::socket::{Keepalive, SocketOptions, prepare};
use ambit_net::tls::{ALPN_H2, provider, rotation};
use ambit_runtime::drain::Drain;
use ambit_runtime::{clock, tasks};
use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, error, info, warn};

use crate::ca::sign::{ServerNames, SignError};
use crate::ca::{Authority, Signer};

/// Life of the server's own certificate.
const SERVER_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES_MAX: usize = 256;
/// Connections at once, and of one address.
const CONNECTIONS_MAX: usize = 8192;
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Connections that wait to be served.
const QUEUE: usize = 64;
/// Pause after a failed accept, so that exhausted descriptors do not become a busy loop (T-63).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Keepalive of connections, as Istio's clients have it.
const KEEPALIVE: Keepalive =
    Keepalive { time: Duration::from_secs(300), interval: Duration::from_secs(75), retries: 9 };

/// Why there is no server certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerTlsError {
    /// The authority refuses.
    #[error("certifying our own server")]
    Sign(#[from] SignError),
    /// The TLS library refuses.
    #[error("setting up TLS of the server")]
    Tls(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS settings whose certificate renews itself until `drain` begins.
///
/// # Errors
/// [`ServerTlsError`] if no first certificate can be made.
pub fn settings(signer: Signer, names: &ServerNames, drain: &Drain) -> Result<ServerConfig, ServerTlsError> {
    let mut changes = signer.changes();
    let (key, not_after) = certify(&changes.borrow_and_update(), names)?;
    let current = Arc::new(Current(ArcSwap::new(key)));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(current.clone());
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // No resumption (T-40).
    config.send_tls13_tickets = 0;
    let renewing = renew(changes, names.clone(), current, not_after, drain.clone());
    drop(tasks::spawn("server-certificate", renewing));
    Ok(config)
}

async fn renew(
    mut authority: watch::Receiver<Arc<Authority>>,
    names: ServerNames,
    current: Arc<Current>,
    mut not_after: u64,
    drain: Drain,
) {
    loop {
        let mut draw = [0; 8];
        // Without a draw all servers renew at the same moment, which they may.
        let _ = rand::fill(&mut draw);
        let wait = rotation::renew_after(clock::unix_seconds(), not_after, u64::from_le_bytes(draw));
        tokio::select! {
            () = time::sleep(wait) => {}
            // Another issuer, or another bundle: clients may not trust the last one for much longer.
            changed = authority.changed() => if changed.is_err() { return },
            () = drain.draining() => return,
        }
        let signs = authority.borrow_and_update().clone();
        match certify(&signs, &names) {
            Ok((key, end)) => {
                current.0.store(key);
                not_after = end;
                info!(not_after, "renewed the server's certificate");
            }
            Err(cause) => error!(%cause, not_after, "the server's certificate could not be renewed"),
        }
    }
}

fn certify(authority: &Authority, names: &ServerNames) -> Result<(Arc<CertifiedKey>, u64), ServerTlsError> {
    let own = authority.certify_server(names, SERVER_TTL, clock::wall())?;
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(own.key))?;
    Ok((Arc::new(CertifiedKey::new(own.chain, key)), own.not_after))
}

/// Accepts connections until `drain` begins; what comes out has finished its handshake.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    drain: &Drain,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(QUEUE);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let drain = drain.clone();
    drop(tasks::spawn("accept", async move {
        let slots = Arc::new(Slots::default());
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let options = SocketOptions { keepalive: Some(KEEPALIVE), ..SocketOptions::default() };
        if let Err(cause) = prepare(&listener, &options) {
            warn!(%cause, "connections are accepted without keepalive");
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    warn!(%cause, "accepting a connection failed");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (Some(slot), Ok(turn)) = (slots.take(peer.ip()), handshakes.clone().try_acquire_owned())
            else {
                metrics::counter!("ambit_connections_shed_total").increment(1);
                debug!(%peer, "too many connections; closed");
                continue;
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            drop(tasks::spawn("handshake", async move {
                if let Some(stream) = handshake(&acceptor, stream, peer).await {
                    drop(turn);
                    // A server that has stopped serving drops the receiver.
                    let _ = ready.send(Ok(Connection { stream, _slot: slot })).await;
                }
            }));
        }
    }));
    connections
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    match time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(cause)) => {
            metrics::counter!("ambit_handshakes_failed_total").increment(1);
            debug!(%peer, %cause, "a handshake failed");
            None
        }
        Err(_) => {
            metrics::counter!("ambit_handshakes_failed_total").increment(1);
            debug!(%peer, "a handshake took too long");
            None
        }
    }
}

/// Connections that are open, by address.
#[derive(Debug, Default)]
struct Slots {
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

/// The right to be open, given back when dropped.
#[derive(Debug)]
struct Slot {
    of: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = open.values().sum();
        let mine = open.get(&address).copied().unwrap_or_default();
        if total >= CONNECTIONS_MAX || mine >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        open.insert(address, mine + 1);
        Some(Slot { of: self.clone(), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// A connection that has finished its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    _slot: Slot,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().0.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, Slots};

    #[test]
    fn one_address_cannot_take_every_connection() {
        let slots = Arc::new(Slots::default());
        let greedy = IpAddr::from([10, 0, 0, 1]);
        let held: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX).map(|_| slots.take(greedy).unwrap()).collect();
        assert!(slots.take(greedy).is_none());
        assert!(slots.take(IpAddr::from([10, 0, 0, 2])).is_some());
        drop(held);
        assert!(slots.take(greedy).is_some());
        assert!(slots.open.lock().unwrap().is_empty(), "nothing is remembered of connections that are gone");
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let slots = Arc::new(Slots::default());
        let address = |n: usize| IpAddr::from((n as u128).to_be_bytes());
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(|n| slots.take(address(n)).unwrap()).collect();
        assert!(slots.take(address(CONNECTIONS_MAX)).is_none());
        drop(held);
    }
}
