//! What the memory keeps, and its form.

use ambit_types::{PolicyKey, Reason};
use serde_json::json;

use super::{FlowRecord, Ring};
use crate::observe::Record;
use crate::observe::fixture::Cast;

#[test]
fn what_is_pushed_out_is_counted() {
    let (cast, ring) = (Cast::new(), Ring::new("shop/waypoint", 3));
    assert_eq!(ring.memory().oldest, None);
    for attempts in 0..5 {
        ring.push(&Record { attempts, ..cast.request() });
    }
    let (records, memory) = ring.last(2);
    let attempts: Vec<u32> = records.iter().map(|r| r.http.as_ref().unwrap().attempts).collect();
    assert_eq!(attempts, [3, 4]);
    assert_eq!((memory.records, memory.records_max, memory.lost), (3, 3, 2));
    assert!(memory.oldest.is_some());
}

#[test]
fn a_record_has_the_form_of_ztunnels_and_what_http_adds() {
    let cast = Cast::new();
    let policy = PolicyKey::new("shop", "no-delete");
    let record = Record {
        method: Some("DELETE"),
        code: 403,
        reason: Some(Reason::HttpDenyRuleMatched),
        policy: Some(&policy),
        decided_by: Some(&policy),
        rule: Some(1),
        detail: "rbac_access_denied",
        destination: None,
        destination_address: None,
        backend: None,
        attempts: 0,
        ..cast.request()
    };
    let want = json!({
        "time": "1970-01-01T00:16:40.012Z",
        "node": "shop/waypoint",
        "direction": "inbound",
        "verdict": "denied",
        "code": "AMB2201",
        "reason": "http-deny-rule-matched",
        "policy": "shop/no-delete",
        "rule": 1,
        "nearest": null,
        "dry_run": [],
        "path": "waypoint",
        "conn_id": "00000000000000000000000000000007",
        "src": {
            "addr": "10.0.0.1:4000", "workload": "cart-1", "controller": "cart", "namespace": "shop", "cluster": "Kubernetes",
            "identity": "spiffe://cluster.local/ns/shop/sa/cart",
        },
        "dst": {"addr": "10.9.0.1:80"},
        "service": "web.shop.svc.cluster.local",
        "hbone_addr": "10.9.0.1:80",
        "response_flags": "-",
        "bytes_sent": 700,
        "bytes_recv": 3,
        "duration_ms": 12,
        "error": null,
        "http": {
            "method": "DELETE", "path": "/a", "authority": "web.shop", "version": "HTTP/1.1", "status": 403,
            "grpc_status": null, "route": "shop/web rule 0", "backend": null, "attempts": 0,
            "request_id": null, "trace_id": null, "detail": "rbac_access_denied",
        },
    });
    assert_eq!(FlowRecord::of(&record).to_json("shop/waypoint"), want);
}

#[test]
fn a_clients_words_are_cut() {
    let cast = Cast::new();
    let long = "é".repeat(1000);
    let record = FlowRecord::of(&Record { path: &long, authority: &long, ..cast.request() });
    let http = record.http.unwrap();
    assert_eq!((http.path.len(), http.authority.len()), (256, 256));
    assert!(FlowRecord::of(&cast.connection()).http.is_none());
}
