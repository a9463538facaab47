//! Where requests go, and how they are changed on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use ambit_route::model::{
    Backend, BackendFault, Filter, Fraction, HeaderChange, HttpMatch, Mirror, NameMatch, PathChange,
    PathMatch, Redirect, Rewrite, Rule, Target, ValueMatch,
};
use ambit_types::AppProtocol;

use crate::rig::app::{App, answer, text};
use crate::rig::client::{read, request};
use crate::rig::{PORT, Setup, service_key, within};

pub(crate) fn backend(name: &str, weight: u32) -> Backend {
    let target = Target::Service { service: service_key(name), port: PORT };
    Backend { target, weight, filters: Vec::new() }
}

pub(crate) fn to(name: &str) -> Rule<HttpMatch> {
    Rule { backends: vec![backend(name, 1)], ..Rule::default() }
}

async fn app(name: &'static str) -> App {
    App::start(&format!("{name}-0"), false, move |_, _| async move { answer(200, name) }).await
}

#[tokio::test]
async fn headers_paths_and_methods_choose_the_version() {
    let (one, two) = (app("v1").await, app("v2").await);
    let canary = HttpMatch {
        headers: vec![NameMatch { name: "x-canary".into(), value: ValueMatch::Exact("yes".into()) }],
        ..HttpMatch::default()
    };
    let path = HttpMatch { path: Some(PathMatch::Prefix("/new".into())), ..HttpMatch::default() };
    let rules = vec![Rule { matches: vec![canary, path], ..to("v2") }, to("v1")];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let setup = setup.service("v1", AppProtocol::Http11, &[one.ip]);
    let rig = setup.service("v2", AppProtocol::Http11, &[two.ip]).start().await;
    for (line, headers, want) in [
        ("GET /", &[][..], "v1"),
        ("GET /", &[("x-canary", "yes")], "v2"),
        ("GET /", &[("x-canary", "no")], "v1"),
        ("GET /new/x", &[], "v2"),
        ("GET //new", &[], "v2"),
        ("GET /x/../new", &[], "v2"),
        ("GET /newer", &[], "v1"),
    ] {
        assert_eq!(rig.get(line, headers).await.body, want, "row {line} {headers:?}");
    }
    assert_eq!(rig.until_written(7).await[0].route.as_deref(), Some("shop/route rule 1"));
}

#[tokio::test]
async fn requests_are_split_by_weight() {
    let (one, two) = (app("v1").await, app("v2").await);
    let missing = Target::Invalid { fault: BackendFault::BackendNotFound, what: "shop/gone".into() };
    let missing = Backend { target: missing, weight: 0, filters: Vec::new() };
    let backends = vec![backend("v1", 90), backend("v2", 10), missing];
    let rules = vec![Rule { backends, ..Rule::default() }];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let setup = setup.service("v1", AppProtocol::Http11, &[one.ip]);
    let rig = setup.service("v2", AppProtocol::Http11, &[two.ip]).start().await;
    let mut sender = rig.http1().await;
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        let response = sender.send_request(request("GET /", &[], text(""))).await.unwrap();
        *counts.entry(read(response).await.body).or_insert(0) += 1;
        within(sender.ready()).await.unwrap();
    }
    assert_eq!(counts["v1"] + counts["v2"], 1000);
    // Five standard deviations around a hundred.
    assert!((52..=148).contains(&counts["v2"]), "{counts:?}");
}

