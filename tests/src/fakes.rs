//! Peers that take anybody, say nonsense or stop in the middle, for tests of those who must stand it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ambit_net::tls::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certs::Shown;

/// Runs a peer beside the test; joining it passes its panic on.
#[expect(clippy::disallowed_methods, reason = "a test joins its own tasks, and wants to see their panics")]
pub fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// The chain with its key, whether or not they belong together.
fn certified(shown: &Shown) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::try_from(shown.key.as_slice()).expect("PKCS#8");
    let chain = shown.chain.iter().cloned().map(CertificateDer::from).collect();
    Arc::new(CertifiedKey::new(chain, any_supported_type(&key).expect("a key the library knows")))
}

/// TLS towards anybody, showing a chain that nobody has checked; an empty one is no certificate.
///
/// # Errors
/// What the other side made of it.
///
/// # Panics
/// If the library cannot be set up.
pub async fn connect_to_anybody<S>(tcp: S, shown: &Shown, alpn: &[&[u8]]) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut settings = if shown.chain.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(shown))))
    };
    settings.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    settings.enable_sni = false;
    let name = ServerName::try_from("nobody.example").expect("a name");
    TlsConnector::from(Arc::new(settings)).connect(name, tcp).await
}

/// TLS for anybody, showing a chain that nobody has checked; how many bytes the client then had to say.
///
/// # Panics
/// If the library cannot be set up.
pub async fn accept_anybody(tcp: TcpStream, shown: &Shown) -> usize {
    let mut settings = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(shown))));
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(settings)).accept(tcp).await else { return 0 };
    let mut all = Vec::new();
    // A client that breaks off has said what it has said.
    let _ = stream.read_to_end(&mut all).await;
    all.len()
}

/// A socket that sends one byte at a time.
#[derive(Debug)]
pub struct Dribble(pub TcpStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &from[..from.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    let message = [&[kind, 0][..], &length, body].concat();
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    [&[0x16, 3, 1][..], &length, &message].concat()
}

/// A ClientHello of a client that knows nothing newer than TLS 1.2.
#[must_use]
pub fn client_hello_tls12() -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    let extensions = [&groups[..], &signatures, &alpn].concat();
    let length = u16::try_from(extensions.len()).expect("short").to_be_bytes();
    // Version 1.2, random, no session, ECDHE-ECDSA-AES128-GCM, no compression.
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0], &length, &extensions].concat();
    handshake(1, &body)
}

/// A ServerHello of a server that knows nothing newer than TLS 1.2.
#[must_use]
pub fn server_hello_tls12() -> Vec<u8> {
    handshake(2, &[&[3, 3][..], &[7; 32], &[0, 0xc0, 0x2b, 0, 0, 0]].concat())
}

/// A listener that takes connections and never says or reads anything.
#[derive(Debug)]
pub struct BlackHole {
    /// Where it listens.
    pub address: SocketAddr,
    taken: watch::Receiver<usize>,
}

impl BlackHole {
    /// Listens on loopback.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (count, taken) = watch::channel(0);
        start(async move {
            let mut held = Vec::new();
            while let Ok((tcp, _)) = listener.accept().await {
                held.push(tcp);
                count.send_replace(held.len());
            }
        });
        Self { address, taken }
    }

    /// Waits until somebody is in it.
    ///
    /// # Panics
    /// If it is gone.
    pub async fn reached(&self) {
        self.taken.clone().wait_for(|n| *n > 0).await.expect("it listens");
    }
}

/// A wire to a server that can be cut without either end being told.
#[derive(Debug)]
pub struct Wire {
    /// The near end.
    pub address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Wire {
    /// A whole wire to `to`.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let whole = watch::Sender::new(true);
        let signal = whole.clone();
        start(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(to).await.expect("the server listens");
                start(carry(near, far, signal.subscribe()));
            }
        });
        Self { address, whole }
    }

    /// From now on nothing arrives at either end.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, mut whole: watch::Receiver<bool>) {
    let cut = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        cut = whole.wait_for(|whole| !whole) => cut.is_ok(),
    };
    if cut {
        // Both sockets stay open and silent for as long as the test runs.
        std::future::pending::<()>().await;
    }
}
