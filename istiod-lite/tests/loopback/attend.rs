//! Attending: a proxy's own client against the control plane, with tokens, summaries, questions and refusals.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_net::grpc::attend::{Asked, Attendance, Attendant, Later, Question, Told};
use ambit_runtime::{clock, tasks};
use ambit_xds::node::NodeIdentity;
use ambit_xds::observe::{Example, Key, Side, Tally};
use ambit_xds::proto::ambit::observe::v1::{Hello, Memory, Reporter};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::plane::{PATIENCE, Plane};

/// A node that holds one record and follows nothing.
#[derive(Debug)]
struct Node(String);

impl Attendant for Node {
    fn answer(&self, question: Question) -> Later<Result<Bytes, String>> {
        let Self(name) = self;
        match question {
            Question::Certificates { identity } => return Box::pin(async move { Ok(held(identity)) }),
            Question::Connections { most } => {
                let all = vec![serde_json::json!({"conn_id": "1"}); most.min(3)];
                return Box::pin(async move { Ok(Bytes::from(Value::from(all).to_string())) });
            }
            Question::Budget => {
                let used = serde_json::json!({"resident_bytes": 7, "secret": "x"});
                return Box::pin(async move { Ok(Bytes::from(used.to_string())) });
            }
            Question::Explain(_) | Question::SelfTests => {}
        }
        let json = format!("{{\"time\":\"2026-01-02T03:04:05.000Z\",\"tests\":[{{\"test\":\"{name}\"}}]}}");
        Box::pin(async move { Ok(Bytes::from(json)) })
    }

    fn flows(&self, asked: Asked, to: mpsc::Sender<Told>) -> Later<Memory> {
        let record = serde_json::json!({
            "time": "2026-01-02T03:04:05.000Z", "node": self.0, "verdict": "denied", "conn_id": "1",
        });
        Box::pin(async move {
            if asked.filter.passes(&record) {
                let _ = to.send(Told::Record(record.to_string().into())).await;
            }
            if asked.follow {
                to.closed().await;
            }
            Memory { records: 1, records_max: 10, lost: 5, oldest_ms: 1000 }
        })
    }

    fn records_lost(&self) -> u64 {
        0
    }

    fn count_live(&self) {}
}

/// Certificates as a node tells them: one of nobody here, and the one that is asked for.
fn held(identity: Option<String>) -> Bytes {
    let leaf = |identity: &str| {
        serde_json::json!({
            "identity": identity, "serial": "0a1f", "not_before": 1_000_000, "not_after": 4_000_000_000_u64,
        })
    };
    let mut all = vec![leaf("spiffe://cluster.local/ns/bank/sa/vault")];
    all.extend(identity.as_deref().map(leaf));
    Value::from(all).to_string().into()
}

/// Attends as a node with a token of `token`; what it counts.
fn attend(plane: &Plane, node: &str, token: &str) -> (Arc<Tally>, JoinHandle<()>) {
    let tally = Arc::new(Tally::default());
    let identity = NodeIdentity {
        ip: IpAddr::from([127, 0, 0, 1]),
        pod_name: format!("ztunnel-{node}"),
        namespace: "istio-system".to_owned(),
        node_name: node.to_owned(),
        metadata: BTreeMap::new(),
    };
    let hello = Hello {
        node: Some(identity.encode()),
        program: "ztunnel".to_owned(),
        version: "1.2.3".to_owned(),
        instance: 7,
    };
    let attendance = Attendance {
        target: plane.target(),
        caller: plane.caller(token),
        hello,
        tally: tally.clone(),
        attendant: Arc::new(Node(node.to_owned())),
        draw: || 0,
    };
    (tally, tasks::spawn("attend", attendance.keep()))
}

