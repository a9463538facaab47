//! Spans of records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_types::Reason;
use prost::Message as _;

use super::{About, of};
use crate::observe::Record;
use crate::observe::exchange::Try;
use crate::observe::fixture::{Cast, pod};
use crate::observe::otlp::{
    ExportRequest, ExportResponse, KeyValue, Kind, Of, Resource, ResourceSpans, Scope, ScopeSpans, Span,
};
use crate::observe::trace::{self, TraceId};

const MILLIS: Duration = Duration::from_millis(1);

fn context(parent: u64) -> trace::Span {
    trace::Span { trace: TraceId::from_random(5), span: 7, parent, is_sampled: true }
}

#[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
fn spans(record: &Record<'_>, parent: u64, given_up: &[Option<u32>]) -> Vec<Span> {
    let (begun, own) = (Instant::now(), pod("waypoint-1"));
    let one = |(n, given_up): (usize, &Option<u32>)| Try {
        span: u64::try_from(n).unwrap() + 8,
        begun: begun + MILLIS * u32::try_from(n).unwrap() * 5,
        given_up: given_up.map(|millis| begun + MILLIS * millis),
        address: ([10, 0, 0, 2], 8080).into(),
        workload: Arc::new(pod("web-1")),
    };
    let tries: Vec<Try> = given_up.iter().enumerate().map(one).collect();
    of(record, &About { span: context(parent), own: &own, begun, tries: &tries }).collect()
}

fn value(span: &Span, key: &str) -> Option<String> {
    let found: Vec<_> = span.attributes.iter().filter(|a| a.key == key).collect();
    assert!(found.len() < 2, "{key} stands there {} times", found.len());
    found.first().map(|a| match a.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Of::Text(text)) => text.clone(),
        Some(Of::Number(number)) => number.to_string(),
        None => String::new(),
    })
}

#[test]
fn a_request_is_a_server_span_with_a_client_span_for_each_attempt() {
    let cast = Cast::new();
    let all = spans(&cast.request(), 6, &[Some(5), None]);
    let told: Vec<_> = all
        .iter()
        .map(|s| {
            let id = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
            let millis = |nanos: u64| nanos / 1_000_000 - 1_000_000;
            let (begun, ended) = (millis(s.start_time_unix_nano), millis(s.end_time_unix_nano));
            (id(&s.span_id), id(&s.parent_span_id), s.kind(), begun, ended, s.status.is_some(), s.flags)
        })
        .collect();
    let want = [
        (7, 6, Kind::Server, 0, 12, false, 0x301),
        (8, 7, Kind::Client, 0, 5, true, 0x101),
        (9, 7, Kind::Client, 5, 12, false, 0x101),
    ];
    assert_eq!(told, want);
    assert_eq!(all[0].name, "shop/web rule 0");
    assert_eq!(value(&all[1], "http.request.resend_count"), None);
    assert_eq!(value(&all[2], "http.request.resend_count").as_deref(), Some("1"));
    assert!(spans(&cast.request(), 0, &[])[0].parent_span_id.is_empty());
}

#[test]
fn attributes_have_the_names_of_the_conventions_and_of_istio() {
    let cast = Cast::new();
    let ok = cast.request();
    let denied = Record {
        method: Some("BREW"),
        code: 503,
        route: None,
        reason: Some(Reason::NoHealthyEndpoint),
        dry_run: &["deny by shop/a".to_owned(), "deny by shop/b".to_owned()],
        ..cast.request()
    };
    for (record, key, want) in [
        (&ok, "http.request.method", Some("GET")),
        (&ok, "http.request.method_original", None),
        (&ok, "url.path", Some("/a")),
        (&ok, "server.address", Some("web.shop.svc.cluster.local")),
        (&ok, "server.port", Some("80")),
        (&ok, "client.address", Some("10.0.0.1")),
        (&ok, "network.protocol.version", Some("1.1")),
        (&ok, "http.response.status_code", Some("200")),
        (&ok, "http.status_code", Some("200")),
        (&ok, "error.type", None),
        (&ok, "istio.canonical_service", Some("waypoint")),
        (&ok, "istio.source_workload", Some("cart")),
        (&ok, "istio.destination_instance_name", Some("web-1")),
        (&ok, "istio.upstream.workload", Some("web")),
        (&ok, "istio.downstream.namespace", Some("shop")),
        (&ok, "upstream_cluster", Some("web.shop.svc.cluster.local")),
        (&ok, "ambit.conn.id", Some("00000000000000000000000000000007")),
        (&denied, "http.request.method", Some("_OTHER")),
        (&denied, "http.request.method_original", Some("BREW")),
        (&denied, "error.type", Some("AMB3002")),
        (&denied, "ambit.reason", Some("AMB3002")),
        (&denied, "istio.authorization.dry_run.deny_policy.name", Some("shop/a")),
        (&denied, "istio.authorization.dry_run.deny_policy.result", Some("deny")),
    ] {
        let span = &spans(record, 6, &[])[0];
        assert_eq!(value(span, key).as_deref(), want, "row {key}");
    }
    let span = &spans(&denied, 6, &[])[0];
    assert_eq!(span.name, "web.shop.svc.cluster.local:80/*");
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
}

/// What the official descriptors (opentelemetry-proto 1.x) read back as written here.
const GOLDEN: &str = "0aa3010a150a130a0c736572766963652e6e616d6512030a01771289010a060a0173120131127f0a1000000000000000\
    00000000000000000512080000000000000008220800000000000000072a1a7765622e73686f702e7376632e636c7573\
    7465722e6c6f63616c3003390010a5d4e800000041405bf1d4e80000004a080a016112030a01624a070a016e12021803\
    7a0e120a73656e7420616761696e1802850101010000";

#[test]
fn bytes_are_those_of_the_official_descriptors() {
    let mut span = spans(&Cast::new().request(), 6, &[Some(5)]).remove(1);
    span.attributes = vec![KeyValue::text("a", "b"), KeyValue::number("n", 3_u32)];
    let scope = Some(Scope { name: "s".to_owned(), version: "1".to_owned() });
    let resource = Some(Resource { attributes: vec![KeyValue::text("service.name", "w")] });
    let scope_spans = vec![ScopeSpans { scope, spans: vec![span] }];
    let request = ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] };
    let hex: String = request.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    // Three spans rejected, because of `x`.
    let response = ExportResponse::decode(&[0x0a, 5, 0x08, 3, 0x12, 1, b'x'][..]).unwrap();
    assert_eq!(response.partial_success.map(|partial| partial.rejected_spans), Some(3));
}
