//! Probes over real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::tls;
use super::{get, judge, request};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 2));

#[tokio::test]
async fn a_request_is_a_kubelets_and_the_status_is_judged() {
    let rows = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
        ("HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", Ok(())),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Err("HTTP status 404".to_owned())),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Err("HTTP status 503".to_owned())),
    ];
    for (answer, want) in rows {
        let (near, far) = tokio::io::duplex(4096);
        let request =
            request("10.244.1.2:80", "/ready?a=b", &[("X-Probe".to_owned(), "1".to_owned())]).unwrap();
        let (status, asked) = tokio::join!(get(near, request), serve(far, answer));
        assert_eq!(status.and_then(judge), want, "{answer:?}");
        assert_eq!(
            asked,
            "GET /ready?a=b HTTP/1.1\r\nuser-agent: kube-probe/1.35\r\naccept: */*\r\nconnection: close\r\n\
             host: 10.244.1.2:80\r\nx-probe: 1\r\n\r\n"
        );
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told() {
    let (near, far) = tokio::io::duplex(4096);
    let request = request("10.244.1.2:80", "/", &[]).unwrap();
    let (status, _) = tokio::join!(get(near, request), serve(far, ""));
    assert!(status.unwrap_err().starts_with("speaking HTTP: "));
}

#[test]
fn a_header_that_cannot_be_sent_is_named() {
    let wrong = request("10.244.1.2:80", "/", &[("X Y".to_owned(), "1".to_owned())]).unwrap_err();
    assert_eq!(wrong, "header X Y: invalid HTTP header name");
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = async {
        let tls = acceptor().accept(far).await.unwrap();
        serve(tls, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
    };
    let client = async {
        let request = request("10.244.1.2:443", "/", &[]).unwrap();
        get(tls::wrap(near, HOST).await.unwrap(), request).await
    };
    let (status, _) = tokio::join!(client, server);
    assert_eq!(status.and_then(judge), Ok(()));
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["elsewhere.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Answers one request; returns what was asked.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        asked.extend(byte);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(asked).unwrap()
}
