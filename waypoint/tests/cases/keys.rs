//! Tokens checked with keys that the waypoint fetches: from an issuer outside the mesh, and from a service of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_policy::jwt::{self, RuleSet, written};
use ambit_types::{AppProtocol, Destination, GatewayAddress, ServiceKey, workload};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use waypoint::Hooks;
use waypoint::keys::{Guard, Keys, Settings};

use crate::rig::app::{App, answer, text};
use crate::rig::{Rig, Setup, start, within};

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of an issuer.
struct Signer(&'static str, EcdsaKeyPair);

impl Signer {
    fn new(id: &'static str) -> Self {
        Self(id, EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn set(&self) -> String {
        let (x, y) = self.1.public_key().as_ref()[1..].split_at(32);
        let (id, x, y) = (self.0, encode(x), encode(y));
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{id}","x":"{x}","y":"{y}"}}]}}"#)
    }

    fn token(&self) -> String {
        self.token_of("issuer")
    }

    fn token_of(&self, issuer: &str) -> String {
        let header = encode(format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.0));
        let content = format!("{header}.{}", encode(format!(r#"{{"iss":"{issuer}","sub":"ann"}}"#)));
        let signature = self.1.sign(&SystemRandom::new(), content.as_bytes()).unwrap();
        format!("{content}.{}", encode(signature.as_ref()))
    }
}

/// A server of keys.
#[derive(Clone)]
struct Issuer {
    address: SocketAddr,
    fetched: Arc<AtomicUsize>,
    /// The whole answer; none never answers.
    says: Arc<Mutex<Option<String>>>,
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

impl Issuer {
    async fn start(says: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self { address, fetched: Arc::default(), says: Arc::new(Mutex::new(says)) };
        let serving = issuer.clone();
        start(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                start(serving.clone().serve(tcp));
            }
        });
        issuer
    }

    async fn serve(self, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = io.read_u8().await else { return };
            head.push(byte);
        }
        self.fetched.fetch_add(1, Ordering::SeqCst);
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match says {
            Some(says) => {
                let _ = io.write_all(says.as_bytes()).await;
                let _ = io.shutdown().await;
            }
            None => std::future::pending().await,
        }
    }

    fn say(&self, says: Option<String>) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    fn uri(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

/// Settings for issuers on this machine.
fn local() -> Settings {
    Settings { guard: Guard { admits_loopback: true, ..Guard::default() }, ..Settings::default() }
}

fn tokens(uri: &str) -> RuleSet {
    let rule = written::Rule {
        issuer: "issuer".to_owned(),
        jwks_uri: Some(uri.to_owned()),
        timeout: Some("1s".to_owned()),
        ..written::Rule::default()
    };
    of_namespace("shop", &rule)
}

fn of_namespace(namespace: &str, rule: &written::Rule) -> RuleSet {
    let rule = jwt::compile(rule).expect("a rule");
    RuleSet::new([jwt::Rule { namespace: namespace.into(), ..rule }])
}

async fn rig(settings: Settings, uri: &str) -> Rig {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.tokens = tokens(uri);
    setup.hooks = Hooks::default().with_keys(Keys::new(settings));
    setup.start().await
}

/// Status and code of a request with a token.
async fn ask(rig: &Rig, token: &str) -> (u16, String) {
    let answered = rig.get("GET /", &[("authorization", &format!("Bearer {token}"))]).await;
    (answered.status, answered.header("x-ambit-reason").to_owned())
}

fn refused(code: &str) -> (u16, String) {
    (401, code.to_owned())
}

#[tokio::test]
async fn keys_are_fetched_once_however_many_ask() {
    let signer = Signer::new("a");
    let issuer = Issuer::start(ok(&signer.set())).await;
    let rig = rig(local(), &issuer.uri()).await;
    let token = signer.token();
    let all = (0..20).map(|_| ask(&rig, &token));
    for answered in within(futures_util::future::join_all(all)).await {
        assert_eq!(answered.0, 200);
    }
    assert_eq!(ask(&rig, &Signer::new("a").token()).await, refused("AMB2203"), "another's signature");
    assert_eq!(rig.get("GET /", &[]).await.status, 200, "without a token");
    assert_eq!(issuer.fetched(), 1);
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_and_a_flood_of_unknown_ones_is_not() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let issuer = Issuer::start(ok(&old.set())).await;
    let eager = rig(Settings { unknown_pause: Duration::ZERO, ..local() }, &issuer.uri()).await;
    assert_eq!(ask(&eager, &old.token()).await.0, 200);
    assert_eq!(ask(&eager, &new.token()).await, refused("AMB2203"));
    issuer.say(ok(&new.set()));
    assert_eq!(ask(&eager, &new.token()).await.0, 200, "rotated");
    assert_eq!(ask(&eager, &old.token()).await, refused("AMB2203"), "and the old one is gone");

    let issuer = Issuer::start(ok(&old.set())).await;
    let usual = rig(local(), &issuer.uri()).await;
    for _ in 0..30 {
        assert_eq!(ask(&usual, &new.token()).await, refused("AMB2203"));
    }
    assert_eq!(issuer.fetched(), 1);
}

#[tokio::test]
async fn without_keys_no_token_is_accepted_and_the_last_good_ones_stay() {
    let signer = Signer::new("a");
    let issuer = Issuer::start(Some("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned())).await;
    let quick = Duration::from_millis(20);
    let rig = rig(Settings { refresh: quick, retry: quick, ..local() }, &issuer.uri()).await;
    assert_eq!(ask(&rig, &signer.token()).await, refused("AMB2204"));
    issuer.say(ok(&signer.set()));
    within(async { while ask(&rig, &signer.token()).await.0 != 200 {} }).await;
    issuer.say(Some("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned()));
    let before = issuer.fetched();
    within(async {
        while issuer.fetched() < before + 3 {
            assert_eq!(ask(&rig, &signer.token()).await.0, 200, "the last good set");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_set_of_keys_is_not_believed() {
    let signer = Signer::new("a");
    let elsewhere = Issuer::start(ok(&signer.set())).await;
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.uri());
    let set = signer.set();
    let large = set.replacen('{', &format!("{{\"x\":\"{}\",", "a".repeat(300 << 10)), 1);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let coded =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n{set}", set.len());
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}", set.len() + 9);
    for (name, says) in [
        ("redirect", Some(redirect)),
        ("large", ok(&large)),
        ("large without a length", Some(chunked)),
        ("compressed", Some(coded)),
        ("cut short", Some(cut)),
        ("html", ok("<html>sign in</html>")),
        ("no HTTP", Some("SSH-2.0-OpenSSH\r\n".to_owned())),
        ("slow", None),
    ] {
        let issuer = Issuer::start(says).await;
        let rig = rig(local(), &issuer.uri()).await;
        assert_eq!(within(ask(&rig, &signer.token())).await, refused("AMB2204"), "{name}");
        assert!(issuer.fetched() >= 1, "{name}");
    }
    assert_eq!(elsewhere.fetched(), 0, "no redirect is followed");
}

#[tokio::test]
async fn addresses_of_this_machine_and_of_the_mesh_are_not_called() {
    let signer = Signer::new("a");
    let issuer = Issuer::start(ok(&signer.set())).await;
    let port = issuer.address.port();
    for uri in
        [issuer.uri(), format!("http://localhost:{port}/keys"), format!("http://[::ffff:127.0.0.1]:{port}/")]
    {
        let rig = rig(Settings::default(), &uri).await;
        assert_eq!(ask(&rig, &signer.token()).await, refused("AMB2204"), "{uri}");
    }
    assert_eq!(issuer.fetched(), 0);
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    setup.tokens = tokens(&format!("http://{}:8080/keys", app.ip));
    setup.hooks = Hooks::default().with_keys(Keys::new(local()));
    let rig = setup.start().await;
    assert_eq!(ask(&rig, &signer.token()).await, refused("AMB2204"));
    assert!(app.got().is_empty(), "a pod is called by its service, through the mesh");
}

#[tokio::test]
async fn a_service_of_the_mesh_is_called_through_the_mesh() {
    let signer = Signer::new("a");
    let set: &'static str = signer.set().leak();
    let auth = App::start("auth-0", false, move |_, _| async move { http::Response::new(text(set)) }).await;
    for uri in ["http://auth.shop.svc.cluster.local/keys", "http://auth.shop/keys"] {
        let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
        let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
        let mut setup = setup.service("auth", AppProtocol::Http11, &[auth.ip]);
        setup.tokens = tokens(uri);
        setup.hooks = Hooks::default().with_keys(Keys::new(Settings::default()));
        let rig = setup.start().await;
        assert_eq!(ask(&rig, &signer.token()).await.0, 200, "{uri}");
    }
    let asked = &auth.proxy.asked()[0];
    assert_eq!(asked.peer.to_string(), "spiffe://cluster.local/ns/shop/sa/waypoint");
    let client = asked.headers["x-ambit-client"].to_str().unwrap();
    assert!(client.contains("spiffe://cluster.local/ns/shop/sa/waypoint"), "{client}");
    assert_eq!(auth.got()[0].line, "GET /keys");
}

/// A waypoint for `web` and `auth` of namespace shop, where `auth` has the keys that a rule of a namespace names.
async fn with_auth(
    auth: &App,
    (namespace, target): (&str, &str),
    policy: Option<&'static str>,
    change: impl FnOnce(&mut Setup),
) -> Rig {
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let mut setup = setup.service("auth", AppProtocol::Http11, &[auth.ip]);
    setup.services.iter_mut().for_each(|service| service.canonical = true);
    if let Some(policy) = policy {
        setup = setup.policy_of("auth", policy);
    }
    let rule = written::Rule {
        issuer: "issuer".to_owned(),
        jwks_uri: Some(format!("http://auth.shop.svc.cluster.local{target}")),
        timeout: Some("1s".to_owned()),
        ..written::Rule::default()
    };
    setup.tokens = of_namespace(namespace, &rule);
    setup.hooks = Hooks::default().with_keys(Keys::new(Settings::default()));
    change(&mut setup);
    setup.start().await
}

#[tokio::test]
async fn a_rule_reaches_services_of_its_own_namespace_and_only_what_their_policies_let_it() {
    const ONLY_KEYS: &str = "{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/waypoint]}}], \
                             to: [{operation: {methods: [GET], paths: [/keys]}}]}]}";
    const OTHERS: &str =
        "{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]}]}";
    let signer = Signer::new("a");
    let set: &'static str = signer.set().leak();
    for (what, namespace, target, policy, want) in [
        ("its own", "shop", "/keys", None, true),
        ("another's", "bank", "/keys", None, false),
        ("nobody's", "", "/keys", None, false),
        ("let in", "shop", "/keys", Some(ONLY_KEYS), true),
        ("let in elsewhere", "shop", "/admin/delete", Some(ONLY_KEYS), false),
        ("two readings", "shop", "/admin/../keys", Some(ONLY_KEYS), false),
        ("not let in", "shop", "/keys", Some(OTHERS), false),
    ] {
        let auth =
            App::start("auth-0", false, move |_, _| async move { http::Response::new(text(set)) }).await;
        let rig = with_auth(&auth, (namespace, target), policy, |_| {}).await;
        let answered = within(ask(&rig, &signer.token())).await;
        assert_eq!(answered.0, if want { 200 } else { 401 }, "{what}: {answered:?}");
        assert_eq!(
            (auth.got().len(), auth.proxy.asked().len()),
            if want { (1, 1) } else { (0, 0) },
            "{what}"
        );
    }
}

/// What a row changes.
type Change<'a> = &'a dyn Fn(&mut Setup);

#[tokio::test]
async fn past_another_waypoint_and_to_a_pod_of_another_namespace_nothing_is_fetched() {
    let signer = Signer::new("a");
    let set: &'static str = signer.set().leak();
    let other = |setup: &mut Setup| {
        let service = ServiceKey::new("shop", "other.shop.svc.cluster.local");
        let destination = Destination::Hostname(service);
        setup.services[1].waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 });
    };
    let elsewhere = |setup: &mut Setup| setup.workloads[1].namespace = "bank".into();
    let unbound = |setup: &mut Setup| setup.services[1].waypoint = None;
    let rows: [(&str, Change<'_>, u16); 3] = [
        ("another waypoint", &other, 401),
        ("another namespace", &elsewhere, 401),
        ("no waypoint", &unbound, 200),
    ];
    for (what, change, want) in rows {
        let auth =
            App::start("auth-0", false, move |_, _| async move { http::Response::new(text(set)) }).await;
        let rig = with_auth(&auth, ("shop", "/keys"), None, change).await;
        assert_eq!(within(ask(&rig, &signer.token())).await.0, want, "{what}");
        assert_eq!(auth.proxy.asked().len(), usize::from(want == 200), "{what}");
    }
}

#[tokio::test]
async fn no_namespace_has_the_keys_of_anothers_issuer() {
    let (own, evil) = (Signer::new("a"), Signer::new("a"));
    let issuer = Issuer::start(ok(&own.set())).await;
    let set: &'static str = evil.set().leak();
    let taken = App::start("auth-0", false, move |_, _| async move { http::Response::new(text(set)) }).await;
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let mut setup = setup.service("auth", AppProtocol::Http11, &[taken.ip]);
    // A ServiceEntry of namespace bank takes the issuer's name.
    let port = issuer.address.port();
    let before = setup.services[1].key();
    (setup.services[1].namespace, setup.services[1].hostname) = ("bank".into(), "localhost".into());
    setup.services[1].ports[0].service_port = port;
    let after = setup.services[1].key();
    setup.workloads[1].services.remove(&before);
    setup.workloads[1].services.insert(after, Vec::new());
    setup.workloads[1].namespace = "bank".into();
    setup.tokens = tokens(&format!("http://localhost:{port}/keys"));
    setup.hooks = Hooks::default().with_keys(Keys::new(local()));
    let rig = setup.start().await;
    assert_eq!(ask(&rig, &evil.token()).await, refused("AMB2203"));
    assert_eq!(ask(&rig, &own.token()).await.0, 200);
    assert!(taken.proxy.asked().is_empty());
}

#[tokio::test]
async fn nodes_and_the_control_plane_have_no_keys() {
    let signer = Signer::new("a");
    let issuer = Issuer::start(ok(&signer.set())).await;
    let guard = Guard { control: vec!["localhost".into()], admits_loopback: true, ..Guard::default() };
    let control = rig(Settings { guard, ..Settings::default() }, &issuer.uri()).await;
    assert_eq!(ask(&control, &signer.token()).await, refused("AMB2204"), "the control plane");
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let node_addresses = vec![issuer.address.ip()];
    setup.workloads[0].settings =
        Some(Arc::new(workload::Settings { node_addresses, ..workload::Settings::default() }));
    setup.tokens = tokens(&issuer.uri());
    setup.hooks = Hooks::default().with_keys(Keys::new(local()));
    assert_eq!(ask(&setup.start().await, &signer.token()).await, refused("AMB2204"), "a node");
    assert_eq!(issuer.fetched(), 0);
}

#[tokio::test]
async fn an_issuer_with_https_does_not_send_to_keys_without() {
    let signer = Signer::new("a");
    let keys = Issuer::start(ok(&signer.set())).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let roots = std::env::temp_dir().join(format!("waypoint-issuer-{}.pem", std::process::id()));
    std::fs::write(&roots, certificate.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(ambit_net::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let issuer = Issuer::start(ok(&format!(r#"{{"issuer":"{name}","jwks_uri":"{}"}}"#, keys.uri()))).await;
    let serving = issuer.clone();
    start(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(tcp).await {
                start(serving.clone().serve(stream));
            }
        }
    });
    let app = App::start("web-0", false, |_, _| async { answer(200, "ok") }).await;
    let mut setup = Setup::new().service("web", AppProtocol::Http11, &[app.ip]);
    let rule = written::Rule { issuer: name.clone(), ..written::Rule::default() };
    setup.tokens = of_namespace("shop", &rule);
    let settings = Settings { roots: Some(roots.clone()), ..local() };
    setup.hooks = Hooks::default().with_keys(Keys::new(settings));
    let rig = setup.start().await;
    let token = signer.token_of(&name);
    assert_eq!(ask(&rig, &token).await, refused("AMB2204"));
    assert!(issuer.fetched() >= 1, "it was asked where its keys are");
    assert_eq!(keys.fetched(), 0);
    std::fs::remove_file(roots).unwrap();
}

#[tokio::test]
async fn https_is_for_the_host_that_was_named() {
    let signer = Signer::new("a");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let roots = std::env::temp_dir().join(format!("waypoint-roots-{}.pem", std::process::id()));
    std::fs::write(&roots, certificate.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(ambit_net::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let issuer = Issuer::start(ok(&signer.set())).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = issuer.clone();
    start(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(tcp).await {
                start(serving.clone().serve(stream));
            }
        }
    });
    let settings = Settings { roots: Some(roots.clone()), ..local() };
    let named = rig(settings.clone(), &format!("https://localhost:{port}/keys")).await;
    assert_eq!(ask(&named, &signer.token()).await.0, 200);
    let other = rig(settings, &format!("https://127.0.0.1:{port}/keys")).await;
    assert_eq!(ask(&other, &signer.token()).await, refused("AMB2204"));
    let strangers = rig(local(), &format!("https://localhost:{port}/keys")).await;
    assert_eq!(
        ask(&strangers, &signer.token()).await,
        refused("AMB2204"),
        "the system's roots do not know it"
    );
    assert_eq!(issuer.fetched(), 1);
    std::fs::remove_file(roots).unwrap();
}
