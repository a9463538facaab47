//! What of an authorizer's answer reaches requests and responses, without anybody asked.

use ambit_policy::http::Answer as Verdict;
use ambit_policy::http::provider::{HttpCheck, StringMatch};
use ambit_xds::ext_authz::{Answer, Field, Way};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{is_for_request, is_for_response};
use super::{grpc, http as asked_in_http};

fn field(name: &str, value: &[u8]) -> Field {
    Field { name: name.into(), value: value.into(), way: Way::Set }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in lines {
        all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    all
}

#[test]
fn nobody_outside_frames_routes_or_identifies() {
    for name in
        ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "x-ambit-reason"]
    {
        assert!(!is_for_request(name) && !is_for_response(name), "{name}");
    }
    for name in ["x-forwarded-client-cert", "x-envoy-original-path", "x-istio-attributes"] {
        assert!(!is_for_request(name) && !is_for_response(name), "{name}");
    }
    for name in ["x-forwarded-for", "forwarded", "x_user"] {
        assert!(!is_for_request(name), "{name}");
    }
    for name in ["x-user", "authorization", "cookie", "set-cookie", "location"] {
        assert!(is_for_request(name) && is_for_response(name), "{name}");
    }
}

#[test]
fn an_answer_in_grpc_loses_what_may_not_be_set() {
    let request = vec![field("Host", b"evil"), field("X-User", b"ann"), field("x-ambit-client", b"x")];
    let remove = vec!["Host".into(), "X-Token".into()];
    let response = vec![field("content-length", b"1"), field("set-cookie", b"a=b")];
    let read = grpc::read(Answer::Allowed { request, remove, response }).unwrap();
    let names: Vec<&str> = read.request.iter().map(|change| change.name.as_str()).collect();
    assert_eq!((read.answer, names), (Verdict::Allowed, vec!["x-user"]));
    assert_eq!(read.remove, [HeaderName::from_static("x-token")]);
    assert_eq!(read.response.len(), 1);
    for broken in [field(":path", b"/admin"), field("", b"x"), field("x", b"a\r\nhost: evil")] {
        let said = format!("{broken:?}");
        let answer = Answer::Denied { status: None, headers: vec![broken], body: String::new() };
        assert!(grpc::read(answer).is_err(), "{said}");
    }
}

#[test]
fn a_refusal_in_grpc_may_set_several_cookies() {
    let headers = vec![field("set-cookie", b"a=1"), field("set-cookie", b"b=2"), field("host", b"evil")];
    let read = grpc::read(Answer::Denied { status: Some(401), headers, body: "no".into() }).unwrap();
    let cookies = read.answer_headers.get_all("set-cookie").iter();
    let cookies: Vec<&str> = cookies.map(|value| value.to_str().unwrap()).collect();
    assert_eq!((read.answer, read.status, cookies), (Verdict::Denied, Some(401), vec!["a=1", "b=2"]));
    assert_eq!((read.answer_headers.len(), &read.body[..]), (2, &b"no"[..]));
}

#[test]
fn an_answer_in_http_gives_what_is_listed() {
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    let check = HttpCheck {
        upstream_on_allow: vec![StringMatch::Prefix("x-".into())],
        downstream_on_allow: exact("set-cookie"),
        downstream_on_deny: exact("x-why"),
        ..HttpCheck::default()
    };
    let said = headers(&[
        ("x-user", "ann"),
        ("x-user", "bob"),
        ("x-hop", "1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-why", "no"),
        ("connection", "close, X-Hop"),
        ("set-cookie", "a=b"),
        ("location", "/login"),
        ("server", "authz"),
    ]);
    let allowed = asked_in_http::allowed(&check, &said);
    let mut request = headers(&[("x-user", "root"), ("x-hop", "mine")]);
    allowed.request.iter().for_each(|change| change.apply(&mut request));
    assert_eq!(request, headers(&[("x-user", "ann"), ("x-user", "bob"), ("x-hop", "mine"), ("x-why", "no")]));
    let mut response = headers(&[("set-cookie", "c=d")]);
    allowed.response.iter().for_each(|change| change.apply(&mut response));
    assert_eq!(response, headers(&[("set-cookie", "c=d"), ("set-cookie", "a=b")]));
    assert_eq!(asked_in_http::denied(&check, &said), headers(&[("x-why", "no"), ("location", "/login")]));
    let all = asked_in_http::denied(&HttpCheck::default(), &said);
    assert!(all.contains_key("server") && !all.contains_key("x-hop") && !all.contains_key("connection"));
}
