//! An endpoint's proxy: takes tunnels on its pod's address and connects each stream where it asks to go.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_hbone::response;
use ambit_net::tls::{Credential, server};
use ambit_net::tunnel::TunnelSettings;
use ambit_net::tunnel::server::{Asking, serve};
use ambit_runtime::drain::Drain;
use ambit_types::{Identity, Reason};
use http::{HeaderMap, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use waypoint::stream::Stream;

use super::ca::TestCa;
use super::start;

/// What a proxy was asked.
#[derive(Debug, Clone)]
pub(crate) struct AskedFor {
    pub(crate) peer: Identity,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

/// A running proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxy {
    /// Whether policy refuses whoever asks.
    pub(crate) denies: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<AskedFor>>>,
}

impl Proxy {
    /// In front of a pod of an identity.
    pub(crate) async fn start(ca: &TestCa, identity: &Identity, ip: IpAddr) -> Self {
        let proxy = Self::default();
        let credential = Arc::new(ca.credential(identity));
        let listener = TcpListener::bind((ip, 15008)).await.expect("loopback");
        let accepting = proxy.clone();
        start(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                start(accepting.clone().tunnel(credential.clone(), tcp, peer));
            }
        });
        proxy
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<AskedFor> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tunnel(self, credential: Arc<Credential>, tcp: TcpStream, peer: SocketAddr) {
        let settings = Arc::new(TunnelSettings::default());
        let accepted = server::accept(&credential, tcp, peer, settings.handshake_timeout).await;
        let Ok(accepted) = accepted else { return };
        let identity = accepted.peer.clone();
        let drain = Drain::new();
        let until = credential.not_after();
        let _ = serve(accepted.stream, peer, until, settings, &drain, |asking| {
            start(self.clone().stream(identity.clone(), asking));
        })
        .await;
    }

    async fn stream(self, peer: Identity, asking: Asking) {
        let authority = asking.request.uri().to_string();
        let headers = asking.request.headers().clone();
        let asked = AskedFor { peer, authority: authority.clone(), headers };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        if self.denies.load(Ordering::SeqCst) {
            return asking.refuse(response::refused(StatusCode::UNAUTHORIZED, Reason::PolicyDenied));
        }
        let Ok(mut app) = TcpStream::connect(&authority).await else {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return asking.refuse(response::refused(status, Reason::ConnectRefused));
        };
        let _ = app.set_nodelay(true);
        let Ok((send, recv)) = asking.accept(response::accepted(None)) else { return };
        let mut stream = Stream::new(send, recv);
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut app).await;
    }
}
