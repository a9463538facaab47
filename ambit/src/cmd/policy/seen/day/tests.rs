//! What is left of a day beside what proxies remember.

use serde_json::json;

use super::*;

/// `web-5f-x7 > cart-0:8080`, a record of the destination's node.
fn record(shown: &str) -> Flow {
    let (source, rest) = shown.split_once(" > ").expect("SOURCE > DESTINATION:PORT");
    let (destination, port) = rest.split_once(':').expect("a port");
    let end = |name: &str| json!({"namespace": "shop", "workload": name, "addr": "10.0.0.9:40000"});
    let record = json!({
        "time": "2026-01-02T03:04:05.000Z", "direction": "inbound", "verdict": "allowed", "path": "hbone",
        "conn_id": "1", "src": end(source), "dst": end(destination), "hbone_addr": format!("10.0.0.1:{port}"),
    });
    serde_json::from_value(record).expect("a record")
}

/// The pair of two controllers, with one pod of each.
fn pair(shown: &str, connections: u64) -> Flow {
    let mut pair = record(shown);
    for end in [&mut pair.src, &mut pair.dst] {
        end.controller = end.workload.take();
        end.workload = end.controller.as_ref().map(|name| format!("{name}-1-1"));
    }
    pair.conn_id = String::new();
    pair.connections = connections;
    pair
}

#[track_caller]
fn check(records: &[Flow], pairs: &[Flow], want: &[(&str, u64)]) {
    let left = beside(records, pairs.to_vec());
    let told: Vec<(String, u64)> = left
        .iter()
        .map(|pair| {
            (format!("{} > {}", known(&pair.src.controller), known(&pair.dst.controller)), pair.connections)
        })
        .collect();
    let want: Vec<(String, u64)> = want.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(told, want);
}

#[test]
fn what_is_remembered_is_taken_off_what_was_counted() {
    let records = ["web-5f-x7 > cart-0:8080", "web-5f-y8 > cart-0:8080"].map(record);
    check(&records, &[pair("web > cart:8080", 10)], &[("web > cart", 8)]);
    check(&records, &[pair("web > cart:8080", 2)], &[]);
    // A summary is on its way that tells of the second one.
    check(&records, &[pair("web > cart:8080", 1)], &[]);
    check(&[], &[pair("web > cart:8080", 10)], &[("web > cart", 10)]);
}

#[test]
fn what_differs_in_anything_that_decides_is_another_pair() {
    let here = pair("web > cart:8080", 1);
    let change = |change: fn(&mut Flow)| {
        let mut other = record("web-5f-x7 > cart-0:8080");
        change(&mut other);
        other
    };
    let others = [
        record("web-5f-x7 > cart-0:9090"),
        record("batch-1 > cart-0:8080"),
        record("web-5f-x7 > cart2-0:8080"),
        change(|flow| flow.verdict = "denied".to_owned()),
        change(|flow| flow.path = "plaintext".to_owned()),
        change(|flow| flow.client = Some("spiffe://m/ns/shop/sa/web".to_owned())),
        change(|flow| flow.service = Some("cart.shop.svc.cluster.local".to_owned())),
        change(|flow| flow.src.namespace = Some("bank".to_owned())),
        change(|flow| flow.src.identity = Some("spiffe://m/ns/shop/sa/other".to_owned())),
    ];
    for other in others {
        check(std::slice::from_ref(&other), std::slice::from_ref(&here), &[("web > cart", 1)]);
    }
    // The policy that let it in is told only when it ends, and its connection is counted before.
    let named = change(|flow| flow.policy = Some("shop/allow".to_owned()));
    check(&[named], &[here], &[]);
}

/// Both ends count a connection, the pair is told once, and either record of it may be forgotten first.
#[test]
fn a_record_of_either_end_is_of_the_same_pair() {
    let of = |direction: &str, id: &str| {
        let mut flow = record("web-5f-x7 > cart-0:8080");
        (flow.direction, flow.conn_id) = (Some(direction.to_owned()), id.to_owned());
        flow
    };
    let records = [of("inbound", "1"), of("outbound", "1"), of("outbound", "2")];
    check(&records, &[pair("web > cart:8080", 10)], &[("web > cart", 8)]);
    let mut by_source = pair("web > cart:8080", 10);
    by_source.direction = Some("outbound".to_owned());
    check(&records, &[by_source], &[("web > cart", 8)]);
}

#[test]
fn the_longest_name_that_was_counted_is_the_controller() {
    let pairs = [pair("web > cart:8080", 5), pair("web-admin > cart:8080", 5)];
    let records = [record("web-admin-5f-x7 > cart-0:8080")];
    check(&records, &pairs, &[("web > cart", 5), ("web-admin > cart", 4)]);
}

