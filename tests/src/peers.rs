//! Peers that are not ours: Envoy, and scripts on python's `h2`, started as processes of their own.
//!
//! `xtask/need.sh test` puts both into `target/peers`. Where they are missing, a test says so and passes, unless
//! `AMBIT_REQUIRE_PEERS=1` demands them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ambit_runtime::clock;
use ambit_types::Identity;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::lab::{self, Background, Output};
use crate::node::Signer;

/// How long a peer may take to listen: Envoy is large, and machines are slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a script may take.
const SCRIPT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where `xtask/need.sh` puts the peers: beside the profile's folder of the programs under test.
fn folder() -> PathBuf {
    let programs = lab::binaries();
    programs.parent().unwrap_or(&programs).join("peers").join("bin")
}

/// Whether the peers are here; says so if not.
///
/// # Panics
/// If they are not and `AMBIT_REQUIRE_PEERS=1` demands them.
#[must_use]
pub fn are_here() -> bool {
    let missing = ["envoy", "python"].into_iter().find(|name| !folder().join(name).exists());
    let Some(name) = missing else { return true };
    let lacking =
        format!("{} is missing; install it with: xtask/need.sh test", folder().join(name).display());
    assert!(!lab::flag("AMBIT_REQUIRE_PEERS"), "AMBIT_REQUIRE_PEERS is set, but {lacking}");
    println!("NOT RUN: {lacking}");
    false
}

/// A tool of Kubernetes': the one that `xtask/need.sh test` puts into `target/kube`, else the one on the path.
#[must_use]
pub fn kube_tool(name: &str) -> PathBuf {
    let programs = lab::binaries();
    let own = programs.parent().unwrap_or(&programs).join("kube").join(name);
    if own.exists() { own } else { PathBuf::from(name) }
}

/// Says that something does not run because a peer is missing.
///
/// # Panics
/// If `AMBIT_REQUIRE_PEERS=1` demands peers.
pub fn not_run(lacking: &str) {
    assert!(!lab::flag("AMBIT_REQUIRE_PEERS"), "AMBIT_REQUIRE_PEERS is set, but {lacking}");
    println!("NOT RUN: {lacking}");
}

/// Starts a script of `tests/peers` with its arguments.
pub fn script(name: &str, arguments: &[String]) -> Background {
    Background::start(Command::new(folder().join("python")).arg("-B").arg(lab::peer(name)).args(arguments))
}

/// Waits for a script's end without keeping the test's own tasks from running.
///
/// # Panics
/// If it does not end in time.
pub async fn finish(mut script: Background) -> Output {
    let end = clock::monotonic() + SCRIPT;
    while script.is_running() && clock::monotonic() < end {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    script.finish(SCRIPT + Duration::from_secs(1))
}

/// Waits until somebody listens.
///
/// # Panics
/// If the process ends before, or takes too long.
pub async fn until_listening(peer: &mut Background, address: SocketAddr) {
    let end = clock::monotonic() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        let alive = peer.is_running() && clock::monotonic() < end;
        assert!(alive, "nobody listens on {address}; stderr: {}", peer.stderr());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A running Envoy; ended when dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Background,
    /// Its admin interface.
    pub admin: SocketAddr,
    _files: TempDir,
}

impl Envoy {
    /// Starts Envoy with listeners and clusters, and waits for its listener.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn start(listener: SocketAddr, listeners: Value, clusters: Value) -> Self {
        let files = TempDir::new().expect("a temporary folder");
        let admin = SocketAddr::new(listener.ip(), 19000);
        let config = json!({
            "admin": { "address": socket(admin) },
            "static_resources": { "listeners": listeners, "clusters": clusters },
        });
        let file = files.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).expect("the folder is ours");
        let mut command = Command::new(folder().join("envoy"));
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "info", "-c"]).arg(file);
        let mut process = Background::start(&mut command);
        until_listening(&mut process, listener).await;
        Self { process, admin, _files: files }
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

/// An address as Envoy writes it.
#[must_use]
pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A listener with one network filter.
#[must_use]
pub fn listener(name: &str, at: SocketAddr, filter: &Value, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [filter] });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({ "name": name, "address": socket(at), "filter_chains": [chain] })
}

/// A cluster of one endpoint; `more` is merged into it.
#[must_use]
pub fn cluster(name: &str, to: SocketAddr, more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(to) } }] }],
        },
    });
    if let (Some(cluster), Value::Object(more)) = (cluster.as_object_mut(), more) {
        cluster.extend(more);
    }
    cluster
}

/// TLS 1.3 with both certificates, ALPN h2; the other end must be `expected`.
#[must_use]
pub fn tls(role: &str, signer: &Signer, files: &str, expected: &Identity) -> Value {
    let file = |name: &str| json!({ "filename": signer.path(name).display().to_string() });
    let common = json!({
        "alpn_protocols": ["h2"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": file(&format!("{files}.pem")),
            "private_key": file(&format!("{files}.key")),
        }],
        "validation_context": {
            "trusted_ca": file("roots.pem"),
            "match_typed_subject_alt_names":
                [{ "san_type": "URI", "matcher": { "exact": expected.to_string() } }],
        },
    });
    let mut context = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{role}TlsContext"),
        "common_tls_context": common,
    });
    if role == "Downstream" {
        context["require_client_certificate"] = json!(true);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
}
