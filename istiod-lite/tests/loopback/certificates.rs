//! Certificates: what an honest proxy gets, and how hostile requests end (T-46, T-87, T-88).

use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::grpc::services::istio_certificate_service_client::IstioCertificateServiceClient;
use ambit_net::tls::credential::PemChain;
use ambit_net::tls::store::Ca as _;
use ambit_net::tls::verifier::PeerVerifier;
use ambit_net::tls::{Credential, csr, spiffe};
use ambit_runtime::clock;
use ambit_types::{Identity, TrustDomain};
use ambit_xds::proto::istio::v1::auth::IstioCertificateRequest;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tonic::{Code, Request, Status};

use super::plane::{Issuer, Plane};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Requests with keys so weak that the library here does not make them, and what an answer says of each key. Made by
/// `openssl req -new -newkey rsa:1024` and `-newkey ec -pkeyopt ec_paramgen_curve:P-224`, for the identity above.
const WEAK: [(&str, &str); 2] =
    [(include_str!("rsa-1024.csr.pem"), "1024"), (include_str!("p-224.csr.pem"), "1.3.132.0.33")];

fn cart() -> Identity {
    Identity::parse(CART).unwrap()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|c| c.unwrap()).collect()
}

async fn issue(plane: &Plane, node: &str, identity: &str, ttl: u64) -> Result<(PemChain, Vec<u8>), String> {
    let identity = Identity::parse(identity).unwrap();
    let client = CaClient::new(plane.target(), plane.caller(node), Duration::from_secs(ttl));
    let request = csr::new(&identity).unwrap();
    client.sign(&identity, &request.pem).await.map(|chain| (chain, request.key_der.to_vec()))
}

#[tokio::test]
async fn a_proxy_gets_a_certificate_that_our_own_verifier_takes() {
    let plane = Plane::start().await;
    let (chain, key) = issue(&plane, "node1", CART, 86_400).await.unwrap();
    let credential = Credential::new(&cart(), &chain, &key).unwrap();
    assert_eq!(*credential.identity(), cart());
    assert_eq!(chain.intermediates.len(), 1);

    let mut roots = RootCertStore::empty();
    roots.add(certificates(&chain.roots).remove(0)).unwrap();
    let verifier = PeerVerifier::new(Arc::new(roots), TrustDomain::default()).unwrap();
    let leaf = certificates(&chain.leaf).remove(0);
    let issuers = certificates(&chain.intermediates[0]);
    verifier.verify_client_cert(&leaf, &issuers, UnixTime::now()).unwrap();

    let (not_before, not_after) = spiffe::validity(&leaf).unwrap();
    let now = clock::unix_seconds();
    assert!(not_before <= now && now - not_before <= 70, "backdated by {}", now - not_before);
    assert!(not_after.abs_diff(now + 86_400) < 10);

    let line = plane.audit().pop().unwrap();
    assert_eq!(line["outcome"], "issued");
    assert_eq!(line["identity"], CART);
    assert_eq!(line["node"], "node1");
    assert_eq!(line["caller"], "istio-system/ztunnel");
    assert_eq!(line["serial"], spiffe::serial(&leaf).unwrap());
}

#[tokio::test]
async fn life_is_what_the_operator_says_and_short_lives_are_barely_backdated() {
    let plane = Plane::start_with(&["--leaf-ttl=20s"]).await;
    let asked = 365 * 86_400;
    let (chain, _) = issue(&plane, "node1", CART, asked).await.unwrap();
    let leaf = certificates(&chain.leaf).remove(0);
    let (not_before, not_after) = spiffe::validity(&leaf).unwrap();
    assert!(not_after - not_before <= 23, "{} s", not_after - not_before);
    assert!(not_after >= clock::unix_seconds() + 15);

    // The audit tells that less was given than was asked for.
    let line = plane.audit().pop().unwrap();
    assert_eq!((&line["outcome"], &line["asked"]), (&"issued".into(), &"certificate".into()));
    assert_eq!((&line["identity"], &line["node"]), (&CART.into(), &"node1".into()));
    assert_eq!(line["serial"], spiffe::serial(&leaf).unwrap());
    assert_eq!(line["not_after"], not_after);
    let given = line["not_after"].as_f64().unwrap() - line["time"].as_f64().unwrap();
    assert!((15.0..=20.0).contains(&given), "{given} s: {line:#}");
    assert_eq!(line["asked_seconds"], asked, "{line:#}");
}

