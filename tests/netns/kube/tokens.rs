//! Row 6: what is worth nothing to the control plane: tokens for others, of others, that ran out or whose pod is gone.
//!
//! The API server itself issues and reviews the tokens. Each is shown to the CA and to discovery from where it is worth
//! most; each refusal says its reason, stands in the control plane's audit log and is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::grpc::xds_stream::XdsStream;
use ambit_net::linux::netns::{NETNS_DIR, NetNs};
use ambit_net::tls::csr;
use ambit_net::tls::store::Ca as _;
use ambit_runtime::clock;
use ambit_tests::lab::{Lab, soak, wait_until};
use ambit_types::Identity;
use ambit_xds::client::{Client, Limits, Mode};
use ambit_xds::node::NodeIdentity;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::kubectl;
use crate::cast::{account, namespace, pod};

/// For whom tokens have to be meant.
const AUDIENCE: &str = "istio-ca";
/// Who runs on node1, and who on node2 and nowhere else.
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/default";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";
const NODE1: &str = "node-node1";
/// The address of node1's proxy, which is a pod.
const PROXY: &str = "10.244.1.254";
/// Another pod of node1 with the proxy's account.
const SPARE: &str = "pod-istio-system-spare";
/// The code of every refusal.
const CODE: &str = "AMB2002";
/// How long a verdict may outlive its token's pod: ten seconds here, and ten in the API server.
const FORGOTTEN: Duration = Duration::from_secs(40);
/// How long an API server takes a token that ran out.
const LEEWAY: Duration = Duration::from_secs(60);

#[test]
fn tokens_that_prove_nothing_are_refused_with_a_reason_recorded_and_counted() {
    let Some(lab) = Lab::up_kube("tokens", &cast(), &[]) else { return };
    let good = issue(&lab, "istio-system/ztunnel", Some("ztunnel-node1"), AUDIENCE);
    let asked = Asked { lab: &lab, place: NODE1, token: &good };
    asked.certificate(CALLER).expect("node1 gets a certificate of its own pod");
    asked.discovery().expect("node1 is served");
    the_proxies_call_from_their_own_pods(&lab);

    tokens_that_the_api_server_does_not_vouch_for(&lab, &good);
    tokens_of_others_and_of_elsewhere(&lab, &good);
    a_token_of_a_deleted_pod(&lab, &good);
    if soak() {
        a_token_that_really_runs_out(&lab);
    }
    // The first one may have run out meanwhile.
    let good = issue(&lab, "istio-system/ztunnel", Some("ztunnel-node1"), AUDIENCE);
    let asked = Asked { lab: &lab, place: NODE1, token: &good };
    asked.certificate(CALLER).expect("node1 still gets a certificate of its own pod");
}

fn cast() -> Vec<Value> {
    let mut other = pod("shop/other", "node2", &[]);
    other["spec"]["serviceAccountName"] = json!("other");
    vec![
        namespace("shop", true),
        namespace("legacy", false),
        account("shop/other"),
        pod("shop/caller", "node1", &[]),
        other,
        pod("legacy/neighbour", "node1", &[]),
    ]
}

/// A DaemonSet's pod has an address that its node's object does not list: the lab's own proxies are certified by that.
fn the_proxies_call_from_their_own_pods(lab: &Lab) {
    let of_node = kubectl(lab, &["get", "node", "node1", "-o", "json"]);
    assert!(!of_node.contains(PROXY), "the node says that its proxy's address is its own: {of_node}");
    let pod = ["get", "pod", "ztunnel-node1", "-n", "istio-system", "-o", "jsonpath={.status.podIP}"];
    assert_eq!(kubectl(lab, &pod).trim(), PROXY);
    let is_it = |line: &Value| {
        line["outcome"] == "issued"
            && line["caller"] == "istio-system/ztunnel"
            && line["node"] == "node1"
            && line["source"] == PROXY
    };
    wait_until("node1's proxy is certified from its pod's address", FORGOTTEN, || {
        audit(lab).iter().any(is_it)
    });
}

fn tokens_that_the_api_server_does_not_vouch_for(lab: &Lab, good: &str) {
    let api = "https://kubernetes.default.svc.cluster.local";
    let key = sign_key(lab);
    let now = clock::wall().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let anew = |from: u64, until: u64| {
        let mut claims = claims(good);
        (claims["iat"], claims["nbf"], claims["exp"]) = (json!(from), json!(from), json!(until));
        signed(&key, &claims)
    };
    // Only its time tells the one that ran out from this.
    let alive = anew(now - 60, now + 600);
    let asked = Asked { lab, place: NODE1, token: &alive };
    asked.certificate(CALLER).expect("a token that the cluster's key has signed is one of the cluster");
    let stranger = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let rows = [
        ("another audience", issue(lab, "istio-system/ztunnel", Some("ztunnel-node1"), "somebody")),
        ("the API server's audience", issue(lab, "istio-system/ztunnel", Some("ztunnel-node1"), api)),
        ("run out", anew(now - 1200, now - 600)),
        ("another key", signed(&stranger, &claims(good))),
    ];
    for (what, token) in rows {
        let asked = Asked { lab, place: NODE1, token: &token };
        asked.is_turned_away(what, "token-not-authenticated");
    }
    let unbound = issue(lab, "istio-system/ztunnel", None, AUDIENCE);
    Asked { lab, place: NODE1, token: &unbound }.is_turned_away("bound to no pod", "token-unbound");
}

