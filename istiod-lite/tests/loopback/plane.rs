//! A running control plane over a temporary folder, and what talks to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_net::grpc::channel::{Caller, Target};
use ambit_runtime::admin::{client, server};
use ambit_runtime::clock;
use ambit_runtime::drain::Drain;
use istiod_lite::app::{self, Running};
use istiod_lite::config::Config;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// node1 and node2 are both 127.0.0.1; shop/cart runs on node1, shop/orders on node2, shop/done has ended on node1.
pub(crate) const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: orders, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: done, namespace: shop}
---
apiVersion: v1
kind: Node
metadata: {name: node1, uid: node1-uid}
status: {addresses: [{type: InternalIP, address: 127.0.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: node2, uid: node2-uid, annotations: {ambit.internal/node-addresses: "127.0.0.1, 10.244.2.1"}}
---
apiVersion: v1
kind: Node
metadata: {name: node3, uid: node3-uid}
status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, uid: u1, labels: {app: cart}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: node1, serviceAccountName: cart, containers: [{name: c, image: i, ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-0, namespace: shop, uid: u2, labels: {app: orders}}
spec: {nodeName: node2, serviceAccountName: orders, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.2.5, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done-0, namespace: shop, uid: u3}
spec: {nodeName: node1, serviceAccountName: done, containers: [{name: c, image: i}]}
status: {phase: Succeeded, podIP: 10.244.1.6}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: web}]}
"#;

/// A control plane and everything it works on.
pub(crate) struct Plane {
    pub(crate) running: Running,
    pub(crate) drain: Drain,
    pub(crate) folder: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) issuer: Issuer,
    admin: PathBuf,
    home: TempDir,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("objects")).unwrap();
        let issuer = Issuer::new();
        std::fs::write(home.path().join("issuer.pem"), issuer.key.public_key_pem()).unwrap();
        std::fs::write(home.path().join("objects/all.yaml"), OBJECTS).unwrap();
        Self::run(home, issuer, flags).await
    }

    async fn run(home: TempDir, issuer: Issuer, flags: &[&str]) -> Self {
        let at = |name: &str| home.path().join(name);
        let text = |path: PathBuf| path.display().to_string();
        let mut args = vec![
            "istiod-lite".to_owned(),
            format!("--folder={}", text(at("objects"))),
            format!("--state-dir={}", text(at("state"))),
            format!("--token-issuer-key={}", text(at("issuer.pem"))),
            "--listen=127.0.0.1:0".to_owned(),
        ];
        args.extend(flags.iter().map(|f| (*f).to_owned()));
        let (config, _) = Config::read(args).unwrap();
        let drain = Drain::new();
        let running = app::start(&config, &drain).await.unwrap();
        let admin = at("admin.sock");
        server::serve_unix(&admin, running.routes.clone(), &drain).unwrap();
        Self { running, drain, folder: at("objects"), state: at("state"), issuer, admin, home }
    }

    /// Stops and starts again over the same folders.
    pub(crate) async fn restart(self, while_away: impl FnOnce(&Path)) -> Self {
        self.drain.finish(PATIENCE).await;
        while_away(&self.folder);
        Self::run(self.home, self.issuer, &[]).await
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            address: format!("https://{}", self.running.listen),
            roots: self.state.join("root-cert.pem").display().to_string(),
            alternative_name: None,
            local_address: None,
        }
    }

    pub(crate) fn caller(&self, node: &str) -> Caller {
        Caller {
            token: self.issuer.token(node, |_| {}),
            cluster_id: "Kubernetes".to_owned(),
            headers: Vec::new(),
        }
    }

    pub(crate) async fn admin(&self, path: &str) -> Value {
        let answer = client::get(&self.admin, path).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Reads on at the admin socket.
    pub(crate) async fn stream(&self, path: &str) -> Result<client::Stream, client::CallError> {
        client::stream(&self.admin, path).await
    }

    /// Status and text of an answer.
    pub(crate) async fn answer(&self, path: &str) -> (u16, String) {
        let answer = client::get(&self.admin, path).await.unwrap();
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Waits until `/sync` is as wanted.
    pub(crate) async fn until_sync(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = clock::monotonic() + PATIENCE;
        loop {
            let sync = self.admin("/sync").await;
            if wanted(&sync) {
                return sync;
            }
            assert!(clock::monotonic() < deadline, "still {sync:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state.join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Puts a file in place as the store would, and counts the write.
    pub(crate) fn write(&self, name: &str, text: &str) {
        write(&self.folder, name, text);
    }
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    let temporary = folder.join(format!(".{name}.tmp"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(&temporary, folder.join(name)).unwrap();
    let revision = revision(folder) + 1;
    let temporary = folder.join("..revision.tmp");
    std::fs::write(&temporary, revision.to_string()).unwrap();
    std::fs::rename(&temporary, folder.join(".revision")).unwrap();
}

pub(crate) fn revision(folder: &Path) -> u64 {
    std::fs::read_to_string(folder.join(".revision")).map(|t| t.trim().parse().unwrap()).unwrap_or_default()
}

/// Who issues node tokens.
pub(crate) struct Issuer {
    pub(crate) key: KeyPair,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    /// A token of the node's proxy, after `change`.
    pub(crate) fn token(&self, node: &str, change: impl FnOnce(&mut Value)) -> String {
        let now = clock::unix_seconds();
        let mut claims = json!({
            "iss": "ambit-lab",
            "aud": ["istio-ca"],
            "sub": "system:serviceaccount:istio-system:ztunnel",
            "exp": now + 600,
            "kubernetes.io": {
                "namespace": "istio-system",
                "serviceaccount": { "name": "ztunnel" },
                "pod": { "name": format!("ztunnel-{node}"), "uid": "p" },
                "node": { "name": node, "uid": format!("{node}-uid") },
            },
        });
        change(&mut claims);
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    }
}