#[tokio::test]
async fn the_authority_survives_a_restart_and_is_never_replaced() {
    let plane = Plane::start().await;
    let (before, _) = issue(&plane, "node1", CART, 60).await.unwrap();
    let plane = plane.restart(|_| {}).await;
    let (after, _) = issue(&plane, "node1", CART, 60).await.unwrap();
    assert_eq!(before.roots, after.roots);
    assert_eq!(before.intermediates, after.intermediates);
    assert_ne!(before.leaf, after.leaf);
}

#[tokio::test]
async fn identities_that_do_not_live_on_the_node_are_refused_and_audited() {
    let plane = Plane::start().await;
    let rows = [
        ("node1", "spiffe://cluster.local/ns/shop/sa/orders", "pod-unknown"),
        ("node2", CART, "pod-unknown"),
        ("node1", "spiffe://cluster.local/ns/shop/sa/done", "pod-finished"),
        ("node1", "spiffe://cluster.local/ns/shop/sa/nobody", "pod-unknown"),
        ("node1", "spiffe://evil.example/ns/shop/sa/cart", "trust-domain"),
    ];
    for (node, identity, check) in rows {
        let error = issue(&plane, node, identity, 60).await.unwrap_err();
        assert!(error.contains("AMB2002") && error.contains(check), "{identity}: {error}");
        assert!(error.contains("PermissionDenied"), "{error}");
        let line = plane.audit().pop().unwrap();
        assert_eq!((&line["outcome"], &line["check"]), (&"refused".into(), &check.into()));
        assert_eq!((&line["identity"], &line["node"]), (&identity.into(), &node.into()));
        assert_eq!(line["code"], "AMB2002");
    }
}

/// Sends a request as it is, with the headers as they are.
async fn ask(
    plane: &Plane,
    tokens: &[&str],
    request: IstioCertificateRequest,
) -> Result<Vec<String>, Status> {
    let channel = plane.target().connect().await.unwrap();
    let mut request = Request::new(request);
    for token in tokens {
        request.metadata_mut().append("authorization", token.parse().unwrap());
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    client.create_certificate(request).await.map(|answer| answer.into_inner().cert_chain)
}

fn metadata(identity: &str) -> Option<Struct> {
    let value = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
    Some(Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() })
}

fn request(csr: String) -> IstioCertificateRequest {
    IstioCertificateRequest { csr, validity_duration: 3600, metadata: metadata(CART) }
}

