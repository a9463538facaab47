//! The port of tools that know Istio's ztunnel: what it tells, and that it changes nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ambit_runtime::admin::server;
use ambit_runtime::drain::Drain;
use ambit_state::Change;
use ambit_tests::certs::{TestCa, pem};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use ztunnel::admin::{self, DumpSource, State};
use ztunnel::config::Config;
use ztunnel::heard::LastHeard;
use ztunnel::sealed::Recorder;

use crate::ends::within;
use crate::node::{Addresses, NODE, Node, workload};

#[tokio::test]
async fn the_dump_has_every_certificate_and_no_key() {
    let ca = Arc::new(TestCa::new());
    let web = workload("shop/web", NODE, Addresses::new().ip(1));
    let identity = web.identity();
    let node = Node::new(&ca, [Change::from(web)], |_| {});
    let _pod = node.pod("shop/web");
    let credential = within(node.proxy.certificates.get(&identity)).await.expect("the CA answers");
    let (at, _drain) = serve(&node).await;
    let (status, text) = ask(at, "GET /config_dump").await;
    assert_eq!(status, "200", "{text}");
    let dump: Value = serde_json::from_str(&text).expect("JSON");
    let told = &dump["certificates"][0];
    let want = (json!(identity.to_string()), json!("Available"));
    assert_eq!((&told["identity"], &told["state"]), (&want.0, &want.1));
    let chain: Vec<String> = credential.chain().iter().map(|der| pem(der)).collect();
    let roots: Vec<String> = credential.roots().iter().map(|der| pem(der)).collect();
    assert_eq!((shown(&told["certChain"]), shown(&told["rootCerts"])), (chain, roots));
    let keys = node.proxy.certificates.export();
    assert!(!keys.is_empty(), "nothing is exported, so nothing is proved");
    for exported in keys {
        assert!(!text.contains(&STANDARD.encode(&exported.key[..])), "the key of {identity} is shown");
    }
    let pod = &dump["workloadState"]["Kubernetes//Pod/shop/web"];
    assert_eq!((&pod["state"], &pod["info"]["name"]), (&json!("Up"), &json!("web")));
}

#[tokio::test]
async fn the_port_only_reads_and_says_where_to_go() {
    let node = Node::new(&Arc::new(TestCa::new()), [], |_| {});
    let (at, _drain) = serve(&node).await;
    let rows = [
        ("GET /", "200", "href=\"config_dump\""),
        ("GET /logging", "405", "curl --unix-socket admin.sock"),
        ("POST /logging?level=trace", "405", "curl --unix-socket admin.sock"),
        ("GET /quitquitquit", "405", "SIGTERM"),
        ("POST /quitquitquit", "405", "SIGTERM"),
        ("POST /config_dump", "405", ""),
        ("DELETE /config_dump", "405", ""),
        ("GET /flows", "404", ""),
        ("GET /metrics", "404", ""),
    ];
    for (what, want, said) in rows {
        let (status, text) = ask(at, what).await;
        assert!(status == want && text.contains(said), "row {what}: {status} {text}");
    }
}

/// The port of a node, on an address of this test.
async fn serve(node: &Node) -> (SocketAddr, Drain) {
    let (config, _) = Config::read(["ztunnel".into()]).expect("no settings are needed");
    let state = State { heard: Arc::new(LastHeard::default()), recorder: Recorder::default() };
    let source = DumpSource::new(&config, node.proxy.clone(), state);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let (at, drain) = (listener.local_addr().expect("bound"), Drain::new());
    server::serve_tcp(listener, admin::tools(&source, Path::new("admin.sock")), &drain);
    (at, drain)
}

/// Status and body of the answer to a request line.
async fn ask(at: SocketAddr, what: &str) -> (String, String) {
    let mut stream = within(TcpStream::connect(at)).await.expect("it listens");
    let request = format!("{what} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("it answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned())
}

/// The PEM texts of a list of certificates.
fn shown(list: &Value) -> Vec<String> {
    let text = |one: &Value| {
        let bytes = STANDARD.decode(one["pem"].as_str().expect("a text")).expect("base64");
        String::from_utf8(bytes).expect("PEM is text")
    };
    list.as_array().expect("a list").iter().map(text).collect()
}