fn tokens_of_others_and_of_elsewhere(lab: &Lab, good: &str) {
    // Its own pods are all that a node gets certificates of.
    let own = Asked { lab, place: NODE1, token: good };
    let refused = Refused::of("a pod of another node", "pod-unknown", "istio-system/ztunnel");
    own.refuses(&refused, "certificate", || own.certificate(OTHER));
    // From another node or a pod its token is worth nothing.
    for place in ["node-node2", "pod-legacy-neighbour"] {
        let stolen = Asked { lab, place, token: good };
        stolen.is_refused(&Refused::of(place, "source-address", "istio-system/ztunnel"));
    }
    // A pod that is no ztunnel, from its own address and from its node's.
    let stranger = issue(lab, "legacy/default", Some("neighbour"), AUDIENCE);
    for place in ["pod-legacy-neighbour", NODE1] {
        let asked = Asked { lab, place, token: &stranger };
        asked.is_refused(&Refused::of("a pod that is no ztunnel", "caller-account", "legacy/default"));
    }
}

fn a_token_of_a_deleted_pod(lab: &Lab, good: &str) {
    let mut spare = pod("istio-system/spare", "node1", &[]);
    spare["spec"]["serviceAccountName"] = json!("ztunnel");
    spare["spec"]["containers"][0]["image"] = json!("example.com/pause");
    let _ = kubectl(lab, &["apply", "-f", &lab.file("spare.json", &spare.to_string())]);
    let token = issue(lab, "istio-system/ztunnel", Some("spare"), AUDIENCE);
    let asked = Asked { lab, place: NODE1, token: &token };
    asked.certificate(CALLER).expect("its pod is there");
    // From its own pod it is worth the same, and another proxy's token nothing there.
    let netns = Path::new(NETNS_DIR).join(format!("{}-{SPARE}", lab.name()));
    wait_until("the pod has its namespace", FORGOTTEN, || netns.exists());
    let at_home = Asked { place: SPARE, ..asked };
    wait_until("the pod's address is known", FORGOTTEN, || at_home.certificate(CALLER).is_ok());
    at_home.discovery().expect("it is served in its own pod");
    let stolen = Asked { lab, place: SPARE, token: good };
    stolen.is_refused(&Refused::of("another proxy of the node", "source-address", "istio-system/ztunnel"));
    let _ = kubectl(lab, &["delete", "pod", "spare", "-n", "istio-system", "--grace-period=1"]);
    wait_until("the token of a pod that is gone is refused", FORGOTTEN, || {
        asked.certificate(CALLER).is_err()
    });
    asked.is_turned_away("of a deleted pod", "token-not-authenticated");
}

/// The shortest life that an API server gives is ten minutes.
fn a_token_that_really_runs_out(lab: &Lab) {
    let token = issue(lab, "istio-system/ztunnel", Some("ztunnel-node1"), AUDIENCE);
    let asked = Asked { lab, place: NODE1, token: &token };
    asked.certificate(CALLER).expect("it has not run out");
    let end = UNIX_EPOCH + Duration::from_secs(claims(&token)["exp"].as_u64().expect("a time"));
    wait_until("the token has run out", Duration::from_secs(700), || clock::wall() > end);
    // The API server vouches for it a minute longer; its own words count, to the second.
    asked.is_turned_away("run out by itself", "token-expired");
    wait_until("the API server refuses it as well", LEEWAY + FORGOTTEN, || {
        asked.certificate(CALLER).is_err_and(|answer| answer.contains("token-not-authenticated"))
    });
}

/// Somebody who asks with a token from a namespace of the lab.
#[derive(Clone, Copy)]
struct Asked<'a> {
    lab: &'a Lab,
    place: &'a str,
    token: &'a str,
}

/// A refusal as it has to be.
struct Refused<'a> {
    what: &'a str,
    check: &'a str,
    /// `NAMESPACE/ACCOUNT` in the record; empty for a stranger.
    caller: &'a str,
}

impl<'a> Refused<'a> {
    fn of(what: &'a str, check: &'a str, caller: &'a str) -> Self {
        Self { what, check, caller }
    }
}

