//! The admission webhook as an API server meets it: AdmissionReviews over HTTPS on 127.0.0.1.

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_control::{Event, Settings};
use ambit_net::tls::provider;
use ambit_runtime::drain::Drain;
use ambit_runtime::tasks;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use istiod_lite::admit::{AdmitParts, serve};
use istiod_lite::ingest;
use istiod_lite::world::World;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::plane::PATIENCE;

const TABLE: &str = include_str!("../../../tests/cases/admission.yaml");
/// Number of every question.
const UID: &str = "705ab4f5";
/// Under which the API server looks for us.
const NAME: &str = "istiod.istio-system.svc";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    world: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    object: Value,
    refused: Option<String>,
    warned: Option<String>,
    says: Option<String>,
}

#[tokio::test]
async fn every_row_of_nonsense_is_answered_with_its_field() {
    let table = table();
    let refusals = table.rows.iter().filter(|row| row.refused.is_some()).count();
    assert!(refusals >= 25, "only {refusals} kinds of nonsense");
    let webhook = Webhook::start(&table.world).await;
    let mut client = webhook.connect().await;
    let mut wrong = Vec::new();
    for row in &table.rows {
        let response = client.ask(&create(&row.object)).await;
        if !is_answered(row, &response) {
            wrong.push(format!("{}: {response:#}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the answer is as the row has it.
fn is_answered(row: &Row, response: &Value) -> bool {
    let says = row.says.as_deref().unwrap_or_default();
    let Some(field) = &row.refused else {
        let warnings: Vec<&str> =
            response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let is_told = match &row.warned {
            None => warnings.is_empty(),
            Some(words) => warnings.iter().any(|warning| warning.contains(words) && warning.contains(says)),
        };
        return response["allowed"] == true && is_told;
    };
    let status = &response["status"];
    let causes = status["details"]["causes"].as_array();
    let is_named = |cause: &Value| {
        cause["field"] == **field && cause["message"].as_str().is_some_and(|words| words.contains(says))
    };
    let message = status["message"].as_str().unwrap_or_default();
    response["allowed"] == false
        && response["uid"] == UID
        && status["code"] == 422
        && status["reason"] == "Invalid"
        && causes.into_iter().flatten().any(is_named)
        && message.contains(field.as_str())
        && message.contains("next: ")
}

#[tokio::test]
async fn what_is_wrong_since_long_ago_stands_in_the_way_of_nothing_else() {
    let webhook = Webhook::start(&table().world).await;
    let mut client = webhook.connect().await;
    let old = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": { "action": "DENY" },
    });
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({ "team": "cart" });
    let mut question = create(&labelled);
    question["request"]["operation"] = json!("UPDATE");
    question["request"]["oldObject"] = old.clone();
    let response = client.ask(&question).await;
    assert_eq!(response["allowed"], true, "{response:#}");
    assert!(response["warnings"][0].as_str().unwrap().contains("denies nothing"), "{response:#}");
    // Another mistake is one too many.
    question["request"]["object"]["spec"]["provider"] = json!({ "name": "x" });
    let response = client.ask(&question).await;
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.iter().map(|cause| &cause["field"]).collect::<Vec<_>>(), ["spec.provider"]);
    // A deletion is nobody's to refuse, and has no object.
    let mut question = create(&Value::Null);
    question["request"]["operation"] = json!("DELETE");
    assert_eq!(client.ask(&question).await["allowed"], true);
}

#[tokio::test]
async fn a_stranger_learns_nothing_about_the_mesh() {
    let world = table().world.replace("127.0.0.1", "192.0.2.1");
    let webhook = Webhook::start(&world).await;
    let mut client = webhook.connect().await;
    for name in ["web", "ghost"] {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "a", "namespace": "shop" },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": name }] },
        });
        let response = client.ask(&create(&route)).await;
        assert_eq!(response, json!({ "uid": UID, "allowed": true }), "{name}");
    }
}

