//! Every filter as a row: a record that agrees and one that does not.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;

fn filter(query: &[(&str, &str)]) -> Result<Filter, FilterError> {
    let query = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Filter::from_query(&query, UNIX_EPOCH + Duration::from_secs(1000))
}

fn record() -> Value {
    json!({
        "time": "1970-01-01T00:15:00.000Z", "node": "n1", "direction": "outbound", "verdict": "denied",
        "code": "AMB2104", "policy": "shop/lock", "path": "hbone", "conn_id": "abc",
        "src": {"addr": "10.0.0.1:40000", "workload": "web-1", "controller": "web", "cluster": "east", "namespace": "shop", "identity": "spiffe://m/ns/shop/sa/web"},
        "dst": {"addr": "10.0.0.2:15008", "workload": "db-1", "controller": "db", "cluster": "west", "namespace": "data"},
        "service": "db.data.svc.cluster.local", "hbone_addr": "10.0.0.2:5432",
        "http": {"method": "GET", "path": "/a/b", "status": 403, "version": "HTTP/2"},
    })
}

#[test]
fn each_filter_tells_what_agrees_from_what_does_not() {
    let rows = [
        ("pod", "web-1", "cart-1"),
        ("from-pod", "shop/web-1", "db-1"),
        ("to-pod", "data/db-*", "shop/db-1"),
        ("workload", "web", "web-1"),
        ("from-workload", "shop/web", "db"),
        ("to-workload", "data/d*", "shop/db"),
        ("cluster", "west", "north"),
        ("from-cluster", "east", "west"),
        ("to-cluster", "west", "east"),
        ("port", "40000", "15008"),
        ("port", "5432", "80"),
        ("protocol", "http", "tcp"),
        ("protocol", "http/2", "http/1.1"),
        ("namespace", "data", "web"),
        ("from-namespace", "shop", "data"),
        ("identity", "spiffe://m/ns/shop/*", "spiffe://other/*"),
        ("ip", "10.0.0.1", "10.0.0.3"),
        ("to-ip", "10.0.0.2", "10.0.0.1"),
        ("to-port", "5432", "15008"),
        ("from-port", "40000", "5432"),
        ("service", "db", "cart"),
        ("service", "data/db", "shop/db"),
        ("service", "db.data.svc.cluster.local", "db.data.svc"),
        ("node", "n1", "n2"),
        ("direction", "outbound", "inbound"),
        ("verdict", "denied", "allowed"),
        ("code", "AMB2301,AMB2104", "AMB2301"),
        ("policy", "shop/lock", "shop/other"),
        ("via", "hbone,local", "plaintext"),
        ("id", "ab*", "b*"),
        ("method", "GET", "POST"),
        ("path", "/a/*", "/b"),
        ("status", "403", "200"),
        ("encrypted", "true", "false"),
        ("since", "200s", "1970-01-01T00:15:01Z"),
        ("until", "1970-01-01T00:16:00Z", "200s"),
    ];
    for (key, yes, no) in rows {
        assert!(filter(&[(key, yes)]).unwrap().passes(&record()), "{key}={yes}");
        assert!(!filter(&[(key, no)]).unwrap().passes(&record()), "{key}={no}");
        if !matches!(key, "since" | "until") {
            let not = format!("not-{key}");
            assert!(!filter(&[(&not, yes)]).unwrap().passes(&record()), "{not}={yes}");
            assert!(filter(&[(&not, no)]).unwrap().passes(&record()), "{not}={no}");
        }
    }
}

#[test]
fn all_keys_must_agree_and_nothing_asked_takes_all() {
    assert!(filter(&[]).unwrap().passes(&record()));
    assert!(filter(&[("pod", "web-1"), ("verdict", "denied")]).unwrap().passes(&record()));
    assert!(!filter(&[("pod", "web-1"), ("verdict", "allowed")]).unwrap().passes(&record()));
}

#[test]
fn a_record_without_a_request_is_of_a_connection() {
    let mut connection = record();
    connection["http"] = Value::Null;
    assert!(filter(&[("protocol", "tcp")]).unwrap().passes(&connection));
    assert!(!filter(&[("protocol", "http")]).unwrap().passes(&connection));
    assert!(!filter(&[("protocol", "http/2")]).unwrap().passes(&connection));
}

#[test]
fn what_is_no_filter_is_said() {
    for (key, value) in [
        ("colour", "red"),
        ("from-verdict", "denied"),
        ("verdict", "maybe"),
        ("code", "AMB9999"),
        ("port", "http"),
        ("protocol", "smtp"),
        ("from-protocol", "tcp"),
        ("ip", "web"),
        ("since", "yesterday"),
        ("pod", ","),
    ] {
        assert!(filter(&[(key, value)]).is_err(), "{key}={value}");
    }
}

#[test]
fn a_filter_read_from_its_own_query_is_the_same() {
    let first = filter(&[("since", "200s"), ("not-code", "policy-denied"), ("pod", "a,b")]).unwrap();
    let second = Filter::from_query(first.query(), UNIX_EPOCH).unwrap();
    assert_eq!(first.query(), second.query());
    assert_eq!(first.passes(&record()), second.passes(&record()));
}