impl Asked<'_> {
    /// Nobody knows who calls: neither service answers.
    #[track_caller]
    fn is_turned_away(&self, what: &str, check: &str) {
        self.is_refused(&Refused::of(what, check, ""));
    }

    /// Neither service answers.
    #[track_caller]
    fn is_refused(&self, refused: &Refused<'_>) {
        self.refuses(refused, "certificate", || self.certificate(CALLER));
        self.refuses(refused, "discovery", || self.discovery());
    }

    /// Asks, and demands the refusal: in the answer, once in the audit log, and in the metrics.
    #[track_caller]
    fn refuses(&self, refused: &Refused<'_>, asked: &str, ask: impl Fn() -> Result<(), String>) {
        let Refused { what, check, caller } = refused;
        let is_stranger = caller.is_empty();
        let metric = match asked {
            "certificate" if !is_stranger => "ambit_certificate_issue_errors_total",
            _ => "ambit_callers_refused_total",
        };
        let (before, counted) = (audit(self.lab).len(), count(self.lab, metric, check));
        let answer = ask().expect_err("it was answered");
        assert!(answer.contains(CODE) && answer.contains(check), "{what}, {asked}: {answer}");
        assert!(!answer.contains(self.token), "{what}, {asked}: the answer repeats the token");
        let outcome = if is_stranger { "turned-away" } else { "refused" };
        let lines = audit(self.lab).split_off(before);
        let is_told = |line: &&Value| {
            line["outcome"] == outcome
                && line["asked"] == asked
                && line["check"] == *check
                && line["code"] == CODE
                && line["caller"] == *caller
                && line["source"].is_string()
                && line["detail"].as_str().is_some_and(|detail| !detail.is_empty())
        };
        // Others may be served meanwhile.
        assert_eq!(lines.iter().filter(is_told).count(), 1, "{what}, {asked}: {lines:#?}");
        assert!(
            !lines.iter().any(|line| line.to_string().contains(self.token)),
            "{what}: it keeps the token"
        );
        assert!(count(self.lab, metric, check) > counted, "{what}, {asked}: {metric} counts it not");
    }

    fn certificate(&self, identity: &str) -> Result<(), String> {
        let identity = Identity::parse(identity).expect("an identity");
        let request = csr::new(&identity).expect("a request");
        let client = CaClient::new(self.target(), self.caller(), Duration::from_secs(60));
        self.inside(async move { client.sign(&identity, &request.pem).await.map(drop) })
    }

    /// Whether the first answer of a discovery stream comes.
    fn discovery(&self) -> Result<(), String> {
        let node = NodeIdentity {
            ip: [192, 0, 2, 1].into(),
            pod_name: "ztunnel-node1".to_owned(),
            namespace: "istio-system".to_owned(),
            node_name: "node1".to_owned(),
            metadata: BTreeMap::new(),
        };
        let first = Client::new(node, Mode::Wildcard, Limits::default()).on_connect();
        let (target, caller) = (self.target(), self.caller());
        self.inside(async move {
            let mut stream = XdsStream::open(&target, &caller, first).await.map_err(|e| e.to_string())?;
            stream.next().await.map(drop).map_err(|e| e.to_string())
        })
    }

    fn target(&self) -> Target {
        Target {
            address: "https://172.30.0.254:15012".to_owned(),
            roots: self.lab.run_dir().join("kube/root-cert.pem").display().to_string(),
            // Its certificate is for the service's name.
            alternative_name: Some("istiod.istio-system.svc".to_owned()),
            local_address: None,
        }
    }

    fn caller(&self) -> Caller {
        Caller { token: self.token.to_owned(), cluster_id: "Kubernetes".to_owned(), headers: Vec::new() }
    }

    fn inside<F>(&self, work: F) -> Result<(), String>
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let name = format!("{}-{}", self.lab.name(), self.place);
        let netns = NetNs::open(&Path::new(NETNS_DIR).join(name)).expect("its namespace");
        let done = netns.run_on_thread(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work)
        });
        done.expect("entering it")
    }
}

/// A token of an account (`NAMESPACE/NAME`) from the API server, bound to a pod or to none.
#[track_caller]
fn issue(lab: &Lab, account: &str, pod: Option<&str>, audience: &str) -> String {
    let (namespace, name) = crate::cast::split(account);
    let mut args = vec!["create", "token", name, "-n", namespace, "--audience", audience, "--duration=10m"];
    if let Some(pod) = pod {
        args.extend(["--bound-object-kind=Pod", "--bound-object-name", pod]);
    }
    kubectl(lab, &args).trim().to_owned()
}

/// What a token says.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

/// The key with which the cluster signs tokens.
fn sign_key(lab: &Lab) -> EcdsaKeyPair {
    let pem = std::fs::read_to_string(lab.run_dir().join("kube/pki/sa.key")).expect("the cluster's key");
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(text).expect("PEM");
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a P-256 key")
}

fn signed(key: &EcdsaKeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(claims));
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn audit(lab: &Lab) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.run_dir().join("istiod/audit.jsonl")).expect("the audit log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// How often the control plane counted a refusal by a check.
#[track_caller]
fn count(lab: &Lab, metric: &str, check: &str) -> u64 {
    let socket = lab.run_dir().join("istiod/admin.sock").display().to_string();
    let ask = ["curl", "-sS", "-m", "5", "--unix-socket", &socket, "http://localhost/metrics"];
    let text = lab.on_node("node1", &ask).ok();
    let cause = format!("cause=\"{check}\"");
    let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(&cause));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