#[tokio::test]
async fn an_object_beyond_every_bound_is_refused_at_once() {
    let webhook = Webhook::start(&table().world).await;
    let mut client = webhook.connect().await;
    let policy = |spec: Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": "a", "namespace": "shop" }, "spec": spec,
        })
    };
    let response = client.ask(&create(&policy(json!({ "pad": "x".repeat(1 << 20) })))).await;
    assert_eq!(response["status"]["code"], 413, "{response:#}");
    let deep = (0..90).fold(json!({}), |inner, _| json!([inner]));
    let response = client.ask(&create(&policy(json!({ "rules": deep })))).await;
    assert!(response["status"]["message"].as_str().unwrap().contains("nested deeper"), "{response:#}");
    // Beyond what is read at all.
    let (status, _) = client.post("/validate", vec![b' '; (3 << 20) + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_is_no_question_is_an_error_and_never_a_yes() {
    let webhook = Webhook::start(&table().world).await;
    let bodies: [&[u8]; 5] = [
        b"",
        b"{",
        b"{}",
        br#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u"}}"#,
        b"\xff",
    ];
    for body in bodies {
        let mut client = webhook.connect().await;
        let (status, text) = client.post("/validate", body.to_vec()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    }
    let (status, _) = webhook.connect().await.post("/elsewhere", b"{}".to_vec()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_question_that_never_ends_is_cut_off() {
    let webhook = Webhook::start(&table().world).await;
    let mut stalled = webhook.tls().await;
    let head = b"POST /validate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stalled.write_all(head).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(PATIENCE, stalled.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(answer, b"HTTP/1.1 503");
}

#[tokio::test]
async fn whoever_reaches_the_webhook_cannot_keep_an_api_server_waiting() {
    let webhook = Webhook::start(&table().world).await;
    // As many of the largest questions as are read at once, of which the end never comes.
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stranger = webhook.tls_from([127, 0, 0, 2]).await;
        let head = b"POST /validate HTTP/1.1\r\nhost: x\r\ncontent-length: 3145728\r\n\r\n{";
        stranger.write_all(head).await.unwrap();
        stranger.flush().await.unwrap();
        held.push(stranger);
    }
    let mut client = webhook.connect().await;
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": { "rules": [{ "from": [{ "source": { "namespaces": ["shop"] } }] }] },
    });
    for _ in 0..20 {
        let response = client.ask(&create(&policy)).await;
        assert_eq!(response["allowed"], true, "{response:#}");
    }
    // Their calls end by themselves; all were held while the answers came.
    for stranger in &mut held {
        let mut answer = [0; 12];
        tokio::time::timeout(PATIENCE, stranger.read_exact(&mut answer)).await.expect("in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
}

/// An API server behind an agent in the cluster has an address that says nothing.
#[tokio::test]
async fn a_stranger_cannot_keep_another_address_waiting() {
    let webhook = Webhook::start(&table().world.replace("127.0.0.1", "192.0.2.1")).await;
    let mut held = Vec::new();
    for n in 0..20 {
        // As many as the room of all strangers has whole questions, and more.
        let mut stranger = webhook.tls_from([127, 0, 0, 2 + n % 5]).await;
        let head = b"POST /validate HTTP/1.1\r\nhost: x\r\ncontent-length: 3145728\r\n\r\n{";
        stranger.write_all(head).await.unwrap();
        stranger.flush().await.unwrap();
        held.push(stranger);
    }
    let mut client = webhook.connect().await;
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": { "rules": [{ "from": [{ "source": { "namespaces": ["shop"] } }] }] },
    });
    for _ in 0..20 {
        let response = client.ask(&create(&policy)).await;
        assert_eq!(response["allowed"], true, "{response:#}");
    }
    // Theirs were held all the while, and end by themselves.
    for stranger in &mut held {
        let mut answer = [0; 12];
        tokio::time::timeout(PATIENCE, stranger.read_exact(&mut answer)).await.expect("in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
}

fn table() -> Table {
    serde_saphyr::from_str(TABLE).expect("a table")
}

fn create(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "operation": "CREATE",
            "dryRun": true,
            "userInfo": { "username": "admin" },
            "object": object,
            "oldObject": null,
        },
    })
}

/// A webhook over a world of manifests.
struct Webhook {
    address: SocketAddr,
    root: CertificateDer<'static>,
    drain: Drain,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

impl Webhook {
    async fn start(manifests: &str) -> Self {
        let world = Arc::new(World::new(Settings::default()));
        let parsed = ambit_manifest::parse("world.yaml", manifests);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let events: Vec<Event> =
            parsed.objects.iter().filter_map(|object| ingest::put(object).expect("an object")).collect();
        world.apply(events);
        let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let root = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![root.clone()], key)
            .unwrap();
        let drain = Drain::new();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(AdmitParts { listen, tls, world, drain: drain.clone() }).await.unwrap();
        Self { address, root, drain }
    }

    /// Offers what a client in Go offers.
    async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_from([127, 0, 0, 1]).await
    }

    async fn tls_from(&self, from: [u8; 4]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        stream
    }

    async fn connect(&self) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(self.tls().await)).await.unwrap();
        drop(tasks::spawn("api-server", async move {
            // It ends with the webhook.
            let _ = connection.await;
        }));
        Client { sender }
    }
}

/// One connection of an API server, which it uses again and again.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn ask(&mut self, review: &Value) -> Value {
        let (status, text) = self.post("/validate", serde_json::to_vec(review).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        answer["response"].take()
    }

    async fn post(&mut self, path: &str, body: Vec<u8>) -> (StatusCode, String) {
        let request = Request::post(path)
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}