/// Waits until the API answers as wanted.
async fn until(plane: &Plane, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = clock::monotonic() + PATIENCE;
    loop {
        let answer = plane.admin(path).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(clock::monotonic() < deadline, "{path} still answers {answer:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_attached(nodes: &Value, name: &str) -> bool {
    nodes["items"].as_array().unwrap().iter().any(|node| node["name"] == name && node["attached"] == true)
}

/// What a node says of calls by a pod of its own.
fn calls() -> Key {
    let side =
        |workload: &str| Side { namespace: "shop".into(), workload: workload.into(), ..Side::default() };
    Key {
        reporter: Reporter::Source,
        source: side("cart-0"),
        destination: side("orders-0"),
        service: "".into(),
        port: 8080,
        path: "hbone",
        is_denied: false,
        reason: None,
        policy: None,
        client: None,
    }
}

#[tokio::test]
async fn what_a_node_counts_becomes_an_edge() {
    let plane = Plane::start().await;
    let (tally, _attending) = attend(&plane, "node1", "node1");
    let nodes = until(&plane, "/api/v1/nodes", |nodes| is_attached(nodes, "node1")).await;
    let version = nodes["items"].as_array().unwrap().iter().find(|node| node["name"] == "node1");
    assert_eq!(version.unwrap()["version"], "1.2.3");
    let key = calls();
    for _ in 0..3 {
        tally.cell(key.clone(), || [Example::default(), Example::default()]).unwrap().open();
    }
    let told = |edges: &Value| edges["items"][0]["connections"] == 3;
    let edges = until(&plane, "/api/v1/edges?window=1m", told).await;
    let edge = &edges["items"][0];
    assert_eq!(
        (&edge["id"], &edge["source"]["node"]),
        (&"shop/cart-0>shop/orders-0:8080".into(), &"node1".into())
    );
    the_day_has_it(&plane).await;
}

/// The same pair as a record to be decided again, and what the answer rests on.
async fn the_day_has_it(plane: &Plane) {
    let seen = plane.admin("/api/v1/seen?since=24h").await;
    let one = &seen["items"][0];
    assert_eq!((&one["connections"], &one["node"]), (&Value::from(3), &Value::from("node1")), "{seen:#}");
    let flow = ambit_explain::Flow::read(&one.to_string()).expect("a record");
    assert_eq!((flow.src.controller.as_deref(), flow.connections), (Some("cart-0"), 3));
    assert!(seen["since"].is_string(), "{seen:#}");
    for count in ["lost", "forgotten", "left_out"] {
        assert_eq!(seen[count], 0, "{count}: {seen:#}");
    }
    let count = async |path: &str| plane.admin(path).await["items"].as_array().map(Vec::len);
    assert_eq!(count("/api/v1/seen?namespace=shop").await, Some(1));
    assert_eq!(count("/api/v1/seen?namespace=bank").await, Some(0));
    for (query, want) in [
        ("workload=shop/orders-0", 1),
        ("workload=shop/orders-0&verdict=allowed", 1),
        ("workload=shop/orders-0&verdict=denied", 0),
        ("workload=shop/orders", 0),
        ("workload=bank/orders-0", 0),
    ] {
        assert_eq!(count(&format!("/api/v1/seen?{query}")).await, Some(want), "{query}");
    }
    assert_eq!(plane.answer("/api/v1/seen?workload=orders-0").await.0, 400);
}

#[tokio::test]
async fn policies_are_told_of_the_workload_that_is_named() {
    let plane = Plane::start().await;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: whole, namespace: shop}\nspec: {rules: [{}]}\n";
    std::fs::write(plane.folder.join("policy.yaml"), policy).unwrap();
    let path = "/api/v1/policies?workload=shop/cart-0";
    let told = until(&plane, path, |told| told["items"].as_array().is_some_and(|all| !all.is_empty())).await;
    let one = &told["items"][0];
    assert_eq!((&one["name"], &one["from"]), (&"shop/whole".into(), &"namespace".into()), "{told:#}");
    assert_eq!(plane.answer("/api/v1/policies?workload=shop/nobody").await.0, 404);
    assert_eq!(plane.answer("/api/v1/policies").await.0, 400);
}

#[tokio::test]
async fn questions_go_to_every_node_and_answers_say_who_is_missing() {
    let plane = Plane::start().await;
    let (_, _one) = attend(&plane, "node1", "node1");
    let (_, two) = attend(&plane, "node2", "node2");
    let both = |nodes: &Value| is_attached(nodes, "node1") && is_attached(nodes, "node2");
    until(&plane, "/api/v1/nodes", both).await;
    let flows = plane.admin("/api/v1/flows?verdict=denied").await;
    let nodes: Vec<&Value> = flows["items"].as_array().unwrap().iter().map(|flow| &flow["node"]).collect();
    assert_eq!((nodes.len(), &flows["lost"]), (2, &Value::from(10)), "{flows:#}");
    let flows = plane.admin("/api/v1/flows?verdict=allowed").await;
    assert_eq!(
        (flows["items"].as_array().map(Vec::len), &flows["incomplete"]),
        (Some(0), &Value::Array(vec![]))
    );
    let tests = plane.admin("/api/v1/selftests").await;
    assert_eq!(tests["items"].as_array().map(Vec::len), Some(2), "{tests:#}");
    two.abort();
    until(&plane, "/api/v1/nodes", |nodes| !is_attached(nodes, "node2")).await;
    let flows = plane.admin("/api/v1/flows").await;
    assert_eq!(flows["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn certificates_that_nodes_hold_are_listed_if_they_may_hold_them() {
    let plane = Plane::start().await;
    let (_, _one) = attend(&plane, "node1", "node1");
    until(&plane, "/api/v1/nodes", |nodes| is_attached(nodes, "node1")).await;
    let workloads = plane.admin("/api/v1/workloads").await;
    let on_node1 = workloads["items"].as_array().unwrap().iter().find(|one| one["node"] == "node1");
    let identity = on_node1.expect("a workload of node1")["identity"].as_str().unwrap().to_owned();
    let all = plane.admin("/api/v1/certificates").await;
    let kinds: Vec<&Value> = all["items"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!((kinds, &all["unexpected"]), (vec![&Value::from("root")], &Value::from(1)), "{all:#}");
    assert!(all["incomplete"][0].as_str().is_some_and(|words| words.contains("node2")), "{all:#}");
    let own = plane.admin(&format!("/api/v1/certificates?identity={identity}&node=node1")).await;
    let leaf = &own["items"][0];
    assert_eq!(
        (own["items"].as_array().map(Vec::len), &leaf["name"]),
        (Some(1), &identity.into()),
        "{own:#}"
    );
    assert_eq!(
        (&leaf["node"], &leaf["state"], &leaf["not_after"]),
        (&"node1".into(), &"valid".into(), &"2096-10-02T07:06:40Z".into())
    );
    let (status, words) = plane.answer("/api/v1/certificates?identity=nobody").await;
    assert_eq!(status, 400, "{words}");
}

#[tokio::test]
async fn one_node_is_told_with_what_its_proxy_says() {
    let plane = Plane::start().await;
    let (_, _one) = attend(&plane, "node1", "node1");
    let path = "/api/v1/node?name=node1";
    let told = until(&plane, path, |told| told["items"][0]["attached"] == true).await;
    let node = &told["items"][0];
    assert_eq!(node["connections"].as_array().map(Vec::len), Some(3), "{told:#}");
    assert_eq!(
        (&node["budget"], &node["incomplete"]),
        (&serde_json::json!({"resident_bytes": 7}), &serde_json::json!([])),
        "{told:#}"
    );
    let identities = node["identities"].to_string();
    assert!(identities.contains("/ns/shop/sa/cart") && !identities.contains("orders"), "{told:#}");
    let absent = plane.admin("/api/v1/node?name=node2").await;
    assert_eq!(absent["items"][0]["connections"], Value::Null, "{absent:#}");
    assert_eq!(plane.answer("/api/v1/node?name=nowhere").await.0, 404);
    assert_eq!(plane.answer("/api/v1/node").await.0, 400);
}

/// Readers of one caller, as `console::live` has it; those at the admin socket are one.
const READERS_EACH_MAX: usize = 16;
const FOLLOWERS_EACH_MAX: usize = 8;

#[tokio::test]
async fn one_caller_has_so_many_readers_and_is_told_so_at_one_more() {
    let plane = Plane::start().await;
    for (path, most) in [("/api/v1/events", READERS_EACH_MAX), ("/api/v1/flows?follow=1", FOLLOWERS_EACH_MAX)]
    {
        let mut held = Vec::new();
        for n in 0..most {
            held.push(plane.stream(path).await.unwrap_or_else(|error| panic!("{path} {n}: {error}")));
        }
        let (status, words) = plane.answer(path).await;
        assert_eq!(status, 503, "{path}: {words}");
        assert!(
            words.starts_with(&format!("too many readers: {most} are open from this address")),
            "{words}"
        );
        // Others are answered meanwhile.
        assert!(plane.admin("/api/v1/edges").await["items"].is_array());
        drop(held.pop());
        let deadline = clock::monotonic() + PATIENCE;
        while let Err(error) = plane.stream(path).await {
            assert!(clock::monotonic() < deadline, "no place is given back: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn who_reads_events_is_told_of_edges_by_the_look_that_all_share() {
    let plane = Plane::start().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(plane.stream("/api/v1/events").await.unwrap());
    }
    let (tally, _attending) = attend(&plane, "node1", "node1");
    let key = calls();
    tally.cell(key, || [Example::default(), Example::default()]).unwrap().open();
    let mut told = Vec::new();
    for reader in &mut readers {
        let edges = async {
            loop {
                let piece = reader.next().await.unwrap().expect("the stream goes on");
                let text = String::from_utf8_lossy(&piece).into_owned();
                if text.starts_with("event: edges\n") {
                    return text;
                }
            }
        };
        told.push(tokio::time::timeout(PATIENCE, edges).await.expect("in time"));
    }
    assert!(told[0].contains("shop/cart-0>shop/orders-0:8080"), "{told:?}");
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
}

#[tokio::test]
async fn nobody_attends_as_somebody_else() {
    let plane = Plane::start().await;
    let (_, _stranger) = attend(&plane, "node2", "node1");
    let (_, _honest) = attend(&plane, "node1", "node1");
    let nodes = until(&plane, "/api/v1/nodes", |nodes| is_attached(nodes, "node1")).await;
    assert!(!is_attached(&nodes, "node2"), "{nodes:#}");
}
