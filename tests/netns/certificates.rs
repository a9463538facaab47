//! Leaves that live for twenty seconds, under load: renewal is never seen by a connection. Tokens of nodes: worth nothing
//! elsewhere.

use std::path::Path;
use std::time::Duration;

use ambit_net::grpc::ca_client::CaClient;
use ambit_net::grpc::channel::{Caller, Target};
use ambit_net::linux::netns::{NETNS_DIR, NetNs};
use ambit_net::tls::csr;
use ambit_net::tls::store::Ca as _;
use ambit_tests::lab::{Lab, all_completed, kept_its_rate, soak, summary, wait_until};
use ambit_types::Identity;
use serde_json::Value;

use crate::cast::{PORT, namespace, pod, server};

#[test]
fn short_lived_certificates_are_renewed_unseen() {
    let cast = [namespace("shop", true), pod("shop/caller", "node1", &[]), server("shop/echo", "node2")];
    let Some(lab) = Lab::up("leaves", &cast, &["leaf_ttl=20s"]) else { return };
    let (rate, seconds) = if soak() { (200, 120) } else { (50, 30) };
    let (length, patience) = (format!("{seconds}s"), Duration::from_secs(seconds + 60));
    let target = lab.target("shop/echo", 4, PORT);
    let serials = |lab: &Lab| lab.ambit(&["get", "certificates", "-o", "json"]).ok();
    let first = serials(&lab);
    let args = ["--hold", "--connections", "5", "--duration", &length, "--interval", "200ms"];
    let held = lab.client("shop/caller", &target, &args);
    wait_until("the connections are held", Duration::from_secs(5), || held.stderr().contains("\"open\":5"));
    let load = lab.client("shop/caller", &target, &["--rate", &rate.to_string(), "--duration", &length]);
    let load = summary(&load.finish(patience));
    let made = kept_its_rate(&load, rate);
    assert_eq!(all_completed(&load), made);
    assert!(load["duration_ms"].as_u64() >= Some(seconds * 1000), "the load ended early: {load:#}");
    println!("{made} connections in {length}, {rate} a second");
    assert_eq!(all_completed(&summary(&held.finish(patience))), 5);
    assert_ne!(first, serials(&lab), "no certificate was renewed");
}

/// Who runs on node1 and nowhere else.
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/default";

#[test]
fn a_token_of_a_node_is_worth_nothing_elsewhere() {
    let cast = [
        namespace("shop", true),
        namespace("legacy", false),
        pod("shop/caller", "node1", &[]),
        pod("legacy/neighbour", "node1", &[]),
    ];
    let Some(lab) = Lab::up("token", &cast, &[]) else { return };
    ask(&lab, "node-node1").expect("node1 gets a certificate of its own pod");
    for place in ["node-node2", "pod-legacy-neighbour"] {
        let before = audit(&lab).len();
        let refused = ask(&lab, place).expect_err("node1's token gave a certificate to somebody else");
        assert!(
            refused.contains("Unauthenticated") && refused.contains("source-address"),
            "{place}: {refused}"
        );
        let lines = audit(&lab).split_off(before);
        let told =
            |l: &Value| l["outcome"] == "refused" && l["check"] == "source-address" && l["node"] == "node1";
        // Others may be served meanwhile.
        assert_eq!(lines.iter().filter(|l| told(l)).count(), 1, "{place}: {lines:#?}");
    }
}

/// Asks for the caller's certificate with node1's token, from a namespace of the lab.
fn ask(lab: &Lab, place: &str) -> Result<(), String> {
    let run = lab.run_dir();
    let name = run.file_name().expect("the lab's name").to_string_lossy().into_owned();
    let text = |path: &str| run.join(path).display().to_string();
    let target = Target {
        address: "https://172.30.0.254:15012".to_owned(),
        roots: text("istiod/root-cert.pem"),
        alternative_name: None,
        local_address: None,
    };
    let caller =
        Caller { token: text("nodes/node1/token"), cluster_id: "Kubernetes".to_owned(), headers: Vec::new() };
    let identity = Identity::parse(CALLER).expect("an identity");
    let request = csr::new(&identity).expect("a request");
    let client = CaClient::new(target, caller, Duration::from_secs(60));
    let netns = NetNs::open(&Path::new(NETNS_DIR).join(format!("{name}-{place}"))).expect("its namespace");
    let asked = netns.run_on_thread(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(client.sign(&identity, &request.pem)).map(drop)
    });
    asked.expect("entering it")
}

fn audit(lab: &Lab) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.run_dir().join("istiod/audit.jsonl")).expect("the audit log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