/// It stands among those that were opened, and its record among those that were refused.
#[test]
fn a_connection_that_was_cut_is_one_of_those_that_were_let_in() {
    let ended = |opened: Option<bool>| {
        let mut flow = record("web-5f-x7 > cart-0:8080");
        (flow.verdict, flow.code, flow.opened) = ("denied".to_owned(), Some("AMB2107".to_owned()), opened);
        flow
    };
    check(&[ended(Some(true))], &[pair("web > cart:8080", 10)], &[("web > cart", 9)]);
    for refused in [Some(false), None] {
        check(&[ended(refused)], &[pair("web > cart:8080", 10)], &[("web > cart", 10)]);
    }
}

#[test]
fn callers_outside_the_mesh_are_told_apart_by_address_where_the_control_plane_does() {
    let from = |mut flow: Flow, addr: Option<&str>| {
        flow.src = FlowEnd { addr: addr.map(str::to_owned), ..FlowEnd::default() };
        flow
    };
    let record = |addr: &str| from(record("x > cart-0:8080"), Some(addr));
    let pair = |addr: Option<&str>, count| from(pair("x > cart:8080", count), addr);
    let records = [record("192.0.2.1:1000"), record("192.0.2.1:1001"), record("192.0.2.9:1000")];
    let pairs = [pair(Some("192.0.2.1:7"), 10), pair(Some("192.0.2.2:7"), 10), pair(None, 10)];
    check(&records, &pairs, &[(" > cart", 8), (" > cart", 10), (" > cart", 9)]);
}

#[test]
fn refusals_are_told_apart_by_their_codes() {
    let denied = |mut flow: Flow, code: &str, policy: &str| {
        flow.verdict = "denied".to_owned();
        (flow.code, flow.policy) = (Some(code.to_owned()), Some(policy.to_owned()));
        flow
    };
    let by = |code: &str, policy: &str, count| denied(pair("web > cart:8080", count), code, policy);
    let one = denied(record("web-5f-x7 > cart-0:8080"), "AMB2103", "shop/b");
    let records = [one.clone(), one];
    let pairs = [by("AMB2104", "shop/a", 3), by("AMB2103", "shop/a", 1), by("AMB2103", "shop/b", 4)];
    check(&records, &pairs, &[("web > cart", 3), ("web > cart", 3)]);
}

/// A pair does not say which requests there were: asked as some request, it would be decided otherwise than they were.
#[test]
fn of_requests_that_are_remembered_the_records_tell_everything() {
    let mut request = record("web-5f-x7 > cart-0:8080");
    request.http = Some(ambit_explain::FlowHttp::default());
    check(&[request], &[pair("web > cart:8080", 100), pair("batch > cart:8080", 2)], &[("batch > cart", 2)]);
}

#[test]
fn an_answer_is_read_with_what_it_rests_on() {
    let item = serde_json::to_value(pair("web > cart:8080", 7)).expect("JSON");
    let day = Day::of(&json!({
        "kind": "SeenList", "items": [item], "since": "2026-01-02T03:04:05.000Z", "until": "2026-01-02T03:05:05.000Z", "lost": 1, "forgotten": 2, "left_out": 3,
    }));
    assert_eq!(day.pairs, [pair("web > cart:8080", 7)]);
    assert_eq!((&*day.since, day.lost, day.forgotten), ("2026-01-02T03:04:05.000Z", 1, 5));
    assert_eq!(day.until, "2026-01-02T03:05:05.000Z");
    assert!(Day::of(&json!({"since": null})).since.is_empty());
}

/// Ends that attend different replicas tell the same twice; of others both count.
#[test]
fn what_two_replicas_count_of_one_pair_stands_once() {
    let outbound = |shown: &str, code: &str| {
        let mut pair = pair(shown, 5);
        pair.direction = Some("outbound".to_owned());
        pair.code = Some(code.to_owned());
        pair
    };
    let day = |pairs: Vec<Flow>, since: &str, until: &str| Day {
        pairs,
        since: since.to_owned(),
        until: until.to_owned(),
        lost: 1,
        forgotten: 2,
    };
    let of_sources = vec![outbound("web > cart:8080", "AMB2105"), outbound("web > old:8080", "")];
    let one = day(of_sources, "2026-01-02T00:00:00.000Z", "2026-01-02T02:00:00.000Z");
    let other = day(vec![pair("web > cart:8080", 6)], "2026-01-02T01:00:00.000Z", "2026-01-02T03:00:00.000Z");
    let all = together(vec![one, other, Day::default()]);
    let told: Vec<(&str, u64)> =
        all.pairs.iter().map(|pair| (known(&pair.dst.controller), pair.connections)).collect();
    assert_eq!(told, [("old", 5), ("cart", 6)]);
    assert_eq!((&*all.since, &*all.until), ("2026-01-02T01:00:00.000Z", "2026-01-02T02:00:00.000Z"));
    assert_eq!((all.lost, all.forgotten), (2, 4));
}
