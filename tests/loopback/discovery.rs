//! Control planes that take a discovery stream and say nothing on it, or nothing more.

use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::grpc::xds_stream::{StreamError, XdsStream};
use ambit_net::tls::provider;
use ambit_runtime::clock;
use ambit_tests::certs::{Template, TestCa, der, pem};
use ambit_tests::fakes;
use ambit_xds::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use bytes::Bytes;
use http::Response;
use prost::Message as _;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How much a control plane says on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    Headers,
    OneResponse,
}

#[tokio::test]
async fn a_control_plane_that_never_answers_is_given_up() {
    let (nothing, headers, silent) = tokio::join!(ends(Says::Nothing), ends(Says::Headers), black_hole());
    for (name, (error, took)) in [("nothing", nothing), ("headers", headers)] {
        assert!(error.to_string().contains("did not answer within 10s"), "{name}: {error:?}");
        assert!((9..13).contains(&took.as_secs()), "{name}: {took:?}");
    }
    let (error, took) = silent;
    assert!(matches!(error, StreamError::Channel(_)), "{error:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn a_quiet_stream_is_healthy_once_it_was_answered() {
    let target = plane(Says::OneResponse).await;
    let mut stream = open(&target).await.expect("a stream");
    stream.next().await.expect("a response");
    let more = tokio::time::timeout(Duration::from_secs(12), stream.next()).await;
    assert!(more.is_err(), "{more:?}");
}

/// How a stream to such a control plane ends, and after how long.
async fn ends(says: Says) -> (StreamError, Duration) {
    let target = plane(says).await;
    timed(async {
        match open(&target).await {
            Ok(mut stream) => stream.next().await.map(|_| ()),
            Err(error) => Err(error),
        }
    })
    .await
}

/// The same where somebody takes the connection who does not even speak TLS.
async fn black_hole() -> (StreamError, Duration) {
    let hole = fakes::BlackHole::start().await;
    let roots = pem(&TestCa::new().root.der);
    let target = Target {
        address: format!("https://{}", hole.address),
        roots,
        alternative_name: None,
        local_address: None,
    };
    timed(async { open(&target).await.map(|_| ()) }).await
}

async fn timed(work: impl Future<Output = Result<(), StreamError>>) -> (StreamError, Duration) {
    let begun = clock::monotonic();
    let ended = tokio::time::timeout(Duration::from_secs(20), work).await.expect("it hangs");
    (ended.expect_err("no answer"), clock::monotonic().saturating_duration_since(begun))
}

async fn open(target: &Target) -> Result<XdsStream, StreamError> {
    let caller = Caller { token: "a.b.c".to_owned(), cluster_id: "test".to_owned(), headers: Vec::new() };
    XdsStream::open(target, &caller, vec![DeltaDiscoveryRequest::default()]).await
}

async fn plane(says: Says) -> Target {
    let ca = TestCa::new();
    let own_address = der::tlv(0x87, &[127, 0, 0, 1]);
    let shown = ca.leaf(&Template { names: Some((true, vec![own_address])), ..Template::leaf("") });
    let chain = shown.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::try_from(shown.key).expect("PKCS#8");
    let mut settings = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = format!("https://{}", listener.local_addr().expect("bound"));
    fakes::start(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = acceptor.accept(tcp).await.expect("a good client");
            fakes::start(serve(h2::server::handshake(tls).await.expect("a good client"), says));
        }
    });
    Target { address, roots: pem(&ca.root.der), alternative_name: None, local_address: None }
}

/// Holds what it is asked for as long as the client is there.
async fn serve<S>(mut connection: h2::server::Connection<S, Bytes>, says: Says)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut unanswered, mut answered) = (Vec::new(), Vec::new());
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if says == Says::Nothing {
            unanswered.push((request, respond));
            continue;
        }
        let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
        let mut send = respond.send_response(head, false).expect("the client is there");
        if says == Says::OneResponse {
            let response =
                DeltaDiscoveryResponse { nonce: "1".to_owned(), ..DeltaDiscoveryResponse::default() };
            let message = response.encode_to_vec();
            let length = u32::try_from(message.len()).expect("short").to_be_bytes();
            send.send_data([&[0][..], &length, &message].concat().into(), false)
                .expect("the client is there");
        }
        answered.push((request, send));
    }
}
