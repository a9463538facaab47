//! Which fields stand in which line, and in which order.

use std::time::Duration;

use ambit_types::{Identity, Reason};

use super::{Direction, End, Record, Totals, complete, opened, refused};
use crate::logging::Format;
use crate::logging::tests::logged;

/// Level, scope, message and fields of the line that is logged.
#[track_caller]
fn check(log: fn(&Record<'_>), record: &Record<'_>, want: &str) {
    let line = logged(Format::Plain, || log(record));
    let (_, line) = line.trim_end().split_once('\t').expect("the time");
    assert_eq!(line, want.replace(" | ", "\t"));
}

#[test]
fn lines_are_those_that_operators_of_ztunnel_know() {
    let identity =
        |account| Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap();
    let (web, db) = (identity("web"), identity("db"));
    let end = |workload, addr: &str| End {
        addr: Some(addr.parse().unwrap()),
        workload,
        namespace: "shop",
        identity: None,
        cluster: "Kubernetes",
    };
    let totals = Totals { bytes_sent: 5, bytes_recv: 7, duration: Duration::from_micros(12_900) };
    let record = Record {
        src: End { identity: Some(&web), ..end("web-1", "10.0.0.1:4000") },
        dst: End { identity: Some(&db), ..end("db-1", "10.0.1.2:15008") },
        hbone_addr: "10.0.1.2:5432",
        service: "db.shop.svc.cluster.local",
        direction: Direction::Outbound,
        totals: Some(totals),
        reason: None,
        policy: "",
        path: "hbone",
        client: None,
        conn_id: "0af7",
        error: None,
        stale_for: None,
    };
    let ends = "src.addr=10.0.0.1:4000 src.workload=\"web-1\" src.namespace=\"shop\" \
                src.identity=\"spiffe://cluster.local/ns/shop/sa/web\" src.cluster=\"Kubernetes\" \
                dst.addr=10.0.1.2:15008 dst.hbone_addr=10.0.1.2:5432 dst.service=\"db.shop.svc.cluster.local\" \
                dst.workload=\"db-1\" dst.namespace=\"shop\" dst.identity=\"spiffe://cluster.local/ns/shop/sa/db\" \
                dst.cluster=\"Kubernetes\" direction=\"outbound\"";
    let counts = "bytes_sent=5 bytes_recv=7 duration=\"12ms\"";
    let own = "path=\"hbone\" conn.id=\"0af7\"";
    let line = format!("info | access | connection complete | {ends} {counts} duration_ms=12 {own}");
    check(complete, &record, &line);
    let line = format!("debug | access | connection opened | {ends} {own}");
    check(opened, &Record { totals: None, ..record.clone() }, &line);
    let client = identity("cart");
    let behind = "path=\"hbone\" client.identity=\"spiffe://cluster.local/ns/shop/sa/cart\" conn.id=\"0af7\"";
    let line = format!("info | access | connection complete | {ends} {counts} duration_ms=12 {behind}");
    check(complete, &Record { client: Some(&client), ..record.clone() }, &line);

    let told = "code=\"AMB2104\" reason=\"policy-denied\" policy=\"shop/lock\"";
    let denied = Record {
        reason: Some(Reason::PolicyDenied),
        policy: "shop/lock",
        error: Some("no ALLOW rule matched"),
        stale_for: Some(3),
        ..record
    };
    let error = "error=\"no ALLOW rule matched\"";
    let line = format!(
        "error | access | connection complete | {ends} {counts} {error} duration_ms=12 {told} {own} stale_for=3"
    );
    check(complete, &denied, &line);
    let line = format!("warn | access | connection failed | {ends} {error} {told} {own} stale_for=3");
    check(refused, &denied, &line);
}

#[test]
fn what_is_not_known_is_left_out() {
    let nothing = Record {
        src: End { addr: Some(([10, 0, 0, 1], 4000).into()), ..End::default() },
        dst: End::default(),
        hbone_addr: "",
        service: "",
        direction: Direction::Inbound,
        totals: None,
        reason: None,
        policy: "",
        path: "plaintext",
        client: None,
        conn_id: "",
        error: Some("it left"),
        stale_for: None,
    };
    let fields = "src.addr=10.0.0.1:4000 direction=\"inbound\" error=\"it left\" path=\"plaintext\"";
    check(refused, &nothing, &format!("warn | access | connection failed | {fields}"));
}
