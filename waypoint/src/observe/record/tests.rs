//! The line of a request in the log.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ambit_types::{PolicyKey, Reason};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Recorded};
use tracing::{Event, Metadata, Subscriber};

use super::{Log, TEXT_BYTES_MAX, cut};
use crate::observe::fixture::Cast;
use crate::observe::{Record, Sink as _};

/// Keeps the fields of events, in their order.
#[derive(Default)]
struct Kept(Arc<Mutex<Vec<(String, String)>>>);

impl Visit for Kept {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.lock().unwrap().push((field.name().to_owned(), format!("{value:?}")));
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Recorded<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(event.metadata().target(), "access");
        event.record(&mut Self(self.0.clone()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn written(record: &Record<'_>) -> Vec<(String, String)> {
    let kept = Kept::default();
    let fields = kept.0.clone();
    tracing::subscriber::with_default(kept, || Log.take(record));
    let fields = fields.lock().unwrap().clone();
    fields.into_iter().filter(|(name, _)| name != "message").collect()
}

#[test]
fn a_refusal_is_one_line_in_istios_order_with_code_and_policy() {
    let (cast, policy) = (Cast::new(), PolicyKey::new("shop", "no-delete"));
    let record = Record {
        code: 403,
        reason: Some(Reason::HttpDenyRuleMatched),
        decided_by: Some(&policy),
        detail: "rbac_access_denied",
        user_agent: Some("curl".into()),
        request_id: Some("id".into()),
        forwarded_for: Some("1.1.1.1".into()),
        ..cast.request()
    };
    let want = r#"start_time=1970-01-01T00:16:40.000Z
route_name="shop/web rule 0"
method="GET"
path="/a"
protocol="HTTP/1.1"
response_code=403
response_flags="-"
response_code_details="rbac_access_denied"
bytes_received=3
bytes_sent=700
duration=12
upstream_service_time=10
x_forwarded_for="1.1.1.1"
user_agent="curl"
request_id="id"
authority="web.shop"
upstream_host="10.0.0.2:8080"
upstream_cluster="shop/web.shop.svc.cluster.local"
downstream_local_address=10.9.0.1:80
downstream_remote_address=10.0.0.1:4000
src.workload="cart-1"
src.namespace="shop"
src.identity=spiffe://cluster.local/ns/shop/sa/cart
dst.service="web.shop.svc.cluster.local"
dst.workload="web-1"
dst.namespace="shop"
dst.identity="spiffe://cluster.local/ns/shop/sa/web"
attempts=1
code="AMB2201"
reason="http-deny-rule-matched"
policy="shop/no-delete"
duration_ms=12
conn.id=00000000000000000000000000000007"#;
    let got: Vec<String> = written(&record).iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(got.join("\n"), want);
}

#[test]
fn a_connection_has_its_own_line() {
    let cast = Cast::new();
    let names: Vec<String> = written(&cast.connection()).into_iter().map(|(name, _)| name).collect();
    assert!(
        names.contains(&"conn.id".to_owned()) && !names.contains(&"response_code".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_clients_words_are_cut_and_escaped() {
    let long = "é".repeat(TEXT_BYTES_MAX);
    for (given, want) in [
        ("/a", "/a"),
        ("/a\n2026 forged", "/a\\n2026 forged"),
        ("\u{1b}[31m", "\\u{1b}[31m"),
        (&long, &long[..TEXT_BYTES_MAX]),
    ] {
        assert_eq!(cut(given), want, "row {given:?}");
    }
}
