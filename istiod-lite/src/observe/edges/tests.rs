//! What both ends tell of a connection becomes one edge.

use ambit_xds::observe::{BUCKETS, bucket_of};
use ambit_xds::proto::ambit::observe::v1::{End, Pair, Summary};

use super::*;

const NOW: u64 = 1_000_000_000;

fn end(workload: &str, identity: &str) -> Option<End> {
    let identity =
        if identity.is_empty() { String::new() } else { format!("spiffe://m/ns/shop/sa/{identity}") };
    let (namespace, workload) = ("shop".to_owned(), workload.to_owned());
    Some(End { namespace, pod: format!("{workload}-1"), workload, identity, ..End::default() })
}

fn pair(reporter: Reporter, path: &str) -> Pair {
    Pair {
        reporter: reporter.into(),
        source: end("web", "web"),
        destination: end("db", "db"),
        port: 5432,
        path: path.to_owned(),
        ..Pair::default()
    }
}

fn of(ztunnel: Vec<Pair>, waypoint: Vec<Pair>) -> Aggregates {
    let mut aggregates = Aggregates::default();
    let summary = |pairs| Summary { covers_ms: 10_000, pairs, ..Summary::default() };
    aggregates.take(1, "n1", false, summary(ztunnel), NOW);
    aggregates.take(2, "n1", true, summary(waypoint), NOW);
    aggregates
}

#[test]
fn both_ends_of_one_connection_are_one_edge_and_counted_once() {
    let told = [Reporter::Source, Reporter::Destination].map(|by| Pair {
        opened: 50,
        bytes_sent: 100,
        bytes_received: 1000,
        ..pair(by, "hbone")
    });
    let edges = edges(&of(told.to_vec(), Vec::new()), 300, NOW);
    assert_eq!(edges.len(), 1, "{edges:?}");
    let edge = &edges[0];
    assert_eq!(edge["id"], "shop/web>shop/db:5432");
    assert_eq!((&edge["connections"], &edge["rate_per_s"]), (&json!(50), &json!(5.0)));
    assert_eq!((&edge["bytes_sent_per_s"], &edge["bytes_received_per_s"]), (&json!(10.0), &json!(100.0)));
    assert_eq!(
        (&edge["secured"], &edge["why_not"], &edge["success"]),
        (&json!(true), &Value::Null, &json!(1.0))
    );
    assert_eq!(edge["requests_per_s"], Value::Null);
    let flows = flows(&of(told.to_vec(), Vec::new()), 300, NOW);
    assert_eq!(flows.iter().map(|flow| flow.connections).sum::<u64>(), 50);
}

#[test]
fn a_refusal_has_the_code_of_who_refused_and_no_other() {
    let refused = |by, code: &str| Pair {
        denied: true,
        code: code.to_owned(),
        policy: "shop/lock".to_owned(),
        ended: 3,
        ..pair(by, "hbone")
    };
    let told = vec![
        refused(Reporter::Source, Reason::TunnelRejected.code()),
        refused(Reporter::Destination, Reason::PolicyDenied.code()),
    ];
    let edges = edges(&of(told, Vec::new()), 300, NOW);
    let edge = &edges[0];
    let code = Reason::PolicyDenied.code();
    assert_eq!((&edge["denied"], &edge["connections"]), (&json!(3), &json!(0)));
    assert_eq!(edge["codes"], json!({ code: 3 }));
    assert_eq!((&edge["policies"], &edge["success"]), (&json!(["shop/lock"]), &json!(0.0)));
}

#[test]
fn the_way_through_a_waypoint_is_one_edge_with_its_requests() {
    let service = || "db.shop.svc.cluster.local".to_owned();
    let first = Pair {
        destination: end("waypoint", "waypoint"),
        service: service(),
        opened: 2,
        ..pair(Reporter::Source, "waypoint")
    };
    let second = Pair {
        source: end("waypoint", "waypoint"),
        client: "spiffe://m/ns/shop/sa/web".to_owned(),
        opened: 2,
        ..pair(Reporter::Destination, "hbone")
    };
    let mut latency = vec![0; BUCKETS];
    latency[bucket_of(10_000)] = 100;
    let requests = Pair {
        service: service(),
        requests: 100,
        failed: 1,
        latency,
        ..pair(Reporter::Waypoint, "waypoint")
    };
    let edges = edges(&of(vec![first, second], vec![requests]), 300, NOW);
    assert_eq!(edges.len(), 1, "{edges:?}");
    let edge = &edges[0];
    assert_eq!((&edge["connections"], &edge["requests_per_s"]), (&json!(2), &json!(10.0)));
    assert_eq!(
        (&edge["destination"]["workload"], &edge["destination"]["namespace"]),
        (&json!("db"), &json!("shop"))
    );
    assert_eq!((&edge["destination"]["service"], &edge["success"]), (&json!(service()), &json!(0.99)));
    let p50 = edge["latency_ms_p50"].as_f64().unwrap();
    assert!((6.0..=15.0).contains(&p50), "{p50}");
}

/// Rules are made of whom a waypoint called for, so that the second leg is told beside the first.
#[test]
fn a_pair_as_a_record_says_which_node_told_it_of_which_controllers_and_for_whom() {
    let first = Pair { opened: 2, ..pair(Reporter::Source, "waypoint") };
    let second = Pair {
        source: end("waypoint", "waypoint"),
        client: "spiffe://m/ns/shop/sa/web".to_owned(),
        opened: 3,
        ..pair(Reporter::Destination, "hbone")
    };
    let mut flows = flows(&of(vec![first, second], Vec::new()), 300, NOW);
    flows.sort_by_key(|flow| flow.connections);
    let [first, second] = &flows[..] else { panic!("{flows:#?}") };
    assert_eq!((&*first.time, &*first.node, &first.client), ("2001-09-09T01:46:40.000Z", "n1", &None));
    let ends = |flow: &Flow| [&flow.src, &flow.dst].map(|end| (end.controller.clone(), end.workload.clone()));
    let named = |name: &str| (Some(name.to_owned()), Some(format!("{name}-1")));
    assert_eq!(ends(first), [named("web"), named("db")]);
    assert_eq!(second.client.as_deref(), Some("spiffe://m/ns/shop/sa/web"));
    // Whoever is asked over the network reads the same.
    assert_eq!(Flow::read(&json!(second).to_string()).as_ref(), Some(second));
}

#[test]
fn what_is_not_secured_says_why() {
    let plain = Pair { source: end("stranger", ""), opened: 1, ..pair(Reporter::Destination, "plaintext") };
    let edges = edges(&of(vec![plain], Vec::new()), 300, NOW);
    assert_eq!(edges[0]["secured"], false);
    assert_eq!(edges[0]["why_not"], "plaintext: the source has no identity");
}