fn honest() -> IstioCertificateRequest {
    request(csr::new(&cart()).unwrap().pem)
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused_and_audited() {
    let plane = Plane::start().await;
    let foreign = Issuer::new();
    let good = |change: &dyn Fn(&mut serde_json::Value)| {
        format!("Bearer {}", plane.issuer.token("node1", |claims| change(claims)))
    };
    let now = clock::unix_seconds();
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("token-missing", vec![]),
        ("token-missing", vec!["Basic abc".to_owned()]),
        ("token-several", vec![good(&|_| {}), good(&|_| {})]),
        ("token-malformed", vec!["Bearer nonsense".to_owned()]),
        ("token-malformed", vec![format!("Bearer {}", "a".repeat(9000))]),
        ("token-malformed", vec!["Bearer eyJhbGciOiJub25lIn0.e30.".to_owned()]),
        ("token-signature", vec![format!("Bearer {}", foreign.token("node1", |_| {}))]),
        ("token-issuer", vec![good(&|c| c["iss"] = "someone".into())]),
        ("token-audience", vec![good(&|c| c["aud"] = "api".into())]),
        ("token-audience", vec![good(&|c| _ = c.as_object_mut().unwrap().remove("aud"))]),
        ("token-expired", vec![good(&|c| c["exp"] = (now - 60).into())]),
        ("token-malformed", vec![good(&|c| _ = c.as_object_mut().unwrap().remove("exp"))]),
        ("token-early", vec![good(&|c| c["nbf"] = (now + 300).into())]),
        ("token-long-lived", vec![good(&|c| c["exp"] = (now + 86_400).into())]),
        ("token-subject", vec![good(&|c| c["sub"] = "system:node:node1".into())]),
        ("token-subject", vec![good(&|c| c["sub"] = "system:serviceaccount:shop:ztunnel".into())]),
    ];
    for (check, tokens) in rows {
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let status = ask(&plane, &tokens, honest()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{check}: {status}");
        assert!(status.message().contains(check), "{check}: {}", status.message());
        let line = plane.audit().pop().unwrap();
        assert_eq!((&line["outcome"], &line["check"]), (&"turned-away".into(), &check.into()));
        assert_eq!(line["code"], "AMB2002", "{check}");
        assert_eq!(line["source"], "127.0.0.1");
    }
}

#[tokio::test]
async fn tokens_of_others_and_of_elsewhere_are_refused() {
    let plane = Plane::start().await;
    let changed = |node: &str, change: &dyn Fn(&mut serde_json::Value)| {
        format!("Bearer {}", plane.issuer.token(node, |claims| change(claims)))
    };
    let account = |c: &mut serde_json::Value| {
        c["sub"] = "system:serviceaccount:shop:cart".into();
        c["kubernetes.io"]["namespace"] = "shop".into();
        c["kubernetes.io"]["serviceaccount"]["name"] = "cart".into();
    };
    let rows = [
        ("caller-account", changed("node1", &account)),
        ("token-node", changed("node1", &|c| c["kubernetes.io"]["node"] = serde_json::json!({}))),
        ("node-unknown", changed("node9", &|_| {})),
        ("node-uid", changed("node1", &|c| c["kubernetes.io"]["node"]["uid"] = "old".into())),
        // node3 exists, but we call from 127.0.0.1.
        ("source-address", changed("node3", &|_| {})),
    ];
    for (check, token) in rows {
        let status = ask(&plane, &[&token], honest()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{check}: {status}");
        assert!(status.message().contains(check), "{check}: {}", status.message());
        assert_eq!(plane.audit().pop().unwrap()["check"], check);
    }
}

fn csr_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(CART.try_into().unwrap())];
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[tokio::test]
async fn requests_that_ask_for_more_than_a_certificate_are_refused() {
    let plane = Plane::start().await;
    let key = || KeyPair::generate().unwrap();
    let orders = "spiffe://cluster.local/ns/shop/sa/orders";
    let honest_pem = csr_with(&key(), |_| {});
    let broken_proof = {
        let mut lines: Vec<String> = honest_pem.lines().map(str::to_owned).collect();
        // The signature ends the request; another character near its end breaks it and nothing else.
        let last = lines.len() - 2;
        let flipped = if lines[last].starts_with('A') { "B" } else { "A" };
        lines[last].replace_range(0..1, flipped);
        lines.join("\n")
    };
    let rows: Vec<(&str, String)> = vec![
        (
            "csr-names",
            csr_with(&key(), |p| p.subject_alt_names.push(SanType::URI(orders.try_into().unwrap()))),
        ),
        (
            "csr-names",
            csr_with(&key(), |p| p.subject_alt_names = vec![SanType::URI(orders.try_into().unwrap())]),
        ),
        (
            "csr-names",
            csr_with(&key(), |p| p.subject_alt_names.push(SanType::DnsName("x.example".try_into().unwrap()))),
        ),
        ("csr-authority", csr_with(&key(), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("csr-key", csr_with(&KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(), |_| {})),
        ("csr-key", csr_with(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(), |_| {})),
        ("csr-size", format!("{honest_pem}{}", "x".repeat(20_000))),
        ("csr-syntax", String::new()),
        (
            "csr-syntax",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
        ),
        ("csr-syntax", format!("{honest_pem}{honest_pem}")),
        ("csr-proof", broken_proof),
    ];
    let token = format!("Bearer {}", plane.issuer.token("node1", |_| {}));
    for (check, csr) in rows {
        let status = ask(&plane, &[&token], request(csr)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{check}: {status}");
        assert!(status.message().contains(check), "{check}: {}", status.message());
        refused_at(&plane, check);
    }
    for validity_duration in [0, -1, i64::MIN] {
        let request = IstioCertificateRequest { validity_duration, ..honest() };
        let status = ask(&plane, &[&token], request).await.unwrap_err();
        assert!(status.message().contains("check validity"), "{}", status.message());
        refused_at(&plane, "validity");
    }
}

/// Demands that the newest line of the audit tells of a refusal, of whom and at which check; the line.
#[track_caller]
fn refused_at(plane: &Plane, check: &str) -> serde_json::Value {
    let line = plane.audit().pop().unwrap();
    assert_eq!((&line["outcome"], &line["check"]), (&"refused".into(), &check.into()), "{line:#}");
    assert_eq!((&line["identity"], &line["node"]), (&CART.into(), &"node1".into()), "{line:#}");
    assert_eq!((&line["code"], &line["serial"]), (&"AMB2002".into(), &serde_json::Value::Null), "{line:#}");
    line
}

#[tokio::test]
async fn weak_keys_are_refused_and_audited_also_where_rsa_is_accepted() {
    for flags in [&[][..], &["--accept-rsa=true"][..]] {
        let plane = Plane::start_with(flags).await;
        let token = format!("Bearer {}", plane.issuer.token("node1", |_| {}));
        for (csr, key) in WEAK {
            let before = plane.audit().len();
            let status = ask(&plane, &[&token], request(csr.to_owned())).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{flags:?} {key}: {status}");
            assert!(status.message().contains("csr-key") && status.message().contains(key), "{status}");
            let line = refused_at(&plane, "csr-key");
            assert!(line["detail"].as_str().unwrap().contains(key), "{line:#}");
            assert_eq!(plane.audit().len(), before + 1);
        }
    }
}

#[tokio::test]
async fn other_good_keys_are_certified() {
    let plane = Plane::start().await;
    let token = format!("Bearer {}", plane.issuer.token("node1", |_| {}));
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = ask(&plane, &[&token], request(csr_with(&key, |_| {}))).await.unwrap();
        let leaf = certificates(&chain[0]).remove(0);
        assert_eq!(spiffe::leaf_identity(&leaf).unwrap(), cart());
    }
}

#[tokio::test]
async fn a_request_is_answered_once() {
    let plane = Plane::start().await;
    let token = format!("Bearer {}", plane.issuer.token("node1", |_| {}));
    let first = honest();
    ask(&plane, &[&token], first.clone()).await.unwrap();
    let status = ask(&plane, &[&token], first).await.unwrap_err();
    assert!(status.message().contains("csr-replay"), "{}", status.message());
    let audit = plane.audit();
    let [.., issued, replayed] = audit.as_slice() else { panic!("not two lines: {audit:#?}") };
    assert_eq!(issued["outcome"], "issued");
    assert_eq!((&replayed["outcome"], &replayed["check"]), (&"refused".into(), &"csr-replay".into()));
    assert_eq!((&replayed["code"], &replayed["serial"]), (&"AMB2002".into(), &serde_json::Value::Null));
    assert_eq!((&replayed["identity"], &replayed["node"]), (&CART.into(), &"node1".into()));
}

#[tokio::test]
async fn a_pod_that_ends_takes_its_identity_along() {
    let plane = Plane::start().await;
    issue(&plane, "node1", CART, 60).await.unwrap();
    let ended = super::plane::OBJECTS.replacen("phase: Running", "phase: Failed", 1);
    plane.write("all.yaml", &ended);
    plane.until_sync(|sync| sync["revision"] == 1).await;
    let error = issue(&plane, "node1", CART, 60).await.unwrap_err();
    assert!(error.contains("pod-finished"), "{error}");
}
