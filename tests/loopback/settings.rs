//! TLS settings: made once for each credential and peer, and with the newest algorithms first.

use std::sync::Arc;
use std::time::Duration;

use ambit_net::tls;
use ambit_tests::certs::TestCa;
use ambit_tests::fakes;
use ambit_types::Identity;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::net::{TcpListener, TcpStream};

use crate::ends::{client_identity, server_identity, within};

fn identity(n: usize) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/bank/sa/web-{n}")).expect("an identity")
}

/// P2: settings are not built for each connection; they end with the credential and are bounded.
#[test]
fn settings_are_made_once_for_each_credential_and_expected_peers() {
    let ca = TestCa::new();
    let credential = ca.credential(&client_identity());
    let of = |expected: &[Identity]| credential.client_settings(expected).expect("a good credential");
    let rows = [vec![], vec![identity(1)], vec![identity(1), identity(2)], vec![identity(2)]];
    let all: Vec<_> = rows.iter().map(|expected| of(expected)).collect();
    for (n, expected) in rows.iter().enumerate() {
        for (m, settings) in all.iter().enumerate() {
            assert_eq!(Arc::ptr_eq(&of(expected), settings), n == m, "{n} and {m}");
        }
    }
    assert!(Arc::ptr_eq(&credential.server_settings(), &credential.server_settings()));
    let weak: Vec<_> = (0..5000).map(|n| Arc::downgrade(&of(&[identity(n)]))).collect();
    let kept = weak.iter().filter(|settings| settings.strong_count() > 0).count();
    assert!((1..=512).contains(&kept), "{kept} of 5000 are kept");
    drop((all, credential));
    assert!(weak.iter().all(|settings| settings.strong_count() == 0), "they outlive the credential");
}

/// TLS 1.3, and the hybrid key exchange at the first attempt.
#[tokio::test]
async fn tunnels_use_the_newest_algorithms() {
    let ca = TestCa::new();
    let (ours, theirs) = (ca.credential(&client_identity()), ca.credential(&server_identity()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let accepting = fakes::start(async move {
        let (tcp, peer) = listener.accept().await.expect("it connects");
        tls::server::accept(&theirs, tcp, peer, Duration::from_secs(5)).await.expect("a good peer")
    });
    let tcp = TcpStream::connect(address).await.expect("loopback");
    let expected = [server_identity()];
    let connected = tls::client::connect(&ours, &expected, tcp, address, Duration::from_secs(5));
    let connected = within(connected).await.expect("a good peer");
    let accepted = within(accepting).await.expect("no panic");
    let (_, client) = connected.stream.get_ref();
    let (_, server) = accepted.stream.get_ref();
    let group = client.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(server.negotiated_key_exchange_group().map(|group| group.name()), group);
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "the first key share is taken");
}

/// Nothing older than TLS 1.3 and nothing but AES-GCM can be agreed on.
#[test]
fn no_old_algorithm_is_offered() {
    let provider = tls::provider();
    let groups: Vec<NamedGroup> = provider.kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups[..2], [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    assert!(provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}
