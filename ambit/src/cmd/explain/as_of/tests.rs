//! Which records are told of a time, and in which words.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(more: &[&str]) -> Args {
    Line::parse_from([&["explain"], more].concat()).args
}

fn now(verdict: &str) -> Explanation {
    let code = (verdict == "deny").then(|| json!({"code": "AMB2104"}));
    let answer = json!({
        "source": "shop/web-1", "destination": "shop/cart:80", "endpoint": "shop/cart-1", "verdict": verdict,
        "reason": code, "hops": [], "assumed": [],
    });
    serde_json::from_value(answer).expect("an explanation")
}

/// A record that ended in a second of 2026, as the destination's node wrote it.
fn flow(second: u8, verdict: &str) -> Flow {
    let code = (verdict == "denied").then_some("AMB2104");
    let end = |name: &str| json!({"namespace": "shop", "workload": name, "addr": "10.0.0.9:40000"});
    let record = json!({
        "time": format!("2026-01-01T00:00:{second:02}.000Z"), "direction": "inbound", "verdict": verdict, "code": code,
        "path": "hbone", "conn_id": format!("{second:016}"), "src": end("web-1"), "dst": end("cart-1"),
        "service": "cart.shop.svc.cluster.local", "hbone_addr": "10.0.0.3:8080",
    });
    serde_json::from_value(record).expect("a record")
}

fn at(second: u8) -> SystemTime {
    humantime::parse_rfc3339(&format!("2026-01-01T00:00:{second:02}Z")).expect("a time")
}

#[test]
fn a_time_is_one_or_how_long_ago_it_was() {
    assert_eq!(moment("2026-01-01T00:00:07Z"), Ok(Moment::At(at(7))));
    for ago in ["10m", "10m ago", "600s"] {
        assert_eq!(moment(ago), Ok(Moment::Ago(Duration::from_secs(600))), "{ago}");
    }
    for none in ["", "ago", "yesterday", "10"] {
        assert!(moment(none).is_err(), "{none}");
    }
}

#[test]
fn the_nearest_records_are_told_by_who_decided() {
    let heard = |second| Flow { direction: Some("outbound".to_owned()), ..flow(second, "denied") };
    let counted = |second| Flow { conn_id: String::new(), ..flow(second, "allowed") };
    let flows = [flow(1, "allowed"), flow(3, "denied"), heard(3), counted(6), heard(7), flow(9, "allowed")];
    let flows: Vec<&Flow> = flows.iter().collect();
    let rows = [
        (0, None, Some(1)),
        (1, Some(1), Some(3)),
        (5, Some(3), Some(7)),
        (6, Some(6), Some(7)),
        (9, Some(9), None),
    ];
    for (second, before, after) in rows {
        let found = nearest(&flows, &rfc3339(at(second)));
        let time = |second: Option<u8>| second.map(|second| rfc3339(at(second)));
        assert_eq!(
            (found.0.map(|flow| flow.time), found.1.map(|flow| flow.time)),
            (time(before), time(after))
        );
    }
    let (before, _) = nearest(&flows, &rfc3339(at(4)));
    assert_eq!(before, Some(flow(3, "denied")));
}

#[test]
fn only_records_of_the_pair_and_the_request_are_meant() {
    let is = |asked: &[&str], change: fn(&mut Flow)| {
        let mut flow = flow(1, "allowed");
        change(&mut flow);
        is_meant(&args(asked), &now("allow"), &flow)
    };
    for destination in ["shop/cart:80", "shop/cart-1:8080", "cart.shop:80", "10.0.0.3:8080", "10.96.0.1:80"] {
        assert!(is(&["shop/web", destination], |_| ()), "{destination}");
    }
    for destination in ["shop/cart-1:9090", "shop/car:80", "cart.bank:80"] {
        assert!(!is(&["shop/web", destination], |_| ()), "{destination}");
    }
    assert!(is(&["10.0.0.9", "shop/cart:80"], |flow| flow.src.workload = None));
    assert!(!is(&["shop/web", "shop/cart:80"], |flow| flow.src.workload = Some("webber".to_owned())));
    assert!(!is(&["shop/web", "shop/cart:80"], |flow| flow.client = Some("spiffe://m/ns/a/sa/b".to_owned())));
    let get = |flow: &mut Flow| {
        let (method, path) = ("GET".to_owned(), "/a".to_owned());
        flow.http = Some(ambit_explain::FlowHttp { method, path, ..ambit_explain::FlowHttp::default() });
    };
    assert!(is(&["shop/web", "shop/cart:80", "--path", "/a?q=1"], get));
    assert!(!is(&["shop/web", "shop/cart:80", "--path", "/b"], get));
    assert!(!is(&["shop/web", "shop/cart:80", "--method", "POST"], get));
}

#[test]
fn what_was_then_stands_beside_what_is_now() {
    let incidents = json!({"items": [
        {"at": "2026-01-01T00:00:08Z", "kind": "config", "text": "AuthorizationPolicy shop/lock"},
        {"at": "2026-01-01T00:00:07Z", "kind": "refusal", "text": "shop/web -> shop/cart:80 refused"},
        {"at": "2026-01-01T00:00:02Z", "kind": "config", "text": "an older one"},
    ]});
    let then = Then {
        at: at(5),
        before: Some(flow(3, "denied")),
        after: None,
        changes: Some(since(&incidents, at(5))),
    };
    let lines = then.lines(&now("allow"));
    for part in [
        "before      2026-01-01T00:00:03.000Z denied AMB2104: shop/web-1 -> 10.0.0.3:8080, hbone; ambit why 000000000000",
        "after       nothing is recorded of this pair",
        "it is decided otherwise than then",
        "changed     2026-01-01T00:00:08Z AuthorizationPolicy shop/lock",
    ] {
        assert!(lines.contains(part), "{part}\n{lines}");
    }
    assert!(!lines.contains("an older one") && !lines.contains("refused"), "{lines}");
    assert_eq!(then.differs(&now("deny")), Some(false));
    let unknown = Then { at: at(5), before: None, after: None, changes: None };
    assert_eq!(unknown.differs(&now("deny")), None);
    assert!(unknown.lines(&now("deny")).contains("the control plane does not tell what has changed since"));
}