#[tokio::test]
async fn what_cannot_be_routed_is_answered_with_its_code() {
    let rules = vec![
        Rule {
            matches: vec![HttpMatch { path: Some(PathMatch::Exact("/gone".into())), ..HttpMatch::default() }],
            backends: vec![Backend {
                target: Target::Invalid { fault: BackendFault::BackendNotFound, what: "x".into() },
                weight: 1,
                filters: Vec::new(),
            }],
            ..Rule::default()
        },
        Rule {
            matches: vec![HttpMatch {
                path: Some(PathMatch::Exact("/empty".into())),
                ..HttpMatch::default()
            }],
            ..to("v1")
        },
    ];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let rig = setup.service("v1", AppProtocol::Http11, &[]).start().await;
    for (line, status, code) in
        [("GET /", 404, "AMB3003"), ("GET /gone", 500, "AMB3004"), ("GET /empty", 503, "AMB3002")]
    {
        let answered = rig.get(line, &[]).await;
        assert_eq!((answered.status, answered.header("x-ambit-reason")), (status, code), "row {line}");
        assert!(answered.body.starts_with(code), "{}", answered.body);
        let answered = rig.get(line, &[("content-type", "application/grpc")]).await;
        assert_eq!(answered.status, 200);
        assert_eq!(answered.header("grpc-status"), if status == 404 { "12" } else { "14" });
        assert_eq!(answered.header("content-type"), "application/grpc");
    }
}

#[tokio::test]
async fn filters_change_requests_and_responses() {
    let app = App::start("v1-0", false, |_, _| async {
        let mut response = answer(200, "v1");
        response.headers_mut().insert("x-inner", "secret".parse().unwrap());
        response
    })
    .await;
    let change = |set: &[(&str, &str)], remove: &[&str]| HeaderChange {
        set: set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        add: Vec::new(),
        remove: remove.iter().map(|name| (*name).into()).collect(),
    };
    let filters = vec![
        Filter::RequestHeaders(change(&[("x-set", "1")], &["x-gone"])),
        Filter::ResponseHeaders(change(&[("x-out", "2")], &["x-inner"])),
        Filter::Rewrite(Rewrite {
            hostname: Some("other.shop".into()),
            path: Some(PathChange::Full("/to".into())),
        }),
    ];
    let rules = vec![Rule { filters, ..to("v1") }];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let rig = setup.service("v1", AppProtocol::Http11, &[app.ip]).start().await;
    let answered = rig.get("GET /from?q=1", &[("x-gone", "1")]).await;
    assert_eq!((answered.status, answered.header("x-out"), answered.header("x-inner")), (200, "2", ""));
    let got = &app.got()[0];
    assert_eq!(got.line, "GET /to?q=1");
    assert_eq!(
        (&got.headers["x-set"], &got.headers["host"]),
        (&"1".parse().unwrap(), &"other.shop".parse().unwrap())
    );
    assert!(!got.headers.contains_key("x-gone"));
}

#[tokio::test]
async fn redirects_need_no_endpoint() {
    let redirect =
        Redirect { hostname: Some("shop.example".into()), status: Some(301), ..Redirect::default() };
    let rules = vec![Rule { filters: vec![Filter::Redirect(redirect)], ..Rule::default() }];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let rig = setup.start().await;
    let answered = rig.get("GET /a?b=c", &[]).await;
    assert_eq!((answered.status, answered.header("location")), (301, "http://shop.example/a?b=c"));
}

#[tokio::test]
async fn a_mirror_gets_a_copy_and_delays_nothing() {
    let one = app("v1").await;
    let two = App::start("v2-0", false, |_, request| async {
        use http_body_util::BodyExt as _;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        answer(200, "v2")
    })
    .await;
    let target = Target::Service { service: service_key("v2"), port: PORT };
    let filters = vec![Filter::Mirror(Mirror { target, fraction: Fraction::ALL })];
    let rules = vec![Rule { filters, ..to("v1") }];
    let setup = Setup::new().service("web", AppProtocol::Http11, &[]).http("web", rules);
    let setup = setup.service("v1", AppProtocol::Http11, &[one.ip]);
    let rig = setup.service("v2", AppProtocol::Http11, &[two.ip]).start().await;
    let answered = rig.ask(request("POST /", &[("content-length", "5")], text("hello"))).await;
    assert_eq!(answered.body, "v1");
    within(async {
        while two.got().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(two.got()[0].line, "POST /");
}
