//! What both ends tell of a connection becomes one edge.

use ambit_xds::observe::{BUCKETS, bucket_of};
use ambit_xds::proto::ambit::observe::v1::{End, Pair, Summary};

use super::*;

const NOW: u64 = 1_000_000_000;

fn end(workload: &str, identity: &str) -> Option<End> {
    let identity =
        if identity.is_empty() { String::new() } else { format!("spiffe://m/ns/shop/sa/{identity}") };
    let (namespace, workload) = ("shop".to_owned(), workload.to_owned());
    let node = "n1".to_owned();
    Some(End { namespace, pod: format!("{workload}-1"), workload, identity, node, ..End::default() })
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
    aggregates.take(1, summary(ztunnel), NOW);
    aggregates.take(2, summary(waypoint), NOW);
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
fn each_side_is_told_apart_for_whoever_adds_replicas_up() {
    let told = [(Reporter::Source, 50), (Reporter::Destination, 40)].map(|(by, opened)| Pair {
        opened,
        bytes_sent: 100,
        ..pair(by, "hbone")
    });
    let all = of(told.to_vec(), Vec::new());
    let edge = &reported(&all, 300, NOW)[0];
    let connections = |side: &str| edge["by"][side]["connections"].as_u64();
    assert_eq!((connections("source"), connections("destination")), (Some(50), Some(40)));
    assert_eq!((&edge["by"]["source"]["rate_per_s"], connections("waypoint")), (&json!(5.0), None));
    assert_eq!(edges(&all, 300, NOW)[0].get("by"), None, "the API has it only where it is asked for");
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

/// Each end tells when it tells: until the later one has, the larger number stands.
#[test]
fn of_two_numbers_of_one_pair_the_larger_one_stands() {
    for (by_source, by_destination) in [(6010, 5786), (5786, 6010), (6010, 6010)] {
        let told = vec![
            Pair { opened: by_source, ..pair(Reporter::Source, "hbone") },
            Pair { opened: by_destination, ..pair(Reporter::Destination, "hbone") },
        ];
        let flows = flows(&of(told, Vec::new()), 300, NOW);
        let counted: Vec<_> =
            flows.iter().map(|flow| (flow.direction.as_deref(), flow.connections)).collect();
        assert_eq!(counted, [(Some("inbound"), 6010)]);
    }
}

#[test]
fn a_connection_that_was_let_in_and_cut_is_one() {
    let cut = Pair {
        denied: true,
        code: Reason::PolicyChanged.code().to_owned(),
        ended: 3,
        cut: 2,
        ..pair(Reporter::Destination, "hbone")
    };
    let told = vec![Pair { opened: 10, ..pair(Reporter::Destination, "hbone") }, cut];
    let flows = flows(&of(told, Vec::new()), 300, NOW);
    let mut counted: Vec<_> = flows.iter().map(|flow| (&*flow.verdict, flow.connections)).collect();
    counted.sort_unstable();
    assert_eq!(counted, [("allowed", 10), ("denied", 1)]);
}

/// What ended and was opened under another code hides nothing that the other end told.
#[test]
fn a_pair_without_connections_is_no_record() {
    let told = vec![
        Pair { opened: 4, ..pair(Reporter::Source, "hbone") },
        Pair { ended: 4, ..pair(Reporter::Destination, "hbone") },
    ];
    let flows = flows(&of(told, Vec::new()), 300, NOW);
    let counted: Vec<_> = flows.iter().map(|flow| (flow.direction.as_deref(), flow.connections)).collect();
    assert_eq!(counted, [(Some("outbound"), 4)]);
}

#[test]
fn of_callers_that_are_counted_together_no_address_is_told() {
    let from = |last: u8, of_one_address| Pair {
        source: Some(End { address: format!("192.0.2.{last}:1000"), ..End::default() }),
        of_one_address,
        opened: 1,
        ..pair(Reporter::Destination, "plaintext")
    };
    let told = of(vec![from(1, true), from(2, true), from(3, false)], Vec::new());
    let mut addresses: Vec<_> = flows(&told, 300, NOW).into_iter().map(|flow| flow.src.addr).collect();
    addresses.sort();
    assert_eq!(addresses, [None, Some("192.0.2.1:1000".to_owned()), Some("192.0.2.2:1000".to_owned())]);
    assert_eq!(edges(&told, 300, NOW).len(), 1, "the map has one edge from outside");
}

#[test]
fn what_is_not_secured_says_why() {
    let plain = Pair { source: end("stranger", ""), opened: 1, ..pair(Reporter::Destination, "plaintext") };
    let edges = edges(&of(vec![plain], Vec::new()), 300, NOW);
    assert_eq!(edges[0]["secured"], false);
    assert_eq!(edges[0]["why_not"], "plaintext: the source has no identity");
}
